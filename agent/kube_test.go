package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/internal/agentapi"
)

// cluster is a store as that of Kubernetes is: pods and namespaces become WorkloadEndpoints and Profiles of which nobody can
// write any, with the addresses that blocks hold for a pod's UID; Nodes can only be updated; and several writes can't be one.
type cluster struct {
	*mem.Store

	mu     sync.Mutex
	pods   map[string]pod // by namespace/name
	spaces map[string]map[string]string
	node   *api.Node
	blocks map[api.Key]*api.IPAMBlock
	sent   map[api.Key]string // what the watch has told, as JSON
	told   func(datastore.Batch) error
	last   datastore.Batch
	blind  bool // the watch says nothing of pods

	calls []string // writes, and what is said of the network
}

type pod struct {
	namespace, name, uid string
	labels, annotations  map[string]string
}

func newCluster() *cluster {
	return &cluster{Store: mem.New(), pods: map[string]pod{}, spaces: map[string]map[string]string{"shop": nil},
		blocks: map[api.Key]*api.IPAMBlock{}, sent: map[api.Key]string{}}
}

func meta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: kind}
}

// objects are what is made of what Kubernetes has.
func (c *cluster) objects() map[api.Key]api.Object {
	out := map[api.Key]api.Object{}
	add := func(o api.Object) { out[api.KeyOf(o)] = o }
	for name, annotations := range c.spaces {
		add(&api.Profile{TypeMeta: meta("Profile"), ObjectMeta: metav1.ObjectMeta{Name: "kns." + name, Annotations: annotations},
			Spec: api.ProfileSpec{Ingress: []api.Rule{{Action: api.Deny}}}})
	}
	if c.node != nil {
		add(c.node)
	}
	if c.blind {
		return out
	}
	addrs := map[string][]string{}
	for _, b := range c.blocks {
		for a, owner := range b.Owners() {
			addrs[owner.UID] = append(addrs[owner.UID], netip.PrefixFrom(a, a.BitLen()).String())
		}
	}
	for _, p := range c.pods {
		o := &api.WorkloadEndpoint{TypeMeta: meta("WorkloadEndpoint"), ObjectMeta: metav1.ObjectMeta{
			Namespace: p.namespace, Name: api.WorkloadEndpointName("node1", "k8s", p.name, "eth0"), UID: types.UID(p.uid), ResourceVersion: "1",
			Labels: p.labels, Annotations: p.annotations}}
		o.Spec = api.WorkloadEndpointSpec{Orchestrator: "k8s", Workload: p.name, Pod: p.name, Node: "node1", Endpoint: "eth0",
			Profiles: []string{"kns." + p.namespace}, IPNetworks: addrs[p.uid]}
		slices.Sort(o.Spec.IPNetworks)
		add(o)
	}
	return out
}

// news are the events that lead from what was told to what is.
func (c *cluster) news() []datastore.Event {
	var out []datastore.Event
	now := c.objects()
	for key := range c.sent {
		if now[key] == nil {
			delete(c.sent, key)
			out = append(out, datastore.Event{Key: key})
		}
	}
	for key, o := range now {
		b, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		if c.sent[key] != string(b) {
			c.sent[key] = string(b)
			out = append(out, datastore.Event{Key: key, Object: api.DeepCopy(o)})
		}
	}
	return out
}

// change does something to the cluster, and has the watch tell of it.
func (c *cluster) change(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
	if c.told != nil && c.last.InSync {
		b := datastore.Batch{Events: c.news(), InSync: true, Status: c.last.Status}
		_ = c.told(b) // an agent that ends does not listen
	}
}

func (c *cluster) setPod(p pod) { c.change(func() { c.pods[p.namespace+"/"+p.name] = p }) }

func (c *cluster) Watch(ctx context.Context, o datastore.WatchOptions, fn func(datastore.Batch) error) error {
	o.Kinds = slices.DeleteFunc(slices.Clone(o.Kinds), func(k string) bool { return k == "WorkloadEndpoint" || k == "Profile" || k == "Node" })
	c.mu.Lock()
	clear(c.sent)
	clear(c.blocks)
	c.mu.Unlock()
	defer c.change(func() { c.told = nil })
	return c.Store.Watch(ctx, o, func(b datastore.Batch) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, e := range b.Events {
			if e.Key.Kind == "IPAMBlock" {
				delete(c.blocks, e.Key)
				if o, ok := e.Object.(*api.IPAMBlock); ok {
					c.blocks[e.Key] = o
				}
			}
		}
		c.told, c.last = fn, b
		b.Events = append(b.Events, c.news()...)
		return fn(b)
	})
}

func (c *cluster) wrote(verb string, key api.Key) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, verb+" "+key.String())
	switch key.Kind {
	case "WorkloadEndpoint", "Profile":
		return fmt.Errorf("%s: %w: it is made of what Kubernetes has", key, datastore.ErrInvalid)
	}
	return nil
}

func (c *cluster) Get(ctx context.Context, key api.Key) (api.Object, error) {
	c.mu.Lock()
	o := c.objects()[key]
	c.mu.Unlock()
	if o != nil {
		return api.DeepCopy(o), nil
	}
	if key.Kind == "WorkloadEndpoint" || key.Kind == "Profile" || key.Kind == "Node" {
		return nil, datastore.ErrNotFound
	}
	return c.Store.Get(ctx, key)
}

func (c *cluster) Create(ctx context.Context, o api.Object) (api.Object, error) {
	if err := c.wrote("create", api.KeyOf(o)); err != nil || api.KeyOf(o).Kind == "Node" {
		return nil, errors.Join(err, datastore.ErrInvalid)
	}
	return c.Store.Create(ctx, o)
}

func (c *cluster) Update(ctx context.Context, o api.Object) (api.Object, error) {
	if err := c.wrote("update", api.KeyOf(o)); err != nil {
		return nil, err
	}
	n, ok := o.(*api.Node)
	if !ok {
		return c.Store.Update(ctx, o)
	}
	var err error
	c.change(func() {
		switch {
		case c.node == nil:
			err = datastore.ErrNotFound
		case n.ResourceVersion != "" && n.ResourceVersion != c.node.ResourceVersion:
			err = datastore.ErrConflict
		default:
			c.node = api.DeepCopy(n).(*api.Node)
			c.node.ResourceVersion += "1"
		}
	})
	return n, err
}

func (c *cluster) Delete(ctx context.Context, key api.Key, revision string) error {
	if err := c.wrote("delete", key); err != nil {
		return err
	}
	return c.Store.Delete(ctx, key, revision)
}

func (c *cluster) Txn(ctx context.Context, ops ...datastore.Op) error {
	if len(ops) > 1 {
		return fmt.Errorf("%w: several writes", datastore.ErrInvalid)
	}
	for _, op := range ops {
		key := op.Key
		if op.Object != nil {
			key = api.KeyOf(op.Object)
		}
		if err := c.wrote("txn", key); err != nil {
			return err
		}
	}
	return c.Store.Txn(ctx, ops...)
}

func (c *cluster) SetNetworkUnavailable(_ context.Context, node string, unavailable bool, reason, _ string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, fmt.Sprintf("network of %s unavailable=%v %s", node, unavailable, reason))
	return nil
}

func (c *cluster) nodeNow() *api.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return api.DeepCopy(c.node).(*api.Node)
}

// takeCalls returns the writes since the last time.
func (c *cluster) takeCalls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls = nil
	return out
}

// kubeNodeOf is a node of a cluster with a pool, which the kubelet has registered.
func kubeNodeOf(t *testing.T) (*node, *cluster) {
	t.Helper()
	n, c := newNode(t), newCluster()
	n.store = c.Store
	n.cfg.Store.Kubernetes = &config.Kubernetes{}
	pool := &api.IPPool{TypeMeta: meta("IPPool"), ObjectMeta: metav1.ObjectMeta{Name: "pods"}, Spec: api.IPPoolSpec{CIDR: "10.244.0.0/16"}}
	api.Default(pool)
	n.create(pool)
	n.create(allowIngress("web", "web", "203.0.113.0/24"))
	c.node = &api.Node{TypeMeta: meta("Node"), ObjectMeta: metav1.ObjectMeta{Name: "node1", UID: "n1", ResourceVersion: "1"}}
	return n, c
}

func (n *node) startIn(c *cluster) {
	n.t.Helper()
	d := n.deps()
	d.OpenStore = func(context.Context) (datastore.Store, error) { return keepCluster{c}, nil }
	n.startWith(d)
}

// keepCluster is a cluster that outlives the agents that close it.
type keepCluster struct{ *cluster }

func (keepCluster) Close() error { return nil }

func (p pod) request(sandbox string) agentapi.AttachRequest {
	return agentapi.AttachRequest{Sandbox: sandbox, Interface: "eth0", Allocate: &agentapi.Allocate{},
		Workload: agentapi.Workload{Orchestrator: "k8s", Namespace: p.namespace, Name: p.name, UID: p.uid}}
}

func web(name, uid string) pod {
	return pod{namespace: "shop", name: name, uid: uid, labels: map[string]string{"app": "web"}}
}

// held are the addresses that blocks hold, by UID.
func (c *cluster) held(t *testing.T) map[string][]netip.Addr {
	t.Helper()
	blocks, err := c.List(t.Context(), "IPAMBlock", "")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]netip.Addr{}
	for _, b := range blocks {
		for a, o := range b.(*api.IPAMBlock).Owners() {
			out[o.UID] = append(out[o.UID], a)
		}
	}
	return out
}

// writes are the calls that are not about the node.
func writes(calls []string) []string {
	return slices.DeleteFunc(calls, func(s string) bool { return strings.Contains(s, "Node") || strings.HasPrefix(s, "network") })
}

func TestPodSeenLate(t *testing.T) {
	n, c := kubeNodeOf(t)
	n.startIn(c)
	n.ready()
	p := web("db-0", "uid-1")
	warm := web("warm", "uid-0") // has the node's first block made
	c.setPod(warm)
	if _, err := n.attach(warm.request("s0")); err != nil {
		t.Fatal(err)
	}
	c.takeCalls()
	done := make(chan error, 1)
	var resp agentapi.AttachResponse
	go func() {
		var err error
		resp, err = n.attach(p.request("s1"))
		done <- err
	}()
	n.eventually("the attach waits", func() error {
		for _, e := range n.status().Endpoints {
			if e.Sandbox == "s1" {
				t.Errorf("something was done: %+v", e)
			}
		}
		select {
		case err := <-done:
			return fmt.Errorf("it has answered: %w", err)
		default:
			return nil
		}
	})
	c.setPod(web("db-0", "uid-0x")) // another of its name
	c.setPod(p)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(resp.Addresses) != 1 || !n.allowed("203.0.113.9", resp.HostIface, resp.Addresses[0].String()) ||
		n.allowed("198.51.100.9", resp.HostIface, resp.Addresses[0].String()) {
		t.Errorf("%+v\n%s", resp, n.world.Dump())
	}
	if resp.Endpoint != "shop/node1-k8s-db--0-eth0" {
		t.Error(resp.Endpoint)
	}
	if got := writes(c.takeCalls()); len(got) != 1 || !strings.Contains(got[0], "IPAMBlock") {
		t.Errorf("ADD has written %q, want one block", got)
	}
	if got := c.held(t)["uid-1"]; !slices.Equal(got, resp.Addresses) {
		t.Errorf("the block holds %v, want %v", got, resp.Addresses)
	}
	if again, err := n.attach(p.request("s1")); err != nil || !slices.Equal(again.Addresses, resp.Addresses) {
		t.Errorf("again: %+v, %v", again, err)
	}

	n.kill()
	n.startIn(c)
	n.ready()
	if !n.allowed("203.0.113.9", resp.HostIface, resp.Addresses[0].String()) || n.allowed("198.51.100.9", resp.HostIface, resp.Addresses[0].String()) {
		t.Errorf("after a restart:\n%s", n.world.Dump())
	}
	c.takeCalls()
	if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "s1", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if got := writes(c.takeCalls()); len(got) != 1 || !strings.Contains(got[0], "IPAMBlock") {
		t.Errorf("DEL has written %q, want one block", got)
	}
	if got := c.held(t)["uid-1"]; len(got) != 0 {
		t.Errorf("still held: %v", got)
	}
}

// TestRecreatedPod: db-0 comes again on the same node while the old one's sandbox is still plugged in.
func TestRecreatedPod(t *testing.T) {
	n, c := kubeNodeOf(t)
	n.startIn(c)
	n.ready()
	old := web("db-0", "uid-1")
	c.setPod(old)
	was, err := n.attach(old.request("s1"))
	if err != nil {
		t.Fatal(err)
	}
	now := web("db-0", "uid-2")
	c.setPod(now)
	n.eventually("the old one is closed", func() error {
		if n.allowed("203.0.113.9", was.HostIface, was.Addresses[0].String()) {
			return errors.New("it lives on the labels of the new one")
		}
		return nil
	})
	is, err := n.attach(now.request("s2"))
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(is.Addresses, was.Addresses) {
		t.Error("two sandboxes have one address")
	}
	if !n.allowed("203.0.113.9", is.HostIface, is.Addresses[0].String()) || n.allowed("203.0.113.9", was.HostIface, was.Addresses[0].String()) {
		t.Errorf("policy:\n%s", n.world.Dump())
	}
	if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "s1", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if !n.allowed("203.0.113.9", is.HostIface, is.Addresses[0].String()) {
		t.Errorf("the new one after the old one's end:\n%s", n.world.Dump())
	}
	if held := c.held(t); len(held) != 1 || len(held["uid-2"]) != 1 {
		t.Errorf("held: %v", held)
	}
}

// TestUnknownPod: what an attach says of a pod that does not come.
func TestUnknownPod(t *testing.T) {
	n, c := kubeNodeOf(t)
	n.startIn(c)
	n.ready()
	c.setPod(web("other", "uid-1"))
	r := web("other", "uid-9").request("s1")
	r.TimeoutMS = 300
	if _, err := n.attach(r); agentapi.CodeOf(err) != agentapi.CodeUnavailable || !strings.Contains(err.Error(), "uid-9") || !strings.Contains(err.Error(), "uid-1") {
		t.Errorf("another UID: %v", err)
	}
	r = web("none", "uid-9").request("s1")
	r.TimeoutMS = 300
	if _, err := n.attach(r); agentapi.CodeOf(err) != agentapi.CodeUnavailable || !strings.Contains(err.Error(), "shop/none") {
		t.Errorf("no pod: %v", err)
	}
	elsewhere := web("web", "uid-2")
	elsewhere.namespace = "blog"
	c.setPod(elsewhere)
	r = elsewhere.request("s1")
	r.TimeoutMS = 300
	if _, err := n.attach(r); agentapi.CodeOf(err) != agentapi.CodeUnavailable || !strings.Contains(err.Error(), "kns.blog") {
		t.Errorf("a namespace that is not known yet: %v", err)
	}
	for name, change := range map[string]func(*agentapi.AttachRequest){
		"no UID": func(r *agentapi.AttachRequest) { r.Workload.UID = "" },
		"no pod": func(r *agentapi.AttachRequest) { r.Workload = agentapi.Workload{} },
		"labels": func(r *agentapi.AttachRequest) { r.Workload.Labels = map[string]string{"app": "web"} },
		"source nets": func(r *agentapi.AttachRequest) {
			r.Workload.SourcePrefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		},
	} {
		r := web("other", "uid-1").request("s1")
		change(&r)
		if _, err := n.attach(r); agentapi.CodeOf(err) != agentapi.CodeBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(n.world.Links())+len(c.held(t)) > 0 || len(writes(c.takeCalls())) > 0 {
		t.Errorf("something came of it: %v %v", n.world.Links(), c.held(t))
	}
}

// TestSecondInterface: all interfaces of a pod have its policy and are its addresses.
func TestSecondInterface(t *testing.T) {
	n, c := kubeNodeOf(t)
	n.startIn(c)
	n.ready()
	p := web("web-1", "uid-1")
	c.setPod(p)
	for _, iface := range []string{"eth0", "net1"} {
		r := p.request("s1")
		r.Interface = iface
		resp, err := n.attach(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Endpoint != "shop/node1-k8s-web--1-eth0" || !n.allowed("203.0.113.9", resp.HostIface, resp.Addresses[0].String()) {
			t.Errorf("%s: %+v\n%s", iface, resp, n.world.Dump())
		}
	}
	if got := c.held(t)["uid-1"]; len(got) != 2 {
		t.Errorf("held: %v", got)
	}
}

// TestManyPodsAtOnce: 100 sandboxes are asked for, and their pods are seen while they wait.
func TestManyPodsAtOnce(t *testing.T) {
	n, c := kubeNodeOf(t)
	n.startIn(c)
	n.ready()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 100 {
		p := web(fmt.Sprint("web-", i), fmt.Sprint("uid-", i))
		wg.Go(func() {
			resp, err := n.attach(p.request("s-" + p.name))
			if err != nil {
				t.Error(err)
				return
			}
			if !n.allowed("203.0.113.9", resp.HostIface, resp.Addresses[0].String()) {
				t.Errorf("%s is not let in", p.name)
			}
		})
		wg.Go(func() { c.setPod(p) })
	}
	wg.Wait()
	t.Logf("100 pods in %v", time.Since(start))
	if held := c.held(t); len(held) != 100 {
		t.Errorf("%d have addresses", len(held))
	}
	c.change(func() { clear(c.pods) })
	for i := range 100 {
		wg.Go(func() {
			if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: fmt.Sprint("s-web-", i), Interface: "eth0"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l, held := len(n.world.Links()), c.held(t); l+len(held) > 0 {
		t.Errorf("left: %d links, %v", l, held)
	}
	for _, call := range c.takeCalls() {
		if strings.Contains(call, "WorkloadEndpoint") {
			t.Error(call)
		}
	}
}

// TestKubeNode: the registrar annotates the Node that the kubelet has made, and says when its network is there.
func TestKubeNode(t *testing.T) {
	n, c := kubeNodeOf(t)
	made := c.node
	c.node = nil
	n.cfg.NodeAddresses = nil
	n.startIn(c)
	n.ready()
	n.eventually("the missing Node is a problem", func() error {
		for _, p := range n.status().Problems {
			if strings.Contains(p.Reason, "kubelet") {
				return nil
			}
		}
		return fmt.Errorf("%+v", n.status().Problems)
	})
	if calls := c.takeCalls(); len(calls) > 0 {
		t.Errorf("without a Node: %q", calls)
	}
	own := hostAddress(t)
	made.Spec.Addresses = []api.NodeAddress{{Address: "198.51.100.1", Type: "ExternalIP"}, {Address: own.Addr().String(), Type: "InternalIP"}}
	c.change(func() { c.node = made })
	n.eventually("the Node is annotated", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.node.Annotations[bootIDAnnotation] != "boot1" || !strings.HasSuffix(strings.Join(c.calls, "\n"), networkUp) {
			return fmt.Errorf("%+v %q", c.node, c.calls)
		}
		return nil
	})
	if got := c.takeCalls(); !slices.Equal(got, []string{"update Node/node1", "network of node1 unavailable=false TortieIsUp"}) {
		t.Errorf("%q", got)
	}
	if got := c.nodeNow(); got.Spec.BGP == nil || got.Spec.BGP.IPv4Address != own.String() {
		t.Errorf("%+v, want %s", got.Spec.BGP, own)
	}
	// What the kubelet writes is no reason to do anything; nor is a restart in the same boot, but to say that it is there.
	c.change(func() { c.node.ResourceVersion, c.node.Labels = "77", map[string]string{"zone": "a"} })
	n.kill()
	n.startIn(c)
	n.ready()
	n.eventually("said again", func() error {
		if got := c.takeCalls(); !slices.Equal(got, []string{"network of node1 unavailable=false TortieIsUp"}) {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	n.kill()

	// In a new boot, first of all that it is not there.
	n.boot("boot2")
	c.Store.Fail(datastore.ErrUnavailable)
	n.startIn(c)
	c.Store.Fail(nil)
	n.ready()
	n.eventually("said in the new boot", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l := len(c.calls); l == 0 || !strings.HasSuffix(c.calls[l-1], networkUp) {
			return fmt.Errorf("%q", c.calls)
		}
		return nil
	})
	if got := c.nodeNow(); got.Annotations[bootIDAnnotation] != "boot2" {
		t.Errorf("%v", got.Annotations)
	}
	// Somebody has deleted the Node, and the kubelet made it anew.
	c.takeCalls()
	again := api.DeepCopy(made).(*api.Node)
	again.UID, again.Annotations = "n2", nil
	c.change(func() { c.node = nil })
	c.change(func() { c.node = again })
	n.eventually("said of the new Node", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l := len(c.calls); l < 2 || c.calls[l-1] != "network of node1 unavailable=false TortieIsUp" {
			return fmt.Errorf("%q", c.calls)
		}
		return nil
	})
}

// TestBootOrder: in a new boot it is said first that the network is not there, and that it is only after the annotation which
// says that this boot's agent enforces; a failure is tried again.
func TestBootOrder(t *testing.T) {
	c := newCluster()
	defer c.Close()
	c.node = &api.Node{TypeMeta: meta("Node"), ObjectMeta: metav1.ObjectMeta{Name: "node1", ResourceVersion: "1",
		Annotations: map[string]string{bootIDAnnotation: "boot1"}}}
	ready := false
	k := &kubeNode{bootID: "boot2", ready: func() bool { return ready }, log: slog.New(slog.DiscardHandler)}
	r := &registrar{name: "node1", fixed: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}, kube: k, log: k.log,
		store: func() (datastore.Store, error) { return c, nil }}
	k.saw(c.node)
	step := func(what string, want ...string) {
		t.Helper()
		if _, err := r.register(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := c.takeCalls(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	step("at the start", "network of node1 unavailable=true TortieIsStarting", "update Node/node1")
	if c.node.Annotations[bootIDAnnotation] != "boot1" {
		t.Error("the boot is confirmed before policy is enforced")
	}
	step("again")
	if k.settled() {
		t.Error("settled")
	}
	ready = true
	c.node.ResourceVersion = "the kubelet has written" // which the watch has not told yet
	step("enforcing", "update Node/node1", "update Node/node1", "network of node1 unavailable=false TortieIsUp")
	if c.node.Annotations[bootIDAnnotation] != "boot2" || !k.settled() {
		t.Errorf("%v", c.node.Annotations)
	}
	step("again")
}

// hostAddress is an address of this machine, which is no loopback.
func hostAddress(t *testing.T) netip.Prefix {
	t.Helper()
	ps, err := defaultRouteAddresses()
	if err != nil || len(ps) == 0 || !ps[0].Addr().Is4() {
		t.Fatalf("this machine has no IPv4 address to test with: %v %v", ps, err)
	}
	return ps[0]
}

// TestKubeNodeAddresses is which of the addresses that there are is the node's.
func TestKubeNodeAddresses(t *testing.T) {
	p := netip.MustParsePrefix
	host := map[string]netip.Prefix{"192.0.2.1": p("192.0.2.1/24"), "192.0.2.2": p("192.0.2.2/25"), "2001:db8::1": p("2001:db8::1/64")}
	for name, c := range map[string]struct {
		fixed, route []netip.Prefix
		kubelet      []string
		want         []netip.Prefix
	}{
		"the operator's":     {fixed: []netip.Prefix{p("10.0.0.1/8")}, kubelet: []string{"192.0.2.1"}, want: []netip.Prefix{p("10.0.0.1/8")}},
		"the kubelet's":      {route: []netip.Prefix{p("192.0.2.2/25")}, kubelet: []string{"192.0.2.1", "2001:db8::1"}, want: []netip.Prefix{p("192.0.2.1/24"), p("2001:db8::1/64")}},
		"of one family":      {route: []netip.Prefix{p("192.0.2.2/25"), p("2001:db8::1/64")}, kubelet: []string{"192.0.2.1"}, want: []netip.Prefix{p("192.0.2.1/24"), p("2001:db8::1/64")}},
		"not of this host":   {route: []netip.Prefix{p("192.0.2.2/25")}, kubelet: []string{"203.0.113.5", "name"}, want: []netip.Prefix{p("192.0.2.2/25")}},
		"no default route":   {kubelet: []string{"192.0.2.1"}, want: []netip.Prefix{p("192.0.2.1/24")}},
		"nothing whatsoever": {},
	} {
		r := &registrar{fixed: c.fixed, prefix: func(a netip.Addr) (netip.Prefix, error) { return host[a.String()], nil },
			find: func() ([]netip.Prefix, error) {
				if c.route == nil {
					return nil, errors.New("no default route")
				}
				return c.route, nil
			}}
		o := &api.Node{}
		for _, a := range c.kubelet {
			o.Spec.Addresses = append(o.Spec.Addresses, api.NodeAddress{Address: a, Type: "InternalIP"})
		}
		got, err := (&kubeNode{}).addresses(r, o)
		if (err != nil) != (c.want == nil) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}
