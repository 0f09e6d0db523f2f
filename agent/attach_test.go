package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

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
		"no address":         {func(r *agentapi.AttachRequest) { r.Addresses = nil }, agentapi.CodeNoAddress},
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
