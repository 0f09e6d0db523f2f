package drivers

import (
	"fmt"
	"net/netip"
	"slices"
)

// valid returns an error if s holds values that no State has. Not a word about references: a driver meets those anyway.
func (s *State) valid() error {
	if err := goodAddrs(s.Node.Addresses); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	for _, f := range slices.Concat(s.Node.FailsafeIn, s.Node.FailsafeOut) {
		if f.Net != (netip.Prefix{}) && !goodPrefix(f.Net) {
			return fmt.Errorf("node: failsafe %s: bad prefix", f)
		}
	}
	if err := goodPrefixes(s.Masquerade.From, s.Masquerade.Except); err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	for _, p := range s.Peers {
		if err := goodAddrs(p.Addrs, p.VTEPAddrs); err != nil {
			return fmt.Errorf("peer %s: %w", p.Name, err)
		}
	}
	for _, r := range s.Routes {
		if !goodPrefix(r.Dst) || r.NextHop != (netip.Addr{}) && !goodAddr(r.NextHop) {
			return fmt.Errorf("route to %s: bad addresses", r.Dst)
		}
	}
	for _, e := range s.Endpoints {
		if err := goodAddrs(e.Addrs); err != nil {
			return fmt.Errorf("endpoint %v: %w", e.ID, err)
		}
		if err := goodPrefixes(e.SourcePrefixes); err != nil {
			return fmt.Errorf("endpoint %v: %w", e.ID, err)
		}
		for _, f := range e.Floating {
			if !goodAddr(f.External) || !goodAddr(f.Internal) || f.External.Is4() != f.Internal.Is4() {
				return fmt.Errorf("endpoint %v: floating address %v", e.ID, f)
			}
		}
	}
	for _, p := range s.Policies {
		for i, r := range slices.Concat(p.In, p.Out) {
			if err := r.Match.valid(); err != nil {
				return fmt.Errorf("policy %s, rule %d: %w", p.ID, i, err)
			}
		}
	}
	return nil
}

func (m *Match) valid() error {
	if m.IPVersion != 0 && m.IPVersion != 4 && m.IPVersion != 6 {
		return fmt.Errorf("IP version %d", m.IPVersion)
	}
	for _, s := range []*Side{&m.Src, &m.Dst} {
		if err := goodPrefixes(s.Nets, s.NotNets); err != nil {
			return err
		}
		for _, r := range slices.Concat(s.Ports, s.NotPorts) {
			if r.First > r.Last {
				return fmt.Errorf("ports %s", r)
			}
		}
	}
	return nil
}

func goodAddr(a netip.Addr) bool { return a.IsValid() && a == plain(a) }

func goodPrefix(p netip.Prefix) bool { return p.IsValid() && goodAddr(p.Addr()) && p == p.Masked() }

func goodAddrs(lists ...[]netip.Addr) error {
	for _, a := range slices.Concat(lists...) {
		if !goodAddr(a) {
			return fmt.Errorf("bad address %q", a)
		}
	}
	return nil
}

func goodPrefixes(lists ...[]netip.Prefix) error {
	for _, p := range slices.Concat(lists...) {
		if !goodPrefix(p) {
			return fmt.Errorf("bad prefix %q", p)
		}
	}
	return nil
}
