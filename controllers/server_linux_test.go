package controllers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/kube"
	"github.com/tortie/tortie/ipam"
	"github.com/tortie/tortie/test/kubetest"
)

// cluster is a real API server, and kubectl.
type cluster struct {
	t *testing.T
	*kubetest.Server
}

func (c *cluster) try(stdin string, args ...string) (string, error) {
	cmd := exec.Command(kubetest.Bin("kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out.String(), nil
}

func (c *cluster) kubectl(stdin string, args ...string) string {
	c.t.Helper()
	out, err := c.try(stdin, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// shows waits until kubectl says what it should.
func (c *cluster) shows(want string, args ...string) {
	c.t.Helper()
	var got string
	var err error
	deadline := time.Now().Add(60 * time.Second)
	for tick := time.NewTicker(200 * time.Millisecond); ; <-tick.C {
		if got, err = c.try("", args...); err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("kubectl %s: %v\n%s\nwant\n%s", strings.Join(args, " "), err, got, want)
		}
	}
}

// newCluster starts an API server with our kinds.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	s, err := kubetest.Start(t.TempDir(), nil)
	if errors.Is(err, kubetest.ErrNotAsked) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := &cluster{t, s}
	c.kubectl("", "apply", "--server-side", "-f", "../deploy/crds")
	c.kubectl("", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	return c
}

func (c *cluster) open(ctx context.Context) (datastore.Store, error) {
	return kube.Open(ctx, kube.Config{Kubeconfig: c.Kubeconfig()})
}

// control runs the controllers until the test ends.
func (c *cluster) control() *Controllers {
	t := c.t
	t.Helper()
	rc, err := kube.Config{Kubeconfig: c.Kubeconfig()}.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	core, leases := corev1client.NewForConfigOrDie(rc), coordinationv1client.NewForConfigOrDie(rc)
	all, err := New(Config{OpenStore: c.open, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Registry: prometheus.NewRegistry(),
		Kubernetes: &Kubernetes{Core: core, Lease: Lease{Client: leases, Namespace: "default", Identity: "test"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- all.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return all
}

// TestServer has the controllers work with a real API server: all that they write is as it takes it.
func TestServer(t *testing.T) {
	c := newCluster(t)
	all := c.control()

	// Tiers: the built-in ones come, and one that is deleted waits for its policies, and says so.
	c.shows("default: kube-admin: kube-baseline: ", "get", "tiers", "-o", "jsonpath={range .items[*]}{.metadata.name}:{.metadata.finalizers[0]} {end}")
	c.kubectl("{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: ops}, spec: {order: 5, defaultAction: Pass}}\n---\n"+
		"{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: dns}, spec: {tier: ops, selector: all(), types: [Ingress]}}", "apply", "-f", "-")
	c.shows("tortie.io/policies", "get", "tier", "ops", "-o", "jsonpath={.metadata.finalizers[0]}")
	c.kubectl("", "delete", "tier", "ops", "--wait=false")
	c.shows("it goes when its policies are gone: GlobalNetworkPolicy/dns", "get", "tier", "ops", "-o", "jsonpath={.status.conditions[0].message}")
	c.kubectl("", "delete", "globalnetworkpolicies.projectcalico.org", "dns")
	c.kubectl("", "wait", "--for=delete", "tier/ops", "--timeout=60s")

	// Nodes: no network after a boot, and an endpoint of each.
	c.kubectl(`{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "annotations": {"projectcalico.org/IPv4Address": "192.0.2.1/24"}}}`, "apply", "-f", "-")
	c.kubectl("", "patch", "node", "n1", "--subresource=status", "-p", `{"status": {"nodeInfo": {"bootID": "b1", "operatingSystem": "linux"}}}`)
	c.shows("True NodeRebooted", "get", "node", "n1", "-o", `jsonpath={.status.conditions[?(@.type=="NetworkUnavailable")].status} {.status.conditions[?(@.type=="NetworkUnavailable")].reason}`)
	c.kubectl("", "annotate", "node", "n1", bootAnnotation+"=b1")
	c.shows("False", "get", "node", "n1", "-o", `jsonpath={.status.conditions[?(@.type=="NetworkUnavailable")].status}`)
	c.kubectl("{apiVersion: projectcalico.org/v3, kind: KubeControllersConfiguration, metadata: {name: default}, spec: {controllers: {node: {leakGracePeriod: 3s, hostEndpoint: {autoCreate: Enabled}}}}}", "apply", "-f", "-")
	c.shows(`* ["192.0.2.1"]`, "get", "hostendpoint", "n1-auto-hep", "-o", "jsonpath={.spec.interfaceName} {.spec.expectedIPs}")

	c.addresses(c.open)
	// What they say of themselves.
	if missing, problems := all.Ready(); len(missing)+len(problems) > 0 || all.Live() != nil {
		t.Errorf("ready: %v %v, live: %v", missing, problems, all.Live())
	}

	// The kinds go, with a tier and a policy in it, while the controllers live: as in an uninstallation.
	c.kubectl("{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: ops}, spec: {order: 5, defaultAction: Pass}}\n---\n"+
		"{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: dns}, spec: {tier: ops, selector: all(), types: [Ingress]}}", "apply", "-f", "-")
	c.shows("tortie.io/policies", "get", "tier", "ops", "-o", "jsonpath={.metadata.finalizers[0]}")
	c.kubectl("", "delete", "-f", "../deploy/crds", "--timeout=60s")
}

// TestDescribed: whoever describes a policy that can't be enforced as it is written reads why, also if nothing of it can.
func TestDescribed(t *testing.T) {
	c := newCluster(t)
	// The kind is no part of Kubernetes, and its schema may be a newer one than this release knows.
	c.kubectl(`{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "clusternetworkpolicies.policy.networking.k8s.io",
		"annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api/pull/300"}},
		"spec": {"group": "policy.networking.k8s.io", "scope": "Cluster", "names": {"kind": "ClusterNetworkPolicy", "plural": "clusternetworkpolicies"},
		"versions": [{"name": "v1alpha2", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}`, "apply", "-f", "-")
	c.kubectl("", "wait", "--for=condition=Established", "crd/clusternetworkpolicies.policy.networking.k8s.io", "--timeout=60s")
	c.control()
	for _, x := range []struct {
		object, yaml string
		want         []string
	}{
		{"clusternetworkpolicy/domains", `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: domains},
			spec: {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Accept, to: [{nodes: {}}]}, {action: Accept, to: [{domainNames: [example.com]}]}]}}`,
			[]string{"Warning  PolicyPartlyUnsupported", "they allow nothing, and may deny more than they say: spec.egress[1].to[0].domainNames: domain names are not followed; name networks\n"}},
		{"clusternetworkpolicy/nobody", `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: nobody},
			spec: {tier: Admin, priority: 5, subject: {serviceAccounts: {}}, egress: [{action: Accept, to: [{nodes: {}}]}]}}`,
			[]string{"Warning  PolicyUnreadable", "it has no effect: ", "spec.subject.serviceAccounts: unknown field\n"}},
	} {
		c.kubectl(x.yaml, "apply", "-f", "-")
		c.describes(x.object, x.want)
	}
}

// describes waits until kubectl describe says all of want of an object's Events.
func (c *cluster) describes(object string, want []string) {
	c.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for tick := time.NewTicker(200 * time.Millisecond); ; <-tick.C {
		got, err := c.try("", "describe", object)
		_, events, _ := strings.Cut(got, "\nEvents:")
		if err == nil && !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(events, w) }) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("kubectl describe %s: %v\n%s\nwants %q", object, err, got, want)
		}
	}
}

// addresses has one pod that lives, one that finished and one that is gone: only the first keeps its address, and what a
// node that is gone had goes as a whole.
func (c *cluster) addresses(open func(context.Context) (datastore.Store, error)) {
	t := c.t
	store, err := open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c.kubectl(poolYAML("v4", "10.0.0.0/24", ""), "apply", "-f", "-")
	c.kubectl("{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}", "apply", "-f", "-")
	for _, name := range []string{"alive", "finished"} {
		c.kubectl("{apiVersion: v1, kind: Pod, metadata: {name: "+name+"}, spec: {nodeName: n1, containers: [{name: c, image: none}]}}", "apply", "-f", "-")
	}
	uid := func(pod string) string { return c.kubectl("", "get", "pod", pod, "-o", "jsonpath={.metadata.uid}") }
	alloc := map[string]*ipam.Allocator{}
	for _, n := range []string{"n1", "n2"} {
		alloc[n] = ipam.New(ipam.Config{Store: store, Node: n, OneByOne: true})
	}
	for _, x := range []struct{ node, pod, uid string }{
		{"n1", "alive", uid("alive")}, {"n1", "finished", uid("finished")}, {"n1", "gone", "2d1e3c9a-0000-4000-8000-000000000000"}, {"n2", "gone-too", "2d1e3c9a-0000-4000-8000-000000000001"},
	} {
		if _, err := alloc[x.node].Assign(t.Context(), ipam.Request{Handle: "h-" + x.pod, V4: true,
			Owner: api.Owner{Namespace: "default", Pod: x.pod, UID: x.uid}}); err != nil {
			t.Fatal(err)
		}
	}
	c.kubectl("", "patch", "pod", "finished", "--subresource=status", "-p", `{"status": {"phase": "Succeeded"}}`)
	c.shows("host:n1 [h-alive] ", "get", "ipamblocks", "-o", `jsonpath={range .items[*]}{.spec.affinity} [{.spec.attributes[*].handle_id}] {end}`)
	c.shows("n1 ", "get", "blockaffinities", "-o", `jsonpath={range .items[*]}{.spec.node} {end}`)
}
