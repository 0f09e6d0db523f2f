package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

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
	if info, ok := calcgraph.ReadNodeInfo(got); !ok || len(info.Ifaces) != 1 || info.Ifaces[0].Name != "eth0" {
		t.Errorf("what it tells of the host: %+v", info.Ifaces)
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

// TestForbiddenKind: what the store refuses to list is named, and the kernel is not touched.
func TestForbiddenKind(t *testing.T) {
	n := newNode(t)
	n.store.Fail(datastore.ErrForbidden)
	n.start()
	n.eventually("readiness names it", func() error {
		resp, err := http.Get("http://" + n.cfg.Listen + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 503 || !strings.Contains(string(b), "NetworkPolicy") || !strings.Contains(string(b), "refused by the store") {
			return fmt.Errorf("%d %s %v", resp.StatusCode, b, err)
		}
		return nil
	})
	if len(n.status().Store.Kinds) == 0 || n.status().Ready {
		t.Errorf("%+v", n.status().Store)
	}
	n.store.Fail(nil)
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
