package calico

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/ipam"
)

// crd writes one of Calico's objects as kubectl exports it.
func crd(kind, name, spec string, more ...string) string {
	return fmt.Sprintf("apiVersion: crd.projectcalico.org/v1\nkind: %s\nmetadata: {name: %s, uid: 1c2d, resourceVersion: '7', generation: 2, creationTimestamp: '2024-01-01T00:00:00Z'%s}\nspec: %s\n---\n",
		kind, name, strings.Join(more, ""), spec)
}

func pod(namespace, name, uid, node, phase string, ips ...string) string {
	var list []string
	for _, ip := range ips {
		list = append(list, "{ip: "+ip+"}")
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {namespace: %s, name: %s, uid: %s}\nspec: {nodeName: %s}\nstatus: {phase: %s, podIPs: [%s]}\n---\n",
		namespace, name, uid, node, phase, strings.Join(list, ", "))
}

func node(name string) string {
	return "apiVersion: v1\nkind: Node\nmetadata: {name: " + name + "}\n---\n"
}

func lock(ready bool) string {
	return crd("ClusterInformation", "default", fmt.Sprintf("{datastoreReady: %v, clusterGUID: abc}", ready))
}

// owner is an allocation as Calico writes it.
func owner(handle, namespace, pod, node string) string {
	return fmt.Sprintf("{handle_id: %s, secondary: {namespace: %s, pod: %s, node: %s, timestamp: '2024-01-01 00:00:00 +0000 UTC'}}", handle, namespace, pod, node)
}

// block has attribute i at the ordinal at[i].
func block(cidr, affinity string, at []int, attributes ...string) string {
	p := netip.MustParsePrefix(cidr)
	n := 1 << (p.Addr().BitLen() - p.Bits())
	alloc, free := make([]string, n), []string{}
	for i := range alloc {
		alloc[i] = "null"
		if k := slices.Index(at, i); k >= 0 {
			alloc[i] = fmt.Sprint(k)
		} else {
			free = append(free, fmt.Sprint(i))
		}
	}
	var seq []string
	for i, o := range at {
		seq = append(seq, fmt.Sprintf("'%d': %d", o, i+3))
	}
	name := strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr)
	return crd("IPAMBlock", name, fmt.Sprintf("{cidr: '%s', affinity: '%s', strictAffinity: false, deleted: false, sequenceNumber: 99, sequenceNumberForAllocation: {%s}, allocations: [%s], unallocated: [%s], attributes: [%s]}",
		cidr, affinity, strings.Join(seq, ", "), strings.Join(alloc, ", "), strings.Join(free, ", "), strings.Join(attributes, ", ")))
}

const uid1, uid2, uid3 = "2d1e3c9a-0000-4000-8000-000000000001", "2d1e3c9a-0000-4000-8000-000000000002", "2d1e3c9a-0000-4000-8000-000000000003"

// cluster1 has something of everything.
func cluster1() string {
	return strings.Join([]string{
		lock(false), node("n1"), node("n2"),
		pod("prod", "web", uid1, "n1", "Running", "10.0.0.1"),
		pod("prod", "db-0", uid2, "n1", "Running", "10.0.0.70"),
		pod("prod", "job", uid3, "n1", "Succeeded", "10.0.0.3"),
		crd("IPPool", "default-ipv4-ippool", "{cidr: 10.0.0.0/24, blockSize: 26, ipipMode: Never, vxlanMode: Always, natOutgoing: true, nodeSelector: all()}"),
		crd("IPPool", "odd", "{cidr: 10.9.0.0/24, shape: round}"),
		crd("IPAMConfig", "default", "{strictAffinity: true, autoAllocateBlocks: true}"),
		block("10.0.0.0/26", "host:n1", []int{1, 2, 3, 4, 5, 6, 7},
			owner("k8s-pod-network.aaaa", "prod", "web", "n1"), owner("k8s-pod-network.bbbb", "prod", "gone", "n1"),
			owner("k8s-pod-network.cccc", "prod", "job", "n1"), owner("k8s-pod-network.dddd", "prod", "db-0", "n2"),
			"{handle_id: vxlan-tunnel-addr-n1, secondary: {node: n1, type: vxlanTunnelAddress}}",
			owner("k8s-pod-network.aaaa", "prod", "web", "n1"), // another interface of the sandbox
			owner("k8s-pod-network.eeee", "prod", "web", "n1"), // an old sandbox
		),
		block("10.0.0.64/26", "host:n2", []int{6, 7, 8, 9},
			owner("k8s-pod-network.ffff", "prod", "db-0", "n1"), // borrowed
			"{handle_id: windows-reserved-ipam-handle, secondary: {note: windows host reserved ip}}",
			"{releasedAt: '2024-01-01T00:00:00Z'}",
			"{handle_id: ipip-tunnel-addr-n9, secondary: {node: n9, type: ipipTunnelAddress}}"),
		block("10.0.0.128/26", "host:n9", nil),
		block("10.0.0.192/26", "virtual:load-balancer", []int{0}, "{handle_id: lb-1, secondary: {namespace: prod, service: web, type: LoadBalancer}}"),
		crd("BlockAffinity", "n1-10-0-0-0-26", "{state: confirmed, node: n1, cidr: 10.0.0.0/26, deleted: 'false'}"),
		crd("IPAMHandle", "k8s-pod-network.aaaa", "{handleID: k8s-pod-network.aaaa, block: {10.0.0.0/26: 1}}"),
		crd("Tier", "default", "{order: 1000000}"),
		crd("Tier", "security", "{order: 10}"),
		crd("GlobalNetworkPolicy", "default.deny-all", "{tier: default, selector: all(), types: [Ingress]}",
			`, labels: {stored: x}, annotations: {projectcalico.org/metadata: '{"uid":"9","labels":{"team":"a"},"annotations":{"note":"mine","kubectl.kubernetes.io/last-applied-configuration":"x"}}'}`),
		crd("GlobalNetworkPolicy", "security.allow-dns", "{tier: security, selector: all(), egress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}]}"),
		crd("NetworkPolicy", "default.web", "{tier: default, selector: app == 'web', types: [Ingress], ingress: [{action: Allow}]}", ", namespace: prod"),
		crd("NetworkPolicy", "web", "{tier: default, selector: app == 'other'}", ", namespace: prod"),
		crd("NetworkPolicy", "default.new", "{tier: default, selector: all(), ingress: [{action: Allow, moon: full, source: {ports: [nine, 99999]}}]}", ", namespace: prod"),
		crd("FelixConfiguration", "default", "{logSeverityScreen: Info, bpfEnabled: false}"),
		crd("CalicoNodeStatus", "n1", "{node: n1, classes: [Agent], updatePeriodSeconds: 10}"),
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n---\n",
	}, "")
}

type bench struct {
	t     *testing.T
	files *Files
	store *mem.Store
}

func newBench(t *testing.T, yaml string) *bench {
	t.Helper()
	b := &bench{t: t, files: &Files{}, store: mem.New()}
	if err := b.files.Add([]byte(yaml)); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) plan(o Options) *Plan {
	b.t.Helper()
	p, err := Make(b.t.Context(), b.files, b.store, o)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bench) do(o Options) (done []string) {
	b.t.Helper()
	if err := b.plan(o).Do(b.t.Context(), b.files, b.store, Consent{Loss: true}, func(s Step) { done = append(done, s.To.String()) }); err != nil {
		b.t.Fatal(err)
	}
	return done
}

func (s Step) text() string {
	out := string(s.Action) + " " + s.Kind
	if s.From != "" {
		out += "/" + s.From
	}
	if s.To != nil {
		out += " > " + s.To.String()
	}
	if len(s.Why) > 0 {
		out += ": " + strings.Join(s.Why, "; ")
	}
	return out
}

func texts(p *Plan) []string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, s.text())
	}
	return out
}

var kubernetes = Options{Kubernetes: true}

// TestPlan says of each object what becomes of it, and why some stay behind.
func TestPlan(t *testing.T) {
	b := newBench(t, cluster1())
	p := b.plan(kubernetes)
	handle := ipam.HandleOf("ffff", "eth0")
	want := []string{
		"create IPAMBlock/10-0-0-0-26 > IPAMBlock/10-0-0-0-26: 10.0.0.2 stays behind: pod prod/gone is gone; 10.0.0.3 stays behind: pod prod/job has finished; " +
			"10.0.0.4 stays behind: pod prod/db-0 is another one now, on node n1; 10.0.0.7 stays behind: pod prod/web has other addresses",
		"create BlockAffinity > BlockAffinity/n1-10-0-0-0-26",
		"skip IPAMBlock/10-0-0-128-26: nobody has an address of it, and its node is gone (host:n9)",
		"create IPAMBlock/10-0-0-192-26 > IPAMBlock/10-0-0-192-26",
		"create BlockAffinity > BlockAffinity/virtual-load-balancer-10-0-0-192-26",
		"create IPAMBlock/10-0-0-64-26 > IPAMBlock/10-0-0-64-26: 10.0.0.71 stays behind: it is reserved for Windows; 10.0.0.73 stays behind: node n9 is gone",
		"create BlockAffinity > BlockAffinity/n2-10-0-0-64-26",
		"create IPAMHandle > IPAMHandle/" + handle,
		"skip BlockAffinity/n1-10-0-0-0-26: affinities are made of the blocks that are brought along",
		"skip IPAMHandle/k8s-pod-network.aaaa: handles are found in the blocks; those of borrowed addresses are made anew",
		"create IPAMConfig/default > IPAMConfiguration/default",
		"unchanged Tier/default > Tier/default: it is built in",
		"create Tier/security > Tier/security",
		"create GlobalNetworkPolicy/security.allow-dns > GlobalNetworkPolicy/security.allow-dns: spec.types becomes [Ingress Egress]: it was stored without, which Calico's agents take for both directions",
		"create GlobalNetworkPolicy/default.deny-all > GlobalNetworkPolicy/deny-all",
		"create NetworkPolicy/prod/web > NetworkPolicy/prod/web: spec.types becomes [Ingress Egress]: it was stored without, which Calico's agents take for both directions",
		`skip NetworkPolicy/prod/default.new: spec.ingress[0].moon: unknown field` + "\n" + `spec.ingress[0].source.ports[1]: X`,
		"create NetworkPolicy/prod/default.web > NetworkPolicy/prod/default.web: it keeps the name that Calico has stored: web is another one",
		"create FelixConfiguration/default > FelixConfiguration/default",
		"skip CalicoNodeStatus/n1: it asks Calico's own agents how they are",
		"skip ClusterInformation/default: it says what Calico is, and whether it is locked",
		"create IPPool/default-ipv4-ippool > IPPool/default-ipv4-ippool: spec.vxlanMode: there are no tunnels yet: packets to other nodes go nowhere. Never sends them through the nodes' network",
		"skip IPPool/odd: spec.shape: unknown field",
	}
	got := texts(p)
	for i := range got { // the words are api's
		if strings.HasPrefix(got[i], "skip NetworkPolicy/prod/default.new") {
			if !strings.Contains(got[i], "spec.ingress[0].moon") || !strings.Contains(got[i], "spec.ingress[0].source.ports[1]") {
				t.Errorf("not all that is wrong: %s", got[i])
			}
			got[i] = want[16]
		}
		if strings.HasPrefix(got[i], "skip IPPool/odd: spec.shape: ") {
			got[i] = "skip IPPool/odd: spec.shape: unknown field"
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !p.Locked {
		t.Error("not locked")
	}
	var losses []string
	for _, s := range p.Losses() {
		losses = append(losses, s.Kind+"/"+s.From)
	}
	if diff := cmp.Diff([]string{"NetworkPolicy/prod/default.new", "IPPool/default-ipv4-ippool", "IPPool/odd"}, losses); diff != "" {
		t.Errorf("losses (-want +got):\n%s", diff)
	}
	// Elsewhere pods' addresses mean nothing; policies do.
	p = newBench(t, cluster1()).plan(Options{})
	if n := p.Count(Create); n != 8 {
		t.Errorf("without Kubernetes %d objects, want 8:\n%s", n, strings.Join(texts(p), "\n"))
	}
}

func get[T api.Object](b *bench, kind, namespace, name string) T {
	b.t.Helper()
	o, err := b.store.Get(b.t.Context(), api.Key{Kind: kind, Namespace: namespace, Name: name})
	if err != nil {
		b.t.Fatal(err)
	}
	return o.(T)
}

// TestDo looks at what was written: metadata that users gave, and whose the addresses are.
func TestDo(t *testing.T) {
	b := newBench(t, cluster1())
	b.do(kubernetes)
	deny := get[*api.GlobalNetworkPolicy](b, "GlobalNetworkPolicy", "", "deny-all")
	if deny.Labels["team"] != "a" || deny.Labels["stored"] != "" || len(deny.Annotations) != 1 || deny.Annotations["note"] != "mine" || deny.UID == "1c2d" {
		t.Errorf("metadata %+v", deny.ObjectMeta)
	}
	if web := get[*api.NetworkPolicy](b, "NetworkPolicy", "prod", "web"); web.Spec.Selector != "app == 'other'" {
		t.Errorf("the policy that had the name has selector %s", web.Spec.Selector)
	}
	if c := get[*api.IPAMConfiguration](b, "IPAMConfiguration", "", "default"); !c.Spec.StrictAffinity {
		t.Error("strictAffinity is lost")
	}
	owners := map[string]string{}
	for _, o := range list(b, "IPAMBlock") {
		for a, who := range o.(*api.IPAMBlock).Owners() {
			owners[a.String()] = fmt.Sprintf("%s/%s %s %s %s", who.Namespace, who.Pod, who.UID, who.Node, who.Type)
		}
	}
	want := map[string]string{
		"10.0.0.1":   "prod/web " + uid1 + " n1 ",
		"10.0.0.5":   "/  n1 vxlanTunnelAddress",
		"10.0.0.6":   "prod/web " + uid1 + " n1 ",
		"10.0.0.70":  "prod/db-0 " + uid2 + " n1 ",
		"10.0.0.192": "prod/   LoadBalancer",
	}
	if diff := cmp.Diff(want, owners); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
}

func list(b *bench, kind string) []api.Object {
	b.t.Helper()
	objects, err := b.store.List(b.t.Context(), kind, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return objects
}

// TestGoesOn lets address management go on with what was brought along: nothing is wrong with it, nobody gets an address
// that somebody has, and the end of Calico's sandboxes gives theirs back.
func TestGoesOn(t *testing.T) {
	b := newBench(t, cluster1())
	b.do(kubernetes)
	for _, n := range []string{"n1", "n2"} {
		n1 := &api.Node{}
		n1.Name = n
		if _, err := b.store.Create(t.Context(), n1); err != nil {
			t.Fatal(err)
		}
	}
	a := ipam.New(ipam.Config{Store: b.store, Node: "n1", OneByOne: true})
	r, err := a.Audit(t.Context(), ipam.AuditOptions{InUse: func(context.Context) ([]ipam.Use, error) { return nil, nil }})
	if err != nil || len(r.Objects)+len(r.Double) > 0 || r.Allocated != 5 || r.Blocks != 3 {
		t.Errorf("audit: %v %+v", err, r)
	}
	taken := map[netip.Addr]bool{}
	for _, l := range r.Leaked {
		taken[l.Addr] = true
	}
	for i := range 61 { // the rest of the block
		got, err := a.Assign(t.Context(), ipam.Request{Handle: fmt.Sprint("h", i), V4: true})
		if err != nil {
			t.Fatal(err)
		}
		if addr := got.Addrs[0].Addr; taken[addr] || !netip.MustParsePrefix("10.0.0.0/26").Contains(addr) {
			t.Fatalf("allocation %d: %s", i, addr)
		} else {
			taken[addr] = true
		}
	}
	for _, x := range []struct {
		sandbox string
		want    []string
	}{{"aaaa", []string{"10.0.0.1", "10.0.0.6"}}, {"ffff", []string{"10.0.0.70"}}} {
		gone, err := a.Release(t.Context(), ipam.HandleOf(x.sandbox, "eth0"), ipam.ReleaseOptions{})
		if err != nil || fmt.Sprint(gone) != fmt.Sprint(x.want) {
			t.Errorf("sandbox %s gave back %v, %v", x.sandbox, gone, err)
		}
	}
	if n := len(list(b, "IPAMHandle")); n != 0 {
		t.Errorf("%d records of handles are left", n)
	}
}

// TestAgain does it twice, and after a kill at each write: the outcome is the same.
func TestAgain(t *testing.T) {
	b := newBench(t, cluster1())
	total := len(b.do(kubernetes))
	if again := b.do(kubernetes); len(again) != 0 {
		t.Errorf("a second run wrote %v", again)
	}
	if p := b.plan(kubernetes); p.Count(Create, Update, Keep, Conflict) != 0 || p.Count(Same) != total+1 {
		t.Errorf("what a second run would do:\n%s", strings.Join(texts(p), "\n"))
	}
	away := fmt.Errorf("%w: killed", datastore.ErrUnavailable)
	kills := 0
	for n := 0; ; n++ {
		c := newBench(t, cluster1())
		client := c.store.Client()
		p, err := Make(t.Context(), c.files, client, kubernetes)
		if err != nil {
			t.Fatal(err)
		}
		client.FailNth(n, -1, away)
		err = p.Do(t.Context(), c.files, client, Consent{Loss: true}, func(Step) {})
		if err == nil {
			break
		}
		kills++
		c.do(kubernetes)
		for _, k := range kinds {
			if k.to != "" {
				if diff := cmp.Diff(specs(b, k.to), specs(c, k.to)); diff != "" {
					t.Fatalf("killed at call %d (-want +got):\n%s", n, diff)
				}
			}
		}
	}
	if kills < total {
		t.Errorf("%d kills for %d writes", kills, total)
	}
}

func specs(b *bench, kind string) map[string]any {
	out := map[string]any{}
	for _, o := range list(b, kind) {
		out[api.KeyOf(o).String()] = specOf(o)
	}
	return out
}

// TestLater runs it again after Tortie has begun to work, and while some of Calico's pods went: what is here stays, what
// is new is added.
func TestLater(t *testing.T) {
	b := newBench(t, cluster1())
	b.do(kubernetes)
	a := ipam.New(ipam.Config{Store: b.store, Node: "n1", OneByOne: true})
	got, err := a.Assign(t.Context(), ipam.Request{Handle: "new", V4: true, Owner: api.Owner{Namespace: "prod", Pod: "new", UID: "u9"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Release(t.Context(), ipam.HandleOf("aaaa", "eth0"), ipam.ReleaseOptions{}); err != nil {
		t.Fatal(err)
	}
	mine := get[*api.GlobalNetworkPolicy](b, "GlobalNetworkPolicy", "", "deny-all")
	mine.Spec.Selector = "mine == 'x'"
	if _, err := b.store.Update(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	b.files = &Files{}
	if err := b.files.Add([]byte(strings.ReplaceAll(cluster1(), "name: gone", "name: gone-too") + pod("prod", "gone", "2d1e3c9a-0000-4000-8000-000000000009", "n1", "Running", "10.0.0.2"))); err != nil {
		t.Fatal(err)
	}
	done := b.do(kubernetes)
	if !slices.Contains(done, "IPAMBlock/10-0-0-0-26") || slices.Contains(done, "GlobalNetworkPolicy/deny-all") {
		t.Errorf("wrote %v", done)
	}
	owners := map[string]string{}
	for _, o := range list(b, "IPAMBlock") {
		for a, who := range o.(*api.IPAMBlock).Owners() {
			owners[a.String()] = who.Pod
		}
	}
	if owners[got.Addrs[0].Addr.String()] != "new" || owners["10.0.0.2"] != "gone" || owners["10.0.0.1"] != "web" {
		t.Errorf("owners %v", owners)
	}
	if get[*api.GlobalNetworkPolicy](b, "GlobalNetworkPolicy", "", "deny-all").Spec.Selector != "mine == 'x'" {
		t.Error("a policy that was changed here is changed back")
	}
	b.do(Options{Kubernetes: true, Overwrite: true})
	if s := get[*api.GlobalNetworkPolicy](b, "GlobalNetworkPolicy", "", "deny-all").Spec.Selector; s != "all()" {
		t.Errorf("--overwrite: selector %s", s)
	}
}

// TestRefuses writes nothing while Calico may write, nor over somebody's address.
func TestRefuses(t *testing.T) {
	none := func(Step) { t.Error("something was written") }
	for _, unlocked := range []string{strings.Replace(cluster1(), "datastoreReady: false", "datastoreReady: true", 1), strings.Replace(cluster1(), "datastoreReady: false, ", "", 1),
		strings.Replace(cluster1(), "kind: ClusterInformation", "kind: Other", 1)} {
		b := newBench(t, unlocked)
		if err := b.plan(kubernetes).Do(t.Context(), b.files, b.store, Consent{Loss: true}, none); !errors.Is(err, ErrUnlocked) {
			t.Errorf("not locked: %v", err)
		}
		if err := b.plan(kubernetes).Do(t.Context(), b.files, b.store, Consent{Unlocked: true, Loss: true}, func(Step) {}); err != nil {
			t.Errorf("not locked, forced: %v", err)
		}
	}
	b := newBench(t, cluster1())
	var open Files
	if err := open.Add([]byte(strings.Replace(cluster1(), "datastoreReady: false", "datastoreReady: true", 1))); err != nil {
		t.Fatal(err)
	}
	if err := b.plan(kubernetes).Do(t.Context(), &open, b.store, Consent{Loss: true}, func(Step) {}); !errors.Is(err, ErrUnlocked) {
		t.Errorf("unlocked meanwhile: %v", err)
	}
	for _, tc := range []struct{ name, block, why string }{
		{"somebody has an address", block("10.0.0.0/26", "host:n1", []int{1}, "{handle_id: h, secondary: {namespace: prod, pod: other, uid: u7}}"), "10.0.0.1 is pod prod/other's here, and pod prod/web's at Calico"},
		{"another node has the block", block("10.0.0.0/26", "host:n2", nil), "it is of host:n2 here, and of host:n1 at Calico"},
		{"blocks of another size", block("10.0.0.0/25", "host:n2", nil), "block 10.0.0.0/25 is here, and overlaps it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, cluster1())
			here := strings.Replace(strings.TrimSuffix(tc.block, "---\n"), "crd.projectcalico.org/v1", "projectcalico.org/v3", 1)
			objects, err := api.Decode([]byte(here))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.store.Create(t.Context(), objects[0]); err != nil {
				t.Fatal(err)
			}
			p := b.plan(kubernetes)
			if p.Count(Conflict) == 0 || !strings.Contains(strings.Join(texts(p), "\n"), tc.why) {
				t.Errorf("no conflict %q in\n%s", tc.why, strings.Join(texts(p), "\n"))
			}
			if err := p.Do(t.Context(), b.files, b.store, Consent{Loss: true}, none); !errors.Is(err, ErrConflict) {
				t.Errorf("error %v", err)
			}
		})
	}
	b = newBench(t, strings.ReplaceAll(cluster1(), "kind: Pod\n", "kind: Podium\n"))
	if _, err := Make(t.Context(), b.files, b.store, kubernetes); err == nil {
		t.Error("without pods nobody knows which addresses are in use")
	}
}

// TestLoss writes nothing while something that decides about traffic would be lost, unless that is all right.
func TestLoss(t *testing.T) {
	const policy, pool = "{tier: default, selector: all(), types: [Ingress]}", "{cidr: 10.0.0.0/24, blockSize: 26, ipipMode: %s, vxlanMode: %s}"
	for _, c := range []struct {
		name, objects, here string
		want                string // what is lost
	}{
		{"nothing", crd("GlobalNetworkPolicy", "default.a", policy) + crd("IPPool", "p", fmt.Sprintf(pool, "Never", "Never")), "", ""},
		{"a policy with a field that is not known", crd("GlobalNetworkPolicy", "default.a", "{tier: default, selector: all(), moon: full}"), "", "GlobalNetworkPolicy/default.a"},
		{"a staged one", crd("StagedGlobalNetworkPolicy", "default.a", "{tier: default, selector: all(), moon: full}"), "", ""},
		{"a setting that can't be", crd("FelixConfiguration", "default", "{logSeverityScreen: 7}"), "", "FelixConfiguration/default"},
		{"another one of that name here", crd("GlobalNetworkPolicy", "default.a", policy), "app == 'x'", "GlobalNetworkPolicy/default.a"},
		{"the same here", crd("GlobalNetworkPolicy", "default.a", policy), "all()", ""},
		{"IPIP", crd("IPPool", "p", fmt.Sprintf(pool, "Always", "Never")), "", "IPPool/p"},
		{"VXLAN", crd("IPPool", "p", fmt.Sprintf(pool, "Never", "CrossSubnet")), "", "IPPool/p"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, lock(false)+c.objects)
			if c.here != "" {
				o := &api.GlobalNetworkPolicy{Spec: api.GlobalNetworkPolicySpec{Selector: c.here, Types: []api.PolicyType{api.Ingress}}}
				o.Name = "a"
				api.Default(o)
				if _, err := b.store.Create(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			before := len(list(b, "GlobalNetworkPolicy")) + len(list(b, "IPPool"))
			p := b.plan(kubernetes)
			err := p.Do(t.Context(), b.files, b.store, Consent{}, func(Step) {})
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrLoss) || !strings.HasSuffix(err.Error(), ": "+c.want) {
				t.Errorf("got %v, want the loss of %s", err, c.want)
			}
			if after := len(list(b, "GlobalNetworkPolicy")) + len(list(b, "IPPool")); after != before {
				t.Error("something was written")
			}
			if err := p.Do(t.Context(), b.files, b.store, Consent{Loss: true}, func(Step) {}); err != nil {
				t.Errorf("though it is all right: %v", err)
			}
		})
	}
}

// TestAdapt changes what would mean something else here.
func TestAdapt(t *testing.T) {
	b := newBench(t, lock(false)+
		crd("GlobalNetworkPolicy", "default.none", "{tier: default, selector: all()}")+
		crd("GlobalNetworkPolicy", "default.pre", "{tier: default, selector: all(), preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]}")+
		crd("NetworkPolicy", "default.out", "{tier: default, egress: [{action: Allow}]}", ", namespace: prod")+
		crd("NetworkPolicy", "default.said", "{tier: default, types: [Egress]}", ", namespace: prod")+
		crd("FelixConfiguration", "default", "{interfacePrefix: cali, logSeverityScreen: Info}"))
	if p := b.plan(kubernetes); len(p.Losses()) > 0 {
		t.Errorf("losses: %v", p.Losses())
	}
	b.do(kubernetes)
	got := map[string][]api.PolicyType{}
	for _, kind := range []string{"GlobalNetworkPolicy", "NetworkPolicy"} {
		for _, o := range list(b, kind) {
			switch o := o.(type) {
			case *api.GlobalNetworkPolicy:
				got[o.Name] = o.Spec.Types
			case *api.NetworkPolicy:
				got[o.Name] = o.Spec.Types
			}
		}
	}
	both := []api.PolicyType{api.Ingress, api.Egress}
	want := map[string][]api.PolicyType{"none": both, "pre": {api.Ingress}, "out": both, "said": {api.Egress}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
	f := get[*api.FelixConfiguration](b, "FelixConfiguration", "", "default")
	if _, ok := f.Spec["interfacePrefix"]; ok || f.Spec["logSeverityScreen"] != "Info" {
		t.Errorf("settings %v", f.Spec)
	}
	if again := b.do(kubernetes); len(again) > 0 {
		t.Errorf("a second run wrote %v", again)
	}
}

// TestWhose writes nothing while a block does not say whose an address is.
func TestWhose(t *testing.T) {
	text := strings.Replace(cluster1(), "allocations: [null, 0,", "allocations: [null, 99,", 1)
	b := newBench(t, text)
	p := b.plan(kubernetes)
	if got := strings.Join(texts(p), "\n"); !strings.Contains(got, "conflict IPAMBlock/10-0-0-0-26: it can't be read: allocations[1] is attribute 99 of 7") {
		t.Error(got)
	}
	if err := p.Do(t.Context(), b.files, b.store, Consent{Loss: true}, func(Step) { t.Error("something was written") }); !errors.Is(err, ErrConflict) {
		t.Errorf("error %v", err)
	}
}
