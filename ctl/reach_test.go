package ctl

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// decodeAll reads, defaults and validates objects.
func decodeAll(t testing.TB, text string) []api.Object {
	t.Helper()
	objects, err := api.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := prepare(o, "default"); err != nil {
			t.Fatal(err)
		}
	}
	return objects
}

// randomWorld makes a small cluster of everything that could tell ends apart.
func randomWorld(r *rand.Rand) string {
	pick := func(ss ...string) string { return ss[r.IntN(len(ss))] }
	text := `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.65.0.0/16, natOutgoing: ` + pick("true", "false") + `}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.a}
spec:
  ingress: [{action: Allow}]
  egress: [{action: ` + pick("Allow", "Deny") + `}]
  labelsToApply: {team: blue}
`
	for n := 1; n <= 3; n++ {
		text += fmt.Sprintf(`---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n%[1]d}
spec: {bgp: {ipv4Address: 192.0.2.%[1]d/24, ipv6Address: "2001:db8::%[1]d/64"}}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: b%[1]d}
spec: {cidr: 10.65.%[1]d.0/26, node: n%[1]d, state: confirmed}
`, n)
		if r.IntN(3) == 0 {
			text += fmt.Sprintf(`---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h%[1]d, labels: {host: "%[2]s"}}
spec: {node: n%[1]d, interfaceName: eth0}
`, n, pick("x", "y"))
		}
	}
	var likes []string // few, so that there are workloads that are alike
	for range 3 {
		likes = append(likes, fmt.Sprintf(`namespace: %s, labels: {role: %s, zone: %s}}
spec:
  orchestrator: lab
  endpoint: eth0
  profiles: [%s]
  ports: [{name: http, protocol: TCP, port: %s}]
`, pick("a", "b"), pick("web", "db"), pick("east", "west"), pick("kns.a", "missing", ""), pick("80", "8080")))
	}
	for i := range 18 {
		n, like := 1+r.IntN(3), r.IntN(len(likes))
		v6 := ""
		if like > 0 {
			v6 = fmt.Sprintf(`, "fd00:%d::%d/128"`, n, i+1)
		}
		text += fmt.Sprintf(`---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: w-%[1]d, %[2]s  workload: w%[1]d
  node: n%[3]d
  interfaceName: tort%[1]d
  ipNetworks: [10.65.%[3]d.%[1]d/32%[4]s]
`, i+1, likes[like], n, v6)
	}
	return text + randomPolicies(pick, r)
}

// randomPolicies are rules that tell ends apart by labels, prefixes, ports, protocols and families.
func randomPolicies(pick func(...string) string, r *rand.Rand) string {
	text := `---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {friend: yes-please}}
spec: {nets: [198.51.100.0/24, 198.51.100.128/25, 10.65.2.0/28]}
`
	for i := range 4 {
		text += fmt.Sprintf(`---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p%d, namespace: %s}
spec:
  order: %d
  selector: %s
  types: [%s]
  ingress:
    - {action: %s, protocol: TCP, source: {selector: "%s"}, destination: {ports: [%s]}}
    - {action: Allow, protocol: ICMP, icmp: {type: 8}}
  egress:
    - {action: %s, destination: {nets: [%s]}}
    - {action: Allow, protocol: UDP, destination: {notPorts: [53]}}
    - {action: Deny, notProtocol: %s, destination: {selector: role == 'db'}}
`, i, pick("a", "b"), r.IntN(3), pick("role == 'web'", "all()", "team == 'blue'", "zone != 'east'"), pick("Ingress", "Egress", "Ingress, Egress"),
			pick("Allow", "Deny"), pick("role == 'web'", "zone == 'west'", "friend == 'yes-please'"), pick("80", "http", `"8000:8100"`, `443, "440:450"`),
			pick("Allow", "Deny"), pick("0.0.0.0/0", "10.65.1.0/28", "198.51.100.0/24"), pick("TCP", "47", "SCTP"))
	}
	for i := range 2 {
		text += fmt.Sprintf(`---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: g%d}
spec:
  selector: %s
  applyOnForward: %s
  ingress: [{action: %s, source: {nets: [192.0.2.0/25]}}, {action: Allow, protocol: TCP, destination: {ports: [9100]}}]
  egress: [{action: %s}]
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: p%[1]d, namespace: a}
spec: %[6]s
`, i, pick("has(host)", "all()", "host == 'x'"), pick("true", "false"), pick("Allow", "Deny"), pick("Allow", "Pass"), pick("{selector: all(), stagedAction: Set}", "{stagedAction: Delete}"))
	}
	return text
}

// TestAnswerIsThatOfEveryPair asks about every pair of ends and every kind of packet one by one, and compares: taking
// ends together that policy treats alike must not change any answer.
func TestAnswerIsThatOfEveryPair(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			text := randomWorld(r)
			before, after := newWorld(decodeAll(t, text), ""), newWorld(decodeAll(t, text), "")
			if seed%2 == 0 {
				after.enforceStaged()
			} else {
				after = newWorld(decodeAll(t, randomWorld(r)), "")
			}
			a, err := ask(t.Context(), question{worlds: []*world{before, after}})
			if err != nil {
				t.Fatal(err)
			}
			pairs := 0
			known := []map[string]*end{byName(before), byName(after)}
			for u := range a.units {
				for v := range a.units {
					at := a.at[u][v]
					for _, i := range a.units[u].members {
						for _, j := range a.units[v].members {
							if i == j || a.ends[i].kind == outsideEnd && a.ends[j].kind == outsideEnd {
								continue
							}
							if at < 0 {
								t.Fatalf("nobody asked about %s -> %s", a.ends[i], a.ends[j])
							}
							pairs++
							comparePair(t, a, known, i, j, &a.cells[at])
						}
					}
				}
			}
			checkRows(t, a)
			if pairs != a.pairs || pairs != a.all {
				t.Errorf("%d pairs; the answer says %d of %d", pairs, a.pairs, a.all)
			}
			t.Logf("%d ends in %d units; %d pairs in %d cells", len(a.ends), len(a.units), pairs, len(a.cells))
			if seed%2 == 0 && len(a.units) == len(a.ends) {
				t.Error("no two ends are taken together")
			}
		})
	}
}

// checkRows says that each row of a preview is true for every pair that it names, and that the rows are complete.
func checkRows(t *testing.T, a *answer) {
	t.Helper()
	unitOf := map[string]int{}
	want := map[string]int{} // pairs of each row
	for u, unit := range a.units {
		for _, i := range unit.members {
			unitOf[a.ends[i].String()] = u
		}
		for v := range a.units {
			if at := a.at[u][v]; at >= 0 {
				for _, r := range a.rowsOf(&a.cells[at]) {
					r.where = a.where(u, v)
					want[fmt.Sprint(r)] += a.pairsOf(u, v)
				}
			}
		}
	}
	got := map[string]int{}
	for _, c := range a.preview().Changes {
		key := fmt.Sprint(previewRow{after: c.After, by: c.By, was: c.Was, packets: c.Packets, where: c.Where})
		n := 0
		for _, from := range c.FromMembers {
			for _, to := range c.ToMembers {
				u, v := unitOf[from], unitOf[to]
				if from == to || a.where(u, v) != c.Where {
					continue
				}
				n++
				found := false
				for _, r := range a.rowsOf(&a.cells[a.at[u][v]]) {
					r.where = a.where(u, v)
					found = found || fmt.Sprint(r) == key
				}
				if !found {
					t.Fatalf("%s -> %s is in the row %+v", from, to, c)
				}
			}
		}
		if n != c.Pairs {
			t.Errorf("%d pairs in the row %+v", n, c)
		}
		got[key] += n
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("pairs of each row: %s", d)
	}
}

// comparePair asks about one pair in each world, from scratch.
func comparePair(t *testing.T, a *answer, known []map[string]*end, i, j int, c *cell) {
	t.Helper()
	changed := map[int]bool{}
	for _, ch := range c.changes {
		changed[ch.probe] = true
	}
	for k, p := range a.probes {
		var got [2]bool
		for w, ends := range known {
			x, y := ends[a.ends[i].String()], ends[a.ends[j].String()]
			if a.ends[i].kind == outsideEnd {
				x = a.ends[i]
			}
			if a.ends[j].kind == outsideEnd {
				y = a.ends[j]
			}
			if x == nil || y == nil || !x.addrs[p.family].IsValid() || !y.addrs[p.family].IsValid() {
				continue
			}
			if !c.calm && !c.tried[k] {
				t.Fatalf("%s -> %s: probe %+v was not tried", x, y, p)
			}
			tr := a.worlds[w].path(p, x, y, uplinkName)
			got[w] = tr.Verdict == drivers.VerdictAllow
			if !c.calm && got[w] != c.allowed[w][k] {
				t.Fatalf("%s -> %s, %+v, world %d: allowed %v, but %v for %s -> %s\n%v", x, y, p, w, got[w], c.allowed[w][k], a.ends[c.x], a.ends[c.y], tr.Hops)
			}
		}
		if (got[0] != got[1]) != changed[k] {
			t.Fatalf("%s -> %s, %+v: %v, change %v", a.ends[i], a.ends[j], p, got, changed[k])
		}
	}
}

func byName(w *world) map[string]*end {
	out := map[string]*end{}
	for _, e := range w.ends() {
		out[e.String()] = e
	}
	return out
}

// TestProbesCoverEveryPort says that each port of TCP and UDP is treated like the probe that stands for it.
func TestProbesCoverEveryPort(t *testing.T) {
	w := newWorld(decodeAll(t, randomWorld(rand.New(rand.NewPCG(3, 3)))), "")
	a, err := ask(t.Context(), question{worlds: []*world{w}})
	if err != nil {
		t.Fatal(err)
	}
	probeFor := func(proto uint8, port uint16) int {
		rest := -1
		for i, p := range a.probes {
			switch {
			case p.family != 0 || p.proto != proto:
			case p.rest:
				rest = i
			case p.first <= port && port <= p.last:
				return i
			}
		}
		return rest
	}
	for _, c := range a.cells[:min(len(a.cells), 40)] {
		for _, proto := range []uint8{protoTCP, protoUDP} {
			for port := uint16(1); port < 9300; port += 7 {
				i := probeFor(proto, port)
				if !c.tried[i] || proto == protoUDP && port == 4789 {
					continue
				}
				p := probe{family: 0, proto: proto, first: port, last: port}
				if got := w.path(p, a.ends[c.x], a.ends[c.y], uplinkName).Verdict == drivers.VerdictAllow; got != c.allowed[0][i] {
					t.Fatalf("%s -> %s protocol %d port %d: %v, but probe %+v says %v", a.ends[c.x], a.ends[c.y], proto, port, got, a.probes[i], c.allowed[0][i])
				}
			}
		}
	}
}
