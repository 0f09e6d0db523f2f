package drivertest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
)

// sighting is what one packet of a case shows.
type sighting struct {
	sc    Scene
	p     Probe
	trace drivers.Trace
}

// sightings are the packets of all cases.
func sightings(t *testing.T, cases []Case) []sighting {
	t.Helper()
	var all []sighting
	var ports batcher
	for _, c := range cases {
		for _, sc := range c.Scenes {
			for _, l := range sc.Lines {
				for _, p := range l.Probes {
					ports.assign(&p)
					all = append(all, sighting{sc, p, drivers.Evaluate(sc.State, p.Packet)})
				}
			}
		}
	}
	return all
}

func family(p drivers.Packet) string {
	return map[bool]string{false: "IPv4", true: "IPv6"}[p.Src.Is6()]
}

// TestCoverage proves what the suite says of itself: that its cases are many, and reach everything that policy can say.
func TestCoverage(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	lines, scenes := 0, 0
	for _, c := range cases {
		n := 0
		for _, sc := range c.Scenes {
			n += len(sc.Lines)
		}
		if n == 0 {
			t.Errorf("%s says nothing of any packet", c.Name)
		}
		if first, _, _ := strings.Cut(c.Doc, "\n"); !strings.HasSuffix(first, ".") {
			t.Errorf("%s: its first line is no sentence: %q", c.Name, first)
		}
		lines, scenes = lines+n, scenes+len(c.Scenes)
	}
	all := sightings(t, cases)
	t.Logf("%d cases, %d States, %d verdict lines, %d packets", len(cases), scenes, lines, len(all))
	if len(cases) < 250 || lines < 1500 {
		t.Errorf("%d cases with %d verdict lines; want at least 250 with 1500", len(cases), lines)
	}
	t.Run("ways", func(t *testing.T) { complete(t, ways(all), wantWays()) })
	t.Run("flow table", func(t *testing.T) { complete(t, flowTable(all), wantFlowTable()) })
	t.Run("clauses", func(t *testing.T) { complete(t, clauses(all), wantClauses()) })
	t.Run("stages", func(t *testing.T) { complete(t, stages(all), wantStages()) })
}

// complete reports the wanted cells that nothing was seen in.
func complete(t *testing.T, seen map[string]int, want []string) {
	t.Helper()
	for _, w := range want {
		if seen[w] == 0 {
			t.Errorf("no packet shows %q", w)
		}
	}
	t.Logf("%d cells wanted, %d seen", len(want), len(seen))
	if testing.Verbose() {
		for _, k := range slices.Sorted(maps.Keys(seen)) {
			t.Logf("%4d %s", seen[k], k)
		}
	}
}

// ways counts packets by step 7: from what to what, where the way ended and how.
func ways(all []sighting) map[string]int {
	seen := map[string]int{}
	for _, s := range all {
		from, to := s.p.Packet.From, s.p.Packet.To
		way := fmt.Sprintf("%s -> %s", from.Kind, to.Kind)
		if from == to {
			way = "workload -> itself"
			if from.Kind == drivers.PlaceHostIface {
				way = "iface -> itself"
			}
		}
		end := "no stage"
		for _, st := range s.trace.Steps {
			if !st.Staged && st.Outcome != "log" && st.Outcome != "no match" {
				end = fmt.Sprintf("%s %s", st.Stage, st.Outcome)
				if st.Stage == drivers.StageForward || st.Stage == drivers.StageHost {
					end = fmt.Sprintf("%s %s %s", st.Stage, map[bool]string{true: "in", false: "out"}[st.In], st.Outcome)
				}
			}
		}
		seen[fmt.Sprintf("%s, %s: %s", family(s.p.Packet), way, end)]++
	}
	return seen
}

// wantWays is the table of step 7, with every way that it can end, and the ways that step 3 cuts short.
func wantWays() []string {
	return append(perFamily(
		"workload -> workload: egress deny", "workload -> workload: ingress deny", "workload -> workload: ingress allow",
		"workload -> itself: egress allow",
		"workload -> process: egress deny", "workload -> process: endpoint-to-host allow",
		"workload -> process: endpoint-to-host deny", "workload -> process: host in allow", "workload -> process: host in deny",
		"workload -> iface: egress deny", "workload -> iface: egress allow", "workload -> iface: forward out deny",
		"workload -> iface: forward out allow",
		"iface -> workload: forward in deny", "iface -> workload: ingress deny", "iface -> workload: ingress allow",
		"iface -> iface: forward in deny", "iface -> iface: forward in allow", "iface -> iface: forward out deny",
		"iface -> iface: forward out allow", "iface -> iface: forward out continue", "iface -> iface: no stage",
		"iface -> process: failsafe allow", "iface -> process: host in allow", "iface -> process: host in deny",
		"process -> iface: failsafe allow", "process -> iface: host out allow", "process -> iface: host out deny",
		"process -> workload: ingress allow",
		"unknown -> workload: interface deny", "unknown -> process: interface deny", "unknown -> iface: interface deny",
		"workload -> unknown: interface deny", "process -> unknown: interface deny", "iface -> unknown: interface deny",
	), "IPv6, workload -> process: link allow", "IPv6, process -> workload: link allow", "IPv6, iface -> process: link allow",
		"IPv6, process -> iface: link allow")
}

func perFamily(ways ...string) []string {
	var out []string
	for _, f := range []string{"IPv4", "IPv6"} {
		for _, w := range ways {
			out = append(out, f+", "+w)
		}
	}
	return out
}

// flowTable counts packets by the state of the flow table, with what is particular about the packet.
func flowTable(all []sighting) map[string]int {
	seen := map[string]int{}
	for _, s := range all {
		state := s.p.Packet.CT.String()
		switch {
		case s.p.Reply:
			state = "reply"
		case s.p.MidStream:
			state = "mid-stream"
		case s.p.Fragmented:
			state = "fragmented"
		case s.p.Extended:
			state = "extended"
		case s.p.Packet.OrigDst.IsValid():
			state = "translated"
		}
		seen[fmt.Sprintf("%s, %s: %s", family(s.p.Packet), state, s.trace.Verdict)]++
		for _, pl := range []drivers.Place{s.p.Packet.From, s.p.Packet.To} {
			seen[fmt.Sprintf("%s, %s %s: %s", family(s.p.Packet), state, pl.Kind, s.trace.Verdict)]++
		}
	}
	return seen
}

func wantFlowTable() []string {
	var want []string
	for _, state := range []string{"new", "established", "reply", "related", "invalid", "untracked", "mid-stream", "fragmented", "translated"} {
		want = append(want, state+": allow", state+": deny")
	}
	for _, state := range []string{"new", "established", "related", "untracked"} {
		for _, place := range []string{"workload", "iface", "process"} {
			want = append(want, fmt.Sprintf("%s %s: allow", state, place))
		}
		want = append(want, state+" unknown: deny")
	}
	for _, place := range []string{"workload", "iface", "process", "unknown"} {
		want = append(want, fmt.Sprintf("invalid %s: deny", place))
	}
	return append(perFamily(want...), "IPv6, extended: allow", "IPv6, extended: deny")
}

// clauses counts the packets that each kind of clause decides: where taking out the rule, or the clause alone, turns the
// verdict round. Staged policies decide nothing.
func clauses(all []sighting) map[string]int {
	seen := map[string]int{}
	for _, s := range all {
		for id, p := range s.sc.State.Policies {
			for _, in := range []bool{true, false} {
				rules := p.Out
				if in {
					rules = p.In
				}
				for i := range rules {
					without := s.turned(id, in, i, nil)
					for _, c := range clausesOf(&rules[i]) {
						if without || s.turned(id, in, i, c.drop) {
							for _, name := range refine(c.name, &rules[i].Match) {
								seen[fmt.Sprintf("%s, %s: %s", family(s.p.Packet), name, s.trace.Verdict)]++
							}
						}
					}
				}
			}
		}
	}
	return seen
}

// turned reports whether the verdict is another one when a rule is changed, or taken out (nil).
func (s sighting) turned(id drivers.PolicyID, in bool, i int, change func(*drivers.Rule)) bool {
	c := s.sc.State.Clone()
	p := *c.Policies[id]
	rules := &p.Out
	if in {
		rules = &p.In
	}
	if *rules = slices.Clone(*rules); change == nil {
		*rules = slices.Delete(*rules, i, i+1)
	} else {
		change(&(*rules)[i])
	}
	c.Policies[id] = &p
	return drivers.Evaluate(c, s.p.Packet).Verdict != s.trace.Verdict
}

// refine tells clauses of one kind apart where a driver might.
func refine(name string, m *drivers.Match) []string {
	short, not := strings.CutPrefix(name, "not-")
	switch short {
	case "proto":
		p := m.Proto
		if not {
			p = m.NotProto
		}
		kind := "by number"
		if text := protoText(p); text != fmt.Sprint(*p) {
			kind = strings.TrimSuffix(text, "v6")
		}
		return []string{name, name + " " + kind}
	case "icmp":
		i := m.ICMP
		if not {
			i = m.NotICMP
		}
		return []string{name + map[bool]string{true: " type", false: " type and code"}[i.Code == nil]}
	case "ip-version":
		return []string{name}
	}
	for end, s := range map[string]drivers.Side{"src ": m.Src, "dst ": m.Dst} {
		ports := map[string][]drivers.PortRange{end + "port": s.Ports, end + "not-port": s.NotPorts}[name]
		if slices.ContainsFunc(ports, func(r drivers.PortRange) bool { return r.First != r.Last }) {
			return []string{name, name + " range"}
		}
	}
	return []string{name}
}

// wantClauses are every match, positive and negated, at each end that has it, both families, both verdicts.
func wantClauses() []string {
	names := []string{
		"ip-version", "proto tcp", "proto udp", "proto icmp", "proto sctp", "proto udplite", "proto by number", "not-proto",
		"not-proto tcp", "not-proto udp", "not-proto by number", "icmp type", "icmp type and code", "not-icmp type",
		"not-icmp type and code",
	}
	for _, end := range []string{"src ", "dst "} {
		for _, c := range []string{"net", "set", "port", "port range", "named"} {
			names = append(names, end+c, end+"not-"+c)
		}
		names = append(names, end+"service")
	}
	var want []string
	for _, n := range names {
		want = append(want, n+": allow", n+": deny")
	}
	return perFamily(want...)
}

// stages counts the decisions of each stage that come on the way of packets, with what else the suite has to show.
func stages(all []sighting) map[string]int {
	seen := map[string]int{}
	for _, s := range all {
		f := family(s.p.Packet)
		for _, st := range s.trace.Steps {
			what := fmt.Sprintf("%s %s", st.Stage, st.Outcome)
			switch {
			case st.Staged:
				what = "staged " + st.Outcome
			case st.Policy.Kind == drivers.KindProfile:
				what = "profile " + st.Outcome
			case st.Tier != "" && st.Policy == (drivers.PolicyID{}):
				what = "end of tier " + st.Outcome
			}
			seen[f+", "+what]++
		}
		if s.trace.NoTrack {
			seen[f+", not tracked: "+s.trace.Verdict.String()]++
		}
		if allow, masq := newOracle(s.sc.State).expect(s.p.Packet); allow && len(s.sc.State.Masquerade.From) > 0 {
			seen[fmt.Sprintf("%s, masqueraded: %t", f, masq)]++
		}
		if s.p.Packet.ARP {
			seen["ARP "+s.trace.Verdict.String()]++
		}
	}
	return seen
}

func wantStages() []string {
	return append(perFamily(
		"interface deny", "source deny", "source allow", "link allow", "untracked allow", "untracked deny", "conntrack allow",
		"conntrack deny", "pre-dnat allow", "pre-dnat deny", "pre-dnat pass", "failsafe allow", "failsafe continue", "egress pass",
		"ingress pass", "ingress log", "egress log", "forward pass", "host pass", "profile allow", "profile deny", "profile pass",
		"end of tier deny", "end of tier pass", "staged allow", "staged deny", "not tracked: allow", "not tracked: deny",
		"masqueraded: true", "masqueraded: false",
	), "ARP allow", "ARP deny")
}
