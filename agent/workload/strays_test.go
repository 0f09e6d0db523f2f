package workload

import (
	"testing"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// TestStrays: a write that comes after its own undoing is deleted; what stands for something, or was written by people, is
// not.
func TestStrays(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	plugged := h.weps()[0].(*api.WorkloadEndpoint)
	put := func(name string, change func(*api.WorkloadEndpoint)) {
		t.Helper()
		o := *plugged
		o.Name, o.ResourceVersion, o.UID = name, "", ""
		change(&o)
		if _, err := h.store.Create(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
	}
	late := func(sandbox string) func(*api.WorkloadEndpoint) {
		return func(o *api.WorkloadEndpoint) {
			o.Spec.ContainerID, o.Spec.InterfaceName = sandbox, ledger.HostIface("tort", sandbox, "eth0")
		}
	}
	put("late", late("s2"))
	put("late-of-another-name", late("s1"))
	put("by-hand", func(o *api.WorkloadEndpoint) { o.Spec.InterfaceName = "tort-mine" })
	put("elsewhere", func(o *api.WorkloadEndpoint) { late("s3")(o); o.Spec.Node = "node2" })
	// Its delete has begun, so that the late write may come after it.
	leaving := ledger.Entry{Sandbox: "s4", Interface: "eth0", Namespace: "default", Name: "leaving", Phase: ledger.Gone}
	if err := w.o.Ledger.Put(leaving); err != nil {
		t.Fatal(err)
	}
	put("leaving", late("s4"))
	for _, o := range h.weps() {
		w.Saw(o)
	}
	if err := w.o.Ledger.Remove(endpointID("s4")); err != nil {
		t.Fatal(err)
	}
	// Seen as a stray, but plugged in before it is its turn.
	w.strays.put(api.KeyOf(plugged), drivers.EndpointID{Kind: drivers.Workload, Sandbox: "s1", Interface: "eth0"})
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
	left := map[string]bool{}
	for _, o := range h.weps() {
		left[o.GetName()] = true
	}
	if len(left) != 3 || !left[plugged.Name] || !left["by-hand"] || !left["elsewhere"] {
		t.Errorf("left: %v", left)
	}
	if n := len(w.strays.all()); n != 0 {
		t.Errorf("%d strays are remembered", n)
	}
}
