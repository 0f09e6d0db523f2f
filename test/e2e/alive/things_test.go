//go:build e2e && linux

package alive

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/e2e/bedtest"
)

// up starts what is missing of the bed.
func up(c *bedtest.Cluster) {
	c.Helper()
	c.Testbed(append([]string{"up"}, strings.Fields(c.UpOptions())...)...)
}

// led waits until kube-proxy leads nodes to the API server: one that ends takes itself out of the service's endpoints, and
// kube-proxy, which looks for it with pauses of up to a minute, refuses connections until it has heard of it again.
func led(c *bedtest.Cluster) {
	c.Helper()
	to := field(c, "{.spec.clusterIP}", "service", "kubernetes", "-n", "default")
	for _, node := range []string{"node1", "node2"} {
		eventually(c, 180*time.Second, "a way from "+node+" to the service of the API server", func() bool {
			_, err := c.Bed.Exec(context.Background(), node, "bash", "-c", "exec 3<>/dev/tcp/"+to+"/443")
			return err == nil
		})
	}
}

// stop ends daemons of a machine.
func stop(c *bedtest.Cluster, machine string, daemons ...string) {
	c.Helper()
	for _, d := range daemons {
		c.Testbed("stop", machine, d)
	}
}

// sh runs a line of shell on a machine, and ends the test if it fails.
func sh(c *bedtest.Cluster, machine, line string) string {
	c.Helper()
	out, err := c.Bed.Exec(context.Background(), machine, "sh", "-c", line)
	if err != nil {
		c.Fatalf("on %s: %v\n%s", machine, err, out)
	}
	return strings.TrimSpace(out)
}

// request asks a server that listens in a machine's network namespace.
func ask(c *bedtest.Cluster, machine, method, url string, body any) (code int, answer []byte, err error) {
	pid, err := c.Machine(machine)
	if err != nil {
		return 0, nil, err
	}
	ns, err := netns.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return 0, nil, err
	}
	defer ns.Close()
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, addr string) (conn net.Conn, err error) {
		err = ns.Do(func() error {
			conn, err = net.DialTimeout(network, addr, 5*time.Second)
			return err
		})
		return conn, err
	}}
	b, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequest(method, url, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	resp, err := (&http.Client{Transport: t, Timeout: 20 * time.Second}).Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// readiness is what an agent says of it.
func readiness(c *bedtest.Cluster, node string) string {
	_, b, err := ask(c, node, "GET", "http://127.0.0.1:9091/readyz", nil)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// etcd calls a method of the bed's etcd, and returns the revision that its answer speaks of.
func etcd(c *bedtest.Cluster, method string, body map[string]any) (revision string) {
	c.Helper()
	code, b, err := ask(c, "hub", "POST", "http://127.0.0.1:2379/v3/kv/"+method, body)
	var r struct{ Header struct{ Revision string } }
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil || code != http.StatusOK {
		c.Fatalf("etcd: %s: %v, %d %s", method, err, code, b)
	}
	return r.Header.Revision
}

var someKey = base64.StdEncoding.EncodeToString([]byte("/alive"))

// compact has etcd forget all revisions but the last.
func compact(c *bedtest.Cluster) {
	c.Helper()
	etcd(c, "compaction", map[string]any{"revision": etcd(c, "range", map[string]any{"key": someKey}), "physical": true})
}

// etcdDir is where the bed's etcd has its data.
func etcdDir(c *bedtest.Cluster) string { return filepath.Join(c.Bed.State(), "run/etcd") }

// owners is who has which address, as the blocks say.
func owners(c *bedtest.Cluster) map[netip.Addr]api.Owner {
	c.Helper()
	var l struct{ Items []*api.IPAMBlock }
	if err := json.Unmarshal([]byte(c.Kubectl("get", "ipamblocks.projectcalico.org", "-o", "json")), &l); err != nil {
		c.Fatal(err)
	}
	out := map[netip.Addr]api.Owner{}
	for _, b := range l.Items {
		for a, o := range b.Owners() {
			if was, twice := out[a]; twice {
				c.Errorf("%s is in two blocks: %v and %v", a, was, o)
			}
			out[a] = o
		}
	}
	return out
}

// holding are the addresses that blocks hold for a pod of the test.
func holding(c *bedtest.Cluster, pod string) (addrs []netip.Addr) {
	c.Helper()
	for a, o := range owners(c) {
		if o.Namespace == c.NS && o.Pod == pod {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// held waits until a pod has its address, and no other.
func held(c *bedtest.Cluster, p *bedtest.Pod) {
	c.Helper()
	var now []netip.Addr
	if !bedtest.Eventually(60*time.Second, func() bool {
		now = holding(c, p.Name)
		return len(now) == 1 && now[0] == p.Addrs[0] && owners(c)[now[0]].UID != ""
	}) {
		c.Errorf("blocks hold %v for pod %s, want %v", now, p.Name, p.Addrs)
	}
}

// gone waits until no namespace of a node has an address.
func gone(c *bedtest.Cluster, node string, addr netip.Addr) {
	c.Helper()
	if !bedtest.Eventually(120*time.Second, func() bool {
		ns, err := c.NamespaceOf(node, addr)
		if err == nil {
			ns.Close()
		}
		return err != nil
	}) {
		c.Fatalf("there still is a pod with %s on %s", addr, node)
	}
}

// eventually ends the test if something does not come.
func eventually(c *bedtest.Cluster, within time.Duration, what string, yes func() bool) {
	c.Helper()
	if !bedtest.Eventually(within, yes) {
		c.Fatalf("after %s: %s has not come", within, what)
	}
}

// undisturbed watches a flow for a while in which nothing may change.
func undisturbed(f *bedtest.Flow, d time.Duration, when string) {
	f.Helper()
	if bedtest.Eventually(d, func() bool { return f.Kept.Failed.Load()+f.Fresh.Failed.Load()+f.Leaked.OK.Load() > 0 }) {
		f.Errorf("%s the traffic is not as it was", when)
	}
}

// swap has nobody be allowed to ask the server, and sees that it is so; then again as it was. Watches and agents work.
func swap(s *bedtest.Scene) {
	s.Helper()
	s.Only("nobody", bedtest.IsServer, map[string]string{"role": "nobody"})
	s.In("delete", "networkpolicy", "only-clients")
	s.Denied(s.Client.Inside, s.Server.Server())
	s.Only("only-clients", bedtest.IsServer, bedtest.IsClient)
	s.In("delete", "networkpolicy", "nobody")
	s.Holds()
}

// field is a field of an object of the cluster.
func field(c *bedtest.Cluster, path string, what ...string) string {
	c.Helper()
	return strings.TrimSpace(c.Kubectl(append(append([]string{"get"}, what...), "-o", "jsonpath="+path)...))
}

// copyDir copies a directory with all that is in it.
func copyDir(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return os.Chmod(to, 0o700)
}
