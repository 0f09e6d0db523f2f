package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

var errCrash = errors.New("crashed")

// host is what a workload is plugged into: links, a graph, a dataplane and a store. It checks the order of things, and
// crashes before a chosen step: from then on nothing does anything.
type host struct {
	t     *testing.T
	dir   string
	notes string
	store *mem.Store
	// pools says that addresses come from pools, and choose that the pools choose them; kube that the store is Kubernetes',
	// which has the WorkloadEndpoints by itself.
	pools, choose, kube bool
	pod                 Pod        // what annotations say there
	begun               *Workloads // the last

	world  sync.Mutex // of all below but those of mu
	writes int        // of blocks
	// together holds link removals up until all are there that it is about; nil = none.
	together *sync.WaitGroup

	mu             sync.Mutex // of the three
	steps, crashAt int        // 0 = never
	crashed        bool
	tampered       bool
	renewed        int  // how often the dataplane was looked at anew
	full           bool // the disk under the ledger
	links          map[string]drivers.EndpointID
	attached       map[drivers.EndpointID]*calcgraph.LedgerEntry // in the graph: lost in a crash
	dirty          map[netip.Addr]bool                           // addresses with flows of a workload
	clean          map[netip.Addr]bool                           // those that no earlier owner has left flows of
}

func newHost(t *testing.T) *host {
	return &host{t: t, dir: t.TempDir(), notes: filepath.Join(t.TempDir(), "notes"), store: mem.New(), links: map[string]drivers.EndpointID{},
		attached: map[drivers.EndpointID]*calcgraph.LedgerEntry{}, dirty: map[netip.Addr]bool{},
		clean: map[netip.Addr]bool{}}
}

func (h *host) step() error {
	h.mu.Lock() // the ledger may be written while something else is waited for
	defer h.mu.Unlock()
	if h.steps++; h.crashAt > 0 && h.steps >= h.crashAt {
		h.crashed = true
	}
	if h.crashed {
		return errCrash
	}
	return nil
}

// begin is a new start of the agent.
func (h *host) begin() *Workloads {
	h.t.Helper()
	h.steps, h.crashAt, h.crashed = 0, 0, false
	h.attached = map[drivers.EndpointID]*calcgraph.LedgerEntry{}
	l, err := ledger.Open(h.dir, durable.Writer{Step: func(string) error {
		if h.full {
			return syscall.ENOSPC
		}
		return h.step()
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	if len(l.Bad()) > 0 {
		h.t.Errorf("bad entries: %v", l.Bad())
	}
	o := Options{
		Node: "node1", Prefix: "tort", BootID: "boot1", Ledger: l, NotesDir: h.notes, Attacher: h, Graph: h, Plane: h,
		Store: func() (datastore.Store, error) { return crashStore{h.store, h}, nil },
		Ready: func() string { return "" }, Log: slog.New(slog.DiscardHandler),
	}
	if h.pools {
		o.Addresses = newPools(crashStore{h.store, h}, h.kube)
	}
	if h.kube {
		o.Pods = h
	}
	w := New(o)
	h.begun = w
	ifaces := []drivers.HostIface{}
	for name := range h.links {
		ifaces = append(ifaces, drivers.HostIface{Name: name})
	}
	if err := w.Restore(h.t.Context(), ifaces); err != nil {
		h.t.Fatal(err)
	}
	return w
}

func (h *host) Attach(_ context.Context, a drivers.Attachment) (drivers.Attached, error) {
	h.world.Lock()
	defer h.world.Unlock()
	if err := h.step(); err != nil {
		return drivers.Attached{}, err
	}
	_, there := h.links[a.HostIface]
	h.links[a.HostIface] = a.ID
	return drivers.Attached{HostIface: a.HostIface, MAC: a.MAC, MTU: 1500, Made: !there}, h.step()
}

func (h *host) Detach(_ context.Context, a drivers.Attachment) error {
	if h.together != nil {
		h.together.Done()
		h.together.Wait()
	}
	h.world.Lock()
	defer h.world.Unlock()
	if err := h.step(); err != nil {
		return err
	}
	if h.attached[a.ID] != nil {
		h.t.Errorf("step %d: the link is removed before the endpoint is denied", h.steps)
	}
	for _, addr := range a.Addrs {
		if h.dirty[addr] {
			h.t.Errorf("step %d: the link is removed before the flows of %s are cut", h.steps, addr)
		}
	}
	for _, addr := range a.Addrs {
		delete(h.clean, addr)
	}
	delete(h.links, a.HostIface)
	return h.step()
}

func (h *host) Check(context.Context, drivers.Attachment) error {
	if h.tampered {
		return errors.New("it is not as it was")
	}
	return nil
}

func (h *host) Attached(_ context.Context, id drivers.EndpointID, e *calcgraph.LedgerEntry) (uint64, error) {
	h.world.Lock()
	defer h.world.Unlock()
	if err := h.step(); err != nil {
		return 0, err
	}
	if e == nil {
		delete(h.attached, id)
		return 1, h.step()
	}
	for _, a := range e.Addrs {
		if !h.clean[a] && !e.Chained { // that is cut afterwards
			h.t.Errorf("step %d: %s is let in with flows of an earlier owner of %s", h.steps, id.Sandbox, a)
		}
		for other, o := range h.attached {
			if other != id && strings.Contains(fmt.Sprint(o.Addrs), a.String()) {
				h.t.Errorf("step %d: two workloads have %s", h.steps, a)
			}
		}
		h.dirty[a] = true
	}
	h.attached[id] = e
	return 1, h.step()
}

func (h *host) WaitPod(_ context.Context, key api.Key, uid string) (Pod, error) {
	if key.Namespace != "shop" || key.Name != "node1-k8s-db--0-eth0" || uid != "uid-1" {
		h.t.Errorf("waiting for %s with UID %s", key, uid)
	}
	return h.pod, h.step()
}

func (h *host) WaitMember(_ context.Context, _ api.Key, _ string, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		h.t.Errorf("step %d: waiting for no address", h.steps)
	}
	return h.step()
}

func (h *host) LedgerRead(context.Context) error { return h.step() }

func (h *host) WaitSeen(ctx context.Context, key api.Key, revision string) (uint64, error) {
	if err := h.step(); err != nil {
		return 0, err
	}
	o, err := h.store.Get(ctx, key)
	if err != nil || o.GetResourceVersion() != revision {
		h.t.Errorf("step %d: waiting for %s at %s: %v %v", h.steps, key, revision, o, err)
	}
	return 1, nil
}

func (h *host) WaitEnforced(_ context.Context, id drivers.EndpointID, _, _ uint64) error {
	h.world.Lock()
	defer h.world.Unlock()
	if h.attached[id] == nil {
		h.t.Errorf("step %d: waiting for what nobody has told the graph of", h.steps)
	}
	return h.step()
}

func (h *host) WaitGone(_ context.Context, id drivers.EndpointID, _ uint64) error {
	h.world.Lock()
	defer h.world.Unlock()
	if h.attached[id] != nil && !h.crashed {
		h.t.Errorf("step %d: waiting in vain", h.steps)
	}
	return h.step()
}

func (h *host) CutFlows(_ context.Context, addrs []netip.Addr) error {
	h.world.Lock()
	defer h.world.Unlock()
	if err := h.step(); err != nil {
		return err
	}
	for _, a := range addrs {
		for _, e := range h.attached {
			if strings.Contains(fmt.Sprint(e.Addrs), a.String()) && !e.Chained {
				h.t.Errorf("step %d: flows of %s are cut while it can make new ones", h.steps, a)
			}
		}
		delete(h.dirty, a)
		h.clean[a] = true
	}
	return h.step()
}

func (h *host) Renew(context.Context) error {
	h.renewed++
	return h.step()
}

// crashStore crashes before or after each call.
type crashStore struct {
	*mem.Store
	h *host
}

func (s crashStore) Create(ctx context.Context, o api.Object) (api.Object, error) {
	s.h.mayWrite(api.KeyOf(o))
	if err := s.h.step(); err != nil {
		return nil, err
	}
	got, err := s.Store.Create(ctx, o)
	return got, errors.Join(err, s.h.step())
}

func (s crashStore) Update(ctx context.Context, o api.Object) (api.Object, error) {
	if err := s.h.step(); err != nil {
		return nil, err
	}
	if api.KeyOf(o).Kind == "IPAMBlock" {
		s.h.world.Lock()
		s.h.writes++
		s.h.world.Unlock()
	}
	got, err := s.Store.Update(ctx, o)
	return got, errors.Join(err, s.h.step())
}

// mayWrite checks that nobody writes what Kubernetes has by itself.
func (h *host) mayWrite(key api.Key) {
	if h.kube && key.Kind == "WorkloadEndpoint" {
		h.t.Errorf("step %d: a write of %s", h.steps, key)
	}
}

func (s crashStore) Txn(ctx context.Context, ops ...datastore.Op) error {
	for _, op := range ops {
		if s.h.mayWrite(op.Key); op.Object != nil {
			s.h.mayWrite(api.KeyOf(op.Object))
		}
	}
	if s.h.kube && len(ops) > 1 {
		s.h.t.Errorf("step %d: %d writes as one", s.h.steps, len(ops))
	}
	if err := s.h.step(); err != nil {
		return err
	}
	return errors.Join(s.Store.Txn(ctx, ops...), s.h.step())
}

func (s crashStore) Get(ctx context.Context, key api.Key) (api.Object, error) {
	if err := s.h.step(); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key)
}

func (s crashStore) Delete(ctx context.Context, key api.Key, revision string) error {
	if err := s.h.step(); err != nil {
		return err
	}
	return errors.Join(s.Store.Delete(ctx, key, revision), s.h.step())
}

func (h *host) weps() []api.Object {
	h.t.Helper()
	os, err := h.store.List(h.t.Context(), "WorkloadEndpoint", "")
	if err != nil {
		h.t.Fatal(err)
	}
	return os
}

// nothing checks that nothing is left.
func (h *host) nothing(w *Workloads, when string) {
	h.t.Helper()
	if len(h.links)+len(h.attached)+len(h.weps())+len(w.o.Ledger.List()) > 0 {
		h.t.Errorf("%s: left are links %v, graph %v, store %v, ledger %v", when, h.links, h.attached, h.weps(), w.o.Ledger.List())
	}
}

// plugged checks that sandbox s is plugged in, and nothing else.
func (h *host) plugged(w *Workloads, s, when string) {
	h.t.Helper()
	written := len(h.weps()) == 0
	if !h.kube {
		written = len(h.weps()) == 1 && h.weps()[0].(*api.WorkloadEndpoint).Spec.ContainerID == s
	}
	if len(h.links) != 1 || len(h.attached) != 1 || h.attached[endpointID(s)] == nil || !written || len(w.o.Ledger.List()) != 1 {
		h.t.Errorf("%s: there are links %v, graph %v, store %v, ledger %v", when, h.links, h.attached, h.weps(), w.o.Ledger.List())
	}
}

func endpointID(sandbox string) drivers.EndpointID {
	return drivers.EndpointID{Kind: drivers.Workload, Sandbox: sandbox, Interface: "eth0"}
}

func (h *host) attach(w *Workloads, sandbox string) error {
	f, err := os.Open(os.DevNull)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	r := agentapi.AttachRequest{Sandbox: sandbox, Interface: "eth0", Workload: agentapi.Workload{Name: "db-0"}}
	if h.kube {
		r.Workload = db0()
	}
	if !h.choose {
		r.Addresses = []netip.Addr{netip.MustParseAddr("10.65.0.2")}
	}
	_, err = w.Attach(h.t.Context(), r, f)
	return err
}

// db0 is a pod.
func db0() agentapi.Workload {
	return agentapi.Workload{Orchestrator: "k8s", Namespace: "shop", Name: "db-0", UID: "uid-1"}
}

func (h *host) detach(w *Workloads, sandbox string) error {
	return w.Detach(h.t.Context(), agentapi.DetachRequest{Sandbox: sandbox, Interface: "eth0"})
}

// TestCrashInAttach crashes at every step of an attach; then the caller asks again, or unplugs, or is never heard of again.
func TestCrashInAttach(t *testing.T) {
	withAndWithoutPools(t, crashInAttach)
}

func crashInAttach(t *testing.T, newHost func(*testing.T) *host) {
	for n := 1; ; n++ {
		crashed := false
		for _, then := range []string{"attach", "detach", "attach another", "nothing"} {
			h := newHost(t)
			w := h.begin()
			h.steps, h.crashAt = 0, n
			err := h.attach(w, "s1")
			if crashed = h.crashed; !crashed {
				if err != nil {
					t.Fatal(err)
				}
				h.plugged(w, "s1", "without a crash")
			} else if err == nil {
				t.Errorf("crash at step %d: answered", n)
			}
			when := fmt.Sprintf("crash at step %d, then %s", n, then)
			w = h.begin()
			switch then {
			case "attach":
				if err := h.attach(w, "s1"); err != nil {
					t.Errorf("%s: %v", when, err)
				}
				h.plugged(w, "s1", when)
			case "detach":
				if err := h.detach(w, "s1"); err != nil {
					t.Errorf("%s: %v", when, err)
				}
				w.finish(t.Context())
				// Without an entry nobody knows what the store has; there is none only before the ledger was written.
				h.nothing(w, when)
			case "nothing":
				// What is not plugged in is cleaned up by the ledger alone.
				if w.finish(t.Context()) {
					t.Errorf("%s: not finished", when)
				}
				if len(w.o.Ledger.List()) == 0 {
					h.nothing(w, when)
				}
			case "attach another":
				// The workload came again in another sandbox; the runtime unplugs the first.
				if err := h.detach(w, "s1"); err != nil {
					t.Errorf("%s: %v", when, err)
				}
				if err := h.attach(w, "s2"); err != nil {
					t.Errorf("%s: %v", when, err)
				}
				h.plugged(w, "s2", when)
			}
			h.audit(when)
		}
		if !crashed {
			if n < 12 {
				t.Errorf("an attach has only %d steps", n)
			}
			return
		}
	}
}

// TestCrashInDetach crashes at every step of a detach. What has begun is finished by the next start; and the next owner
// of the address can come.
func TestCrashInDetach(t *testing.T) {
	withAndWithoutPools(t, crashInDetach)
}

func crashInDetach(t *testing.T, newHost func(*testing.T) *host) {
	for n := 1; ; n++ {
		h := newHost(t)
		w := h.begin()
		if err := h.attach(w, "s1"); err != nil {
			t.Fatal(err)
		}
		h.steps, h.crashAt = 0, n
		err := h.detach(w, "s1")
		crashed := h.crashed
		if !crashed {
			if err != nil {
				t.Fatal(err)
			}
			h.nothing(w, "without a crash")
		}
		denied := h.attached[endpointID("s1")] == nil
		w = h.begin()
		when := fmt.Sprintf("crash at step %d", n)
		if denied && h.attached[endpointID("s1")] != nil {
			t.Errorf("%s: it was denied, and is let in again", when)
		}
		if e, ok := w.o.Ledger.Get(endpointID("s1")); ok && e.Phase != ledger.Plugged {
			if w.finish(t.Context()) {
				t.Errorf("%s: not finished", when)
			}
			h.nothing(w, when)
		}
		if err := h.detach(w, "s1"); err != nil {
			t.Errorf("%s, again: %v", when, err)
		}
		h.nothing(w, when+", again")
		if err := h.attach(w, "s2"); err != nil {
			t.Errorf("%s, the next owner: %v", when, err)
		}
		h.plugged(w, "s2", when+", the next owner")
		h.audit(when)
		if !crashed {
			if n < 12 {
				t.Errorf("a detach has only %d steps", n)
			}
			return
		}
	}
}

// TestLostAnswer: the store has written the WorkloadEndpoint, but says that it can't be reached.
func TestLostAnswer(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	s := &lostAnswer{Store: h.store}
	w.o.Store = func() (datastore.Store, error) { return s, nil }
	if err := h.attach(w, "s1"); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("attach: %v", err)
	}
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
	h.nothing(w, "after an answer that was lost")
}

type lostAnswer struct{ *mem.Store }

func (s lostAnswer) Create(ctx context.Context, o api.Object) (api.Object, error) {
	if _, err := s.Store.Create(ctx, o); err != nil {
		return nil, err
	}
	return nil, datastore.ErrUnavailable
}

func TestAnotherSandboxKeepsItsEndpoint(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	// Someone has given the WorkloadEndpoint to another sandbox.
	o := h.weps()[0].(*api.WorkloadEndpoint)
	o.Spec.ContainerID = "s9"
	if _, err := h.store.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := h.detach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	if got := h.weps(); len(got) != 1 || len(w.o.Ledger.List()) != 0 {
		t.Errorf("%v %v", got, w.o.Ledger.List())
	}
}

func TestRestoreGivesUpWhatIsGone(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	e := w.o.Ledger.List()[0]
	e.BootID = "boot0"
	if err := w.o.Ledger.Put(e); err != nil {
		t.Fatal(err)
	}
	if h.begin(); h.attached[endpointID("s1")] == nil {
		t.Error("of an earlier boot, but its interface is there: given up")
	}
	clear(h.links)
	if w = h.begin(); len(h.attached) != 0 || w.finish(t.Context()) {
		t.Error("its interface is gone: kept")
	}
	h.nothing(w, "after a reboot")
}

// TestRunFinishes runs the goroutine: what the store did not let go is tried again.
func TestRunFinishes(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	h.store.Fail(datastore.ErrUnavailable)
	if err := h.detach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	if w.Backlog() != 1 || len(h.links) != 0 {
		t.Errorf("backlog %d, links %v", w.Backlog(), h.links)
	}
	h.store.Fail(nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	deadline := time.Now().Add(10 * time.Second)
	for w.Backlog() > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
	h.nothing(w, "in the end")
}

// stopping is an Attacher in an agent that is asked to end while it is at work.
type stopping struct {
	*host
	stop func()
}

func (s stopping) Attach(ctx context.Context, _ drivers.Attachment) (drivers.Attached, error) {
	s.stop()
	return drivers.Attached{}, fmt.Errorf("attaching: %w", ctx.Err())
}

func (s stopping) Detach(ctx context.Context, a drivers.Attachment) error {
	s.stop()
	return errors.Join(s.host.Detach(ctx, a), ctx.Err())
}

// TestStoppingAgent: a client whose request is cut short by the end of the agent is told to try again, not that it has failed.
func TestStoppingAgent(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	ctx, stop := context.WithCancel(t.Context())
	w.o.Attacher = stopping{h, stop}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = w.Attach(ctx, agentapi.AttachRequest{Sandbox: "s1", Interface: "eth0", Workload: agentapi.Workload{Name: "db-0"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.65.0.2")}}, f)
	if agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("attach: %v", err)
	}
	h.nothing(w, "after an attach that was cut short")
	w = h.begin()
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	ctx, stop = context.WithCancel(t.Context())
	w.o.Attacher = stopping{h, stop}
	if err := w.Detach(ctx, agentapi.DetachRequest{Sandbox: "s1", Interface: "eth0"}); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("detach: %v", err)
	}
}

// TestAttachAgainRestoresRoutes: an attach that makes the interface of a workload anew has the dataplane looked at; one that
// finds all as it was does not.
func TestAttachAgainRestoresRoutes(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	for _, want := range []int{0, 0} {
		if err := h.attach(w, "s1"); err != nil || h.renewed != want {
			t.Errorf("%v, looked at %d times, want %d", err, h.renewed, want)
		}
	}
	clear(h.links)
	if err := h.attach(w, "s1"); err != nil || h.renewed != 1 {
		t.Errorf("%v, looked at %d times after the interface was gone", err, h.renewed)
	}
}
