package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"golang.org/x/sync/errgroup"
)

func testTxn(t *testing.T, h *Harness) {
	ctx := background(t)
	a := create(t, h.Store, netset("default", "a"))
	b := create(t, h.Store, netset("default", "b"))
	same := create(t, h.Store, netset("default", "same", "10.0.0.0/8"))
	err := h.Store.Txn(ctx,
		datastore.Op{Verb: datastore.Create, Object: globalset("new", "10.0.0.0/8")},
		datastore.Op{Verb: datastore.Update, Object: labelled(a, "k", "v")},
		datastore.Op{Verb: datastore.Update, Object: netset("default", "same", "10.0.0.0/8")},
		datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(b), Revision: b.GetResourceVersion()},
	)
	if err != nil {
		t.Fatal(err)
	}
	created, updated := get(t, h.Other, globalset("new")), get(t, h.Other, a)
	if created.GetResourceVersion() != updated.GetResourceVersion() {
		t.Errorf("not one write: revisions %s and %s", created.GetResourceVersion(), updated.GetResourceVersion())
	}
	if updated.GetLabels()["k"] != "v" || updated.GetUID() != a.GetUID() || created.GetUID() == "" {
		t.Errorf("created %+v, updated %+v", created, updated)
	}
	if diff := cmp.Diff(same, get(t, h.Other, same)); diff != "" {
		t.Errorf("an update that changes nothing: %s", diff)
	}
	_, err = h.Other.Get(ctx, api.KeyOf(b))
	wantError(t, err, datastore.ErrNotFound, "NetworkSet/default/b")
	if err := h.Store.Txn(ctx); err != nil {
		t.Errorf("nothing to do: %v", err)
	}
}

func testTxnAllOrNothing(t *testing.T, h *Harness) {
	ctx := background(t)
	a := create(t, h.Store, netset("default", "a"))
	stale := create(t, h.Store, netset("default", "stale"))
	update(t, h.Store, netset("default", "stale", "10.0.0.0/8"))
	for _, c := range []struct {
		name string
		op   datastore.Op
		want error
		says string
	}{
		{"create of what exists", datastore.Op{Verb: datastore.Create, Object: netset("default", "stale")},
			datastore.ErrExists, "NetworkSet/default/stale"},
		{"update of what is not there", datastore.Op{Verb: datastore.Update, Object: netset("default", "none")},
			datastore.ErrNotFound, "NetworkSet/default/none"},
		{"update of an old revision", datastore.Op{Verb: datastore.Update, Object: labelled(stale, "k", "v")},
			datastore.ErrConflict, "NetworkSet/default/stale"},
		{"delete of what is not there", datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(globalset("none"))},
			datastore.ErrNotFound, "GlobalNetworkSet/none"},
		{"delete of an old revision", datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(stale), Revision: stale.GetResourceVersion()},
			datastore.ErrConflict, "NetworkSet/default/stale"},
		{"invalid", datastore.Op{Verb: datastore.Create, Object: netset("default", "bad", "x")},
			datastore.ErrInvalid, "NetworkSet/default/bad"},
	} {
		for _, first := range []bool{true, false} {
			ops := []datastore.Op{
				{Verb: datastore.Create, Object: globalset("new")},
				{Verb: datastore.Update, Object: labelled(a, "k", "v")},
			}
			if first {
				ops = append([]datastore.Op{c.op}, ops...)
			} else {
				ops = append(ops, c.op)
			}
			t.Run(fmt.Sprintf("%s/first=%v", c.name, first), func(t *testing.T) {
				wantError(t, h.Store.Txn(ctx, ops...), c.want, c.says)
				if diff := cmp.Diff(a, get(t, h.Store, a)); diff != "" {
					t.Errorf("a part was done: %s", diff)
				}
				_, err := h.Store.Get(ctx, api.KeyOf(globalset("new")))
				wantError(t, err, datastore.ErrNotFound, "new")
			})
		}
	}
}

func testTxnBounds(t *testing.T, h *Harness) {
	ctx := background(t)
	var ops []datastore.Op
	for i := range 100 {
		ops = append(ops, datastore.Op{Verb: datastore.Create, Object: globalset("set" + strconv.Itoa(i))})
	}
	if err := h.Store.Txn(ctx, ops...); err != nil {
		t.Errorf("100 operations: %v", err)
	}
	for i := range ops {
		ops[i].Verb = datastore.Update
		ops[i].Object = globalset("set"+strconv.Itoa(i), "10.0.0.0/8")
	}
	if err := h.Store.Txn(ctx, ops...); err != nil {
		t.Errorf("100 updates: %v", err)
	}
	err := h.Store.Txn(ctx, ops[0], datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(ops[0].Object)})
	wantError(t, err, datastore.ErrInvalid, "GlobalNetworkSet/set0")
	if err := h.Store.Txn(ctx, datastore.Op{Verb: datastore.Create}); !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("create of nothing: %v", err)
	}
	if err := h.Store.Txn(ctx, append(append([]datastore.Op{}, ops...), ops...)...); !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("200 operations: %v", err)
	}
}

// testTxnRace moves amounts between accounts; the sum stays.
func testTxnRace(t *testing.T, h *Harness) {
	const accounts, start = 4, 100
	for i := range accounts {
		create(t, h.Store, labelled(globalset(fmt.Sprintf("account%d", i)), "sum", strconv.Itoa(start)))
	}
	g, ctx := errgroup.WithContext(background(t))
	for i := range 6 {
		s := h.Store
		if i%2 == 1 {
			s = h.Other
		}
		g.Go(func() error {
			rnd := rand.New(rand.NewPCG(uint64(i), 0))
			for range 15 {
				from := rnd.IntN(accounts)
				if err := transfer(ctx, s, from, (from+1+rnd.IntN(accounts-1))%accounts); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	sum := 0
	os, err := h.Store.List(background(t), "GlobalNetworkSet", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range os {
		n, _ := strconv.Atoi(o.GetLabels()["sum"])
		sum += n
	}
	if sum != accounts*start {
		t.Errorf("sum %d, want %d", sum, accounts*start)
	}
}

func transfer(ctx context.Context, s datastore.Store, from, to int) error {
	for {
		var objects [2]api.Object
		for i, n := range []int{from, to} {
			o, err := s.Get(ctx, api.KeyOf(globalset(fmt.Sprintf("account%d", n))))
			if err != nil {
				return err
			}
			sum, _ := strconv.Atoi(o.GetLabels()["sum"])
			objects[i] = labelled(o, "sum", strconv.Itoa(sum-1+2*i))
		}
		err := s.Txn(ctx, datastore.Op{Verb: datastore.Update, Object: objects[0]},
			datastore.Op{Verb: datastore.Update, Object: objects[1]})
		if !errors.Is(err, datastore.ErrConflict) {
			return err
		}
	}
}
