package ctl

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// town is two nodes with a shop and its operators, all of whom may talk to each other until a policy says otherwise.
func town() string {
	text := `
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 192.0.2.2/24}}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: b1}
spec: {cidr: 10.65.1.0/26, node: n1, state: confirmed}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: b2}
spec: {cidr: 10.65.2.0/26, node: n2, state: confirmed}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.shop}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}
`
	for i, w := range []string{"shop web", "shop web", "shop web", "shop api", "shop api", "shop db", "ops job", "ops job"} {
		ns, role, _ := strings.Cut(w, " ")
		text += fmt.Sprintf(`---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: %s-%d, namespace: %s, labels: {role: %[1]s}}
spec: {orchestrator: lab, workload: %[1]s-%d, node: n%[4]d, endpoint: eth0, interfaceName: tort%[2]d, ipNetworks: [10.65.%[4]d.%[2]d/32], profiles: [kns.shop]}
`, role, i+1, ns, i%2+1)
	}
	return text
}

const dbPolicy = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: role == 'db'
  ingress:
    - {action: Allow, protocol: TCP, source: {selector: role == 'api'}, destination: {ports: [5432]}}
    - {action: Deny, protocol: UDP, source: {selector: role == 'web'}}
    - {action: Allow, protocol: TCP, source: {nets: [198.51.100.0/24]}, destination: {ports: ["8000:8100"]}}
`

func TestPolicyPreview(t *testing.T) {
	b := newBench(t)
	b.apply(town())
	f := b.file("db.yaml", dbPolicy)
	staged := b.file("staged.yaml", strings.NewReplacer("kind: NetworkPolicy", "kind: StagedNetworkPolicy", "5432", "5433").Replace(dbPolicy))
	cluster := b.file("cluster.yaml", town())
	ended := "by the end of tier default: no rule of NetworkPolicy/shop/db decides (before: Profile/kns.shop rule 0)"
	tightened := []string{
		"If so: 1 object created.",
		"Newly denied (10 pairs):",
		"shop/api-* -> shop/db-6: all but tcp 5432 allow -> deny, " + ended,
		"198.51.100.0/24 -> shop/db-6: all but tcp 8000-8100 allow -> deny, " + ended,
		"ops/*, outside -> shop/db-6: everything allow -> deny, " + ended,
		"node n1 -> shop/db-6 on other nodes: everything allow -> deny, " + ended,
		"shop/web-* -> shop/db-6: udp allow -> deny, by NetworkPolicy/shop/db rule 1 (before: Profile/kns.shop rule 0)",
		"shop/web-* -> shop/db-6: all but udp allow -> deny, " + ended,
		"Compared 130 pairs of 8 workloads, 2 nodes and 2 outside addresses",
	}
	b.steps([]step{
		{[]string{"policy", "preview"}, ExitUsage, []string{"say what would change"}},
		{[]string{"policy", "preview", "-f", f, "-o", "xml"}, ExitUsage, []string{"text, json and yaml"}},
		{[]string{"policy", "preview", "-f", f, "--from", "role ="}, ExitUsage, []string{"--from"}},
		{[]string{"policy", "preview", "-f", f, "--outside", "x"}, ExitUsage, []string{"--outside"}},
		{[]string{"policy", "preview", "-f", f, "--family", "5"}, ExitUsage, []string{"--family is 4 or 6"}},
		{[]string{"policy", "preview", "-f", f, "--protocol", "icmp", "--port", "1"}, ExitUsage, []string{"has no ports"}},
		{[]string{"policy", "preview", "-f", f}, 0, tightened},
		{[]string{"policy", "preview", "-f", f, "--against", cluster, "--exit-code"}, ExitDiffers, tightened},
		{[]string{"policy", "preview", "-f", f, "--delete"}, 0, []string{"1 object not there", "Nothing would be allowed or denied"}},
		{[]string{"policy", "preview", "-f", f, "--outside", "198.51.100.9", "--from", "!has(role)"}, 0, []string{"198.51.100.9"}},
		{[]string{"policy", "preview", "-f", staged}, 0, []string{"Nothing would be allowed or denied", "--staged shows what they would do"}},
		{[]string{"apply", "-f", f}, 0, nil},
		{[]string{"policy", "preview", "-f", f, "--exit-code"}, 0, []string{"1 object as it is", "Nothing would be allowed or denied"}},
		{[]string{"policy", "preview", "-f", f, "--delete", "--port", "5432"}, 0, []string{
			"1 object deleted", "Newly allowed (8 pairs):", "ops/*, shop/web-*, 198.51.100.0/24, outside -> shop/db-6: tcp deny -> allow, by Profile/kns.shop rule 0",
		}},
		{[]string{"policy", "preview", "-f", staged, "--staged"}, 0, []string{
			"all staged policies enforced", "Newly denied (2 pairs):", "Newly allowed (2 pairs):",
			"shop/api-* -> shop/db-6: tcp 5433 deny -> allow, by StagedNetworkPolicy/shop/db rule 0",
			"shop/api-* -> shop/db-6: tcp 5432 allow -> deny, by the end of tier default: no rule of StagedNetworkPolicy/shop/db decides (before: NetworkPolicy/shop/db rule 0)",
		}},
		{[]string{"apply", "-f", staged}, 0, nil},
		{[]string{"policy", "preview", "--staged"}, 0, []string{"If so: all staged policies enforced.", "tcp 5433 deny -> allow"}},
		{[]string{"policy", "preview", "--staged", "--limit", "30"}, 0, []string{"SAMPLED:", "There are 130 pairs."}},
	})
}

// TestUplinkOfPreview: a host endpoint counts if packets go by its interface; a guess that seems wrong is said.
func TestUplinkOfPreview(t *testing.T) {
	b := newBench(t)
	cluster, f := b.file("town.yaml", town()), b.file("host.yaml", strings.TrimPrefix(uplinkPolicy, shop))
	args := []string{"policy", "preview", "-f", f, "--against", cluster}
	b.steps([]step{
		{args, 0, []string{"Nothing would be allowed or denied", "n1: taken to reach the others through eth0", "--uplink"}},
		{append(args, "--uplink", "ens3"), 0, []string{"Newly denied", "GlobalNetworkPolicy/host"}},
		{append(args, "--uplink", "eth0"), 0, []string{"Nothing would be allowed or denied"}},
	})
}

// TestPreviewOfEnds says what becomes of workloads that come, go and change their labels.
func TestPreviewOfEnds(t *testing.T) {
	b := newBench(t)
	b.apply(town() + "---" + dbPolicy)
	add := b.file("new.yaml", `
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: api-9, namespace: shop, labels: {role: api}}
spec: {orchestrator: lab, workload: api-9, node: n1, endpoint: eth0, interfaceName: tort9, ipNetworks: [10.65.1.9/32], profiles: [kns.shop]}
`)
	promote := b.file("web.yaml", `
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web-1, namespace: shop, labels: {role: api}}
spec: {orchestrator: lab, workload: web-1, node: n1, endpoint: eth0, interfaceName: tort1, ipNetworks: [10.65.1.1/32], profiles: [kns.shop]}
`)
	b.steps([]step{
		{[]string{"policy", "preview", "-f", add, "--to", "role == 'db'"}, 0, []string{"shop/api-9 -> shop/db-6: tcp 5432 deny -> allow, by it is new"}},
		{[]string{"policy", "preview", "-f", promote}, 0, []string{"shop/web-1 -> shop/db-6: tcp 5432 deny -> allow, by NetworkPolicy/shop/db rule 0"}},
	})
}

func TestPreviewJSON(t *testing.T) {
	b := newBench(t)
	b.apply(town())
	out, code := b.run("policy", "preview", "-f", b.file("db.yaml", dbPolicy), "-o", "json", "--from", "role == 'api'")
	if code != 0 {
		t.Fatal(out)
	}
	var p previewed
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	want := []previewedRow{{
		From: "shop/api-*", To: "shop/db-6", Packets: "all but tcp 5432", Before: "allow", After: "deny",
		By: "the end of tier default: no rule of NetworkPolicy/shop/db decides", Was: "Profile/kns.shop rule 0",
		Pairs: 2, FromMembers: []string{"shop/api-4", "shop/api-5"}, ToMembers: []string{"shop/db-6"},
	}}
	if d := cmp.Diff(want, p.Changes); d != "" {
		t.Error(d)
	}
}

func TestConnectivityText(t *testing.T) {
	b := newBench(t)
	b.apply(town() + "---" + dbPolicy)
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, `
Who may talk to whom (rows are sources):

                 ops/*  shop/api-*  shop/db-6      shop/web-*  198.51.100.0/24  outside
ops/*            all    all         -              all         all              all
shop/api-*       all    all         tcp 5432       all         all              all
shop/db-6        all    all         .              all         all              all
shop/web-*       all    all         -              all         all              all
198.51.100.0/24  all    all         tcp 8000-8100  all         .                .
outside          all    all         -              all         .                .

Asked about 88 pairs of 8 workloads, 2 nodes and 2 outside addresses, with 12 kinds of packets: 208 decisions.
`},
		{[]string{"--port", "5432", "-n", "shop", "--nodes", "--to", "role == 'db'"}, `
Who may talk to whom, tcp 5432, from or to shop (rows are sources):

                          shop/db-6
ops/*                     -
shop/api-*                yes
shop/web-*                -
every node                A
198.51.100.0/24, outside  -

  A  -; on the same node: yes

Asked about 11 pairs of 8 workloads, 2 nodes and 2 outside addresses, with 2 kinds of packets: 10 decisions.
`},
		{[]string{"--each", "-l", "role in {'api', 'db'}", "--to", "role == 'db'", "-o", "list"}, `
Who may talk to whom:

shop/api-4       -> shop/db-6  tcp 5432
shop/api-5       -> shop/db-6  tcp 5432
198.51.100.0/24  -> shop/db-6  tcp 8000-8100

`},
	} {
		out, code := b.run(append([]string{"connectivity"}, c.args...)...)
		if code != 0 {
			t.Errorf("%v: exit code %d", c.args, code)
		}
		want := strings.TrimPrefix(c.want, "\n")
		if !strings.HasPrefix(out, want) {
			t.Errorf("%v:\n%s", c.args, cmp.Diff(want, out))
		}
	}
	b.steps([]step{
		{[]string{"connectivity", "-o", "png"}, ExitUsage, []string{"the formats are text, list, svg, dot, json, yaml"}},
		{[]string{"connectivity", "-l", "role == 'none'"}, ExitMissing, []string{"there is no pair of ends to draw"}},
	})
}

func TestConnectivityPictures(t *testing.T) {
	b := newBench(t)
	b.apply(town() + "---" + dbPolicy)
	svg, _ := b.run("connectivity", "--nodes", "-o", "svg")
	wants(t, svg, "<svg ", "shop/web-*", "ops/* -&gt; shop/db-6: nothing", "shop/api-* -&gt; shop/db-6: tcp 5432", ">5432</text>", "on the same node")
	dec := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := dec.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	dot, _ := b.run("connectivity", "-o", "dot")
	wants(t, dot, "digraph connectivity {", `subgraph "cluster_shop" {`, `[label="shop/db-6"];`, `label="tcp 5432"];`)
	if open, closed := strings.Count(dot, "{"), strings.Count(dot, "}"); open != closed {
		t.Errorf("%d opening and %d closing braces:\n%s", open, closed, dot)
	}
	out, _ := b.run("connectivity", "--nodes", "-o", "json")
	var c connectivityJSON
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, l := range c.Links {
		if c.Groups[l.From].Name == "ops/*" && c.Groups[l.To].Space == "nodes" {
			found = l.Allowed == "all" && l.SameNode != nil && *l.SameNode == ""
		}
	}
	if !found {
		t.Errorf("a workload and its own node:\n%s", out)
	}
}

// TestConnectivityOfMany goes over to numbers for columns, and to a list.
func TestConnectivityOfMany(t *testing.T) {
	many := func(n int) string {
		text := town()
		for i := range n {
			text += fmt.Sprintf(`---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: a-rather-long-name-%[1]d, namespace: n%[1]d, labels: {role: x%[1]d}}
spec: {orchestrator: lab, workload: a-rather-long-name-%[1]d, node: n1, endpoint: eth0, interfaceName: tortx%[1]d, ipNetworks: [10.65.1.%[2]d/32], profiles: [kns.shop]}
`, i, i+20)
		}
		return text
	}
	b := newBench(t)
	out, _ := b.run("connectivity", "-f", b.file("c.yaml", many(10)))
	wants(t, out, "1    2    3 ", "1  n0/a-rather-long-name-0 ")
	out, _ = b.run("connectivity", "-f", b.file("c.yaml", many(30)))
	wants(t, out, "n0/a-rather-long-name-0", "-> n1/a-rather-long-name-1", "all")
	if strings.Contains(out, "rows are sources") {
		t.Error("it is a matrix of more than 30 columns")
	}
}

func TestNames(t *testing.T) {
	var ends []*end
	add := func(kind endKind, ns string, names ...string) {
		for _, n := range names {
			e := &end{kind: kind, namespace: ns, name: n, labels: map[string]string{"app": strings.TrimRight(n, "0123456789-x")}}
			ends = append(ends, e)
		}
	}
	add(workloadEnd, "shop", "web-1", "web-2", "web-10", "db-0", "webmail", "x1", "x2") // 0-6
	add(workloadEnd, "ops", "job-1", "job-2", "cron")                                   // 7-9
	add(hostEnd, "", "n1", "n2")                                                        // 10, 11
	add(outsideEnd, "", "outside", "198.51.100.0/24")                                   // 12, 13
	add(workloadEnd, "apps", "red-a", "blue-b", "red-c")                                // 14-16
	ends[14].labels, ends[16].labels = map[string]string{"team": "x"}, map[string]string{"team": "x"}
	ends[16].name = "green-c"
	n := newNamer(ends)
	for _, c := range []struct {
		set  []int
		want string
	}{
		{[]int{0, 1, 2}, "shop/web-*"},
		{[]int{0, 1}, "shop/web-1, shop/web-2"},
		{[]int{0, 1, 2, 3, 4, 5, 6}, "shop/*"},
		{[]int{5, 6}, "shop/x*"},
		{[]int{3, 7, 8}, "ops/job-*, shop/db-0"},
		{[]int{14, 16}, "apps/{team=x}"},
		{[]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15, 16, 10, 11}, "every workload, every node"},
		{[]int{10}, "node n1"},
		{[]int{12, 13}, "198.51.100.0/24, outside"},
		{[]int{0, 3, 4, 5, 7, 9}, "ops/cron, ops/job-1, shop/db-0 and 3 more"},
	} {
		if got := n.name(c.set); got != c.want {
			t.Errorf("%v: %q, want %q", c.set, got, c.want)
		}
	}
}

func TestPhrase(t *testing.T) {
	w := newWorld(decodeAll(t, town()+"---"+strings.Replace(dbPolicy, "[5432]", `[80, "80:90", "91:99", 443, 5432]`, 1)+`---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: g}
spec:
  ingress:
    - {action: Allow, protocol: ICMP, icmp: {type: 8}}
    - {action: Allow, protocol: ICMP, icmp: {type: 3, code: 4}}
    - {action: Allow, protocol: 47}
`), "")
	probes := probesOf([]*world{w})
	for name, c := range map[string]struct {
		in   func(probe) bool
		want string
	}{
		"everything":    {func(probe) bool { return true }, "everything"},
		"nothing":       {func(probe) bool { return false }, ""},
		"one family":    {func(p probe) bool { return p.family == 1 }, "everything (IPv6 only)"},
		"tcp":           {func(p probe) bool { return p.proto == protoTCP }, "tcp"},
		"joined":        {func(p probe) bool { return p.proto == protoTCP && p.last < 100 && !p.rest }, "tcp 80-99"},
		"ports":         {func(p probe) bool { return p.proto == protoTCP && (p.first == 443 || p.first == 5432) }, "tcp 443, 5432"},
		"except":        {func(p probe) bool { return p.proto == protoTCP && p.first != 443 }, "tcp except 443"},
		"all but":       {func(p probe) bool { return p.proto != protoTCP || p.first != 443 }, "all but tcp 443"},
		"icmp":          {func(p probe) bool { return p.proto == icmpOf(p.family) }, "icmp"},
		"echo":          {func(p probe) bool { return p.family == 0 && p.proto == protoICMP && p.icmpType == 8 }, "icmp echo (IPv4 only)"},
		"type and code": {func(p probe) bool { return p.family == 0 && p.proto == protoICMP && p.icmpCode == 4 }, "icmp 3/4 (IPv4 only)"},
		"by number":     {func(p probe) bool { return p.proto == 47 }, "protocol 47"},
		"two":           {func(p probe) bool { return p.proto == 47 || p.proto == protoTCP && p.first == 443 }, "tcp 443; protocol 47"},
		"families differ": {func(p probe) bool {
			return p.proto == protoTCP && p.family == 0 || p.proto == protoUDP && p.family == 1
		}, "IPv4: tcp / IPv6: udp"},
	} {
		in, tried := make([]bool, len(probes)), make([]bool, len(probes))
		for i, p := range probes {
			in[i], tried[i] = c.in(p), true
		}
		if got := phrase(probes, in, tried); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestOutsideStandsForItsPrefix says that an address that stands for a prefix is in no narrower one.
func TestOutsideStandsForItsPrefix(t *testing.T) {
	p := netip.MustParsePrefix
	m := prefixes{
		policy: []netip.Prefix{p("10.0.0.0/8"), p("10.0.0.0/24"), p("198.51.100.0/24"), p("198.51.100.0/25"), p("198.51.100.128/25"), p("203.0.113.5/32")},
		own:    []netip.Prefix{p("10.65.0.0/16")},
	}
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.1.0", "10.0.0.0/24": "10.0.0.1", "198.51.100.0/25": "198.51.100.1", "203.0.113.5/32": "203.0.113.5",
	} {
		if got, ok := m.within(p(text), map[netip.Addr]bool{}); !ok || got.String() != want {
			t.Errorf("%s: %v %v, want %s", text, got, ok, want)
		}
	}
	if a, ok := m.within(p("198.51.100.0/24"), map[netip.Addr]bool{}); ok {
		t.Errorf("two halves cover a prefix, but %s stands for it", a)
	}
}
