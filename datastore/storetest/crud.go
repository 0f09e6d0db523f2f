package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testCreate(t *testing.T, h *Harness) {
	in := netset("default", "a", "10.0.0.0/8")
	in.UID, in.Generation, in.ResourceVersion = "mine", 7, "99"
	in.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	before := api.DeepCopy(in)
	out := create(t, h.Store, in)
	if diff := cmp.Diff(before, api.Object(in)); diff != "" {
		t.Errorf("what was passed in has changed: %s", diff)
	}
	if out.GetUID() == "" || out.GetUID() == "mine" || out.GetGeneration() != 1 || out.GetManagedFields() != nil {
		t.Errorf("metadata is not the store's: %+v", out)
	}
	if age := time.Since(out.GetCreationTimestamp().Time); age < -time.Second || age > time.Minute {
		t.Errorf("creationTimestamp is %v ago", age)
	}
	if rev, err := strconv.ParseInt(out.GetResourceVersion(), 10, 64); err != nil || rev <= 0 || out.GetResourceVersion() == "99" {
		t.Errorf("resourceVersion %q", out.GetResourceVersion())
	}
	if diff := cmp.Diff([]string{"10.0.0.0/8"}, nets(t, out)); diff != "" {
		t.Error(diff)
	}
	stored := get(t, h.Other, in)
	if diff := cmp.Diff(out, stored); diff != "" {
		t.Errorf("returned and stored differ: %s", diff)
	}
	// What is returned is the caller's.
	stored.(*api.NetworkSet).Spec.Nets[0] = "changed"
	if diff := cmp.Diff(out, get(t, h.Store, in)); diff != "" {
		t.Errorf("a change of what was returned reached the store: %s", diff)
	}
}

func testCreateTwice(t *testing.T, h *Harness) {
	first := create(t, h.Store, netset("default", "a"))
	_, err := h.Other.Create(background(t), netset("default", "a", "10.0.0.0/8"))
	wantError(t, err, datastore.ErrExists, "NetworkSet/default/a")
	if diff := cmp.Diff(first, get(t, h.Store, first)); diff != "" {
		t.Error(diff)
	}
	create(t, h.Store, netset("other", "a"))
	create(t, h.Store, globalset("a"))
}

func testMissing(t *testing.T, h *Harness) {
	ctx := background(t)
	_, err := h.Store.Get(ctx, api.KeyOf(netset("default", "a")))
	wantError(t, err, datastore.ErrNotFound, "NetworkSet/default/a")
	_, err = h.Store.Update(ctx, globalset("b"))
	wantError(t, err, datastore.ErrNotFound, "GlobalNetworkSet/b")
	wantError(t, h.Store.Delete(ctx, api.KeyOf(globalset("c")), ""), datastore.ErrNotFound, "GlobalNetworkSet/c")
	wantError(t, h.Store.Delete(ctx, api.KeyOf(globalset("c")), "5"), datastore.ErrNotFound, "GlobalNetworkSet/c")
	if os, err := h.Store.List(ctx, "NetworkSet", ""); err != nil || len(os) != 0 {
		t.Errorf("list: %v, %v", os, err)
	}
}

func testUpdate(t *testing.T, h *Harness) {
	first := create(t, h.Store, netset("default", "a", "10.0.0.0/8"))
	// Without a revision the last write wins, whoever has written meanwhile.
	second := update(t, h.Other, netset("default", "a", "10.1.0.0/16"))
	third := update(t, h.Store, netset("default", "a", "10.2.0.0/16"))
	if second.GetResourceVersion() == first.GetResourceVersion() || third.GetResourceVersion() == second.GetResourceVersion() {
		t.Errorf("revisions %s, %s, %s", first.GetResourceVersion(), second.GetResourceVersion(), third.GetResourceVersion())
	}
	if third.GetUID() != first.GetUID() || third.GetCreationTimestamp() != first.GetCreationTimestamp() {
		t.Errorf("identity changed: %+v, %+v", first, third)
	}
	if diff := cmp.Diff(third, get(t, h.Other, first)); diff != "" {
		t.Error(diff)
	}
	// With one, it must be the present one.
	third.(*api.NetworkSet).Spec.Nets = []string{"10.3.0.0/16"}
	fourth := update(t, h.Store, third)
	if diff := cmp.Diff([]string{"10.3.0.0/16"}, nets(t, fourth)); diff != "" {
		t.Error(diff)
	}
}

func testUpdateNothing(t *testing.T, h *Harness) {
	first := create(t, h.Store, netset("default", "a", "10.0.0.0/8"))
	for name, o := range map[string]api.Object{
		"without a revision": netset("default", "a", "10.0.0.0/8"),
		"with the revision":  first,
	} {
		if diff := cmp.Diff(first, update(t, h.Store, o)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if diff := cmp.Diff(first, get(t, h.Store, first)); diff != "" {
		t.Errorf("it was written: %s", diff)
	}
}

func testUpdateConflict(t *testing.T, h *Harness) {
	ctx := background(t)
	first := create(t, h.Store, netset("default", "a"))
	second := update(t, h.Other, netset("default", "a", "10.1.0.0/16"))
	_, err := h.Store.Update(ctx, labelled(first, "k", "v"))
	wantError(t, err, datastore.ErrConflict, "NetworkSet/default/a")
	// Also if it would have changed nothing.
	same := api.DeepCopy(second)
	same.SetResourceVersion(first.GetResourceVersion())
	_, err = h.Store.Update(ctx, same)
	wantError(t, err, datastore.ErrConflict, "NetworkSet/default/a")
	foreign := api.DeepCopy(second)
	foreign.SetResourceVersion("abc")
	_, err = h.Store.Update(ctx, foreign)
	wantError(t, err, datastore.ErrConflict, "NetworkSet/default/a")
	// Deleted and made again: another one, even where last write wins.
	remove(t, h.Other, first)
	create(t, h.Other, netset("default", "a"))
	first.SetResourceVersion("")
	_, err = h.Store.Update(ctx, first)
	wantError(t, err, datastore.ErrConflict, "NetworkSet/default/a")
}

func testGeneration(t *testing.T, h *Harness) {
	o := create(t, h.Store, netset("default", "a", "10.0.0.0/8"))
	o = update(t, h.Store, labelled(o, "k", "v"))
	if o.GetGeneration() != 1 || o.GetLabels()["k"] != "v" {
		t.Errorf("after a label: generation %d, labels %v", o.GetGeneration(), o.GetLabels())
	}
	o.(*api.NetworkSet).Spec.Nets = nil
	o = update(t, h.Store, o)
	if o.GetGeneration() != 2 {
		t.Errorf("after a change of spec: generation %d, want 2", o.GetGeneration())
	}
	o.SetGeneration(77)
	if o = update(t, h.Store, o); o.GetGeneration() != 2 {
		t.Errorf("generation is the caller's: %d", o.GetGeneration())
	}
}

func testDelete(t *testing.T, h *Harness) {
	ctx := background(t)
	first := create(t, h.Store, netset("default", "a"))
	second := update(t, h.Store, netset("default", "a", "10.0.0.0/8"))
	key := api.KeyOf(first)
	wantError(t, h.Store.Delete(ctx, key, first.GetResourceVersion()), datastore.ErrConflict, "NetworkSet/default/a")
	if err := h.Store.Delete(ctx, key, second.GetResourceVersion()); err != nil {
		t.Fatal(err)
	}
	_, err := h.Other.Get(ctx, key)
	wantError(t, err, datastore.ErrNotFound, "NetworkSet/default/a")
	third := create(t, h.Store, netset("default", "a"))
	if third.GetUID() == first.GetUID() || third.GetGeneration() != 1 {
		t.Errorf("it has the life of its namesake: %+v", third)
	}
	remove(t, h.Store, third)
}

func testNames(t *testing.T, h *Harness) {
	ctx := background(t)
	for _, k := range []api.Key{
		{Kind: "NetworkSet", Name: "a"},
		{Kind: "NetworkSet", Namespace: "default"},
		{Kind: "NetworkSet", Namespace: "a/b", Name: "c"},
		{Kind: "NetworkSet", Namespace: "a", Name: "b/c"},
		{Kind: "GlobalNetworkSet", Namespace: "a", Name: "b"},
		{Kind: "GlobalNetworkSet"},
		{Kind: "Nonsense", Name: "a"},
	} {
		if _, err := h.Store.Get(ctx, k); !errors.Is(err, datastore.ErrInvalid) {
			t.Errorf("get %+v: %v", k, err)
		}
		if err := h.Store.Delete(ctx, k, ""); !errors.Is(err, datastore.ErrInvalid) {
			t.Errorf("delete %+v: %v", k, err)
		}
	}
	_, err := h.Store.Create(ctx, netset("", "a"))
	wantError(t, err, datastore.ErrInvalid, "NetworkSet/a")
	if _, err := h.Store.List(ctx, "Nonsense", ""); !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("list of nonsense: %v", err)
	}
	if _, err := h.Store.List(ctx, "GlobalNetworkSet", "ns"); !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("list of a kind without namespaces in one: %v", err)
	}
}

func testInvalid(t *testing.T, h *Harness) {
	ctx := background(t)
	_, err := h.Store.Create(ctx, netset("default", "a", "10.0.0.0/99"))
	wantError(t, err, datastore.ErrInvalid, "spec.nets")
	create(t, h.Store, netset("default", "a"))
	_, err = h.Store.Update(ctx, netset("default", "a", "no address"))
	wantError(t, err, datastore.ErrInvalid, "NetworkSet/default/a")
	huge := netset("default", "a")
	huge.Annotations = map[string]string{"k": strings.Repeat("x", 3<<20)}
	_, err = h.Store.Update(ctx, huge)
	if !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("a huge value: %v", err)
	}
}

func testList(t *testing.T, h *Harness) {
	ctx := background(t)
	// The order of keys is not that of namespaces: "a-b/" comes before "a/".
	for _, k := range []string{"a/z", "a-b/a", "a/a", "b/m", "ab/x", "a/a.b"} {
		ns, name, _ := strings.Cut(k, "/")
		create(t, h.Store, netset(ns, name))
	}
	create(t, h.Store, globalset("a"))
	list := func(kind, namespace string) (out []string) {
		os, err := h.Other.List(ctx, kind, namespace)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range os {
			out = append(out, api.KeyOf(o).String())
		}
		return out
	}
	for _, c := range []struct {
		kind, namespace, want string
	}{
		{"NetworkSet", "", "a/a a/a.b a/z a-b/a ab/x b/m"},
		{"NetworkSet", "a", "a/a a/a.b a/z"},
		{"NetworkSet", "nobody", ""},
		{"GlobalNetworkSet", "", "a"},
		{"NetworkPolicy", "", ""},
	} {
		var want []string
		for _, n := range strings.Fields(c.want) {
			want = append(want, c.kind+"/"+n)
		}
		if diff := cmp.Diff(want, list(c.kind, c.namespace)); diff != "" {
			t.Errorf("%s in %q: %s", c.kind, c.namespace, diff)
		}
	}
	os, err := h.Store.List(ctx, "NetworkSet", "b")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(get(t, h.Store, os[0]), os[0]); diff != "" {
		t.Errorf("list and get differ: %s", diff)
	}
}

// manySets is enough for some pages.
const manySets = 2300

func many() (objects []api.Object) {
	for i := range manySets {
		objects = append(objects, netset(fmt.Sprintf("ns%d", i%7), fmt.Sprintf("set-%04d", i)))
	}
	return objects
}

func testListPages(t *testing.T, h *Harness) {
	fill(t, h.Store, many()...)
	os, err := h.Other.List(background(t), "NetworkSet", "")
	if err != nil || len(os) != manySets {
		t.Fatalf("%d of %d: %v", len(os), manySets, err)
	}
	seen := map[api.Key]bool{}
	for _, o := range os {
		seen[api.KeyOf(o)] = true
	}
	if len(seen) != manySets {
		t.Errorf("%d different ones of %d", len(seen), manySets)
	}
}

func testUnreadable(t *testing.T, h *Harness) {
	ctx := background(t)
	for i, raw := range []string{`{"spec":`, ``, `[]`, `{"metadata":{"uid":"u","generation":4},"spec":7,"kind":"Tier"}`} {
		name := fmt.Sprintf("bad%d", i)
		key := api.KeyOf(netset("default", name))
		h.SetRaw(key, []byte(raw))
		_, err := h.Store.Get(ctx, key)
		wantError(t, err, datastore.ErrUnreadable, "NetworkSet/default/"+name)
	}
	good := create(t, h.Store, netset("default", "good"))
	os, err := h.Store.List(ctx, "NetworkSet", "")
	wantError(t, err, datastore.ErrUnreadable, "NetworkSet/default/bad1")
	if len(os) != 1 || !cmp.Equal(os[0], good) {
		t.Errorf("the readable ones: %v", os)
	}
	update(t, h.Store, netset("default", "bad0", "10.0.0.0/8"))
	if got := get(t, h.Store, netset("default", "bad0")); got.GetUID() == "" || got.GetGeneration() < 1 {
		t.Errorf("replaced, without identity: %+v", got)
	}
	for i := 1; i < 4; i++ {
		remove(t, h.Store, netset("default", fmt.Sprintf("bad%d", i)))
	}
	if os, err := h.Store.List(ctx, "NetworkSet", ""); err != nil || len(os) != 2 {
		t.Errorf("list: %v, %v", os, err)
	}
}

// testUnknownFieldGoes: what is written is compared with what is stored, not with what was understood of that.
func testUnknownFieldGoes(t *testing.T, h *Harness) {
	key := api.KeyOf(netset("default", "a"))
	h.SetRaw(key, []byte(`{"kind":"NetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"a","namespace":"default",
		"uid":"u1","creationTimestamp":"2026-01-02T03:04:05Z","generation":3},"spec":{"nets":["10.0.0.0/8"],"colour":"red"}}`))
	before := get(t, h.Store, netset("default", "a"))
	after := update(t, h.Store, netset("default", "a", "10.0.0.0/8"))
	if after.GetResourceVersion() == before.GetResourceVersion() || after.GetGeneration() != 4 || after.GetUID() != "u1" {
		t.Errorf("the field is still there: %+v, then %+v", before, after)
	}
}

func testRaceUpdate(t *testing.T, h *Harness) {
	const workers, each = 6, 12
	create(t, h.Store, netset("default", "counter"))
	g, ctx := errgroup.WithContext(background(t))
	for i := range workers {
		s := h.Store
		if i%2 == 1 {
			s = h.Other
		}
		g.Go(func() error {
			for range each {
				if err := increment(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, h.Store, netset("default", "counter")).GetLabels()["n"]; got != strconv.Itoa(workers*each) {
		t.Errorf("counted to %s, want %d", got, workers*each)
	}
}

func increment(ctx context.Context, s datastore.Store) error {
	for {
		o, err := s.Get(ctx, api.KeyOf(netset("default", "counter")))
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(o.GetLabels()["n"])
		_, err = s.Update(ctx, labelled(o, "n", strconv.Itoa(n+1)))
		if !errors.Is(err, datastore.ErrConflict) {
			return err
		}
	}
}

func testRaceCreate(t *testing.T, h *Harness) {
	ctx := background(t)
	for round := range 5 {
		won := make(chan bool, 8)
		var g errgroup.Group
		for i := range cap(won) {
			g.Go(func() error {
				o := netset("default", fmt.Sprintf("set%d", round), fmt.Sprintf("10.%d.0.0/16", i))
				_, err := h.Store.Create(ctx, o)
				won <- err == nil
				if errors.Is(err, datastore.ErrExists) {
					return nil
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		winners := 0
		for range cap(won) {
			if <-won {
				winners++
			}
		}
		if winners != 1 {
			t.Errorf("round %d: %d made it, want 1", round, winners)
		}
	}
}

func testContext(t *testing.T, h *Harness) {
	create(t, h.Store, netset("default", "a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Store.Get(ctx, api.KeyOf(netset("default", "a"))); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	if _, err := h.Store.Create(ctx, netset("default", "b")); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	if _, err := h.Store.List(ctx, "NetworkSet", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
}

func testUnreachable(t *testing.T, h *Harness) {
	create(t, h.Store, netset("default", "a"))
	h.Down()
	start := time.Now()
	ctx := t.Context() // without an end of its own
	_, err := h.Store.Get(ctx, api.KeyOf(netset("default", "a")))
	wantError(t, err, datastore.ErrUnavailable, "NetworkSet/default/a")
	_, err = h.Store.Create(ctx, netset("default", "b"))
	wantError(t, err, datastore.ErrUnavailable, "NetworkSet/default/b")
	_, err = h.Store.List(ctx, "NetworkSet", "")
	wantError(t, err, datastore.ErrUnavailable, "NetworkSet")
	wantError(t, h.Store.Delete(ctx, api.KeyOf(netset("default", "a")), ""), datastore.ErrUnavailable, "NetworkSet/default/a")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	h.Up()
	deadline := time.Now().Add(patience)
	for {
		_, err := h.Store.Get(ctx, api.KeyOf(netset("default", "a")))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not back: %v", err)
		}
	}
}
