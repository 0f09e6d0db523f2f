//go:build e2e && linux

package alive

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// etcd is restored from a backup: revisions go back, pods and policies that were made since are unknown, such that were
// deleted are back, and blocks say who had which address then. As Kubernetes demands, kubelets and kube-proxies are started
// again; our agents and controllers are not. They come to what was restored, no address has two owners, and nobody is taken
// for who had his address before.
func TestRestoredFromBackup(t *testing.T) {
	s := bedtest.OpenScene(t)
	was := s.Start(bedtest.Spec{Name: "was", Node: "node1", Labels: bedtest.IsClient})[0]
	backup(s.Cluster)
	pass(s.Cluster, 3000) // or the revisions of before are soon reached again

	s.In("delete", "pod", "was", "--now")
	gone(s.Cluster, "node1", was.Addrs[0])
	// pods that no API server can end: they live through the restore
	s.StaticPod("node1", bedtest.Spec{Name: "heir", Annotations: map[string]string{"cni.projectcalico.org/ipAddrs": fmt.Sprintf("[%q]", was.Addrs[0])}})
	s.StaticPod("node2", bedtest.Spec{Name: "later", Labels: bedtest.IsClient})
	heir, later := s.Enter("heir-node1"), s.Enter("later-node2")
	if heir.Addrs[0] != was.Addrs[0] {
		t.Fatalf("the heir has %s, want %s", heir.Addrs[0], was.Addrs[0])
	}
	lost := s.Start(bedtest.Spec{Name: "lost", Node: "node1", Labels: map[string]string{"role": "late"}})[0]
	s.Only("late", bedtest.IsServer, map[string]string{"role": "late"})
	s.Allowed(lost.Inside, s.Server.Server())
	s.Allowed(later.Inside, s.Server.Server())
	s.Denied(heir.Inside, s.Server.Server())
	f := s.StartPatientFlow()
	restarted := []string{restarts(s.Cluster, "node1"), restarts(s.Cluster, "node2")}

	restore(s.Cluster)
	undisturbed(f, 15*time.Second, "after the restore")
	f.Lossless()
	swap(s) // policy that is made now is seen, though the revisions of before are far
	s.AgentsReady()
	gone(s.Cluster, "node1", lost.Addrs[0])
	held(s.Cluster, heir)
	held(s.Cluster, later)
	s.Denied(heir.Inside, s.Server.Server())
	s.Allowed(later.Inside, s.Server.Server())
	again := s.Enter("was") // the API server knows it: it is made anew
	if again.Addrs[0] == heir.Addrs[0] {
		t.Errorf("%s has two owners", again.Addrs[0])
	}
	s.Allowed(again.Inside, s.Server.Server())
	var more []bedtest.Spec
	for i := range 10 {
		more = append(more, bedtest.Spec{Name: fmt.Sprint("more-", i), Node: fmt.Sprint("node", 1+i%2)})
	}
	s.Start(more...)
	distinct(s.Cluster)
	for i, node := range []string{"node1", "node2"} {
		if now := restarts(s.Cluster, node); now != restarted[i] {
			t.Errorf("the agent of %s was started again: %s, was %s", node, now, restarted[i])
		}
	}
	s.Denied(heir.Inside, s.Server.Server())
}

// backup keeps what etcd holds now. The API server waits for it for a moment.
func backup(c *bedtest.Cluster) {
	c.Helper()
	stop(c, "hub", "etcd")
	err := copyDir(etcdDir(c), filepath.Join(c.Bed.State(), "run/etcd.backup"))
	up(c)
	if err != nil {
		c.Fatal(err)
	}
}

// restore has etcd hold what it did at the time of the backup.
func restore(c *bedtest.Cluster) {
	c.Helper()
	c.Cleanup(func() { up(c) })
	for _, node := range []string{"node1", "node2"} {
		stop(c, node, "kubelet", "kube-proxy")
	}
	stop(c, "hub", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
	if err := copyDir(filepath.Join(c.Bed.State(), "run/etcd.backup"), etcdDir(c)); err != nil {
		c.Fatal(err)
	}
	up(c)
}

// pass has n revisions go by.
func pass(c *bedtest.Cluster, n int) {
	c.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				code, b, err := ask(c, "hub", "POST", "http://127.0.0.1:2379/v3/kv/put", map[string]any{"key": someKey, "value": someKey})
				if err != nil || code != 200 {
					errs <- fmt.Errorf("etcd: %w: %d %s", err, code, b)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		c.Fatal(err)
	default:
	}
}

// distinct says that no two pods have an address, and that blocks hold each for who has it.
func distinct(c *bedtest.Cluster) {
	c.Helper()
	var l struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Spec     struct{ HostNetwork bool }
			Status   struct {
				Phase string
				PodIP netip.Addr
			}
		}
	}
	if err := json.Unmarshal([]byte(c.Kubectl("get", "pods", "-A", "-o", "json")), &l); err != nil {
		c.Fatal(err)
	}
	held, seen := owners(c), map[netip.Addr]string{}
	for _, p := range l.Items {
		a, name := p.Status.PodIP, p.Metadata.Namespace+"/"+p.Metadata.Name
		if p.Spec.HostNetwork || !a.IsValid() || p.Status.Phase != "Running" {
			continue
		}
		if other := seen[a]; other != "" {
			c.Errorf("%s and %s have %s", other, name, a)
		}
		seen[a] = name
		if o := held[a]; o.Namespace+"/"+o.Pod != name {
			c.Errorf("%s of %s is held for %s/%s", a, name, o.Namespace, o.Pod)
		}
	}
}
