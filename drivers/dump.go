package drivers

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Dump writes s as text that is the same for equal States: one line for each thing, what belongs to it indented below,
// everything in order. It is for people and for tests, not for reading back: see EncodeState.
func Dump(w io.Writer, s *State) error {
	d := dumper{bufio.NewWriter(w)}
	d.node(&s.Node)
	if len(s.Masquerade.From)+len(s.Masquerade.Except) > 0 {
		d.line("masquerade", list("from", s.Masquerade.From), list("except", s.Masquerade.Except))
	}
	for _, k := range slices.Sorted(maps.Keys(s.Peers)) {
		d.peer(k, s.Peers[k])
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Routes), ComparePrefixes) {
		d.route(s.Routes[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.Sets)) {
		d.line("set", quoted(string(k)), s.Sets[k].Kind().String())
		for m := range s.Sets[k].All() {
			d.line(" ", m.String())
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Policies), PolicyID.Compare) {
		d.policy(k, s.Policies[k])
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Endpoints), EndpointID.Compare) {
		d.endpoint(k, s.Endpoints[k])
	}
	return d.Flush()
}

// String gives what Dump writes.
func (s *State) String() string {
	var b strings.Builder
	_ = Dump(&b, s) // a Builder takes everything
	return b.String()
}

// Compare orders by kind, namespace and name.
func (p PolicyID) Compare(o PolicyID) int {
	return cmp.Or(cmp.Compare(p.Kind, o.Kind), cmp.Compare(p.Namespace, o.Namespace), cmp.Compare(p.Name, o.Name))
}

// Compare orders by kind, sandbox and interface.
func (e EndpointID) Compare(o EndpointID) int {
	return cmp.Or(cmp.Compare(e.Kind, o.Kind), cmp.Compare(e.Sandbox, o.Sandbox), cmp.Compare(e.Interface, o.Interface))
}

// dumper writes lines. The bufio.Writer keeps the first error for Flush.
type dumper struct{ *bufio.Writer }

// line writes the words that are not empty.
func (d dumper) line(words ...string) {
	first := true
	for _, w := range words {
		if w == "" {
			continue
		}
		if !first {
			d.WriteByte(' ')
		}
		first = false
		d.WriteString(w)
	}
	d.WriteByte('\n')
}

func (d dumper) node(n *Node) {
	d.line("node", quoted(n.Name), list("addresses", n.Addresses), number("mtu", n.MTU), list("workloads", n.WorkloadPrefixes),
		"to-host="+n.EndpointToHost.String(), "service-nat="+n.ServiceNAT.String(), number("vxlan-port", int(n.VXLANPort)),
		onOff("cut-established", n.CutEstablished), onOff("workloads-may-encap", n.AllowEncapFromWorkloads))
	for _, f := range n.FailsafeIn {
		d.line("  failsafe in", f.String())
	}
	for _, f := range n.FailsafeOut {
		d.line("  failsafe out", f.String())
	}
}

func (d dumper) peer(name string, p *Peer) {
	d.line("peer", quoted(name), list("addresses", p.Addrs), mac("vtep", p.VTEPMAC), list("vtep-addresses", p.VTEPAddrs),
		text("wireguard", p.WireGuardKey))
}

func (d dumper) route(r *Route) {
	via := ""
	if r.NextHop.IsValid() {
		via = "via=" + r.NextHop.String()
	}
	enc := ""
	if r.Encap != EncapNone {
		enc = "encap=" + r.Encap.String()
	}
	d.line("route", r.Dst.String(), r.Kind.String(), text("iface", r.Iface), via, enc, text("peer", r.Peer), onOff("learned", r.Learned))
}

func (d dumper) policy(id PolicyID, p *Policy) {
	d.line("policy", quoted(id.String()), text("tier", p.Tier), onOff("staged", p.Staged))
	for i := range p.In {
		d.line("  in", strconv.Itoa(i), p.In[i].String())
	}
	for i := range p.Out {
		d.line("  out", strconv.Itoa(i), p.Out[i].String())
	}
}

func (d dumper) endpoint(id EndpointID, e *Endpoint) {
	kind := "workload"
	if id.Kind == HostInterface {
		kind = "host"
	}
	d.line("endpoint", kind, quoted(id.Sandbox)+"/"+quoted(id.Interface), text("name", e.Name), "iface="+quoted(e.Iface),
		mac("mac", e.MAC), list("addresses", e.Addrs), list("sources", e.SourcePrefixes), list("floating", e.Floating), list("profiles", e.Profiles),
		number("generation", int(e.Generation)), text("degraded", e.Degraded))
	for _, stage := range []struct {
		name string
		d    *Directions
	}{
		{"normal", &e.Policy.Normal}, {"forward", &e.Policy.Forward}, {"pre-dnat", &e.Policy.PreDNAT}, {"untracked", &e.Policy.Untracked},
	} {
		d.tiers(stage.name+" in", stage.d.In)
		d.tiers(stage.name+" out", stage.d.Out)
	}
}

func (d dumper) tiers(what string, l *TierList) {
	if l == nil {
		return
	}
	for _, t := range l.Tiers {
		d.line("  "+what, "tier="+quoted(t.Name), "default="+t.Default.String(), "order="+strconv.FormatFloat(t.Order, 'g', -1, 64),
			onOff("staged", t.Staged), list("policies", t.Policies))
	}
}

// quoted is s, in quotes if it would not stand as one word.
func quoted(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '=' || r == ',' }) {
		return strconv.Quote(s)
	}
	return s
}

func text(key, val string) string {
	if val == "" {
		return ""
	}
	return key + "=" + quoted(val)
}

func onOff(name string, on bool) string {
	if on {
		return name
	}
	return ""
}

func number(key string, n int) string {
	if n == 0 {
		return ""
	}
	return key + "=" + strconv.Itoa(n)
}

func mac(key string, m MAC) string {
	if m == (MAC{}) {
		return ""
	}
	return key + "=" + m.String()
}

func list[T any](key string, vs []T) string {
	if len(vs) == 0 {
		return ""
	}
	words := make([]string, len(vs))
	for i, v := range vs {
		words[i] = quoted(fmt.Sprint(v))
	}
	return key + "=" + strings.Join(words, ",")
}
