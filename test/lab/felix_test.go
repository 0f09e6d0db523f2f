//go:build linux

package lab

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

const (
	felixDefault = `
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec:
  defaultEndpointToHostAction: Accept
  failsafeInboundHostPorts: [{protocol: TCP, port: 7002}]
`
	felixNode = `
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.n1}
spec: {defaultEndpointToHostAction: Drop}
`
)

// TestFelixConfiguration changes failsafes and endpoint-to-host while the agent runs, and asks the kernel; what explain
// says of the same connections, computed from the store alone, is the same.
func TestFelixConfiguration(t *testing.T) {
	const ssh, allowed, other = 22, 7001, 7002
	ctx := t.Context()
	l := newLab(t, Options{Nodes: 1})
	n := l.Nodes[0]
	out, err := l.AddOutside("outside", 9)
	if err != nil {
		t.Fatal(err)
	}
	closers, err := n.serve([]Server{{Port: ssh}, {Port: allowed}, {Port: other}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range closers {
		defer c.Close()
	}
	if _, err := l.applyText(ctx, allowAllProfile+"---"+closedHost); err != nil {
		t.Fatal(err)
	}
	a, err := l.AddWorkload(ctx, WorkloadSpec{Name: "a", Namespace: "x", Node: 1, Host: 1, Profiles: []string{"open"}})
	if err != nil {
		t.Fatal(err)
	}
	apply := func(yaml string) func() error {
		return func() error { _, err := l.applyText(ctx, yaml); return err }
	}
	remove := func(names ...string) func() error {
		return func() error {
			_, err := l.Tortie(ctx, nil, append([]string{"delete", "felixconfiguration"}, names...)...)
			return err
		}
	}
	for _, step := range []struct {
		name              string
		do                func() error
		ssh, other, ahost bool // reached from outside; from the workload
	}{
		{"nothing is said", func() error { return nil }, true, false, false},
		{"default", apply(felixDefault), false, true, true},
		{"node", apply(felixNode), false, true, false},
		{"node gone", remove("node.n1"), false, true, true},
		{"all gone", remove("default"), true, false, false},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		for _, c := range []struct {
			from *Host
			port uint16
			want bool
		}{{out.Host, ssh, step.ssh}, {out.Host, other, step.other}, {out.Host, allowed, true}, {a.Host, allowed, step.ahost}} {
			eventually(t, 10*time.Second, step.name, func() error {
				err := c.from.Echo(ctx, "tcp", n.Addr(4), c.port)
				if c.want && err != nil || !c.want && !errors.Is(err, ErrDropped) {
					return fmt.Errorf("from %s to port %d: %v, want it to be reached: %v", c.from.Name, c.port, err, c.want)
				}
				return nil
			})
			if c.port == other {
				continue // an explanation takes longer than a packet
			}
			said, err := l.Tortie(ctx, nil, "explain", "--no-agent", c.from.Addr(4).String(), n.Addr(4).String(), "tcp", fmt.Sprint(c.port))
			if (err == nil) != c.want {
				t.Errorf("%s: explain of %s to port %d, want it to be reached %v: %v\n%s", step.name, c.from.Name, c.port, c.want, err, said)
			}
		}
	}
}
