package workload

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// meddler is a host where something happens at the first call of Attached, or at the first of CutFlows.
type meddler struct {
	*host
	atAttached, atCut func()
	read              bool // the ledger
}

func (m *meddler) LedgerRead(ctx context.Context) error {
	m.read = true
	return m.host.LedgerRead(ctx)
}

func (m *meddler) Attached(ctx context.Context, id drivers.EndpointID, e *calcgraph.LedgerEntry) (uint64, error) {
	if fn := m.atAttached; fn != nil {
		m.atAttached = nil
		fn()
	}
	return m.host.Attached(ctx, id, e)
}

func (m *meddler) CutFlows(ctx context.Context, addrs []netip.Addr) error {
	if fn := m.atCut; fn != nil {
		m.atCut = nil
		fn()
	}
	return m.host.CutFlows(ctx, addrs)
}

// restarted is a start of the agent that has not come to Restore yet.
func (h *host) restarted(w *Workloads) (*meddler, *Workloads) {
	m := &meddler{host: h}
	h.attached = map[drivers.EndpointID]*calcgraph.LedgerEntry{}
	o := w.o
	o.Graph, o.Plane = m, m
	return m, New(o)
}

// two is a host with two workloads.
func two(t *testing.T) (*host, *Workloads) {
	t.Helper()
	h := newHost(t)
	w := h.begin()
	for s, a := range map[string]string{"s1": "10.65.0.2", "s2": "10.65.0.3"} {
		r := agentapi.AttachRequest{Sandbox: s, Workload: agentapi.Workload{Name: s}, Addresses: addrs(a)}
		if _, err := h.ask(w, r); err != nil {
			t.Fatal(err)
		}
	}
	return h, w
}

// TestDetachWhileRestoring: a workload that is unplugged while it is restored does not come back, neither to the graph nor
// to the ledger.
func TestDetachWhileRestoring(t *testing.T) {
	for _, at := range []string{"attached", "cut"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, w := two(t)
				first := w.o.Ledger.List()[0]
				first.OldFlows = at == "cut"
				if err := w.o.Ledger.Put(first); err != nil {
					t.Fatal(err)
				}
				m, w := h.restarted(w)
				meddle := func() {
					go func() {
						if err := h.detach(w, first.Sandbox); err != nil {
							t.Error(err)
						}
					}()
					synctest.Wait() // until it is done, or waits
				}
				if at == "cut" {
					m.atCut = meddle
				} else {
					m.atAttached = meddle
				}
				if err := w.Restore(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if _, left := w.o.Ledger.Get(first.ID()); left || h.attached[first.ID()] != nil {
					t.Error("it has come back")
				}
				if len(h.attached) != 1 || len(w.o.Ledger.List()) != 1 || w.o.Ledger.List()[0].Phase != ledger.Plugged {
					t.Errorf("ledger %v, graph %v", w.o.Ledger.List(), h.attached)
				}
			})
		})
	}
}

// TestRestoreOnAFullDisk: what has to be written first stays closed, and is written when there is room. All others are
// restored.
func TestRestoreOnAFullDisk(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	f := &finding{T: t, made: drivers.Attached{HostIface: "veth7", MAC: drivers.MAC{2, 0, 0, 0, 0, 7}}}
	for i, s := range []string{"noted", "gone", "interrupted", "well", "chained"} {
		w.o.Attacher = h
		r := agentapi.AttachRequest{Sandbox: s, Workload: agentapi.Workload{Name: s}, Addresses: addrs(fmt.Sprint("10.65.0.", i+2))}
		if r.Chained = s == "chained"; r.Chained {
			w.o.Attacher = f
		}
		if _, err := h.ask(w, r); err != nil {
			t.Fatal(err)
		}
		e, _ := w.o.Ledger.Get(endpointID(s))
		e.OldFlows = s == "interrupted"
		if s == "gone" {
			e.BootID = "boot0"
			delete(h.links, e.HostIface)
		}
		if err := w.o.Ledger.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	h.note("noted")
	h.note("chained")
	host := []drivers.HostIface{{Name: "veth7"}}
	for name := range h.links {
		host = append(host, drivers.HostIface{Name: name})
	}
	h.full = true
	m, w := h.restarted(w)
	w.o.Attacher = chainedHost{h, f}
	if err := w.Restore(t.Context(), host); err != nil || !m.read {
		t.Fatalf("%v; the ledger is read: %v", err, m.read)
	}
	if len(h.attached) != 2 || h.attached[endpointID("well")] == nil || h.attached[endpointID("chained")].Closed == "" {
		t.Errorf("the graph has %v", h.attached)
	}
	if !w.finish(t.Context()) {
		t.Error("nothing is left to do")
	}
	h.full = false
	if w.finish(t.Context()) {
		t.Error("something is left, though there is room")
	}
	h.noNotes("with room")
	var left []string
	for _, e := range w.o.Ledger.List() {
		left = append(left, e.Sandbox)
	}
	if len(h.attached) != 1 || !slices.Equal(left, []string{"interrupted", "well"}) {
		t.Errorf("the graph has %v, the ledger %v", h.attached, left)
	}
	if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "interrupted", Workload: agentapi.Workload{Name: "interrupted"}, Addresses: addrs("10.65.0.4")}); err != nil {
		t.Error(err)
	}
}

// chainedHost is a host with links of its own and one of another plugin.
type chainedHost struct {
	*host
	f *finding
}

func (c chainedHost) Find(ctx context.Context, a drivers.Attachment) (drivers.Attached, error) {
	return c.f.Find(ctx, a)
}
