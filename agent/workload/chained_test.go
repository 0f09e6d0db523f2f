package workload

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// finding is a driver that finds one interface of another plugin, and must make and remove none.
type finding struct {
	*testing.T
	made drivers.Attached
}

func (f *finding) Find(context.Context, drivers.Attachment) (drivers.Attached, error) {
	return f.made, nil
}

func (f *finding) Attach(context.Context, drivers.Attachment) (drivers.Attached, error) {
	f.Error("an interface was made")
	return f.made, nil
}

func (f *finding) Detach(_ context.Context, a drivers.Attachment) error {
	if a.HostIface == f.made.HostIface {
		f.Error("another's interface was removed")
	}
	return nil
}

func (f *finding) Check(context.Context, drivers.Attachment) error {
	f.Error("another's interface was compared with ours")
	return nil
}

// TestChainedAttach: what another plugin has made is let in and closed again, and is otherwise left alone.
func TestChainedAttach(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	f := &finding{T: t, made: drivers.Attached{HostIface: "veth7", MAC: drivers.MAC{2, 0, 0, 0, 0, 7}, MTU: 1400}}
	w.o.Attacher = f
	r := agentapi.AttachRequest{Sandbox: "s7", Interface: "eth0", Chained: true, Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.7")}}
	id := drivers.EndpointID{Kind: drivers.Workload, Sandbox: "s7", Interface: "eth0"}
	for range 2 {
		if _, err := h.ask(w, r); err != nil {
			t.Fatal(err)
		}
	}
	e := h.attached[id]
	if e == nil || !e.Chained || e.Iface != "veth7" || e.MAC != f.made.MAC || !slices.Equal(e.Addrs, r.Addresses) {
		t.Errorf("the graph has %+v", e)
	}
	none := r
	none.Addresses = nil
	mac := r
	mac.MAC = "02:00:00:00:00:08"
	for _, bad := range []agentapi.AttachRequest{none, mac} {
		bad.Sandbox = "s8"
		if _, err := h.ask(w, bad); agentapi.CodeOf(err) != agentapi.CodeBadRequest {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	f.made.HostIface = "veth8"
	if _, err := h.ask(w, r); agentapi.CodeOf(err) != agentapi.CodeConflict {
		t.Errorf("another interface: %v", err)
	}
	f.made.HostIface = "veth7"
	if err := w.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "s7", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if _, left := w.o.Ledger.Get(id); left || h.attached[id] != nil {
		t.Error("it is still plugged in")
	}
}

// TestChainedOfAnotherBoot: another plugin may give an interface the same name after a reboot. Whose it was is given up, or both
// would be denied.
func TestChainedOfAnotherBoot(t *testing.T) {
	for boot, kept := range map[string]bool{"boot1": true, "boot0": false, "": true} {
		h := newHost(t)
		w := h.begin()
		w.o.Attacher = &finding{T: t, made: drivers.Attached{HostIface: "eni7"}}
		if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s7", Chained: true, Addresses: addrs("10.9.0.7")}); err != nil {
			t.Fatal(err)
		}
		e, _ := w.o.Ledger.Get(endpointID("s7"))
		e.BootID = boot
		if err := w.o.Ledger.Put(e); err != nil {
			t.Fatal(err)
		}
		_, w = h.restarted(w)
		if err := w.Restore(t.Context(), []drivers.HostIface{{Name: "eni7"}}); err != nil {
			t.Fatal(err)
		}
		if (h.attached[e.ID()] != nil) != kept {
			t.Errorf("of boot %q: the graph has %v", boot, h.attached)
		}
	}
}

// recorder is a dataplane that remembers what it was asked for, in order.
type recorder struct {
	*host
	refuse error // policy is not enforced
	log    []string
}

func (r *recorder) WaitEnforced(ctx context.Context, id drivers.EndpointID, generation, since uint64) error {
	if r.refuse != nil {
		return r.refuse
	}
	r.log = append(r.log, "enforced")
	return r.host.WaitEnforced(ctx, id, generation, since)
}

func (r *recorder) Renew(ctx context.Context) error {
	r.log = append(r.log, "renew")
	return r.host.Renew(ctx)
}

func (r *recorder) CutFlows(ctx context.Context, addrs []netip.Addr) error {
	r.log = append(r.log, "cut")
	return r.host.CutFlows(ctx, addrs)
}

// TestChainedFlowsBeforePolicy: an interface of another plugin passes packets before policy is there. Flows that begin then
// do not outlive that, whenever policy comes.
func TestChainedFlowsBeforePolicy(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	w.o.Attacher = &finding{T: t, made: drivers.Attached{HostIface: "veth7", MAC: drivers.MAC{2, 0, 0, 0, 0, 7}}}
	plane := &recorder{host: h, refuse: errors.New("the dataplane hangs")}
	w.o.Plane = plane
	r := agentapi.AttachRequest{Sandbox: "s7", Interface: "eth0", Chained: true, Addresses: addrs("10.9.0.7")}
	if _, err := h.ask(w, r); agentapi.CodeOf(err) != agentapi.CodeNotEnforced {
		t.Fatal(err)
	}
	if e, _ := w.o.Ledger.Get(endpointID("s7")); !e.OldFlows {
		t.Error("old flows are forgotten before there is policy")
	}
	_, w = h.restarted(w) // which forgets them neither
	w.o.Plane = plane
	if err := w.Restore(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if e, _ := w.o.Ledger.Get(endpointID("s7")); !e.OldFlows || h.attached[endpointID("s7")] == nil {
		t.Errorf("restored: %+v, graph %v: it is open without an endpoint", e, h.attached)
	}
	plane.refuse = nil
	for _, when := range []string{"again", "and again"} {
		plane.log = nil
		if _, err := h.ask(w, r); err != nil {
			t.Fatal(err)
		}
		if n := len(plane.log); n < 2 || plane.log[n-2] != "enforced" || plane.log[n-1] != "cut" {
			t.Errorf("%s: %v", when, plane.log)
		}
		if e, _ := w.o.Ledger.Get(endpointID("s7")); e.OldFlows {
			t.Errorf("%s: the cut is not noted", when)
		}
	}
}
