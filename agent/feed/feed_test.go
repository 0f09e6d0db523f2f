package feed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
)

// graph is a Graph that notes what it is told. A second goroutine in it is a panic.
type graph struct {
	busy    sync.Mutex
	told    []string
	slow    time.Duration
	changed int
	flushes int

	settings *api.NodeSettings
}

func (g *graph) enter(s string) func() {
	if !g.busy.TryLock() {
		panic("two goroutines in the graph")
	}
	if s != "" {
		g.told = append(g.told, s)
		g.changed++
	}
	time.Sleep(g.slow)
	return g.busy.Unlock
}

func (g *graph) Update(key api.Key, o api.Object) {
	defer g.enter(fmt.Sprintf("%s %v", key, o != nil))()
}

func (g *graph) Attached(id drivers.EndpointID, e *calcgraph.LedgerEntry) {
	defer g.enter(fmt.Sprintf("attached %s %v", id.Sandbox, e != nil))()
}

func (g *graph) Host(ifaces []drivers.HostIface) {
	defer g.enter(fmt.Sprintf("host %d", len(ifaces)))()
}

func (g *graph) Settings() *api.NodeSettings {
	defer g.enter("")()
	return g.settings
}

func (g *graph) Departed() []netip.Addr {
	defer g.enter("")()
	return nil
}

func (g *graph) Problems() []calcgraph.Problem {
	defer g.enter("")()
	return []calcgraph.Problem{{Key: api.Key{Kind: "Tier", Name: "z"}, Reason: "odd"}}
}

func (g *graph) Flush() *drivers.Update {
	defer g.enter("")()
	g.flushes++
	u := drivers.NewUpdate()
	for i := range g.changed {
		u.Peers[fmt.Sprint(i)] = nil
	}
	g.changed = 0
	return u
}

// sink is a Pump that notes what it is offered.
type sink struct {
	mu     sync.Mutex
	offers []int
	inSync int
}

func (s *sink) Offer(u *drivers.Update) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !u.Empty() {
		s.offers = append(s.offers, len(u.Peers))
	}
	return uint64(len(s.offers))
}

func (s *sink) InSync() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inSync++
}

func (s *sink) seen() ([]int, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.offers), s.inSync
}

func run(t *testing.T, inputs []Input, fn func(t *testing.T, f *Feed, g *graph, s *sink)) {
	synctest.Test(t, func(t *testing.T) {
		g, s := &graph{}, &sink{}
		f := New(Options{Graph: g, Pump: s, Inputs: inputs, Node: "node1"})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.Run(ctx)
		}()
		fn(t, f, g, s)
		cancel()
		<-ended
		if _, err := f.Attached(t.Context(), drivers.EndpointID{}, nil); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func wep(name, node, revision string) datastore.Event {
	o := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, ResourceVersion: revision}, Spec: api.WorkloadEndpointSpec{Node: node}}
	return datastore.Event{Key: wepKey(name), Object: o}
}

func wepKey(name string) api.Key {
	return api.Key{Kind: "WorkloadEndpoint", Namespace: "n", Name: name}
}

func TestNothingIsOfferedBeforeAllInputsAreIn(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, order := range [][]Input{{Store, Ledger, Host}, {Host, Store, Ledger}, {Ledger, Host, Store}} {
		run(t, []Input{Store, Ledger, Host}, func(t *testing.T, f *Feed, g *graph, s *sink) {
			ctx := t.Context()
			must(t, f.Batch(ctx, datastore.Batch{Events: []datastore.Event{wep("a", "node1", "1")}}))
			for i, in := range order {
				if offers, inSync := s.seen(); len(offers)+inSync+g.flushes > 0 || len(f.Waiting()) != 3-i {
					t.Errorf("%v, before %s: %v offers, waiting for %v", order, in, offers, f.Waiting())
				}
				switch in {
				case Store:
					must(t, f.Batch(ctx, datastore.Batch{InSync: true}))
				case Ledger:
					seq, err := f.Attached(ctx, drivers.EndpointID{Sandbox: "x"}, &calcgraph.LedgerEntry{})
					if err != nil || seq != 0 {
						t.Errorf("%d %v", seq, err)
					}
					must(t, f.LedgerRead(ctx))
				case Host:
					must(t, f.HostIfaces(ctx, nil))
				}
			}
			if offers, inSync := s.seen(); !slices.Equal(offers, []int{3}) || inSync != 1 {
				t.Errorf("%v: %v, in sync %d", order, offers, inSync)
			}
			if seq, err := f.Attached(ctx, drivers.EndpointID{Sandbox: "y"}, nil); err != nil || seq != 2 {
				t.Errorf("afterwards: %d %v", seq, err)
			}
		})
	}
}

func TestCallsAreTakenTogether(t *testing.T) {
	run(t, nil, func(t *testing.T, f *Feed, g *graph, s *sink) {
		if err := f.LedgerRead(t.Context()); err != nil { // the first brings it in sync
			t.Fatal(err)
		}
		g.slow = time.Second
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if _, err := f.Attached(t.Context(), drivers.EndpointID{Sandbox: fmt.Sprint(i)}, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if offers, _ := s.seen(); len(offers) > 2 {
			t.Errorf("50 calls at once made %d offers", len(offers))
		}
	})
}

// TestASlowGraphHoldsTheStoreUp: Batch returns when the graph has taken it in, so the watch waits.
func TestASlowGraphHoldsTheStoreUp(t *testing.T) {
	run(t, nil, func(t *testing.T, f *Feed, g *graph, s *sink) {
		g.slow = time.Second
		start := time.Now()
		if err := f.Batch(t.Context(), datastore.Batch{Events: []datastore.Event{wep("a", "x", "1"), wep("b", "x", "1")}}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 2*time.Second {
			t.Errorf("it returned after %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		go func() { _ = f.LedgerRead(t.Context()) }()
		synctest.Wait()
		if _, err := f.Problems(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a report waits for a busy graph: %v", err)
		}
		time.Sleep(time.Minute)
	})
}

func TestWaitSeen(t *testing.T) {
	run(t, nil, func(t *testing.T, f *Feed, g *graph, s *sink) {
		batch := func(es ...datastore.Event) {
			t.Helper()
			if err := f.Batch(t.Context(), datastore.Batch{Events: es}); err != nil {
				t.Fatal(err)
			}
		}
		wait := func(name, revision string) (uint64, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return f.WaitSeen(ctx, wepKey(name), revision)
		}
		batch(wep("a", "node1", "9"), wep("b", "node2", "9"))
		if seq, err := wait("a", "9"); err != nil || seq != 1 {
			t.Errorf("as it is: %d %v", seq, err)
		}
		if seq, err := wait("a", "8"); err != nil || seq != 1 {
			t.Errorf("an older one: %d %v", seq, err)
		}
		if _, err := wait("b", "9"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("of another node: %v", err)
		}
		if _, err := wait("a", "10"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a newer one: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			if err := f.Batch(t.Context(), datastore.Batch{Events: []datastore.Event{wep("a", "node1", "10")}}); err != nil {
				t.Error(err)
			}
		}()
		if seq, err := wait("a", "10"); err != nil || seq != 2 {
			t.Errorf("when it comes: %d %v", seq, err)
		}
		batch(datastore.Event{Key: wepKey("a")})
		if _, err := wait("a", "10"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("gone: %v", err)
		}
	})
}

// TestWaitEndpoint: what is waited for may be anything that a WorkloadEndpoint of this node says; who waits in vain is told
// what there is.
func TestWaitEndpoint(t *testing.T) {
	run(t, nil, func(t *testing.T, f *Feed, g *graph, s *sink) {
		batch := func(es ...datastore.Event) {
			t.Helper()
			if err := f.Batch(t.Context(), datastore.Batch{Events: es}); err != nil {
				t.Fatal(err)
			}
		}
		wait := func(revision string) (*api.WorkloadEndpoint, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return f.WaitEndpoint(ctx, wepKey("a"), func(o *api.WorkloadEndpoint) bool { return o.ResourceVersion == revision })
		}
		if o, err := wait("1"); o != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("none: %v, %v", o, err)
		}
		batch(wep("a", "node1", "1"), wep("b", "node1", "7"))
		if o, err := wait("1"); err != nil || o.ResourceVersion != "1" {
			t.Errorf("it: %v, %v", o, err)
		}
		if o, err := wait("2"); !errors.Is(err, context.DeadlineExceeded) || o == nil || o.ResourceVersion != "1" {
			t.Errorf("another one: %v, %v", o, err)
		}
		start := time.Now()
		time.AfterFunc(time.Second, func() {
			_ = f.Batch(t.Context(), datastore.Batch{Events: []datastore.Event{wep("a", "node1", "2")}})
		})
		if o, err := wait("2"); err != nil || o.ResourceVersion != "2" || time.Since(start) != time.Second {
			t.Errorf("when it comes: %v, %v", o, err)
		}
		batch(wep("a", "node2", "2"))
		if o, err := wait("2"); o != nil || err == nil {
			t.Errorf("moved to another node: %v, %v", o, err)
		}
	})
}

func TestUnreadableResourcesAreProblems(t *testing.T) {
	run(t, nil, func(t *testing.T, f *Feed, g *graph, s *sink) {
		key := api.Key{Kind: "Profile", Name: "p"}
		for _, c := range []struct {
			e    datastore.Event
			want int
		}{
			{datastore.Event{Key: key, Problem: errors.New("no JSON")}, 2},
			{datastore.Event{Key: key, Object: &api.Profile{}}, 1},
			{datastore.Event{Key: key, Problem: errors.New("no JSON")}, 2},
			{datastore.Event{Key: key}, 1},
		} {
			if err := f.Batch(t.Context(), datastore.Batch{Events: []datastore.Event{c.e}}); err != nil {
				t.Fatal(err)
			}
			ps, err := f.Problems(t.Context())
			if err != nil || len(ps) != c.want || c.want == 2 && (ps[0].Key != key || ps[0].Reason != "no JSON") {
				t.Errorf("%+v: %v %v", c.e, ps, err)
			}
		}
		if want := []string{"Profile/p false", "Profile/p true", "Profile/p false", "Profile/p false"}; !slices.Equal(g.told, want) {
			t.Errorf("the graph was told %q", g.told)
		}
	})
}

// TestPartialResourcesAreProblems: what can't be read of an object is told once, though the graph finds some of it too.
func TestPartialResourcesAreProblems(t *testing.T) {
	run(t, nil, func(t *testing.T, f *Feed, g *graph, s *sink) {
		tier, set, policy := api.Key{Kind: "Tier", Name: "z"}, api.Key{Kind: "GlobalNetworkSet", Name: "s"}, api.Key{Kind: "GlobalNetworkPolicy", Name: "p"}
		lost := []api.Problem{{Path: "spec.nets[1]", Reason: "must be a string"}}
		tell := func(want int, events ...datastore.Event) {
			t.Helper()
			if err := f.Batch(t.Context(), datastore.Batch{Events: events}); err != nil {
				t.Fatal(err)
			}
			ps, err := f.Problems(t.Context())
			if err != nil || len(ps) != want {
				t.Errorf("%v %v, want %d", ps, err, want)
			}
		}
		tell(2, datastore.Event{Key: set, Object: &api.GlobalNetworkSet{}, Problems: lost})
		tell(2, datastore.Event{Key: tier, Object: &api.Tier{}, Problems: []api.Problem{{Reason: "the graph has it"}}},
			datastore.Event{Key: policy, Object: &api.GlobalNetworkPolicy{}, Problems: lost})
		tell(1, datastore.Event{Key: set, Object: &api.GlobalNetworkSet{}})
		tell(2, datastore.Event{Key: set, Object: &api.GlobalNetworkSet{}, Problems: lost})
		tell(1, datastore.Event{Key: set})
	})
}
