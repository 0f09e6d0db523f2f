package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/fake"
	"github.com/tortie/tortie/internal/agentapi"
)

// behind is a driver on a host where another plugin has made veth7.
type behind struct{ *fake.Driver }

func (behind) Find(context.Context, drivers.Attachment) (drivers.Attached, error) {
	return drivers.Attached{HostIface: "veth7", MAC: drivers.MAC{2, 0, 0, 0, 0, 7}, MTU: 1500}, nil
}

// TestDamagedChained damages the ledger entry of a workload that another plugin has plugged in. Its interface has a name like
// any of the host's: it is closed all the same, over restarts, until it is attached again, or another has its interface.
func TestDamagedChained(t *testing.T) {
	n := newNode(t)
	n.world.SetHost([]drivers.HostIface{{Name: "eth0", Index: 2, Up: true, Addrs: n.cfg.NodeAddresses}, {Name: "veth7", Index: 3, Up: true}})
	n.create(allowIngress("web", "web", "203.0.113.0/24"))
	restart := func() {
		t.Helper()
		if err := n.kill(); err != nil {
			t.Fatal(err)
		}
		d := n.deps()
		d.OpenDriver = func(ctx context.Context, o drivers.Options) (drivers.Driver, error) {
			f, err := fake.Open(ctx, o, n.world)
			return behind{f}, err
		}
		n.startWith(d)
		n.ready()
	}
	damage := func() {
		t.Helper()
		n.eventually("the State is persisted", func() error {
			if st := n.status(); st.Persisted.Bytes == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		if err := n.kill(); err != nil { // which persists what has changed last
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(n.cfg.StateDir, "ledger", "*.entry"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%v, %v", files, err)
		}
		if err := os.Truncate(files[0], 40); err != nil {
			t.Fatal(err)
		}
		restart()
	}
	open := func(when string, want bool) {
		t.Helper()
		if n.allowed("203.0.113.9", "veth7", "10.9.0.7") != want || n.allowed("198.51.100.9", "veth7", "10.9.0.7") {
			t.Errorf("%s: policy is not enforced:\n%s", when, n.world.Dump())
		}
		if out := n.world.Evaluate(drivers.Packet{From: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "veth7"}, To: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"},
			Src: netip.MustParseAddr("10.9.0.7"), Dst: netip.MustParseAddr("203.0.113.9"), Proto: 6, SrcPort: 80, DstPort: 1024}); !want && out.Verdict == drivers.VerdictAllow {
			t.Errorf("%s: it can send", when)
		}
		if es := n.status().Endpoints; len(es) != 1 || es[0].HostIface != "veth7" || es[0].Enforced != want {
			t.Errorf("%s: %+v", when, es)
		}
	}
	attach := func(name string) {
		t.Helper()
		r := request("web", "10.9.0.7")
		r.Sandbox, r.Chained = name, true
		if _, err := n.attach(r); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	attach("s1")
	open("attached", true)
	damage()
	open("its entry is damaged", false)
	n.eventually("what is established is cut", func() error {
		if cut := n.world.Cut(); len(cut) < 2 { // the first by the attach
			return fmt.Errorf("%v", cut)
		}
		return nil
	})
	restart()
	open("after another restart", false)
	if why := fmt.Sprint(n.status().Problems); !strings.Contains(why, "the ledger has lost it") {
		t.Errorf("nobody is told: %s", why)
	}
	attach("s1")
	open("attached again", true)
	damage()
	attach("s2")
	open("another has its interface", true)
	damage()
	if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "s2", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	n.eventually("it is gone", func() error {
		if es := n.status().Endpoints; len(es) > 0 {
			return fmt.Errorf("%+v", es)
		}
		return nil
	})
	attach("s3")
	damage()
	n.world.SetHost([]drivers.HostIface{{Name: "eth0", Index: 2, Up: true, Addrs: n.cfg.NodeAddresses}})
	restart()
	if es := n.status().Endpoints; len(es) > 0 {
		t.Errorf("its interface is gone: %+v", es)
	}
}
