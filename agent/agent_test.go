package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/fake"
	"github.com/tortie/tortie/internal/agentapi"
)

// node is a host with a store, a World that plays its kernel, and now and then an agent.
type node struct {
	t     *testing.T
	cfg   config.Config
	world *fake.World
	store *mem.Store
	*agentapi.Client

	mu    sync.Mutex
	notes []string
	stop  func() error
}

// keepOpen is a store that outlives the agents that close it.
type keepOpen struct{ datastore.Store }

func (keepOpen) Close() error { return nil }

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, world: fake.NewWorld(), store: mem.New(), cfg: config.Default()}
	n.cfg.NodeName = "node1"
	n.cfg.NodeAddresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}
	n.cfg.StateDir, n.cfg.RunDir = filepath.Join(dir, "lib"), filepath.Join(dir, "run")
	n.cfg.BootIDFile = filepath.Join(dir, "boot_id")
	n.cfg.Listen = freeAddr(t)
	n.cfg.PersistDelay = config.Duration(10 * time.Millisecond)
	n.cfg.InspectInterval = 0
	n.Client = agentapi.NewClient(n.cfg.SocketPath())
	n.boot("boot1")
	n.world.SetHost([]drivers.HostIface{{Name: "eth0", Index: 2, Up: true, Addrs: n.cfg.NodeAddresses}})
	t.Cleanup(func() {
		if err := n.kill(); err != nil {
			t.Errorf("the agent ended: %v", err)
		}
		n.store.Close()
	})
	return n
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (n *node) boot(id string) {
	n.t.Helper()
	if err := os.WriteFile(n.cfg.BootIDFile, []byte(id+"\n"), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) deps() Deps {
	return Deps{
		Config: n.cfg, Version: "test", Registry: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(logWriter{n.t}, nil)),
		OpenDriver: func(ctx context.Context, o drivers.Options) (drivers.Driver, error) {
			return fake.Open(ctx, o, n.world)
		},
		OpenStore: func(context.Context) (datastore.Store, error) { return keepOpen{n.store}, nil },
		Notify: func(s string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.notes = append(n.notes, s)
		},
	}
}

// logWriter writes to the test's log; an agent ends before its test does.
type logWriter struct{ t *testing.T }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// start starts an agent.
func (n *node) start() {
	n.t.Helper()
	n.startWith(n.deps())
}

func (n *node) startWith(d Deps) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, d) }()
	n.stop = func() error {
		cancel()
		return <-ended
	}
}

// kill ends the agent, if there is one.
func (n *node) kill() error {
	if n.stop == nil {
		return nil
	}
	stop := n.stop
	n.stop = nil
	return stop()
}

func (n *node) restart() {
	n.t.Helper()
	if err := n.kill(); err != nil {
		n.t.Fatal(err)
	}
	n.start()
}

// eventually waits until fn returns nil.
func (n *node) eventually(what string, fn func() error) {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (n *node) status() agentapi.Status {
	n.t.Helper()
	st, err := n.Status(n.t.Context(), agentapi.StatusRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

func (n *node) ready() {
	n.t.Helper()
	n.eventually("ready", func() error {
		st, err := n.Status(n.t.Context(), agentapi.StatusRequest{})
		if err == nil && !st.Ready {
			err = fmt.Errorf("waits for %v", st.NotReady)
		}
		return err
	})
}

// request asks for a workload with one address.
func request(name, addr string) agentapi.AttachRequest {
	return agentapi.AttachRequest{
		Sandbox: "sandbox-" + name, Interface: "eth0", Addresses: []netip.Addr{netip.MustParseAddr(addr)},
		Workload: agentapi.Workload{Namespace: "shop", Name: name, Labels: map[string]string{"app": name}},
	}
}

// attach plugs a workload in, with some file for its namespace: a World doesn't look.
func (n *node) attach(r agentapi.AttachRequest) (agentapi.AttachResponse, error) {
	n.t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	return n.Attach(n.t.Context(), r, f)
}

func (n *node) mustAttach(name, addr string) agentapi.AttachResponse {
	n.t.Helper()
	resp, err := n.attach(request(name, addr))
	if err != nil {
		n.t.Fatal(err)
	}
	return resp
}

func (n *node) create(o api.Object) {
	n.t.Helper()
	if _, err := n.store.Create(n.t.Context(), o); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) weps() []string {
	n.t.Helper()
	os, err := n.store.List(n.t.Context(), "WorkloadEndpoint", "")
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, o := range os {
		names = append(names, o.GetNamespace()+"/"+o.GetName())
	}
	return names
}

// allowIngress is a policy that lets everything reach a workload from nets.
func allowIngress(name, app string, nets ...string) *api.NetworkPolicy {
	return &api.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: api.NetworkPolicySpec{Selector: fmt.Sprintf("app == '%s'", app), Types: []api.PolicyType{api.Ingress},
			Ingress: []api.Rule{{Action: api.Allow, Source: api.EntityRule{Nets: nets}}}},
	}
}

// allowed sends a packet from an outside address to a workload through the World.
func (n *node) allowed(from, iface, to string) bool {
	return n.world.Evaluate(drivers.Packet{
		From: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"}, To: drivers.Place{Kind: drivers.PlaceWorkload, Iface: iface},
		Src: netip.MustParseAddr(from), Dst: netip.MustParseAddr(to), Proto: 6, SrcPort: 1024, DstPort: 80,
	}).Verdict == drivers.VerdictAllow
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestAttachAndDetach(t *testing.T) {
	n := newNode(t)
	n.create(allowIngress("web", "web", "203.0.113.0/24"))
	n.start()
	n.ready()

	resp := n.mustAttach("web", "10.65.0.2")
	if resp.Endpoint != "shop/node1-cni-web-eth0" || len(resp.Gateways) != 1 || resp.MAC == "" || resp.MTU != 1500 {
		t.Errorf("%+v", resp)
	}
	// When attach has answered, policy is in force.
	if !n.allowed("203.0.113.9", resp.HostIface, "10.65.0.2") || n.allowed("198.51.100.9", resp.HostIface, "10.65.0.2") {
		t.Errorf("policy is not enforced:\n%s", n.world.Dump())
	}
	if _, ok := n.world.Links()[resp.HostIface]; !ok {
		t.Error("there is no link")
	}
	if len(n.world.Cut()) != 1 {
		t.Errorf("flows cut: %v", n.world.Cut())
	}
	st := n.status()
	if len(st.Endpoints) != 1 || !st.Endpoints[0].Enforced || st.Endpoints[0].HostIface != resp.HostIface || st.Apply.Pending != 0 {
		t.Errorf("%+v", st)
	}
	again, err := n.attach(request("web", "10.65.0.2"))
	if err != nil || again.HostIface != resp.HostIface || again.MAC != resp.MAC {
		t.Errorf("again: %+v, %v", again, err)
	}
	if len(n.world.Cut()) != 1 {
		t.Error("attaching again has cut flows")
	}

	for i := range 2 {
		if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "sandbox-web", Interface: "eth0"}); err != nil {
			t.Fatalf("detach %d: %v", i, err)
		}
		if len(n.world.Links()) != 0 || len(n.weps()) != 0 || len(n.world.State().Endpoints) != 0 || len(n.status().Endpoints) != 0 {
			t.Errorf("something is left: %v %v\n%s", n.world.Links(), n.weps(), n.world.Dump())
		}
	}
	if cut := n.world.Cut(); len(cut) != 2 {
		t.Errorf("flows cut: %v", cut)
	}
	if entries, err := os.ReadDir(filepath.Join(n.cfg.StateDir, "ledger")); err != nil || len(entries) != 0 {
		t.Errorf("the ledger holds %v, %v", entries, err)
	}
}

func TestLabelsMayChangeOnAttach(t *testing.T) {
	n := newNode(t)
	n.create(allowIngress("api", "api", "203.0.113.0/24"))
	n.start()
	n.ready()
	r := request("web", "10.65.0.2")
	resp, err := n.attach(r)
	if err != nil || n.allowed("203.0.113.9", resp.HostIface, "10.65.0.2") {
		t.Fatalf("before: %v", err)
	}
	r.Workload.Labels = map[string]string{"app": "api"}
	if _, err := n.attach(r); err != nil || !n.allowed("203.0.113.9", resp.HostIface, "10.65.0.2") {
		t.Errorf("after: %v\n%s", err, n.world.Dump())
	}
}

func TestAttachIsRefused(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready()
	n.mustAttach("web", "10.65.0.2")
	for name, c := range map[string]struct {
		change func(r *agentapi.AttachRequest)
		code   agentapi.Code
	}{
		"no sandbox":         {func(r *agentapi.AttachRequest) { r.Sandbox = "" }, agentapi.CodeBadRequest},
		"no address":         {func(r *agentapi.AttachRequest) { r.Addresses = nil }, agentapi.CodeBadRequest},
		"loopback":           {func(r *agentapi.AttachRequest) { r.Addresses[0] = netip.MustParseAddr("127.0.0.1") }, agentapi.CodeBadRequest},
		"long interface":     {func(r *agentapi.AttachRequest) { r.Interface = "0123456789abcdef" }, agentapi.CodeBadRequest},
		"bad MAC":            {func(r *agentapi.AttachRequest) { r.MAC = "ff:ff:ff:ff:ff:ff" }, agentapi.CodeBadRequest},
		"bad label":          {func(r *agentapi.AttachRequest) { r.Workload.Labels = map[string]string{"a b": "c"} }, agentapi.CodeBadRequest},
		"bad namespace":      {func(r *agentapi.AttachRequest) { r.Workload.Namespace = "A/B" }, agentapi.CodeBadRequest},
		"endless":            {func(r *agentapi.AttachRequest) { r.TimeoutMS = 1 << 40 }, agentapi.CodeBadRequest},
		"address in use":     {func(r *agentapi.AttachRequest) { r.Addresses[0] = netip.MustParseAddr("10.65.0.2") }, agentapi.CodeConflict},
		"plugged in already": {func(r *agentapi.AttachRequest) { r.Sandbox = "sandbox-web" }, agentapi.CodeConflict},
	} {
		r := request("other", "10.65.0.3")
		c.change(&r)
		if _, err := n.attach(r); agentapi.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	if _, err := n.Attach(t.Context(), request("other", "10.65.0.3"), nil); agentapi.CodeOf(err) != agentapi.CodeBadRequest {
		t.Errorf("no namespace: %v", err)
	}
	if len(n.world.Links()) != 1 || len(n.weps()) != 1 {
		t.Errorf("something came of it: %v %v", n.world.Links(), n.weps())
	}
}

func TestManyAtOnce(t *testing.T) {
	n := newNode(t)
	n.create(allowIngress("web", "web-7", "203.0.113.0/24"))
	n.start()
	n.ready()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			name, addr := fmt.Sprint("web-", i), fmt.Sprint("10.65.0.", i+2)
			resp, err := n.attach(request(name, addr))
			if err != nil {
				t.Error(err)
				return
			}
			if got := n.allowed("203.0.113.9", resp.HostIface, addr); got != (i == 7) {
				t.Errorf("%s: allowed %v", name, got)
			}
		})
	}
	// The same one, from many sides, attached and detached.
	for range 20 {
		wg.Go(func() {
			if _, err := n.attach(request("racer", "10.65.1.1")); err != nil && !agentapi.Retry(err) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "sandbox-racer", Interface: "eth0"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "sandbox-racer", Interface: "eth0"}); err != nil {
		t.Error(err)
	}
	if l, w := len(n.world.Links()), len(n.weps()); l != 100 || w != 100 {
		t.Errorf("%d links, %d WorkloadEndpoints", l, w)
	}
	for i := range 100 {
		wg.Go(func() {
			if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: fmt.Sprint("sandbox-web-", i), Interface: "eth0"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l, w := len(n.world.Links()), len(n.weps()); l != 0 || w != 0 {
		t.Errorf("%d links, %d WorkloadEndpoints are left", l, w)
	}
}

// TestEnforcedIsTrue: an endpoint one of whose sets the dataplane refuses is denied, and not called enforced.
func TestEnforcedIsTrue(t *testing.T) {
	n := newNode(t)
	n.create(&api.GlobalNetworkSet{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "GlobalNetworkSet"},
		ObjectMeta: metav1.ObjectMeta{Name: "partners", Labels: map[string]string{"set": "partners"}}, Spec: api.NetworkSetSpec{Nets: []string{"203.0.113.0/24"}}})
	p := allowIngress("web", "web")
	p.Spec.Ingress[0].Source = api.EntityRule{Selector: "set == 'partners'", NamespaceSelector: "global()"}
	n.create(p)
	n.start()
	n.ready()
	web, other := n.mustAttach("web", "10.65.0.2"), n.mustAttach("other", "10.65.0.3")
	if !n.allowed("203.0.113.9", web.HostIface, "10.65.0.2") {
		t.Fatalf("not allowed:\n%s", n.world.Dump())
	}
	var set drivers.SetID
	for id := range n.world.State().Sets {
		set = id
	}
	n.world.Refuse(drivers.ObjectRef{Kind: drivers.ObjSet, Set: set}, errors.New("table full"))
	o, err := n.store.Get(t.Context(), api.Key{Kind: "GlobalNetworkSet", Name: "partners"})
	if err != nil {
		t.Fatal(err)
	}
	o.(*api.GlobalNetworkSet).Spec.Nets = []string{"198.51.100.0/24"}
	if _, err := n.store.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	n.eventually("web isn't enforced", func() error {
		for _, e := range n.status().Endpoints {
			if e.HostIface == web.HostIface && (e.Enforced || !strings.Contains(e.Reason, "table full")) ||
				e.HostIface == other.HostIface && !e.Enforced {
				return fmt.Errorf("%+v", e)
			}
		}
		return nil
	})
	if n.allowed("203.0.113.9", web.HostIface, "10.65.0.2") || n.allowed("198.51.100.9", web.HostIface, "10.65.0.2") {
		t.Error("it is not on a deny stand-in")
	}
	r := request("web", "10.65.0.2")
	r.TimeoutMS = 200
	if _, err := n.attach(r); agentapi.CodeOf(err) != agentapi.CodeNotEnforced || !strings.Contains(err.Error(), "table full") {
		t.Errorf("attach: %v", err)
	}
	if _, err := n.attach(request("third", "10.65.0.4")); err != nil {
		t.Errorf("a workload that has nothing to do with it: %v", err)
	}
	n.world.Accept(drivers.ObjectRef{Kind: drivers.ObjSet, Set: set})
	if _, err := n.attach(request("web", "10.65.0.2")); err != nil {
		t.Errorf("attach, once it is accepted: %v", err)
	}
	if !n.allowed("198.51.100.9", web.HostIface, "10.65.0.2") {
		t.Error("not enforced in the end")
	}
}

func TestStoreGoesAwayAndReturns(t *testing.T) {
	n := newNode(t)
	n.create(allowIngress("web", "web", "203.0.113.0/24"))
	n.start()
	n.ready()
	web := n.mustAttach("web", "10.65.0.2")
	n.store.Fail(datastore.ErrUnavailable)
	n.eventually("the loss is noticed", func() error {
		if n.status().Store.Connected {
			return errors.New("still connected")
		}
		return nil
	})
	if st := n.status(); !st.Ready || st.Store.Error == "" {
		t.Errorf("ready %v, error %q: traffic needs no store", st.Ready, st.Store.Error)
	}
	if !n.allowed("203.0.113.9", web.HostIface, "10.65.0.2") || n.allowed("198.51.100.9", web.HostIface, "10.65.0.2") {
		t.Error("policy has changed")
	}
	if _, err := n.attach(request("late", "10.65.0.3")); agentapi.CodeOf(err) != agentapi.CodeUnavailable || !strings.Contains(err.Error(), "try again") {
		t.Errorf("attach: %v", err)
	}
	if len(n.world.Links()) != 1 || len(n.status().Endpoints) != 1 {
		t.Errorf("the attach has left something: %v", n.world.Links())
	}
	if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "sandbox-web", Interface: "eth0"}); err != nil {
		t.Errorf("detach: %v", err)
	}
	if len(n.world.Links()) != 0 || len(n.world.State().Endpoints) != 0 || len(n.world.Cut()) != 2 {
		t.Errorf("the detach has left something:\n%s", n.world.Dump())
	}
	if st := n.status(); st.Store.Backlog != 1 {
		t.Errorf("backlog %d", st.Store.Backlog)
	}
	n.restart() // the note survives
	n.store.Fail(nil)
	n.ready()
	n.eventually("the WorkloadEndpoint is deleted", func() error {
		if w := n.weps(); len(w) > 0 || n.status().Store.Backlog > 0 {
			return fmt.Errorf("%v", w)
		}
		return nil
	})
	n.mustAttach("late", "10.65.0.3")
}

// TestWritesOfAnAttachThatFail: the store goes away in the middle.
func TestWritesOfAnAttachThatFail(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready()
	n.eventually("the node is registered, so that only attaches write", func() error {
		_, err := n.store.Get(t.Context(), api.Key{Kind: "Node", Name: "node1"})
		return err
	})
	for skip := range 3 {
		n.store.FailNth(skip, 50, datastore.ErrUnavailable)
		_, err := n.attach(request("web", "10.65.0.2"))
		n.store.FailNth(0, 0, nil)
		if err != nil && agentapi.CodeOf(err) != agentapi.CodeUnavailable {
			t.Errorf("failing after %d calls: %v", skip, err)
		}
		if skip == 0 && err == nil {
			t.Error("nothing has failed")
		}
		if err != nil {
			n.eventually("nothing is left", func() error {
				if len(n.world.Links())+len(n.weps())+n.status().Store.Backlog+len(n.status().Endpoints) > 0 {
					return fmt.Errorf("%v %v %+v", n.world.Links(), n.weps(), n.status().Store)
				}
				return nil
			})
		}
	}
	n.store.LoseAnswers(1) // it was written, but nobody knows
	_, err := n.attach(request("lost", "10.65.0.9"))
	if err != nil && agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Error(err)
	}
	if err != nil {
		n.eventually("the lost write is taken back", func() error {
			for _, w := range n.weps() {
				if strings.Contains(w, "lost") {
					return errors.New(w)
				}
			}
			return nil
		})
	}
	if _, err := n.attach(request("lost", "10.65.0.9")); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestRestartLeavesWhatIsThere(t *testing.T) {
	n := newNode(t)
	n.create(allowIngress("web", "web", "203.0.113.0/24"))
	n.start()
	n.ready()
	web := n.mustAttach("web", "10.65.0.2")
	n.eventually("the State is persisted", func() error {
		if n.status().Persisted.Bytes == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if err := n.kill(); err != nil {
		t.Fatal(err)
	}
	before, writes := n.world.State().String(), n.world.Writes()
	n.store.Fail(datastore.ErrUnavailable)
	n.start()
	n.eventually("the agent answers", func() error { _, err := n.Status(t.Context(), agentapi.StatusRequest{}); return err })
	if st := n.status(); st.Ready || !strings.Contains(strings.Join(st.NotReady, " "), "store") || st.Apply.Boot != "" {
		t.Errorf("%+v", st)
	}
	if n.world.Writes() != writes {
		t.Error("a running kernel was touched before in-sync")
	}
	if _, err := n.attach(request("late", "10.65.0.3")); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("attach: %v", err)
	}
	n.store.Fail(nil)
	n.ready()
	if got := n.world.State().String(); got != before || n.world.Writes() != writes {
		t.Errorf("%d writes; the World is\n%s\nand was\n%s", n.world.Writes()-writes, got, before)
	}
	if again := n.mustAttach("web", "10.65.0.2"); again.HostIface != web.HostIface {
		t.Errorf("%+v", again)
	}
}

func TestDetachBeforeInSync(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready()
	n.mustAttach("web", "10.65.0.2")
	n.mustAttach("stays", "10.65.0.3")
	n.store.Fail(datastore.ErrUnavailable)
	n.restart()
	n.eventually("the agent answers", func() error { _, err := n.Status(t.Context(), agentapi.StatusRequest{}); return err })
	if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "sandbox-web", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if len(n.world.Links()) != 1 {
		t.Errorf("%v", n.world.Links())
	}
	n.store.Fail(nil)
	n.ready()
	n.eventually("only the other one is left", func() error {
		if w := n.weps(); len(w) != 1 || len(n.world.State().Endpoints) != 1 {
			return fmt.Errorf("%v\n%s", w, n.world.Dump())
		}
		return nil
	})
}

func TestReboot(t *testing.T) {
	n := newNode(t)
	n.create(allowIngress("web", "web", "203.0.113.0/24"))
	n.start()
	n.ready()
	web := n.mustAttach("web", "10.65.0.2")
	if err := n.kill(); err != nil { // persists what has changed last
		t.Fatal(err)
	}
	n.world.Reboot()
	n.boot("boot2")
	n.store.Fail(datastore.ErrUnavailable)
	n.start()
	n.eventually("the persisted State stands", func() error {
		if s := n.world.State(); len(s.Endpoints) != 1 || len(s.Policies) == 0 || s.Node.Name != "node1" {
			return errors.New("\n" + n.world.Dump())
		}
		return nil
	})
	if !n.allowed("203.0.113.9", web.HostIface, "10.65.0.2") || n.allowed("198.51.100.9", web.HostIface, "10.65.0.2") {
		t.Errorf("policy of before is not enforced:\n%s", n.world.Dump())
	}
	n.eventually("systemd is told", func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !slices.ContainsFunc(n.notes, func(s string) bool { return strings.HasPrefix(s, "READY=1") }) {
			return fmt.Errorf("%q", n.notes)
		}
		return nil
	})
	if st := n.status(); st.Ready || !strings.Contains(st.Apply.Boot, "rebooted") {
		t.Errorf("%+v", st.Apply)
	}
	n.store.Fail(nil)
	n.ready()
	// The sandbox did not survive the reboot: it is given up.
	n.eventually("what is gone is forgotten", func() error {
		if w := n.weps(); len(w)+len(n.world.State().Endpoints)+len(n.status().Endpoints) > 0 {
			return fmt.Errorf("%v\n%s", w, n.world.Dump())
		}
		return nil
	})
	n.mustAttach("web", "10.65.0.2")
}

func TestRebootWithoutAState(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready()
	if err := n.kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(n.cfg.StateDir, "state"), 40); err != nil {
		t.Fatal(err)
	}
	n.world.Reboot()
	n.boot("boot2")
	n.store.Fail(datastore.ErrUnavailable)
	n.start()
	n.eventually("unknown interfaces are closed", func() error {
		if n.world.Evaluate(drivers.Packet{From: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "tort0123"}, To: drivers.Place{Kind: drivers.PlaceProcess},
			Src: netip.MustParseAddr("10.65.0.2"), Dst: netip.MustParseAddr("192.0.2.1")}).Verdict == drivers.VerdictAllow || n.world.Writes() == 0 ||
			n.world.State().Node.Name == "" {
			return errors.New("\n" + n.world.Dump())
		}
		return nil
	})
	var reasons []string
	n.eventually("the agent answers", func() error { _, err := n.Status(t.Context(), agentapi.StatusRequest{}); return err })
	for _, p := range n.status().Problems {
		reasons = append(reasons, p.Reason)
	}
	if !strings.Contains(strings.Join(reasons, "\n"), "set aside") {
		t.Errorf("nobody is told: %q", reasons)
	}
	n.store.Fail(nil)
	n.ready()
}

func TestInterruptedDetachIsFinished(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready()
	web := n.mustAttach("web", "10.65.0.2")
	// The dataplane hangs before it lets the endpoint go: the detach can't come to its end.
	hang := make(chan struct{})
	n.world.OnWrite(func(_ int, o drivers.ObjectRef) {
		if o.Kind == drivers.ObjEndpoint {
			<-hang
		}
	})
	err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: "sandbox-web", Interface: "eth0", TimeoutMS: 100})
	if agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("detach: %v", err)
	}
	if st := n.status(); len(st.Endpoints) != 1 || st.Endpoints[0].Phase != "detaching" || st.Endpoints[0].Enforced {
		t.Errorf("%+v", st.Endpoints)
	}
	if _, ok := n.world.Links()[web.HostIface]; !ok {
		t.Error("the link has gone before the dataplane denies")
	}
	n.world.FailWrite(1)
	close(hang)
	n.restart()
	n.ready()
	n.eventually("the detach is finished", func() error {
		if len(n.world.Links())+len(n.weps())+len(n.world.State().Endpoints) > 0 {
			return errors.New("\n" + n.world.Dump())
		}
		return nil
	})
}

func TestNotReadyBeforeTheFirstApply(t *testing.T) {
	n := newNode(t)
	hang := make(chan struct{})
	n.world.OnWrite(func(int, drivers.ObjectRef) { <-hang })
	if err := os.MkdirAll(n.cfg.RunDir, 0o755); err != nil {
		t.Fatal(err)
	}
	// A running kernel: nothing is applied before in-sync.
	if err := os.WriteFile(filepath.Join(n.cfg.RunDir, "boot"), []byte("boot1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.eventually("all inputs are in", func() error {
		st, err := n.Status(t.Context(), agentapi.StatusRequest{})
		if err == nil && (st.Ready || !strings.Contains(strings.Join(st.NotReady, " "), "brought up to date")) {
			err = fmt.Errorf("ready %v, missing %v", st.Ready, st.NotReady)
		}
		return err
	})
	if _, err := n.attach(request("early", "10.65.0.2")); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("attach: %v", err)
	}
	close(hang)
	n.ready()
}

func TestSecondAgentIsRefused(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready()
	d := n.deps()
	opened := false
	d.OpenDriver = func(context.Context, drivers.Options) (drivers.Driver, error) {
		opened = true
		return nil, errors.New("no")
	}
	err := Run(t.Context(), d)
	if want := fmt.Sprintf("process %d", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) || opened {
		t.Errorf("%v, want %s; driver opened: %v", err, want, opened)
	}
	n.ready()
}

func TestNodeIsRegistered(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready()
	key := api.Key{Kind: "Node", Name: "node1"}
	var got *api.Node
	n.eventually("Node", func() error {
		o, err := n.store.Get(t.Context(), key)
		if err == nil {
			got = o.(*api.Node)
		}
		return err
	})
	if got.Spec.BGP.IPv4Address != "192.0.2.1/24" {
		t.Errorf("%+v", got.Spec.BGP)
	}
	revision := got.ResourceVersion
	n.restart()
	n.ready()
	o, err := n.store.Get(t.Context(), key)
	if err != nil || o.GetResourceVersion() != revision {
		t.Errorf("it was written again with nothing to change: %v", err)
	}
	// What others have put there stays; what is ours is mended.
	node := o.(*api.Node)
	node.Labels = map[string]string{"rack": "7"}
	node.Spec.BGP.IPv4Address = "192.0.2.99/24"
	if _, err := n.store.Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	n.eventually("mended", func() error {
		o, err := n.store.Get(t.Context(), key)
		if err != nil || o.(*api.Node).Spec.BGP.IPv4Address != "192.0.2.1/24" || o.GetLabels()["rack"] != "7" {
			return fmt.Errorf("%v %v", o, err)
		}
		return nil
	})
	if err := n.store.Delete(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	n.eventually("made anew", func() error { _, err := n.store.Get(t.Context(), key); return err })
}

func TestHealthAndMetrics(t *testing.T) {
	n := newNode(t)
	n.create(allowIngress("web", "web", "203.0.113.0/24"))
	release := n.store.Stall()
	n.start()
	base := "http://" + n.cfg.Listen
	n.eventually("it listens", func() error {
		c, err := net.Dial("tcp", n.cfg.Listen)
		if err == nil {
			c.Close()
		}
		return err
	})
	if code, body := get(t, base+"/livez"); code != 200 {
		t.Errorf("livez: %d %s", code, body)
	}
	if code, body := get(t, base+"/readyz"); code != 503 || !strings.Contains(body, "missing: ") {
		t.Errorf("readyz: %d %s", code, body)
	}
	release()
	n.ready()
	n.store.SetRaw(api.Key{Kind: "NetworkPolicy", Namespace: "shop", Name: "broken"}, []byte(`{"spec":{"selector":"a =="}}`))
	n.eventually("a problem is told", func() error {
		if code, body := get(t, base+"/readyz"); code != 200 || !strings.Contains(body, "problem: NetworkPolicy/shop/broken") {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	_, body := get(t, base+"/metrics")
	for _, want := range []string{"tortie_agent_ready 1", `tortie_pump_applies_total{result="ok"}`, "tortie_feed_store_events_total",
		`tortie_socket_request_duration_seconds_count{result="ok",verb="status"}`, "tortie_agent_store_connected 1"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if err := n.kill(); err != nil {
		t.Error(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.notes) < 2 || n.notes[len(n.notes)-1] != "STOPPING=1" {
		t.Errorf("systemd was told %q", n.notes)
	}
}

func TestExplainAndState(t *testing.T) {
	n := newNode(t)
	n.create(allowIngress("web", "web", "203.0.113.0/24"))
	n.start()
	n.ready()
	n.mustAttach("web", "10.65.0.2")
	ask := func(src string) agentapi.ExplainResponse {
		t.Helper()
		r, err := n.Explain(t.Context(), agentapi.ExplainRequest{Flow: &agentapi.Flow{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr("10.65.0.2"), Proto: 6, DstPort: 80}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ask("203.0.113.9"); !r.Allowed || !strings.Contains(string(r.Trace), `"web"`) || r.Pending {
		t.Errorf("%+v %s", r, r.Trace)
	}
	r := ask("198.51.100.9")
	if r.Allowed {
		t.Errorf("%s", r.Trace)
	}
	again, err := n.Explain(t.Context(), agentapi.ExplainRequest{Packet: r.Packet})
	if err != nil || string(again.Trace) != string(r.Trace) {
		t.Errorf("the same packet: %s, %v", again.Trace, err)
	}
	for _, bad := range []agentapi.ExplainRequest{{}, {Flow: &agentapi.Flow{}}, {Packet: []byte(`{"Nonsense":1}`)}} {
		if _, err := n.Explain(t.Context(), bad); agentapi.CodeOf(err) != agentapi.CodeBadRequest {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	b, err := n.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := drivers.DecodeState(strings.NewReader(string(b)))
	if err != nil || len(s.Endpoints) != 1 {
		t.Errorf("%v, %v", s, err)
	}
}
