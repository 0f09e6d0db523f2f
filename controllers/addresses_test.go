package controllers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/ipam"
)

var errAway = fmt.Errorf("%w: a test says so", datastore.ErrUnavailable)

func (b *bench) pod(namespace, name, uid, node string) *pod {
	p := &pod{namespace: namespace, name: name, uid: types.UID(uid), node: node}
	b.pods[namespace+"/"+name] = p
	return p
}

// TestLeaksOfPods takes back the addresses of pods that are gone, have finished, or have a successor of the same name.
func TestLeaksOfPods(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", ""))
	alive, gone, finished := b.pod("prod", "alive", "u1", "n1"), b.pod("prod", "gone", "u2", "n1"), b.pod("prod", "done", "u3", "n1")
	first := b.pod("prod", "db-0", "u4", "n1")
	for i, p := range []*pod{alive, gone, finished, first} {
		b.sandbox(p, fmt.Sprint("sandbox", i))
	}
	delete(b.pods, "prod/gone")
	finished.finished = true
	second := b.pod("prod", "db-0", "u5", "n1")
	b.sandbox(second, "sandbox9")

	c := b.collector(b.store, b)
	for range 4 {
		b.see()
		if err := c.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(b.owners()) != 5 {
			t.Fatalf("%v after its death an address is gone: %v", b.now, b.owners())
		}
		b.now = b.now.Add(ipam.DefaultGrace/4 - time.Second)
	}
	if n := testutil.ToFloat64(b.metrics.addresses.candidates.WithLabelValues("n1", "v4")); n != 3 {
		t.Errorf("%v candidates, want 3", n)
	}
	b.now = b.now.Add(time.Minute)
	b.see()
	if err := c.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := b.owners(); len(all) != 2 || all[alive.held[0].Addr].Pod != "alive" || all[second.held[0].Addr].UID != "u5" {
		t.Errorf("left: %v", all)
	}
	b.see()
	if err := c.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := b.metrics.addresses
	for _, x := range []struct {
		name string
		got  float64
		want float64
	}{
		{"in use", testutil.ToFloat64(m.inUse.WithLabelValues("n1", "v4")), 2},
		{"blocks", testutil.ToFloat64(m.blocks.WithLabelValues("n1", "v4")), 1},
		{"candidates", testutil.ToFloat64(m.candidates.WithLabelValues("n1", "v4")), 0},
		{"reclaimed", testutil.ToFloat64(m.reclaimed.WithLabelValues("n1", "v4")), 3},
	} {
		if x.got != x.want {
			t.Errorf("%s: %v, want %v", x.name, x.got, x.want)
		}
	}
}

// TestOldWatch has the watch show blocks, and not the pod, for longer than the grace: the address stays.
func TestOldWatch(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", ""))
	b.see()
	b.sandbox(b.pod("prod", "new", "u1", "n1"), "sandbox")
	c := b.collector(b.store, b)
	for range 10 {
		b.see("IPAMBlock", "BlockAffinity")
		if err := c.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.now = b.now.Add(10 * time.Minute)
	}
	b.intact()

	// Nobody answers: nothing is released either, and that is an error.
	delete(b.pods, "prod/new")
	b.podsErr = errAway
	if err := c.step(t.Context()); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("nobody can say whether the pod lives: %v", err)
	}
	b.podsErr = nil
	if err := c.step(t.Context()); err != nil || len(b.owners()) != 0 {
		t.Errorf("%v, left %v", err, b.owners())
	}
}

// TestUnreadableBlock has objects in the store that can't be read: leaks of others come back all the same, and the error says
// which those are.
func TestUnreadableBlock(t *testing.T) {
	for _, kind := range []string{"IPAMBlock", "BlockAffinity"} {
		t.Run(kind, func(t *testing.T) {
			b := newBench(t, poolYAML("v4", "10.0.0.0/24", ", blockSize: 28"), nodeYAML("n1", ""), nodeYAML("n2", ""))
			bad, gone := b.pod("prod", "bad", "u1", "n1"), b.pod("prod", "gone", "u2", "n2")
			b.sandbox(bad, "sandbox1")
			b.sandbox(gone, "sandbox2")
			delete(b.pods, "prod/bad") // of an unreadable block nobody knows that
			name := ipam.BlockKey(bad.held[0].Block).Name
			if kind == "BlockAffinity" {
				name = "n1-" + name
				b.pod("prod", "bad", "u1", "n1")
			}
			key := api.Key{Kind: kind, Name: name}
			raw := []byte(`{"spec":{"cidr":"` + bad.held[0].Block.String() + `","allocations":"all","state":17}}`)
			b.store.SetRaw(key, raw)
			c := b.collector(b.store, b)
			step := func() (err error) {
				for range 4 { // two graces
					b.see()
					b.w.take(unreadable(kind, name))
					err = c.step(t.Context())
					b.now = b.now.Add(ipam.DefaultGrace/2 + time.Second)
				}
				return err
			}
			if err := step(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not name %s: %v", key, err)
			}
			delete(b.pods, "prod/gone")
			if err := step(); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not name %s: %v", key, err)
			}
			all := b.owners()
			if o, ok := all[gone.held[0].Addr]; ok {
				t.Errorf("%s is still %+v's", gone.held[0].Addr, o)
			}
			if kind == "BlockAffinity" && all[bad.held[0].Addr].Pod != "bad" {
				t.Errorf("left: %v", all)
			}
			if _, err := b.store.Get(t.Context(), key); !errors.Is(err, datastore.ErrUnreadable) {
				t.Errorf("%s is not as it was: %v", key, err)
			}
			affinities, blocks := map[string]float64{"IPAMBlock": 2, "BlockAffinity": 1}, map[string]float64{"IPAMBlock": 0, "BlockAffinity": 1}
			if n := len(stored[*api.BlockAffinity](b, "BlockAffinity")); float64(n) != affinities[kind] {
				t.Errorf("%d affinities can be read", n)
			}
			m := b.metrics.addresses
			if n := testutil.ToFloat64(m.blocks.WithLabelValues("n1", "v4")); n != blocks[kind] {
				t.Errorf("%v blocks of n1 are counted", n)
			}
			if n := testutil.ToFloat64(m.reclaimed.WithLabelValues("n2", "v4")); n != 1 {
				t.Errorf("%v addresses are counted as taken back", n)
			}
		})
	}
}

// TestOwnerNobodyCanAskFor keeps an address whose pod has a name that no request can have, and takes back those of others.
func TestOwnerNobodyCanAskFor(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", ""))
	first, odd, last := b.pod("prod", "first", "u1", "n1"), b.pod("prod", "a/b", "u2", "n1"), b.pod("prod", "last", "u3", "n1")
	for _, p := range []*pod{first, odd, last} {
		b.sandbox(p, "sandbox"+string(p.uid))
	}
	clear(b.pods)
	c := b.collector(b.store, b)
	var err error
	for range 4 {
		b.see()
		err = c.step(t.Context())
		b.now = b.now.Add(ipam.DefaultGrace/2 + time.Second)
	}
	if err == nil || !strings.Contains(err.Error(), odd.held[0].Addr.String()) {
		t.Errorf("error %v", err)
	}
	if all := b.owners(); len(all) != 1 || all[odd.held[0].Addr].Pod != "a/b" {
		t.Errorf("left: %v", all)
	}
	if n := testutil.ToFloat64(b.metrics.addresses.candidates.WithLabelValues("n1", "v4")); n != 1 {
		t.Errorf("%v candidates", n)
	}
}

// TestNotSpokenOf keeps what no object of the API server could speak of.
func TestNotSpokenOf(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", ", ipv4VXLANTunnelAddr: 10.0.0.200"), nodeYAML("n2", ""))
	assign := func(a *ipam.Allocator, r ipam.Request) ipam.Held {
		t.Helper()
		r.V4 = true
		got, err := a.Assign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return got.Addrs[0]
	}
	byHand := assign(b.node("n1"), ipam.Request{Handle: "by-hand"})
	lb := assign(ipam.New(ipam.Config{Store: b.store, Node: "load-balancer", Virtual: true, OneByOne: true, Clock: b.clock}),
		ipam.Request{Handle: "lb-1", Owner: api.Owner{Namespace: "prod", Type: "LoadBalancer"}})
	tunnel := assign(b.node("n2"), ipam.Request{Handle: "vxlan-tunnel-addr-n2", Use: ipam.UseTunnel, Owner: api.Owner{Type: "vxlanTunnelAddress"}})
	old := assign(b.node("n2"), ipam.Request{Handle: "ipip-tunnel-addr-n2", Use: ipam.UseTunnel, Owner: api.Owner{Type: "ipipTunnelAddress"}})
	elsewhere := assign(b.node("n3"), ipam.Request{Handle: "of-a-node-that-is-gone"})
	unseen := assign(b.node("n4"), ipam.Request{Handle: "of-a-node-that-is-new"})

	// The store knows of n4, and of n2's tunnel address, the watch does not.
	b.see()
	b.create(nodeYAML("n4", ""))
	o, err := b.store.Get(t.Context(), api.Key{Kind: "Node", Name: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	o.(*api.Node).Spec.IPv4VXLANTunnelAddr = tunnel.Addr.String()
	if _, err := b.store.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	c := b.collector(b.store, b)
	for range 5 {
		b.see("IPAMBlock", "BlockAffinity", "IPAMHandle")
		if err := c.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.now = b.now.Add(10 * time.Minute)
	}
	all := b.owners()
	for _, h := range []ipam.Held{byHand, lb, tunnel, unseen} {
		if _, ok := all[h.Addr]; !ok {
			t.Errorf("%s was taken back", h.Addr)
		}
	}
	for _, h := range []ipam.Held{old, elsewhere} {
		if o, ok := all[h.Addr]; ok {
			t.Errorf("%s is still %+v's", h.Addr, o)
		}
	}
	for _, o := range stored[*api.BlockAffinity](b, "BlockAffinity") {
		if o.Spec.Node == "n3" {
			t.Errorf("%s is left of a node that is gone", o.Name)
		}
	}
}

// TestOutsideOfKubernetes goes by WorkloadEndpoints, and by those of the store before it takes anything back.
func TestOutsideOfKubernetes(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", ""))
	a := ipam.New(ipam.Config{Store: b.store, Node: "n1", Clock: b.clock})
	for _, h := range []string{"used", "leaked", "late"} {
		r, err := a.Assign(t.Context(), ipam.Request{Handle: h, V4: true, Owner: api.Owner{Namespace: "prod", Pod: h}})
		if err != nil {
			t.Fatal(err)
		}
		if h == "used" {
			b.create(fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {namespace: prod, name: n1-cni-used-eth0}, spec: {node: n1, orchestrator: cni, workload: used, endpoint: eth0, ipNetworks: [%s/32]}}", r.Addrs[0].Addr))
			b.see()
		}
		if h == "late" {
			b.create(fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {namespace: prod, name: n1-cni-late-eth0}, spec: {node: n1, orchestrator: cni, workload: late, endpoint: eth0, ipNetworks: [%s/32]}}", r.Addrs[0].Addr))
		}
	}
	c := b.collector(b.store, nil)
	for range 4 {
		b.see("IPAMBlock", "BlockAffinity")
		if err := c.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.now = b.now.Add(10 * time.Minute)
	}
	names := map[string]bool{}
	for _, o := range b.owners() {
		names[o.Pod] = true
	}
	if len(names) != 2 || !names["used"] || !names["late"] {
		t.Errorf("left: %v", names)
	}
}

// TestBlind does nothing while the watch does not show what is so.
func TestBlind(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", ""))
	p := b.pod("prod", "gone", "u1", "n1")
	b.sandbox(p, "sandbox")
	delete(b.pods, "prod/gone")
	c := b.collector(b.store, b)
	look := func(why string) {
		t.Helper()
		for range 4 {
			if err := c.step(t.Context()); err == nil {
				t.Errorf("%s: no error", why)
			}
			b.now = b.now.Add(10 * time.Minute)
		}
		if len(b.owners()) != 1 {
			t.Errorf("%s: released", why)
		}
	}
	look("no snapshot")
	b.see()
	b.w.take(datastore.Batch{InSync: true, Status: datastore.Status{Err: errAway}})
	look("not connected")
	b.w.take(datastore.Batch{InSync: true, Status: datastore.Status{Connected: true, Kinds: map[string]error{"WorkloadEndpoint": datastore.ErrForbidden}}})
	look("pods can't be listed")
	bad := datastore.Event{Key: api.Key{Kind: "WorkloadEndpoint", Namespace: "prod", Name: "x"}, Problem: errors.New("it is garbage")}
	b.w.take(datastore.Batch{InSync: true, Status: datastore.Status{Connected: true}, Events: []datastore.Event{bad}})
	look("an endpoint that can't be read")
}

// TestGrace follows the configuration: another grace, and none at all.
func TestGrace(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", ""))
	b.sandbox(b.pod("prod", "gone", "u1", "n1"), "sandbox")
	delete(b.pods, "prod/gone")
	set := func(d time.Duration) {
		o := &api.KubeControllersConfiguration{}
		o.Name = "default"
		grace := api.Duration(d)
		o.Spec.Controllers.Node = &api.NodeController{LeakGracePeriod: &grace}
		b.tell(o.GetKind(), []api.Object{o})
	}
	b.see()
	c := b.collector(b.store, b)
	step := func(left int) {
		t.Helper()
		if err := c.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(b.owners()) != left {
			t.Errorf("%d addresses are left, want %d", len(b.owners()), left)
		}
		b.now = b.now.Add(time.Minute)
	}
	set(0)
	for range 30 {
		step(1)
	}
	set(2 * time.Minute)
	if every := c.part().every(); every != time.Minute {
		t.Errorf("a step every %v", every)
	}
	step(1)
	step(1)
	step(0)
}

// TestKilledAnywhere kills the process at each of its writes and reads; the next one ends what it began.
func TestKilledAnywhere(t *testing.T) {
	for _, kubernetes := range []bool{true, false} {
		for n := 0; ; n++ {
			b := newBench(t, poolYAML("v4", "10.0.0.0/28", ", blockSize: 30"), nodeYAML("n1", ""))
			for i := range 3 {
				b.sandbox(b.pod("prod", fmt.Sprint("gone", i), fmt.Sprint("g", i), "n2"), fmt.Sprint("gone", i))
				delete(b.pods, fmt.Sprint("prod/gone", i))
			}
			for i := range 6 { // some in the blocks of n2
				b.sandbox(b.pod("prod", fmt.Sprint("p", i), fmt.Sprint("u", i), "n1"), fmt.Sprint("sandbox", i))
			}
			killed := false
			client := b.store.Client()
			for round := range 12 {
				c, p := client, pods(nil)
				if kubernetes {
					p = b
				} else {
					b.endpointsToStore()
				}
				if round == 2 {
					client.FailNth(n, -1, errAway)
				}
				if round == 3 {
					c, client = b.store.Client(), b.store // and another process takes over
				}
				if round <= 1 || round == 3 {
					b.see()
				}
				col := b.held(round, c, p)
				b.see()
				err := col.step(t.Context())
				if round == 2 && err != nil {
					killed = true
				} else if err != nil {
					t.Fatalf("killed at call %d: round %d: %v", n, round, err)
				}
				b.intact()
				b.now = b.now.Add(10 * time.Minute)
			}
			for a, o := range b.owners() {
				if b.pods[o.Namespace+"/"+o.Pod] == nil {
					t.Errorf("killed at call %d: %s is %+v's for ever", n, a, o)
				}
			}
			for _, o := range stored[*api.BlockAffinity](b, "BlockAffinity") {
				if o.Spec.State != "confirmed" {
					t.Errorf("killed at call %d: %s is %s", n, o.Name, o.Spec.State)
				}
			}
			if t.Failed() {
				return
			}
			if !killed {
				if n < 5 {
					t.Errorf("only %d calls", n)
				}
				break
			}
		}
	}
}

// held returns the collector of rounds 0 to 2, or that of all later ones.
func (b *bench) held(round int, s datastore.Store, p pods) *collector {
	if round == 0 || round == 3 {
		b.col = b.collector(s, p)
	}
	return b.col
}

// endpointsToStore writes what pods there are as WorkloadEndpoints, as agents outside of Kubernetes do.
func (b *bench) endpointsToStore() {
	b.t.Helper()
	for _, p := range b.pods {
		e := &api.WorkloadEndpoint{}
		e.Namespace, e.Name = p.namespace, api.WorkloadEndpointName(p.node, "cni", p.name, "eth0")
		e.Spec = api.WorkloadEndpointSpec{Node: p.node, Orchestrator: "cni", Workload: p.name, Endpoint: "eth0"}
		for _, h := range p.held {
			e.Spec.IPNetworks = append(e.Spec.IPNetworks, h.Addr.String()+"/32")
		}
		if _, err := b.store.Create(b.t.Context(), e); err != nil && !errors.Is(err, datastore.ErrExists) {
			b.t.Fatal(err)
		}
	}
}

// TestModel lets pods come, go, finish and restart on nodes that come and go, loses what should have been released, shows
// the world late or in part, and kills the collector. An address of a pod that runs is never taken back; in the end, all
// others are.
func TestModel(t *testing.T) {
	for _, seed := range []uint64{1, 2, uint64(time.Now().UnixNano())} {
		m := newModel(t, seed)
		for range 300 {
			m.act()
			if !m.b.intact() {
				t.Fatalf("seed %d, step %d", seed, m.steps)
			}
		}
		m.settle()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		if m.released < 3 {
			t.Errorf("seed %d: only %d addresses were taken back", seed, m.released)
		}
	}
}

type model struct {
	b        *bench
	rng      *rand.Rand
	c        *collector
	client   interface{ FailNth(skip, n int, err error) }
	nodes    []string
	steps    int
	uids     int
	released int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{b: newBench(t, poolYAML("v4", "10.0.0.0/23", ", blockSize: 29")), rng: rand.New(rand.NewPCG(seed, 1))}
	for i := range 4 {
		m.nodes = append(m.nodes, fmt.Sprint("n", i))
		m.b.create(nodeYAML(m.nodes[i], ""))
	}
	m.lead()
	m.b.see()
	return m
}

// lead begins a new process.
func (m *model) lead() {
	s := m.b.store.Client()
	m.client, m.c = s, m.b.collector(s, m.b)
}

func (m *model) act() {
	b := m.b
	m.steps++
	name := fmt.Sprint("p", m.rng.IntN(40))
	p := b.pods["prod/"+name]
	switch m.rng.IntN(12) {
	case 0, 1, 2: // a new pod, perhaps of a name that was there before
		if p == nil {
			m.uids++
			m.start(b.pod("prod", name, fmt.Sprint("uid", m.uids), m.nodes[m.rng.IntN(len(m.nodes))]))
		}
	case 3: // it goes, as it should
		if p != nil {
			m.release(p)
			delete(b.pods, "prod/"+name)
		}
	case 4: // it goes, and nobody releases what it has
		delete(b.pods, "prod/"+name)
	case 5:
		if p != nil {
			p.finished = true
		}
	case 6: // another sandbox; perhaps the old one was not taken down
		if p != nil && !p.finished {
			if m.rng.IntN(2) == 0 {
				m.release(p)
			}
			m.start(p)
		}
	case 7: // a node goes with all that is on it
		if m.rng.IntN(4) == 0 {
			m.replaceNode()
		}
	case 8: // the watch shows a part
		b.see(watched[m.rng.IntN(len(watched))], "IPAMBlock")
	case 9:
		b.see()
	default:
		m.collect()
	}
	b.now = b.now.Add(time.Duration(m.rng.IntN(180)) * time.Second)
}

func (m *model) start(p *pod) { m.b.sandbox(p, fmt.Sprintf("%s-%d", p.uid, m.steps)) }

func (m *model) release(p *pod) {
	if _, err := m.b.node(p.node).Release(m.b.t.Context(), p.handle, ipam.ReleaseOptions{Held: p.held}); err != nil {
		m.b.t.Fatal(err)
	}
	p.held = nil
}

func (m *model) replaceNode() {
	i := m.rng.IntN(len(m.nodes))
	old := m.nodes[i]
	for key, p := range m.b.pods {
		if p.node == old {
			delete(m.b.pods, key)
		}
	}
	if err := m.b.store.Delete(m.b.t.Context(), api.Key{Kind: "Node", Name: old}, ""); err != nil {
		m.b.t.Fatal(err)
	}
	m.nodes[i] = fmt.Sprint("m", m.steps)
	m.b.create(nodeYAML(m.nodes[i], ""))
}

func (m *model) collect() {
	before := len(m.b.owners())
	dies := m.rng.IntN(3) == 0
	if dies {
		m.client.FailNth(m.rng.IntN(10), -1, errAway)
	}
	if m.rng.IntN(6) == 0 {
		m.b.podsErr = errAway
	}
	if err := m.c.step(m.b.t.Context()); err != nil && !errors.Is(err, datastore.ErrUnavailable) {
		m.b.t.Error(err)
	}
	m.b.podsErr = nil
	if dies {
		m.lead()
	}
	m.released += before - len(m.b.owners())
}

// settle lets time pass until there is nothing left to take back.
func (m *model) settle() {
	b := m.b
	m.lead()
	for range 10 {
		b.see()
		if err := m.c.step(b.t.Context()); err != nil {
			b.t.Error(err)
		}
		b.now = b.now.Add(10 * time.Minute)
	}
	b.intact()
	alive := map[string]bool{}
	for _, p := range b.pods {
		alive[string(p.uid)] = !p.finished
	}
	for a, o := range b.owners() {
		if !alive[o.UID] {
			b.t.Errorf("%s is %+v's for ever", a, o)
		}
	}
	there := map[string]bool{}
	for _, n := range m.nodes {
		there[n] = true
	}
	for _, o := range stored[*api.BlockAffinity](b, "BlockAffinity") {
		if !there[o.Spec.Node] || o.Spec.State != "confirmed" {
			b.t.Errorf("affinity %s of %s is %s", o.Name, o.Spec.Node, o.Spec.State)
		}
	}
}
