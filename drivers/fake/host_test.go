package fake_test

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/fake"
)

func attachment() drivers.Attachment {
	return drivers.Attachment{ID: endpointID(1), HostIface: "tort1", Addrs: []netip.Addr{addr(1), netip.MustParseAddr("fd00::1")}}
}

func TestAttach(t *testing.T) {
	w := fake.NewWorld()
	d, a := open(t, w), attachment()
	if err := d.Check(t.Context(), a); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Check before Attach: %v", err)
	}
	got, err := d.Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if got.HostIface != "tort1" || got.MTU != 1500 || got.MAC == (drivers.MAC{}) || got.MAC[0]&3 != 2 || len(got.Gateways) != 2 {
		t.Errorf("attached %+v", got)
	}
	again, err := d.Attach(t.Context(), a)
	if err != nil || cmp.Diff(got, again, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) != "" {
		t.Errorf("attached again: %+v, %v", again, err)
	}
	if err := d.Check(t.Context(), a); err != nil {
		t.Errorf("Check: %v", err)
	}
	if reaches(w, 1, 80) {
		t.Error("traffic passes before an Apply knows the endpoint")
	}
	other := a
	other.MTU, other.Addrs = 1400, a.Addrs[:1]
	if err := d.Check(t.Context(), other); err == nil {
		t.Error("Check sees no difference")
	}
	if got, err := d.Attach(t.Context(), other); err != nil || got.MTU != 1400 || len(got.Gateways) != 1 {
		t.Errorf("attached otherwise: %+v, %v", got, err)
	}
	stranger := a
	stranger.ID = endpointID(2)
	if err := d.Detach(t.Context(), stranger); err != nil || len(w.Links()) != 1 {
		t.Errorf("another's Detach: %v, %v", err, w.Links())
	}
	for range 2 {
		if err := d.Detach(t.Context(), a); err != nil || len(w.Links()) != 0 {
			t.Errorf("Detach: %v, %v", err, w.Links())
		}
	}
	if _, err := d.Attach(t.Context(), drivers.Attachment{HostIface: "tort1"}); err == nil {
		t.Error("attached without an address")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = d.Attach(cancelled, a)
	for what, err := range map[string]error{"Attach": err, "Detach": d.Detach(cancelled, a), "Check": d.Check(cancelled, a),
		"CutFlows": d.CutFlows(cancelled, nil), "Clean": d.Clean(cancelled)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", what, err)
		}
	}
}

func TestWatchHost(t *testing.T) {
	w := fake.NewWorld()
	w.SetHost([]drivers.HostIface{{Name: "eth0", Index: 2, Up: true}, {Name: "ztun", Index: 3}})
	d := open(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen, done := make(chan []string), make(chan error, 1)
	go func() {
		done <- d.WatchHost(ctx, func(ifaces []drivers.HostIface) {
			var names []string
			for _, i := range ifaces {
				names = append(names, i.Name)
			}
			select {
			case seen <- names:
			case <-ctx.Done():
			}
		})
	}()
	expect := func(want ...string) {
		t.Helper()
		if got := <-seen; cmp.Diff(want, got) != "" {
			t.Errorf("interfaces %v, want %v", got, want)
		}
	}
	expect("eth0", "ztun")
	if _, err := d.Attach(t.Context(), attachment()); err != nil {
		t.Fatal(err)
	}
	expect("eth0", "tort1", "ztun")
	w.SetHost(nil)
	expect("tort1")
	w.Reboot()
	expect()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("WatchHost ended with %v", err)
	}
}

func TestCountersCutsKicksAndMetrics(t *testing.T) {
	kicks, writes := 0, 0.0
	w, want := fake.NewWorld(), newState()
	d, err := fake.Open(t.Context(), drivers.Options{
		Kick:    func() { kicks++ },
		Metrics: func(name string, delta float64) { writes += delta },
	}, w)
	if err != nil {
		t.Fatal(err)
	}
	var seen []drivers.ObjectRef
	w.OnWrite(func(_ int, o drivers.ObjectRef) { seen = append(seen, o) })
	apply(t, d, want, nil)
	if int(writes) != w.Writes() || len(seen) != w.Writes() || seen[len(seen)-1] != endpointRef(2) {
		t.Errorf("%v writes counted, %v seen, of %d", writes, seen, w.Writes())
	}
	reaches(w, 1, 80)
	reaches(w, 1, 80)
	reaches(w, 1, 81)
	got := map[drivers.RuleID]drivers.Count{}
	for id, c := range d.Counters(t.Context()) {
		got[id] = c
	}
	if diff := cmp.Diff(map[drivers.RuleID]drivers.Count{want.Policies[policyID(1)].In[0].ID: {Packets: 2}}, got); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if err := d.CutFlows(t.Context(), []netip.Addr{addr(1)}); err != nil || len(w.Cut()) != 1 || w.Cut()[0] != addr(1) {
		t.Errorf("cut %v, %v", w.Cut(), err)
	}
	w.Kick()
	d.Close()
	w.Kick()
	if kicks != 1 {
		t.Errorf("%d kicks", kicks)
	}
	w.Reboot()
	holds(t, w, drivers.NewState())
}
