package drivertest_test

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// wrong is a driver that does something else than what it is told.
type wrong struct {
	drivers.Driver
	bend func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes)
}

func (w wrong) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	want, ch = w.bend(want, ch)
	return w.Driver.Apply(ctx, want, ch)
}

// wrongState bends what a driver is told to make.
func wrongState(bend func(*drivers.State)) func(*fakeHarness) {
	return func(h *fakeHarness) {
		h.wrap = func(d drivers.Driver) drivers.Driver {
			return wrong{d, func(s *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
				s = s.Clone()
				bend(s)
				return s, ch
			}}
		}
	}
}

// wrongHint bends what a driver is told of changes.
func wrongHint(bend func(*drivers.State, *drivers.Changes) *drivers.Changes) func(*fakeHarness) {
	return func(h *fakeHarness) {
		h.wrap = func(d drivers.Driver) drivers.Driver {
			return wrong{d, func(s *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
				if ch != nil {
					ch = bend(s, ch)
				}
				return s, ch
			}}
		}
	}
}

// wrongPacket bends what a dataplane makes of packets.
func wrongPacket(bend func(drivers.Packet) drivers.Packet) func(*fakeHarness) {
	return func(h *fakeHarness) { h.bend = bend }
}

// wrongRules bends every rule, and leaves those out for which it says false.
func wrongRules(bend func(*drivers.Rule) bool) func(*fakeHarness) {
	return wrongState(func(s *drivers.State) {
		for id, p := range s.Policies {
			c := *p
			for _, rules := range []*[]drivers.Rule{&c.In, &c.Out} {
				var kept []drivers.Rule
				for _, r := range *rules {
					if bend(&r) {
						kept = append(kept, r)
					}
				}
				*rules = kept
			}
			s.Policies[id] = &c
		}
	})
}

func bendSides(bend func(*drivers.Side)) func(*fakeHarness) {
	return wrongRules(func(r *drivers.Rule) bool {
		bend(&r.Match.Src)
		bend(&r.Match.Dst)
		return true
	})
}

func wrongEndpoints(bend func(*drivers.Endpoint)) func(*fakeHarness) {
	return wrongState(func(s *drivers.State) {
		for id, e := range s.Endpoints {
			c := *e
			bend(&c)
			s.Endpoints[id] = &c
		}
	})
}

// wrongLists bends every tier of every list.
func wrongLists(bend func(*drivers.TierPolicies)) func(*fakeHarness) {
	return wrongEndpoints(func(e *drivers.Endpoint) {
		for _, d := range []*drivers.Directions{&e.Policy.Normal, &e.Policy.Forward, &e.Policy.PreDNAT, &e.Policy.Untracked} {
			for _, l := range []**drivers.TierList{&d.In, &d.Out} {
				if *l == nil {
					continue
				}
				c := &drivers.TierList{Tiers: slices.Clone((*l).Tiers)}
				for i := range c.Tiers {
					bend(&c.Tiers[i])
				}
				*l = c
			}
		}
	})
}

type prefix = netip.Prefix

var (
	any6         = netip.MustParsePrefix("::/0")
	zeroAddrPort netip.AddrPort
)

func reversed[T any](xs []T) []T {
	xs = slices.Clone(xs)
	slices.Reverse(xs)
	return xs
}

// mistakes that a driver could make. The cases alone must find each.
var mistakes = map[string]func(*fakeHarness){
	"mixes up directions": wrongState(func(s *drivers.State) {
		for id, p := range s.Policies {
			c := *p
			c.In, c.Out = p.Out, p.In
			s.Policies[id] = &c
		}
	}),
	"mixes up source and destination": wrongRules(func(r *drivers.Rule) bool {
		r.Match.Src, r.Match.Dst = r.Match.Dst, r.Match.Src
		return true
	}),
	"keeps an endpoint's old address":              remembering(keepsAddresses),
	"loses the second of two overlapping prefixes": remembering(losesOverlapping),
	"leaks an address that two sets share":         remembering(sharesMembers),
	"ignores the first Apply":                      remembering(ignoresFirst),
	"forgets a negation: prefixes":                 bendSides(func(s *drivers.Side) { s.NotNets = nil }),
	"forgets a negation: sets":                     bendSides(func(s *drivers.Side) { s.NotSets = nil }),
	"forgets a negation: ports":                    bendSides(func(s *drivers.Side) { s.NotPorts = nil }),
	"forgets a negation: named ports":              bendSides(func(s *drivers.Side) { s.NotPortSets = nil }),
	"forgets named ports":                          bendSides(func(s *drivers.Side) { s.PortSets = nil }),
	"forgets services":                             bendSides(func(s *drivers.Side) { s.Services = nil }),
	"loses the second of two sets":                 bendSides(func(s *drivers.Side) { s.Sets = s.Sets[:min(1, len(s.Sets))] }),
	"loses the second of two services":             bendSides(func(s *drivers.Side) { s.Services = s.Services[:min(1, len(s.Services))] }),
	"ends ranges one too early": bendSides(func(s *drivers.Side) {
		s.Ports = slices.Clone(s.Ports)
		for i, r := range s.Ports {
			s.Ports[i].Last = max(r.First, r.Last-1)
		}
	}),
	"begins ranges one too late": bendSides(func(s *drivers.Side) {
		s.NotPorts = slices.Clone(s.NotPorts)
		for i, r := range s.NotPorts {
			s.NotPorts[i].First = min(r.First+1, r.Last)
		}
	}),
	"forgets source ports":          wrongRules(func(r *drivers.Rule) bool { r.Match.Src.Ports = nil; return true }),
	"forgets protocols":             wrongRules(func(r *drivers.Rule) bool { r.Match.Proto = nil; return true }),
	"forgets a negation: protocols": wrongRules(func(r *drivers.Rule) bool { r.Match.NotProto = nil; return true }),
	"forgets IP versions":           wrongRules(func(r *drivers.Rule) bool { r.Match.IPVersion = 0; return true }),
	"forgets ICMP":                  wrongRules(func(r *drivers.Rule) bool { r.Match.ICMP = nil; return true }),
	"forgets a negation: ICMP":      wrongRules(func(r *drivers.Rule) bool { r.Match.NotICMP = nil; return true }),
	"forgets HTTP":                  wrongRules(func(r *drivers.Rule) bool { r.Match.HTTP = nil; return true }),
	"treats Log as Allow": wrongRules(func(r *drivers.Rule) bool {
		if r.Action == drivers.Log {
			r.Action = drivers.Allow
		}
		return true
	}),
	"treats Pass as Allow": wrongRules(func(r *drivers.Rule) bool {
		if r.Action == drivers.Pass {
			r.Action = drivers.Allow
		}
		return true
	}),
	"goes on after Pass":                  wrongRules(func(r *drivers.Rule) bool { return r.Action != drivers.Pass }),
	"takes every tier's default for deny": wrongLists(func(t *drivers.TierPolicies) { t.Default = drivers.Deny }),
	"takes every tier's default for pass": wrongLists(func(t *drivers.TierPolicies) { t.Default = drivers.Pass }),
	"turns policies round": wrongLists(func(t *drivers.TierPolicies) {
		t.Policies = slices.Clone(t.Policies)
		slices.Reverse(t.Policies)
	}),
	"sorts policies by name": wrongLists(func(t *drivers.TierPolicies) {
		t.Policies = slices.SortedFunc(slices.Values(t.Policies), drivers.PolicyID.Compare)
	}),
	"enforces staged policies": wrongState(func(s *drivers.State) {
		for id, p := range s.Policies {
			c := *p
			c.Staged = false
			s.Policies[id] = &c
		}
	}),
	"forgets profiles":          wrongEndpoints(func(e *drivers.Endpoint) { e.Profiles = nil }),
	"turns profiles round":      wrongEndpoints(func(e *drivers.Endpoint) { e.Profiles = reversed(e.Profiles) }),
	"forgets source prefixes":   wrongEndpoints(func(e *drivers.Endpoint) { e.SourcePrefixes = nil }),
	"checks no MAC":             wrongEndpoints(func(e *drivers.Endpoint) { e.MAC = drivers.MAC{} }),
	"checks no IPv6 source":     wrongEndpoints(func(e *drivers.Endpoint) { e.SourcePrefixes = append(slices.Clone(e.SourcePrefixes), any6) }),
	"forgets forward policy":    wrongEndpoints(func(e *drivers.Endpoint) { e.Policy.Forward = drivers.Directions{} }),
	"forgets pre-DNAT policy":   wrongEndpoints(func(e *drivers.Endpoint) { e.Policy.PreDNAT = drivers.Directions{} }),
	"forgets untracked policy":  wrongEndpoints(func(e *drivers.Endpoint) { e.Policy.Untracked = drivers.Directions{} }),
	"forwards by Normal policy": wrongEndpoints(func(e *drivers.Endpoint) { e.Policy.Forward = e.Policy.Normal }),
	"forgets deny stand-ins":    wrongEndpoints(func(e *drivers.Endpoint) { e.Degraded = "" }),
	"forgets failsafes":         wrongState(func(s *drivers.State) { s.Node.FailsafeIn, s.Node.FailsafeOut = nil, nil }),
	"knows no VXLAN port":       wrongState(func(s *drivers.State) { s.Node.VXLANPort = 0 }),
	"lets tunnels of workloads": wrongState(func(s *drivers.State) { s.Node.AllowEncapFromWorkloads = true }),
	"knows no tunnels": wrongState(func(s *drivers.State) {
		maps.DeleteFunc(s.Routes, func(_ prefix, r *drivers.Route) bool { return r.Encap != drivers.EncapNone })
	}),
	"makes no routes": wrongState(func(s *drivers.State) {
		maps.DeleteFunc(s.Routes, func(_ prefix, r *drivers.Route) bool { return r.Encap == drivers.EncapNone })
	}),
	"translates no floating address": wrongState(func(s *drivers.State) {
		for id, e := range s.Endpoints {
			c := *e
			c.Floating = nil
			s.Endpoints[id] = &c
		}
	}),
	"masquerades nothing":  wrongState(func(s *drivers.State) { s.Masquerade = drivers.Masquerade{} }),
	"masquerades too much": wrongState(func(s *drivers.State) { s.Masquerade.Except = nil }),
	"accepts for the host": wrongState(func(s *drivers.State) { s.Node.EndpointToHost = drivers.ToHostAccept }),
	"takes unknown for the host": func(h *fakeHarness) {
		wrongState(func(s *drivers.State) { s.Node.WorkloadPrefixes = nil })(h)
		wrongPacket(unknownIsHost)(h)
	},
	"lets invalid packets pass":     wrongPacket(func(p drivers.Packet) drivers.Packet { return ct(p, drivers.CTInvalid, drivers.CTNew) }),
	"judges established flows anew": wrongPacket(func(p drivers.Packet) drivers.Packet { return ct(p, drivers.CTEstablished, drivers.CTNew) }),
	"drops ICMP errors":             wrongPacket(func(p drivers.Packet) drivers.Packet { return ct(p, drivers.CTRelated, drivers.CTNew) }),
	"lets what is untracked pass": wrongPacket(func(p drivers.Packet) drivers.Packet {
		return ct(p, drivers.CTUntracked, drivers.CTEstablished)
	}),
	"sees no translation": wrongPacket(func(p drivers.Packet) drivers.Packet {
		p.OrigDst = zeroAddrPort
		return p
	}),
	"judges before translation": wrongPacket(func(p drivers.Packet) drivers.Packet {
		if p.OrigDst.IsValid() {
			p.Dst, p.DstPort = p.OrigDst.Addr(), p.OrigDst.Port()
		}
		return p
	}),
	"gives UDPLite ports": wrongPacket(func(p drivers.Packet) drivers.Packet {
		if p.Proto == 136 {
			p.Proto = 17
		}
		return p
	}),
	"sees no ICMP code": wrongPacket(func(p drivers.Packet) drivers.Packet {
		p.ICMPCode = 0
		return p
	}),
	"sees no hop limit": wrongPacket(func(p drivers.Packet) drivers.Packet {
		p.HopLimit = 64
		return p
	}),
	"leaks a member": wrongHint(func(s *drivers.State, ch *drivers.Changes) *drivers.Changes {
		for _, sc := range ch.Sets {
			sc.Removed = nil
		}
		return ch
	}),
	"misses policies that change": wrongHint(func(s *drivers.State, ch *drivers.Changes) *drivers.Changes {
		ch.Policies = map[drivers.PolicyID]struct{}{}
		return ch
	}),
	"misses endpoints that go": wrongHint(func(s *drivers.State, ch *drivers.Changes) *drivers.Changes {
		maps.DeleteFunc(ch.Endpoints, func(id drivers.EndpointID, _ struct{}) bool { return s.Endpoints[id] == nil })
		return ch
	}),
	"misses routes that move": wrongHint(func(s *drivers.State, ch *drivers.Changes) *drivers.Changes {
		clear(ch.Routes)
		return ch
	}),
	"misses what the node says": wrongHint(func(s *drivers.State, ch *drivers.Changes) *drivers.Changes {
		ch.Node = false
		return ch
	}),
}

func ct(p drivers.Packet, was, is drivers.CTState) drivers.Packet {
	if p.CT == was && !p.ARP {
		p.CT = is
	}
	return p
}

// unknownIsHost takes an unknown interface for one of the host.
func unknownIsHost(p drivers.Packet) drivers.Packet {
	for _, pl := range []*drivers.Place{&p.From, &p.To} {
		if pl.Kind == drivers.PlaceUnknown {
			pl.Kind = drivers.PlaceHostIface
		}
	}
	return p
}
