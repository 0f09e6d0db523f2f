//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/ipam"
)

const twoPools = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: lab-v4}
spec: {cidr: 10.68.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: lab-v6}
spec: {cidr: "fd68::/48"}
---` + allowAllProfile

// poolLab is a lab whose agents allocate addresses: there are pools, and nothing says which node has what of them.
func poolLab(t *testing.T) *Lab {
	t.Helper()
	l := newLab(t, Options{})
	if _, err := l.applyText(t.Context(), twoPools); err != nil {
		t.Fatal(err)
	}
	return l
}

func poolSpec(node int, name string) WorkloadSpec {
	return WorkloadSpec{Name: name, Namespace: "x", Node: node, Profiles: []string{"open"}, Servers: []Server{{Port: 80}}}
}

// audit compares what the store has allocated with what workloads use.
func audit(t *testing.T, l *Lab) ipam.Report {
	t.Helper()
	s, err := etcd.Open(etcd.Config{Endpoints: []string{l.StoreEndpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := ipam.New(ipam.Config{Store: s, Node: "auditor"}).Audit(t.Context(), ipam.AuditOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// clean waits until exactly used addresses are allocated and used, and everything else is in order.
func clean(t *testing.T, l *Lab, used int) {
	t.Helper()
	eventually(t, 30*time.Second, "a clean audit", func() error {
		r := audit(t, l)
		if len(r.Leaked)+len(r.Missing)+len(r.Double)+len(r.Objects) > 0 || r.Used != used || r.Allocated != used {
			return fmt.Errorf("want %d addresses: %+v", used, r)
		}
		return nil
	})
}

// revision is the store's: each write makes a new one.
func revision(t *testing.T, l *Lab) int64 {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{l.StoreEndpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := c.Get(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	return got.Header.Revision
}

// TestPools attaches workloads without addresses on two nodes, connects them, and counts writes.
func TestPools(t *testing.T) {
	ctx := t.Context()
	l := poolLab(t)
	var ws []*Workload
	for i, name := range []string{"a", "b"} {
		w, err := l.AddWorkload(ctx, poolSpec(i+1, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(w.Addrs) != 2 || !netip.MustParsePrefix("10.68.0.0/16").Contains(w.Addr(4)) || !netip.MustParsePrefix("fd68::/48").Contains(w.Addr(6)) {
			t.Fatalf("%s has %v", name, w.Addrs)
		}
		ws = append(ws, w)
	}
	for _, pair := range [][2]*Workload{{ws[0], ws[1]}, {ws[1], ws[0]}} {
		for _, family := range []int{4, 6} {
			eventually(t, 10*time.Second, "a connection across nodes", func() error {
				return pair[0].Echo(ctx, "tcp", pair[1].Addr(family), 80)
			})
		}
	}
	clean(t, l, 4)

	var took []time.Duration
	var more []*Workload
	for i := range 20 {
		w, err := l.NewWorkload(poolSpec(1, fmt.Sprintf("w%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		more = append(more, w)
		before, began := revision(t, l), time.Now()
		if err := w.Attach(ctx); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		if n := revision(t, l) - before; n != 1 {
			t.Errorf("an attach is %d writes", n)
		}
		had, before := w.Addrs, revision(t, l)
		if err := w.Attach(ctx); err != nil || !slices.Equal(w.Addrs, had) || revision(t, l) != before {
			t.Errorf("again: %v instead of %v, %d writes, %v", w.Addrs, had, revision(t, l)-before, err)
		}
	}
	slices.Sort(took)
	t.Logf("an attach with two addresses of pools: p50 %v, slowest of %d %v", took[len(took)/2], len(took), took[len(took)-1])
	for _, w := range more {
		before := revision(t, l)
		if err := w.Detach(ctx); err != nil {
			t.Fatal(err)
		}
		if n := revision(t, l) - before; n != 1 {
			t.Errorf("a detach is %d writes", n)
		}
	}
	clean(t, l, 4)
}

// TestPoolsAndKilledAgent kills the agent at any moment while it attaches and detaches: no address is left over or given
// twice.
func TestPoolsAndKilledAgent(t *testing.T) {
	ctx := t.Context()
	l := poolLab(t)
	n := l.Nodes[0]
	var ws []*Workload
	for i := range 8 {
		w, err := l.NewWorkload(poolSpec(1, fmt.Sprintf("w%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		ws = append(ws, w)
	}
	all := func(ctx context.Context, do func(*Workload, context.Context) error) error {
		errs := make([]error, len(ws))
		var wg sync.WaitGroup
		for i, w := range ws {
			wg.Go(func() { errs[i] = do(w, ctx) })
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	for round := range 6 {
		attaching := round%2 == 0
		do := (*Workload).Detach
		if attaching {
			do = (*Workload).Attach
		}
		after := time.Duration(rand.IntN(150)) * time.Millisecond
		kill := time.AfterFunc(after, n.Agent.Kill)
		err := all(ctx, do)
		kill.Stop()
		n.Agent.Kill()
		t.Logf("round %d: killed after %v, attaching %v: %v", round, after, attaching, err)
		if err := errors.Join(n.StartAgent(), n.AwaitReady(ctx)); err != nil {
			t.Fatal(err)
		}
		if round < 4 { // who asked and got no answer asks again, or the other way
			continue
		}
		if err := all(ctx, do); err != nil {
			t.Fatal(err)
		}
		want := 0
		if attaching {
			want = 2 * len(ws)
			seen := map[netip.Addr]string{}
			for _, w := range ws {
				for _, a := range w.Addrs {
					if seen[a] != "" {
						t.Errorf("%s and %s have %v", seen[a], w.Name, a)
					}
					seen[a] = w.Name
				}
			}
		}
		clean(t, l, want)
	}
}
