// Package feed brings the inputs of the graph together: one goroutine owns the graph, takes in what the store, the
// ledger and the host have to say, and offers what comes out to the pump.
//
//	store watch ─┐
//	ledger ──────┼─► calls ─► graph ─ Flush ─► pump.Offer
//	host ────────┘
//
// A call returns once it has been taken in and offered. So an input that is faster than the graph waits for it.
package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
)

// ErrStopped says that the feed has ended.
var ErrStopped = errors.New("the agent is stopping")

// maxCalls is how many calls are taken in before what came out is offered.
const maxCalls = 256

// Input is one of the inputs of the graph.
type Input string

const (
	Store  Input = "store"  // every resource has been read
	Ledger Input = "ledger" // every workload that is plugged in is known
	Host   Input = "host"   // the host's interfaces are known
)

// Pump is where the graph's output goes.
type Pump interface {
	Offer(*drivers.Update) uint64
	InSync()
}

// Graph is the part of calcgraph.Graph that a feed uses.
type Graph interface {
	Update(key api.Key, o api.Object)
	Attached(id drivers.EndpointID, e *calcgraph.LedgerEntry)
	Host(ifaces []drivers.HostIface)
	Flush() *drivers.Update
	Settings() *api.NodeSettings
	Departed() []netip.Addr
	Problems() []calcgraph.Problem
}

// Options is what New takes.
type Options struct {
	Graph  Graph
	Pump   Pump
	Inputs []Input // those that there are
	Node   string  // this node's name
	// Settings is told what FelixConfigurations say to this node, once the store is in sync and whenever that changes. It
	// must not wait. May be nil.
	Settings func(api.NodeSettings)
	// Departed is told which addresses workloads of other nodes have given up, and the number of the Offer that has that in.
	// It must not wait. May be nil.
	Departed func(addrs []netip.Addr, offer uint64)
	Metrics  *Metrics
}

// Feed is safe for concurrent use.
type Feed struct {
	o     Options
	calls chan call
	done  chan struct{}

	// Of the goroutine of Run only.
	inSync     bool
	settings   *api.NodeSettings // that were told
	unreadable map[api.Key]string
	partial    map[api.Key][]api.Problem // what can't be read of objects

	mu      sync.Mutex
	waiting []Input // not in sync yet
	seen    map[api.Key]seen
	changed chan struct{} // closed when seen changes
}

// call is something to do to the graph. done takes the number of the Offer that has it in.
type call struct {
	fn   func(Graph)
	done chan uint64
}

// seen is the last that the store had to say of a WorkloadEndpoint of this node.
type seen struct {
	object *api.WorkloadEndpoint // nil = it is gone
	offer  uint64
}

// New returns a Feed that does nothing before Run.
func New(o Options) *Feed {
	return &Feed{o: o, calls: make(chan call), done: make(chan struct{}), unreadable: map[api.Key]string{}, partial: map[api.Key][]api.Problem{},
		waiting: slices.Clone(o.Inputs), seen: map[api.Key]seen{}, changed: make(chan struct{})}
}

// Run owns the graph until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	defer close(f.done)
	for {
		select {
		case c := <-f.calls:
			f.take(c)
		case <-ctx.Done():
			return
		}
	}
}

// take does c, and what else is waiting, and offers what comes out.
func (f *Feed) take(c call) {
	taken := []call{c}
	c.fn(f.o.Graph)
	for len(taken) < maxCalls {
		select {
		case c = <-f.calls:
			c.fn(f.o.Graph)
			taken = append(taken, c)
			continue
		default:
		}
		break
	}
	seq := f.flush()
	for _, c := range taken {
		c.done <- seq
	}
}

// flush offers what has changed. Before all inputs are in sync nothing is: a first State is made in one piece.
func (f *Feed) flush() uint64 {
	if !f.inSync {
		if len(f.Waiting()) > 0 {
			return 0
		}
		f.inSync = true
		seq := f.o.Pump.Offer(f.o.Graph.Flush())
		f.tellSettings()
		f.o.Pump.InSync()
		return seq
	}
	stop := f.o.Metrics.flush()
	u := f.o.Graph.Flush()
	stop()
	f.tellSettings()
	seq := f.o.Pump.Offer(u)
	if gone := f.o.Graph.Departed(); len(gone) > 0 && f.o.Departed != nil {
		f.o.Departed(gone, seq)
	}
	return seq
}

func (f *Feed) tellSettings() {
	if s := f.o.Graph.Settings(); s != f.settings {
		f.settings = s
		if f.o.Settings != nil {
			f.o.Settings(*s)
		}
	}
}

// do has fn done by the graph's goroutine, and returns the number of the Offer that has it in.
func (f *Feed) do(ctx context.Context, fn func(Graph)) (uint64, error) {
	c := call{fn: fn, done: make(chan uint64, 1)}
	select {
	case f.calls <- c:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-f.done:
		return 0, ErrStopped
	}
	select {
	case seq := <-c.done:
		return seq, nil
	case <-f.done:
		return 0, ErrStopped
	}
}

// synced notes that an input is complete.
func (f *Feed) synced(in Input) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = slices.DeleteFunc(f.waiting, func(w Input) bool { return w == in })
}

// Waiting returns the inputs that are not complete yet.
func (f *Feed) Waiting() []Input {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.waiting)
}

// Batch takes in what the store has to say.
func (f *Feed) Batch(ctx context.Context, b datastore.Batch) error {
	if len(b.Events) == 0 && !b.InSync {
		return nil
	}
	news := map[api.Key]*api.WorkloadEndpoint{}
	seq, err := f.do(ctx, func(g Graph) {
		for _, e := range b.Events {
			f.event(g, e, news)
		}
		if b.InSync {
			f.synced(Store)
		}
	})
	if err != nil {
		return err
	}
	f.o.Metrics.events(len(b.Events))
	f.note(news, seq)
	return nil
}

func (f *Feed) event(g Graph, e datastore.Event, news map[api.Key]*api.WorkloadEndpoint) {
	g.Update(e.Key, e.Object)
	if e.Problem != nil {
		f.unreadable[e.Key] = e.Problem.Error()
	} else {
		delete(f.unreadable, e.Key)
	}
	if len(e.Problems) > 0 && !hasRules(e.Key.Kind) {
		f.partial[e.Key] = e.Problems
	} else {
		delete(f.partial, e.Key)
	}
	if e.Key.Kind != "WorkloadEndpoint" {
		return
	}
	if w, ok := e.Object.(*api.WorkloadEndpoint); ok && w.Spec.Node == f.o.Node {
		news[e.Key] = w
	} else {
		news[e.Key] = nil
	}
}

// hasRules reports whether an object holds rules: what can't be read of it is marked there, and the graph reports it where
// the object is in use.
func hasRules(kind string) bool { return kind == "Profile" || strings.HasSuffix(kind, "NetworkPolicy") }

// note says which WorkloadEndpoints of this node have been offered.
func (f *Feed) note(news map[api.Key]*api.WorkloadEndpoint, seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ours := false
	for k, o := range news {
		if _, had := f.seen[k]; o == nil && !had {
			continue // of another node
		}
		ours = true
		if o == nil {
			delete(f.seen, k)
		} else {
			f.seen[k] = seen{object: o, offer: seq}
		}
	}
	if !ours {
		return
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// WaitSeen waits until the store has told of key as it is at revision or later, and returns the number of the Offer that
// has that in.
func (f *Feed) WaitSeen(ctx context.Context, key api.Key, revision string) (uint64, error) {
	s, err := f.wait(ctx, key, func(o *api.WorkloadEndpoint) bool { return notOlder(o.ResourceVersion, revision) })
	return s.offer, err
}

// WaitEndpoint waits until the store has told of a WorkloadEndpoint of this node that is as ok says, and the graph has been
// told of it. It returns the last that the store has told, also with an error; nil = there is none. It is not the caller's
// to change.
func (f *Feed) WaitEndpoint(ctx context.Context, key api.Key, ok func(*api.WorkloadEndpoint) bool) (*api.WorkloadEndpoint, error) {
	s, err := f.wait(ctx, key, ok)
	return s.object, err
}

func (f *Feed) wait(ctx context.Context, key api.Key, ok func(*api.WorkloadEndpoint) bool) (seen, error) {
	for {
		f.mu.Lock()
		s, there := f.seen[key]
		changed := f.changed
		f.mu.Unlock()
		if there && ok(s.object) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, fmt.Errorf("waiting for the store to tell of %s: %w", key, ctx.Err())
		case <-f.done:
			return s, ErrStopped
		}
	}
}

// notOlder compares revisions; where they are no numbers, another one than the one that is waited for is no good.
func notOlder(have, want string) bool {
	h, err1 := strconv.ParseUint(have, 10, 64)
	w, err2 := strconv.ParseUint(want, 10, 64)
	if err1 != nil || err2 != nil {
		return have == want
	}
	return h >= w
}

// Attached says that a workload is plugged in, or with nil that it isn't any more. It returns the number of the Offer
// that has it in.
func (f *Feed) Attached(ctx context.Context, id drivers.EndpointID, e *calcgraph.LedgerEntry) (uint64, error) {
	return f.do(ctx, func(g Graph) { g.Attached(id, e) })
}

// LedgerRead says that all workloads of before have been named by Attached.
func (f *Feed) LedgerRead(ctx context.Context) error {
	_, err := f.do(ctx, func(Graph) { f.synced(Ledger) })
	return err
}

// HostIfaces says what interfaces the host has.
func (f *Feed) HostIfaces(ctx context.Context, ifaces []drivers.HostIface) error {
	_, err := f.do(ctx, func(g Graph) {
		g.Host(ifaces)
		f.synced(Host)
	})
	return err
}

// Problems returns the resources that count less than they say, or not at all.
func (f *Feed) Problems(ctx context.Context) ([]calcgraph.Problem, error) {
	var out []calcgraph.Problem
	_, err := f.do(ctx, func(g Graph) {
		out = g.Problems()
		type place struct {
			key   api.Key
			field string
		}
		known := map[place]bool{}
		for _, p := range out {
			known[place{p.Key, p.Field}] = true
		}
		for k, why := range f.unreadable {
			out = append(out, calcgraph.Problem{Key: k, Reason: why})
		}
		for k, ps := range f.partial {
			for _, p := range ps {
				if !known[place{k, p.Path}] { // the graph has said it
					out = append(out, calcgraph.Problem{Key: k, Field: p.Path, Reason: p.Reason})
				}
			}
		}
	})
	slices.SortFunc(out, func(a, b calcgraph.Problem) int {
		return cmp.Or(cmp.Compare(a.Key.String(), b.Key.String()), cmp.Compare(a.Field, b.Field))
	})
	return out, err
}
