package ctl

import (
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/internal/agentapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FuzzPatch applies patches to an object: what comes out is one object that can be encoded, or an error.
func FuzzPatch(f *testing.F) {
	f.Add("merge", []byte(`{"spec":{"order":1}}`))
	f.Add("merge", []byte(`{"metadata":null}`))
	f.Add("json", []byte(`[{"op":"remove","path":"/spec/order"}]`))
	f.Add("json", []byte(`[{"op":"add","path":"/spec/-1","value":1},{"op":"copy","from":"","path":"/spec/order"}]`))
	f.Add("json", []byte(`[{"op":"test","path":"/a~1b~0","value":null},{"op":"move","from":"/spec","path":"/spec/order"}]`))
	f.Add("json", []byte(`[{"op":"add"},{}]`))
	order := 5.0
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		change, err := parsePatch(kind, data)
		if err != nil {
			return
		}
		o, err := applyPatch(&api.Tier{ObjectMeta: metav1.ObjectMeta{Name: "t"}, Spec: api.TierSpec{Order: &order}}, change)
		if err != nil {
			return
		}
		if _, err := api.Encode(o); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
	})
}

// FuzzArguments reads what people write on the command line.
func FuzzArguments(f *testing.F) {
	f.Add("10.0.0.1", "http:TCP:80", "role=web", "10.0.0.0/8", "old-")
	f.Add("", "a:b", "=", "::/0", "-")
	f.Add("fe80::1%eth0", ":::", "a=b=c", "10.0.0.0/99", "a-=b-")
	f.Fuzz(func(t *testing.T, addr, port, label, source, drop string) {
		var r agentapi.AttachRequest
		if err := parseAttach(&r, "/run/netns/x", []string{addr}, []string{port}, []string{label}, []string{source}); err == nil {
			if !r.Addresses[0].IsValid() || !r.Workload.SourcePrefixes[0].IsValid() || len(r.Workload.Labels) != 1 {
				t.Fatalf("%+v", r)
			}
		}
		set, dropped, err := parseLabels([]string{label, drop})
		if err != nil {
			return
		}
		for _, d := range dropped {
			if _, both := set[d]; both || strings.Contains(d, "=") {
				t.Fatalf("%v and %v", set, dropped)
			}
		}
	})
}
