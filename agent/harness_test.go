package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
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
