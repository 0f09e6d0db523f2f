package drivertest_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
	"github.com/tortie/tortie/drivers/fake"
)

// fakeHarness sends packets through a fake.World, which keeps its own State and asks the oracle about it.
type fakeHarness struct {
	features drivers.Features
	world    *fake.World
	fault    drivertest.Fault
	writes   int // of earlier worlds

	// wrap, if set, comes between the suite and the driver: to see the suite find what is wrong with it.
	wrap func(drivers.Driver) drivers.Driver
	// bend, if set, changes the packet that the World is asked about.
	bend func(drivers.Packet) drivers.Packet
	// meddle, if set, comes between the suite and the World: it may change what probes meet.
	meddle    func(held *drivers.State, open bool)
	open      atomic.Bool
	restarted bool // the driver has been opened over what another left
}

func newFakeHarness(f drivers.Features) *fakeHarness {
	f.Atomic = false // see fake.NewWorld
	h := &fakeHarness{features: f}
	h.reset()
	return h
}

// reset makes a new World, with a route in it that is not ours.
func (h *fakeHarness) reset() {
	h.world = fake.NewWorld()
	h.world.AddForeign(drivers.ObjectRef{Kind: drivers.ObjRoute, Route: netip.MustParsePrefix("192.0.2.0/24")}, "via 172.20.0.254")
	h.Fail(h.fault)
}

func (h *fakeHarness) Open(ctx context.Context, fresh bool) (drivers.Driver, error) {
	if fresh {
		h.writes += h.world.Writes()
		h.reset()
	}
	h.restarted = !fresh
	h.world.SetFeatures(h.features)
	d, err := fake.Open(ctx, drivers.Options{}, h.world)
	if err != nil {
		return nil, err
	}
	h.open.Store(true)
	opened := drivers.Driver(closing{d, &h.open})
	if h.wrap != nil {
		opened = h.wrap(opened)
	}
	return opened, nil
}

// closing notes that its driver is closed.
type closing struct {
	drivers.Driver
	open *atomic.Bool
}

func (d closing) Close() error {
	d.open.Store(false)
	return d.Driver.Close()
}

func (h *fakeHarness) Verdict(_ context.Context, ps []drivertest.Probe) ([]drivertest.Result, error) {
	held := h.world.State()
	if h.meddle != nil {
		h.meddle(held, h.open.Load())
	}
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
		if ext := pk.OrigDst.Addr(); inAny(drivertest.FloatingRange, ext) {
			if held.Destination(ext) != pk.Dst {
				rs[i] = drivertest.Result{}
				continue
			}
			if pk.From == pk.To && pk.Src == pk.Dst {
				rs[i].Src = ext
			}
		}
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

func (h *fakeHarness) Dump(context.Context) (drivertest.Dump, error) {
	ours, foreign, _ := strings.Cut(h.world.Dump(), "\nforeign route ")
	return drivertest.Dump{Ours: ours, Foreign: foreign, Writes: h.writes + h.world.Writes()}, nil
}

func (h *fakeHarness) Fail(f drivertest.Fault) {
	h.world.FailWrite(f.Write)
	h.world.Accept(h.fault.Refuse)
	if f.Refuse != (drivers.ObjectRef{}) {
		h.world.Refuse(f.Refuse, errors.New("the harness does not like it"))
	}
	h.fault = f
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
		"no early stages":  func(f *drivers.Features) { f.PreDNAT, f.Untracked = false, false },
		"no ports by name": func(f *drivers.Features) { f.NamedPorts, f.Services, f.AnyProto, f.SCTP = false, false, false, false },
		"no source check":  func(f *drivers.Features) { f.SourceCheck = false },
		"no tunnels, no NAT": func(f *drivers.Features) {
			f.Encaps, f.Masquerade, f.FloatingNAT = []drivers.Encap{drivers.EncapNone}, false, false
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := drivers.AllFeatures(name)
			cut(&f)
			drivertest.Run(t, newFakeHarness(f), drivertest.Options{Cases: cases, Random: 600, Walks: 1})
		})
	}
}
