package api

import (
	"fmt"
	"testing"
)

func TestEndpointNames(t *testing.T) {
	seen := map[string]string{}
	for _, c := range [][3]string{{"a-b", "c", "eth0"}, {"a", "b-c", "eth0"}, {"a", "b", "c-eth0"}, {"a--b", "c", "eth0"}} {
		name := WorkloadEndpointName(c[0], "k8s", c[1], c[2])
		if other, twice := seen[name]; twice {
			t.Errorf("%v and %s are both %s", c, other, name)
		}
		seen[name] = fmt.Sprint(c)
	}
	if got, want := WorkloadEndpointName("node-1", "k8s", "db-0", "eth0"), "node--1-k8s-db--0-eth0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
