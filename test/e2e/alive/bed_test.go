//go:build e2e && linux

package alive

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/e2e"
)

const (
	system = "tortie-system"
	image  = "registry.k8s.io/e2e-test-images/agnhost:2.59"
	port   = 8080
	// answer is how long an exchange may take. It is shorter than the second after which a lost SYN is sent again: what
	// was dropped is seen.
	answer = 900 * time.Millisecond
)

// cluster is the bed's, with a namespace for one test.
type cluster struct {
	*testing.T
	bed *e2e.Bed
	ns  string
}

// open gives a test a namespace of its own, which is removed with all that is in it when the test ends.
func open(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it enters the network namespaces of pods")
	}
	c := &cluster{T: t, bed: &e2e.Bed{Root: "../../..", Out: os.Stderr}}
	c.ns = "alive-" + strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))
	c.kubectl("create", "namespace", c.ns)
	t.Cleanup(func() { c.kubectl("delete", "namespace", c.ns, "--timeout=180s") })
	c.agentsReady()
	return c
}

// kubectl runs kubectl, and ends the test if it can't.
func (c *cluster) kubectl(args ...string) string {
	c.Helper()
	out, err := c.bed.Kubectl(context.Background(), args...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// in is kubectl in the test's namespace.
func (c *cluster) in(args ...string) string {
	c.Helper()
	return c.kubectl(append([]string{"-n", c.ns}, args...)...)
}

func (c *cluster) apply(object any) {
	c.Helper()
	b, err := json.Marshal(object)
	if err == nil {
		err = c.bed.Apply(context.Background(), string(b))
	}
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) testbed(args ...string) {
	c.Helper()
	if err := c.bed.Testbed(context.Background(), args...); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) agentsReady() {
	c.Helper()
	c.kubectl("-n", system, "rollout", "status", "daemonset/tortie-agent", "--timeout=180s")
}

// agent is the name of the agent's pod on a node.
func (c *cluster) agent(node string) string {
	c.Helper()
	return strings.TrimSpace(c.kubectl("-n", system, "get", "pods", "-l", "app.kubernetes.io/component=agent",
		"--field-selector", "spec.nodeName="+node, "-o", "jsonpath={.items[0].metadata.name}"))
}

// A spec is what a test wants of a pod.
type spec struct {
	name, node          string
	labels, annotations map[string]string
	hostPort            int
}

func (c *cluster) object(s spec) map[string]any {
	ports := map[string]any{"containerPort": port}
	if s.hostPort != 0 {
		ports["hostPort"] = s.hostPort
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": s.name, "namespace": c.ns, "labels": s.labels, "annotations": s.annotations},
		"spec": map[string]any{
			"nodeName": s.node, "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
			"containers": []any{map[string]any{
				"name": "main", "image": image, "args": []string{"netexec", "--http-port", strconv.Itoa(port)},
				"ports":          []any{ports},
				"readinessProbe": map[string]any{"httpGet": map[string]any{"path": "/hostname", "port": port}, "periodSeconds": 1},
			}},
		},
	}
}

// pod is a pod that runs.
type pod struct {
	name, node, uid string
	addrs           []netip.Addr
	inside          *netns.Ns
}

func (p *pod) server() netip.AddrPort { return netip.AddrPortFrom(p.addrs[0], port) }

// start makes pods, waits until they are ready, and enters them.
func (c *cluster) start(specs ...spec) []*pod {
	c.Helper()
	for _, s := range specs {
		c.apply(c.object(s))
	}
	var pods []*pod
	for _, s := range specs {
		pods = append(pods, c.enter(s.name))
	}
	return pods
}

// enter waits for a pod to be ready, and enters it.
func (c *cluster) enter(name string) *pod {
	c.Helper()
	c.in("wait", "pod/"+name, "--for=create", "--timeout=120s")
	c.in("wait", "pod/"+name, "--for=condition=Ready", "--timeout=120s")
	var o struct {
		Metadata struct{ UID string }
		Spec     struct{ NodeName string }
		Status   struct{ PodIPs []struct{ IP netip.Addr } }
	}
	if err := json.Unmarshal([]byte(c.in("get", "pod", name, "-o", "json")), &o); err != nil {
		c.Fatal(err)
	}
	p := &pod{name: name, node: o.Spec.NodeName, uid: o.Metadata.UID}
	for _, ip := range o.Status.PodIPs {
		p.addrs = append(p.addrs, ip.IP)
	}
	if len(p.addrs) == 0 {
		c.Fatalf("pod %s is ready and has no address", name)
	}
	var err error
	if p.inside, err = c.namespaceOf(p.node, p.addrs[0]); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { p.inside.Close() })
	return p
}

// machine is the pid of a machine's first process, as this one sees it.
func (c *cluster) machine(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(c.bed.State(), "run/pids", name))
	if err != nil {
		return "", err
	}
	return strings.Fields(string(b))[0], nil
}

// namespaceOf finds the network namespace of a node's pod by its address.
func (c *cluster) namespaceOf(node string, addr netip.Addr) (*netns.Ns, error) {
	pid, err := c.machine(node)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob("/proc/" + pid + "/root/run/netns/*")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		ns, err := netns.Open(file)
		if err != nil {
			continue // one that is going away
		}
		if has(ns, addr) {
			return ns, nil
		}
		ns.Close()
	}
	return nil, fmt.Errorf("no network namespace on %s has %s", node, addr)
}

func has(ns *netns.Ns, addr netip.Addr) bool {
	found := false
	_ = ns.Do(func() error { // a namespace that is going away has nothing
		addrs, err := net.InterfaceAddrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				found = true
			}
		}
		return err
	})
	return found
}

// hub is the network namespace of the control plane, which is no node.
func (c *cluster) hub() *netns.Ns {
	c.Helper()
	pid, err := c.machine("hub")
	if err != nil {
		c.Fatal(err)
	}
	ns, err := netns.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { ns.Close() })
	return ns
}

// conn is a connection out of a network namespace to a server that says its name.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func dial(from *netns.Ns, to netip.AddrPort) (*conn, error) {
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), answer)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &conn{c, bufio.NewReader(c)}, nil
}

// ask has the server say its name.
func (c *conn) ask() error {
	if err := c.SetDeadline(time.Now().Add(answer)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("GET /hostname HTTP/1.1\r\nHost: server\r\n\r\n")); err != nil {
		return err
	}
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("the server says %s", r.Status)
	}
	_, err = bufio.NewReader(r.Body).ReadString(0)
	if err != nil && err.Error() != "EOF" {
		return err
	}
	return nil
}

// try makes a connection and asks once.
func try(from *netns.Ns, to netip.AddrPort) error {
	c, err := dial(from, to)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.ask()
}

// allowed waits until a connection comes through.
func (c *cluster) allowed(from *netns.Ns, to netip.AddrPort) {
	c.Helper()
	var err error
	if !eventually(30*time.Second, func() bool { err = try(from, to); return err == nil }) {
		c.Fatalf("to %s: %v, want an answer", to, err)
	}
}

// denied waits until no connection comes through.
func (c *cluster) denied(from *netns.Ns, to netip.AddrPort) {
	c.Helper()
	var err error
	if !eventually(30*time.Second, func() bool { err = try(from, to); return dropped(err) }) {
		c.Fatalf("to %s: %v, want that it is dropped", to, err)
	}
}

func dropped(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// eventually asks until the answer is yes.
func eventually(within time.Duration, yes func() bool) bool {
	for end := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		if yes() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// only is a NetworkPolicy: pods of a label take connections only from those of another.
func (c *cluster) only(name string, of, from map[string]string) {
	c.Helper()
	c.apply(map[string]any{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": map[string]any{"name": name, "namespace": c.ns},
		"spec": map[string]any{
			"podSelector": map[string]any{"matchLabels": of},
			"ingress":     []any{map[string]any{"from": []any{map[string]any{"podSelector": map[string]any{"matchLabels": from}}}}},
		},
	})
}

// scene is a server that may be asked by a client and not by a stranger, across nodes.
type scene struct {
	*cluster
	server, client, stranger *pod
}

var (
	isServer = map[string]string{"app": "server"}
	isClient = map[string]string{"role": "client"}
)

func openScene(t *testing.T) *scene {
	t.Helper()
	c := open(t)
	c.only("only-clients", isServer, isClient)
	p := c.start(spec{name: "server", node: "node2", labels: isServer},
		spec{name: "client", node: "node1", labels: isClient}, spec{name: "stranger", node: "node1"})
	s := &scene{c, p[0], p[1], p[2]}
	s.holds()
	return s
}

// holds says that the policy does, for new connections.
func (s *scene) holds() {
	s.Helper()
	s.allowed(s.client.inside, s.server.server())
	s.denied(s.stranger.inside, s.server.server())
}
