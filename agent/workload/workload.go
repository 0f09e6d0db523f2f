// Package workload plugs workloads in and out.
//
//	attach: ledger (fsync) ─► link; flows of the address cut ─► graph ─► WorkloadEndpoint into the store
//	        ─► wait until its policy is in the dataplane; ledger: flows are cut (fsync) ─► answer
//	detach: ledger says so (fsync) ─► out of the graph ─► wait until the dataplane denies ─► flows cut ─► link removed
//	        ─► WorkloadEndpoint out of the store, addresses released ─► out of the ledger
//
// An interface that another plugin has made passes packets before its policy is there: its flows are cut when that is enforced.
//
// With addresses from pools an attach begins with:
//
//	ledger: allocating (fsync) ─► addresses and WorkloadEndpoint into the store, in one write ─► ledger (fsync) ─► link ...
//
// so that whatever may be in the store is in the ledger, at every moment. Who crashes while it allocates gives back.
//
// Where the API server of Kubernetes is the store, it has a WorkloadEndpoint of each pod by itself: an attach begins with
// waiting until the graph knows it, and writes nothing but the addresses.
//
// Whatever is interrupted is in the ledger: an attach is repeated by its caller, a detach is brought to its end by Run.
// The store may be away during a detach: the ledger then remembers that a WorkloadEndpoint has to go.
//
//	workload.go  Workloads, and what it stands on
//	restore.go   what an earlier agent has left
//	attach.go    attach
//	detach.go    detach, and the end of what was interrupted
//	check.go     check and list
//	strays.go    WorkloadEndpoints that nobody stands for
//	closed.go    workloads that pass nothing
//	chained.go   workloads that another plugin plugs in
//	keeper.go    addresses that a store restored from a backup does not know
//	notes.go     what was noted while no agent listened
//	address.go   addresses from pools
//	pod.go       pods, where the API server of Kubernetes is the store
//	endpoint.go  the WorkloadEndpoint
//	metrics.go   how long the steps of an attach take
//	locks.go     one request at a time for each workload
//	guarded.go   a map that goroutines share
//	points.go    where tests have the agent die
package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/backoff"
)

const (
	// deleteTimeout is how long a detach waits for the store before it leaves the rest to Run.
	deleteTimeout = 3 * time.Second
	// undoTimeout bounds what is done after a request has failed.
	undoTimeout = 15 * time.Second
	// notesInterval is how often Run looks for notes while there is nothing else to do.
	notesInterval = time.Minute
	// finishAtOnce is how many unfinished detaches are tried at the same time, to share writes of the store.
	finishAtOnce = 64
)

// Graph is where workloads are told of.
type Graph interface {
	// Attached says that a workload is plugged in (nil: it isn't), and returns the number of the Offer that has it in; 0
	// before the graph is in sync.
	Attached(ctx context.Context, id drivers.EndpointID, e *calcgraph.LedgerEntry) (uint64, error)
	// WaitSeen waits until the store has told of key at revision or later.
	WaitSeen(ctx context.Context, key api.Key, revision string) (uint64, error)
	LedgerRead(ctx context.Context) error
}

// Dataplane is what can be waited for.
type Dataplane interface {
	WaitEnforced(ctx context.Context, id drivers.EndpointID, generation, since uint64) error
	WaitGone(ctx context.Context, id drivers.EndpointID, since uint64) error
	CutFlows(ctx context.Context, addrs []netip.Addr) error
	// Renew has the dataplane compared with what it should be, all of it, and waits until that is done.
	Renew(ctx context.Context) error
}

// Options is what New takes.
type Options struct {
	Node   string
	Prefix string // of names of host interfaces
	BootID string
	Ledger *ledger.Ledger
	// Before is the endpoints that the dataplane had when the last agent ended, in this boot, as far as that is known.
	Before []drivers.Endpoint
	// NotesDir is where clients that found no agent noted what to detach; "" = nowhere.
	NotesDir string
	Attacher drivers.Attacher // nil: this driver can't plug workloads in
	Graph    Graph
	Plane    Dataplane
	// Addresses are those of the pools; nil = all addresses are given.
	Addresses Addresses
	// Pods is where WorkloadEndpoints come from if the API server of Kubernetes is the store; nil = it is not, and the agent
	// writes them.
	Pods Pods
	// NoIPAM lets pods say what addresses they have (annotation ipAddrsNoIpam).
	NoIPAM bool
	// FloatingIPs lets pods ask for floating addresses (annotation floatingIPs).
	FloatingIPs bool
	// Store returns the store, or why it can't be used now.
	Store func() (datastore.Store, error)
	// Ready says what the agent is still waiting for; "" = nothing.
	Ready   func() string
	Log     *slog.Logger
	Metrics *Metrics // may be nil
}

// Workloads is safe for concurrent use.
type Workloads struct {
	o     Options
	locks locks
	kick  chan struct{}
	// strays are WorkloadEndpoints of this node in the store that no ledger entry stands for. A write whose answer was lost
	// may be done late: after the delete that was to undo it, when the ledger has forgotten it.
	strays guarded[api.Key, drivers.EndpointID]
	lost   guarded[drivers.EndpointID, drivers.Endpoint] // findLost
	gone   guarded[drivers.EndpointID, struct{}]         // plugged in by the ledger, which could not be written
	denied denied
}

// New returns Workloads over what the ledger holds; Restore comes next.
func New(o Options) *Workloads {
	w := &Workloads{o: o, locks: newLocks(), kick: make(chan struct{}, 1)}
	w.findLost()
	return w
}

// Kick makes Run look for unfinished work now: the store has come back, say. Never blocks.
func (w *Workloads) Kick() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// Run brings to their end detaches that were interrupted, could not reach the store, or are noted, until ctx ends.
func (w *Workloads) Run(ctx context.Context) {
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	for {
		left := w.finish(ctx)
		wait := notesInterval // a note is left for an agent that hangs, too
		if left {
			wait = retry.Next()
		} else {
			retry.Reset()
		}
		timer := time.NewTimer(wait)
		select {
		case <-w.kick:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// finish tries every unfinished detach once, and reports whether some are left.
func (w *Workloads) finish(ctx context.Context) (left bool) {
	left = w.settleAll(ctx)
	left = w.collect(ctx) || left
	left = w.giveUpRest(ctx) || left
	left = w.cutDenied(ctx) || left
	var more atomic.Bool
	var wg sync.WaitGroup
	slots := make(chan struct{}, finishAtOnce)
	for _, e := range w.o.Ledger.List() {
		if e.Phase == ledger.Plugged || ctx.Err() != nil || e.Phase == ledger.Allocating && w.Busy(e.ID()) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if w.finishOne(ctx, e) {
				more.Store(true)
			}
		})
	}
	wg.Wait()
	return left || more.Load()
}

// finishOne tries to bring the detach of e to its end, and reports whether it has not come to that.
func (w *Workloads) finishOne(ctx context.Context, e ledger.Entry) (left bool) {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	if err := w.detach(ctx, e.ID(), true); err != nil {
		w.o.Log.Debug("a detach is not finished yet", "sandbox", e.Sandbox, "err", err)
	}
	now, ok := w.o.Ledger.Get(e.ID())
	return ok && now.Phase != ledger.Plugged
}

// Backlog is how many workloads that are gone are still in the store, with WorkloadEndpoint or addresses.
func (w *Workloads) Backlog() int {
	n := 0
	for _, e := range w.o.Ledger.List() {
		if e.Phase == ledger.Gone {
			n++
		}
	}
	return n
}

// Busy reports whether a request about id is being served.
func (w *Workloads) Busy(id drivers.EndpointID) bool { return w.locks.held(id) }

// graphEntry is e in the graph's words.
func graphEntry(e ledger.Entry) *calcgraph.LedgerEntry {
	return &calcgraph.LedgerEntry{Name: endpointKey(e), UID: e.UID, Iface: e.HostIface, MAC: e.MAC, Addrs: e.Addrs, Chained: e.Chained}
}

func endpointKey(e ledger.Entry) api.Key {
	return api.Key{Kind: "WorkloadEndpoint", Namespace: e.Namespace, Name: e.Name}
}

func attachment(e ledger.Entry, netns string) drivers.Attachment {
	return drivers.Attachment{ID: e.ID(), Netns: netns, HostIface: e.HostIface, MAC: e.MAC, Addrs: e.Addrs, MTU: e.MTU}
}

// storeError puts an error of the store into words for a client.
func storeError(doing string, err error) error {
	code := agentapi.CodeUnavailable
	if errors.Is(err, datastore.ErrInvalid) {
		code = agentapi.CodeBadRequest
	}
	return agentapi.Errorf(code, "%s: %v", doing, err)
}

// interrupted lets a client try again where nothing is wrong but that its time is over, or that this agent is about to end:
// the next one serves it.
func interrupted(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || agentapi.CodeOf(err) != "" {
		return err
	}
	return agentapi.Errorf(agentapi.CodeUnavailable, "%v; try again", err)
}

// waitError puts an error of waiting into words for a client.
func waitError(doing string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return agentapi.Errorf(agentapi.CodeUnavailable, "%s: it took too long: %v; try again", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
