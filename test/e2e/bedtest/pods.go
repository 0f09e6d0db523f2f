//go:build linux

package bedtest

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/tortie/tortie/internal/netns"
)

// Spec is what a test wants of a pod.
type Spec struct {
	Name, Node          string
	Labels, Annotations map[string]string
	HostPort            int
}

// Object is a pod with a web server that says its name.
func (c *Cluster) Object(s Spec) map[string]any {
	ports := map[string]any{"containerPort": port}
	if s.HostPort != 0 {
		ports["hostPort"] = s.HostPort
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": s.Name, "namespace": c.NS, "labels": s.Labels, "annotations": s.Annotations},
		"spec": map[string]any{
			"nodeName": s.Node, "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
			"containers": []any{map[string]any{
				"name": "main", "image": image, "args": []string{"netexec", "--http-port", strconv.Itoa(port)},
				"ports":          []any{ports},
				"readinessProbe": map[string]any{"httpGet": map[string]any{"path": "/hostname", "port": port}, "periodSeconds": 1},
			}},
		},
	}
}

// Pod is a pod that runs.
type Pod struct {
	Name, Node, UID string
	Addrs           []netip.Addr
	Inside          *netns.Ns
}

// Server is where the pod answers.
func (p *Pod) Server() netip.AddrPort { return netip.AddrPortFrom(p.Addrs[0], port) }

// Start makes pods, waits until they are ready, and enters them.
func (c *Cluster) Start(specs ...Spec) []*Pod {
	c.Helper()
	for _, s := range specs {
		c.Apply(c.Object(s))
	}
	var pods []*Pod
	for _, s := range specs {
		pods = append(pods, c.Enter(s.Name))
	}
	return pods
}

// Enter waits for a pod to be ready, and enters it.
func (c *Cluster) Enter(name string) *Pod {
	c.Helper()
	c.In("wait", "pod/"+name, "--for=create", "--timeout=120s")
	c.In("wait", "pod/"+name, "--for=condition=Ready", "--timeout=120s")
	var o struct {
		Metadata struct{ UID string }
		Spec     struct{ NodeName string }
		Status   struct{ PodIPs []struct{ IP netip.Addr } }
	}
	if err := json.Unmarshal([]byte(c.In("get", "pod", name, "-o", "json")), &o); err != nil {
		c.Fatal(err)
	}
	p := &Pod{Name: name, Node: o.Spec.NodeName, UID: o.Metadata.UID}
	for _, ip := range o.Status.PodIPs {
		p.Addrs = append(p.Addrs, ip.IP)
	}
	if len(p.Addrs) == 0 {
		c.Fatalf("pod %s is ready and has no address", name)
	}
	var err error
	if p.Inside, err = c.NamespaceOf(p.Node, p.Addrs[0]); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { p.Inside.Close() })
	return p
}

// NoSandboxRebuilt says that no pod of the test had to be tried again.
func (c *Cluster) NoSandboxRebuilt() {
	c.Helper()
	events := c.In("get", "events", "--field-selector", "reason=FailedCreatePodSandBox", "-o", `jsonpath={range .items[*]}{.involvedObject.name}: {.message}{"\n"}{end}`)
	if events != "" {
		c.Errorf("sandboxes were made again:\n%s", events)
	}
}

// StaticPod puts a manifest where a node's kubelet looks for some, and returns its path. Its name gets the node's appended.
func (c *Cluster) StaticPod(node string, s Spec) string {
	c.Helper()
	o := c.Object(s)
	delete(o["spec"].(map[string]any), "nodeName")
	b, err := json.Marshal(o)
	if err != nil {
		c.Fatal(err)
	}
	pid, err := c.Machine(node)
	if err != nil {
		c.Fatal(err)
	}
	path := filepath.Join("/proc", pid, "root/etc/kubernetes/manifests", c.NS+".json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { os.Remove(path) })
	return path
}
