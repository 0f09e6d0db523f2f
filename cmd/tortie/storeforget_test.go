//go:build !noembed

package main

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/ipam"
)

// TestForgetNode: what a node has goes, also in others' blocks, and nothing that others have goes with it.
func TestForgetNode(t *testing.T) {
	ctx := t.Context()
	s := mem.New()
	create := func(o api.Object) {
		t.Helper()
		if _, err := s.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	create(&api.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: api.IPPoolSpec{CIDR: "10.9.0.0/29", BlockSize: 30}})
	give := func(node string, n int) {
		t.Helper()
		a := ipam.New(ipam.Config{Store: s, Node: node})
		for i := range n {
			handle := fmt.Sprintf("%s.%d", node, i)
			if _, err := a.Assign(ctx, ipam.Request{Handle: handle, V4: true, Owner: api.Owner{Pod: handle, Namespace: "x"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Two blocks of four: n1 fills its own and borrows of n2, n3 borrows of n2, too.
	give("n2", 1)
	give("n1", 6)
	give("n3", 1)
	for _, node := range []string{"n1", "n2", "n3"} {
		create(&api.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})
		w := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: node + "-lab-w-eth0"}}
		w.Spec.Node, w.Spec.Orchestrator, w.Spec.Workload, w.Spec.Endpoint = node, "lab", "w", "eth0"
		create(w)
	}
	got, err := forgetNode(ctx, s, "n1")
	if d := cmp.Diff(forgotten{Endpoints: 1, Addresses: 6, Blocks: 1}, got); err != nil || d != "" {
		t.Errorf("n1: %v\n%s", err, d)
	}
	got, err = forgetNode(ctx, s, "n2")
	if err != nil || got.Addresses != 1 || got.Blocks != 0 || len(got.Left) != 1 {
		t.Errorf("n2, of which n3 borrows: %+v, %v", got, err)
	}
	got, err = forgetNode(ctx, s, "n2")
	if err != nil || got.Addresses != 0 || got.Endpoints != 0 {
		t.Errorf("again: %+v, %v", got, err)
	}
	r, err := ipam.New(ipam.Config{Store: s, Node: "auditor"}).Audit(ctx, ipam.AuditOptions{})
	if err != nil || r.Allocated != 1 {
		t.Errorf("what is left: %+v, %v", r, err)
	}
	nodes, err := s.List(ctx, "Node", "")
	if err != nil || len(nodes) != 1 || nodes[0].GetName() != "n3" {
		t.Errorf("nodes %v, %v", nodes, err)
	}
	if ws, err := s.List(ctx, "WorkloadEndpoint", ""); err != nil || len(ws) != 1 {
		t.Errorf("endpoints %v, %v", ws, err)
	}
}
