package drivertest

import (
	"net/netip"
	"reflect"

	"github.com/tortie/tortie/drivers"
)

// Diff returns the Changes between two States: the keys whose values differ, and of sets that are in both the members
// that came and went. It looks at values and not at pointers.
func Diff(old, now *drivers.State) *drivers.Changes {
	ch := drivers.NewChanges()
	ch.Node = !reflect.DeepEqual(old.Node, now.Node)
	ch.Masquerade = !reflect.DeepEqual(old.Masquerade, now.Masquerade)
	diffKeys(old.Endpoints, now.Endpoints, ch.Endpoints)
	diffKeys(old.Policies, now.Policies, ch.Policies)
	diffKeys(old.Routes, now.Routes, ch.Routes)
	diffKeys(old.Peers, now.Peers, ch.Peers)
	for id, set := range now.Sets {
		if was := old.Sets[id]; was == nil || was.Kind() != set.Kind() {
			ch.Sets[id] = &drivers.SetChange{Full: true}
		} else if !was.Equal(set) {
			ch.Sets[id] = &drivers.SetChange{Added: missing(set, was), Removed: missing(was, set)}
		}
	}
	for id := range old.Sets {
		if now.Sets[id] == nil {
			ch.Sets[id] = &drivers.SetChange{Full: true}
		}
	}
	return ch
}

func diffKeys[K comparable, V any](old, now map[K]*V, touched map[K]struct{}) {
	for k, v := range now {
		if was := old[k]; was == nil || was != v && !reflect.DeepEqual(was, v) {
			touched[k] = struct{}{}
		}
	}
	for k := range old {
		if now[k] == nil {
			touched[k] = struct{}{}
		}
	}
}

// missing returns the members of a that b has not.
func missing(a, b *drivers.Set) map[drivers.Member]struct{} {
	m := map[drivers.Member]struct{}{}
	for x := range a.All() {
		if !b.Has(x) {
			m[x] = struct{}{}
		}
	}
	return m
}

// masquerades reports whether s gives p an address of the node as its source, if p is allowed: a forwarded packet whose
// flow is new. (What the flow table holds already keeps what it began with; what is untracked is not translated.)
func masquerades(s *drivers.State, p drivers.Packet, noTrack bool) bool {
	forwarded := p.From.Kind != drivers.PlaceProcess && p.To.Kind == drivers.PlaceHostIface
	return forwarded && p.CT == drivers.CTNew && !noTrack && inAny(s.Masquerade.From, p.Src) && !inAny(s.Masquerade.Except, p.Dst)
}

func inAny(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
