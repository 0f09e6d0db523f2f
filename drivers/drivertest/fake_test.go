package drivertest_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
	"github.com/tortie/tortie/drivers/fake"
)

// fakeHarness sends packets through a fake.World, which keeps its own State and asks the oracle about it.
type fakeHarness struct {
	features drivers.Features
	world    *fake.World
	refused  drivers.ObjectRef
	writes   int // of earlier worlds

	// wrap, if set, comes between the suite and the driver: to see the suite find what is wrong with it.
	wrap func(drivers.Driver) drivers.Driver
	// bend, if set, changes the packet that the World is asked about.
	bend func(drivers.Packet) drivers.Packet
}

func newFakeHarness(f drivers.Features) *fakeHarness {
	return &fakeHarness{features: f, world: fake.NewWorld()}
}

func (h *fakeHarness) Open(ctx context.Context, fresh bool) (drivers.Driver, error) {
	if fresh {
		h.writes += h.world.Writes()
		h.world = fake.NewWorld()
		h.Refuse(h.refused)
	}
	h.world.SetFeatures(h.features)
	d, err := fake.Open(ctx, drivers.Options{}, h.world)
	if err == nil && h.wrap != nil {
		return h.wrap(d), nil
	}
	return d, err
}

func (h *fakeHarness) Probe(_ context.Context, ps []drivertest.Probe) ([]drivertest.Result, error) {
	held := h.world.State()
	ev := drivers.NewEvaluator(held)
	rs := make([]drivertest.Result, len(ps))
	for i, p := range ps {
		pk := p.Packet
		if h.bend != nil {
			pk = h.bend(pk)
		}
		v, noTrack := ev.Verdict(pk)
		if v == drivers.VerdictDeny || !routed(held, pk) {
			continue
		}
		rs[i] = drivertest.Result{Delivered: true, Src: pk.Src}
		if masquerades(held.Masquerade, pk) && !noTrack {
			rs[i].Src = held.Node.Addresses[map[bool]int{false: 0, true: 1}[pk.Src.Is6()]]
		}
	}
	return rs, nil
}

func inAny(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// routed plays the kernel's routing for what only Routes of the State lead to: the longest prefix wins.
func routed(s *drivers.State, p drivers.Packet) bool {
	if !inAny(drivertest.DriverRouted, p.Dst) {
		return true
	}
	var best *drivers.Route
	for _, r := range s.Routes {
		if r.Dst.Contains(p.Dst) && (best == nil || r.Dst.Bits() > best.Dst.Bits()) {
			best = r
		}
	}
	switch {
	case best == nil || best.Kind == drivers.RouteBlackhole:
		return false
	case best.Kind == drivers.RouteLocal:
		return best.Iface == p.To.Iface
	}
	for _, site := range drivertest.Sites() {
		if site.Place == p.To {
			return site.Owns(best.NextHop)
		}
	}
	return false
}

func masquerades(m drivers.Masquerade, p drivers.Packet) bool {
	return p.From.Kind != drivers.PlaceProcess && p.To.Kind == drivers.PlaceHostIface && p.CT == drivers.CTNew &&
		inAny(m.From, p.Src) && !inAny(m.Except, p.Dst)
}

func (h *fakeHarness) Dump(context.Context) (string, error) { return h.world.Dump(), nil }
func (h *fakeHarness) Writes() int                          { return h.writes + h.world.Writes() }
func (h *fakeHarness) FailWrite(n int)                      { h.world.FailWrite(n) }

func (h *fakeHarness) Refuse(o drivers.ObjectRef) {
	h.world.Accept(h.refused)
	if h.refused = o; o != (drivers.ObjectRef{}) {
		h.world.Refuse(o, errors.New("the harness does not like it"))
	}
}

// Tamper takes out an endpoint, empties a policy, or puts a stranger into a set.
func (h *fakeHarness) Tamper(_ context.Context, n uint64) (string, error) {
	what := ""
	h.world.Edit(func(s *drivers.State) {
		i := int(n/3) % 7
		switch n % 3 {
		case 0:
			for id := range s.Endpoints {
				if i--; i < 0 {
					delete(s.Endpoints, id)
					what = fmt.Sprintf("endpoint %s is taken out", id.Sandbox)
					return
				}
			}
		case 1:
			for id, p := range s.Policies {
				if i--; i < 0 {
					c := *p
					c.In, c.Out = nil, nil
					s.Policies[id] = &c
					what = fmt.Sprintf("policy %s is emptied", id)
					return
				}
			}
		}
		for id, set := range s.Sets {
			if set.Kind() == drivers.SetNet {
				s.Sets[id] = set.With([]drivers.Member{drivers.AddrMember(netip.MustParseAddr("10.20.7.1"))}, nil)
				what = fmt.Sprintf("set %s has one more member", id)
				return
			}
		}
	})
	return what, nil
}

func TestFake(t *testing.T) {
	drivertest.Run(t, newFakeHarness(drivers.AllFeatures("fake")), drivertest.Options{})
}

// TestFakeCutDown runs the suite against drivers that lack something. The expectations are lowered with them: what a
// driver cannot express denies where the written State denies, and the suite fails if it ever allows more.
func TestFakeCutDown(t *testing.T) {
	cases, err := drivertest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	for name, cut := range map[string]func(*drivers.Features){
		"nothing": func(f *drivers.Features) { *f = drivers.Features{Driver: "nothing"} },
		"IPv4 without negations": func(f *drivers.Features) {
			f.IPv6, f.NotICMP, f.NotProto, f.NotNets, f.NotPorts, f.NotSets = false, false, false, false, false, false
		},
		"ACLs of Windows": func(f *drivers.Features) {
			f.IPv6, f.Log, f.ICMPType, f.NotICMP, f.NotProto, f.NotNets, f.NotPorts, f.NotSets = false, false, false, false, false, false, false, false
			f.NamedPorts, f.SCTP, f.HostPolicy, f.Forward, f.PreDNAT, f.Untracked = false, false, false, false, false, false
		},
		"no host stages": func(f *drivers.Features) {
			f.HostPolicy, f.Forward, f.PreDNAT, f.Untracked = false, false, false, false
		},
		"no early stages":    func(f *drivers.Features) { f.PreDNAT, f.Untracked = false, false },
		"no ports by name":   func(f *drivers.Features) { f.NamedPorts, f.Services, f.AnyProto, f.SCTP = false, false, false, false },
		"no source check":    func(f *drivers.Features) { f.SourceCheck = false },
		"no tunnels, no NAT": func(f *drivers.Features) { f.Encaps, f.Masquerade = []drivers.Encap{drivers.EncapNone}, false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := drivers.AllFeatures(name)
			cut(&f)
			drivertest.Run(t, newFakeHarness(f), drivertest.Options{Cases: cases, Random: 600, Walks: 1})
		})
	}
}
