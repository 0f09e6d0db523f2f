package drivertest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// caseText writes a case that shows what became of probes: scenes of States and verdict lines.
func caseText(doc string, scenes []Scene) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "%s\n", doc)
	for i, sc := range scenes {
		for _, e := range sc.Before {
			fmt.Fprintf(&sb, "-- %s --\n", e)
		}
		again := i > 0 && len(sc.Before) > 0 && sc.State == scenes[i-1].State
		if !again {
			fmt.Fprintf(&sb, "-- state --\n%s", stateText(sc.State))
		}
		if len(sc.Lines) > 0 || again {
			sb.WriteString("-- steps --\n")
		}
		for _, l := range sc.Lines {
			fmt.Fprintln(&sb, l.Text)
		}
	}
	return sb.String()
}

// stateText writes s as the lines of a "state" section that builds an equal State, for the States that the suite makes:
// endpoints of the topology, and tiers that are the same wherever they are named.
func stateText(s *drivers.State) string {
	w := &stateWriter{}
	w.node(s.Node)
	w.tiers(s)
	for _, id := range slices.Sorted(maps.Keys(s.Sets)) {
		w.set(id, s.Sets[id])
	}
	for _, id := range sortedKeys(s.Policies) {
		w.policy(s.Policies[id])
	}
	for _, id := range sortedKeys(s.Endpoints) {
		w.endpoint(s.Endpoints[id])
	}
	for _, dst := range slices.SortedFunc(maps.Keys(s.Routes), drivers.ComparePrefixes) {
		w.route(s.Routes[dst])
	}
	for _, name := range slices.Sorted(maps.Keys(s.Peers)) {
		w.peer(s.Peers[name])
	}
	if m := s.Masquerade; len(m.From)+len(m.Except) > 0 {
		w.line("masquerade", pair("from", list(m.From, prefixText)), pair("except", list(m.Except, prefixText)))
	}
	return w.String()
}

func sortedKeys[K comparable, V any](m map[K]V) []K {
	return slices.SortedFunc(maps.Keys(m), func(a, b K) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}

type stateWriter struct{ strings.Builder }

// line writes the words that are not empty.
func (w *stateWriter) line(words ...string) {
	words = slices.DeleteFunc(words, func(s string) bool { return s == "" })
	w.WriteString(strings.Join(words, " ") + "\n")
}

func pair(key, val string) string {
	if val == "" {
		return ""
	}
	return key + "=" + val
}

func flag(name string, on bool) string {
	if on {
		return name
	}
	return ""
}

func number(key string, n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s=%d", key, n)
}

func (w *stateWriter) node(n drivers.Node) {
	failsafe := func(f drivers.Failsafe) string {
		t := fmt.Sprintf("%s:%d", protoText(&f.Proto), f.Port)
		if f.Net.IsValid() {
			t += "@" + prefixText(f.Net)
		}
		return t
	}
	toHost := map[drivers.EndpointToHost]string{drivers.ToHostAccept: "accept", drivers.ToHostReturn: "return"}[n.EndpointToHost]
	w.line("node", pair("to-host", toHost), pair("failsafe-in", list(n.FailsafeIn, failsafe)),
		pair("failsafe-out", list(n.FailsafeOut, failsafe)), number("vxlan-port", int(n.VXLANPort)), number("mtu", n.MTU),
		flag("encap-from-workloads", n.AllowEncapFromWorkloads), flag("cut-established", n.CutEstablished),
		flag("own-services", n.ServiceNAT == drivers.ServiceNATOwn))
}

// endpointLists are the lists of an endpoint by the names that the DSL gives them.
func endpointLists(e *drivers.Endpoint) map[string]*drivers.TierList {
	m := map[string]*drivers.TierList{}
	for _, name := range hostLists {
		if l := *listOf(&e.Policy, name); l != nil {
			m[name] = l
		}
	}
	return m
}

// tiers writes the tiers in the order that the lists have them in, which is one order by Order and name.
func (w *stateWriter) tiers(s *drivers.State) {
	all := map[string]drivers.TierPolicies{}
	for _, e := range s.Endpoints {
		for _, l := range endpointLists(e) {
			for _, t := range l.Tiers {
				all[t.Name] = t
			}
		}
	}
	ts := slices.SortedFunc(maps.Values(all), func(a, b drivers.TierPolicies) int {
		if a.Order != b.Order {
			return map[bool]int{true: -1, false: 1}[a.Order < b.Order]
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, t := range ts {
		w.line("tier", t.Name, "default="+map[bool]string{true: "pass", false: "deny"}[t.Default == drivers.Pass])
	}
}

func (w *stateWriter) set(id drivers.SetID, set *drivers.Set) {
	words := []string{"set", string(id), "net"}
	if set.Kind() == drivers.SetPort {
		words[2] = "port"
	}
	for m := range set.All() {
		words = append(words, m.String())
	}
	w.line(words...)
}

func (w *stateWriter) policy(p *drivers.Policy) {
	if p.ID.Kind == drivers.KindProfile {
		w.line("profile", p.ID.Name)
	} else {
		w.line("policy", policyRef(p.ID), "tier="+p.Tier)
	}
	for _, r := range p.In {
		w.line("  in", ruleText(&r))
	}
	for _, r := range p.Out {
		w.line("  out", ruleText(&r))
	}
}

func (w *stateWriter) endpoint(e *drivers.Endpoint) {
	site, _ := siteOf(drivers.Place{Iface: e.Iface})
	words := []string{"host", e.Iface}
	if e.ID.Kind == drivers.Workload {
		words = []string{"workload", site.Name}
		if e.MAC != site.MAC {
			words = append(words, "mac="+macText(e.MAC))
		}
		if !slices.Equal(e.Addrs, site.Addrs) {
			words = append(words, "addrs="+list(e.Addrs, netip.Addr.String))
		}
		words = append(words, pair("sources", list(e.SourcePrefixes, prefixText)),
			pair("floating", list(e.Floating, drivers.Floating.String)))
	}
	lists := endpointLists(e)
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		var refs []string
		for _, t := range lists[name].Tiers {
			for _, id := range t.Policies {
				refs = append(refs, policyRef(id))
			}
		}
		words = append(words, pair(name, strings.Join(refs, ",")))
	}
	profile := func(id drivers.PolicyID) string { return id.Name }
	words = append(words, pair("profiles", list(e.Profiles, profile)), pair("degraded", e.Degraded))
	w.line(words...)
}

func (w *stateWriter) route(r *drivers.Route) {
	dst := prefixText(r.Dst)
	switch r.Kind {
	case drivers.RouteLocal:
		w.line("route", dst, "local", r.Iface)
	case drivers.RouteBlackhole:
		w.line("route", dst, "blackhole")
	default:
		encap := ""
		for name, e := range encaps {
			if e == r.Encap {
				encap = name
			}
		}
		w.line("route", dst, "remote", r.NextHop.String(), pair("peer", r.Peer), pair("encap", encap),
			pair("iface", r.Iface), flag("learned", r.Learned))
	}
}

func (w *stateWriter) peer(p *drivers.Peer) {
	vtep := ""
	if len(p.VTEPAddrs) > 0 {
		vtep = macText(p.VTEPMAC) + "@" + list(p.VTEPAddrs, netip.Addr.String)
	}
	w.line("peer", p.Name, list(p.Addrs, netip.Addr.String), pair("vtep", vtep), pair("wireguard", p.WireGuardKey))
}
