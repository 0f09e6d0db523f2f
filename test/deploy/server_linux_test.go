package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	kyaml "sigs.k8s.io/yaml"

	"github.com/tortie/tortie/controllers"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/kube"
	"github.com/tortie/tortie/test/kubetest"
)

// plurals are the kinds of the manifest in paths.
var plurals = map[string]string{
	"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "ConfigMap": "configmaps",
	"CustomResourceDefinition": "customresourcedefinitions", "DaemonSet": "daemonsets", "Deployment": "deployments", "GlobalNetworkPolicy": "globalnetworkpolicies",
	"IPPool": "ippools", "Namespace": "namespaces", "NetworkPolicy": "networkpolicies",
	"Role": "roles", "RoleBinding": "rolebindings", "ServiceAccount": "serviceaccounts", "Tier": "tiers",
	"ValidatingAdmissionPolicy": "validatingadmissionpolicies", "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}

// cluster is an API server that has taken the manifest.
type cluster struct {
	*kubetest.Server
	client *http.Client
}

func install(t *testing.T) *cluster {
	t.Helper()
	s, err := kubetest.Start(t.TempDir(), nil)
	if errors.Is(err, kubetest.ErrNotAsked) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := &cluster{Server: s}
	if c.client, err = s.Client(); err != nil {
		t.Fatal(err)
	}
	for _, o := range read(t, "deploy/tortie.yaml") {
		if err := c.create(o); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestServer: a real API server takes the manifest in its order, every field of it, and then the examples.
func TestServer(t *testing.T) {
	c := install(t)
	for _, path := range []string{"examples/kubernetes/pool.yaml", "examples/kubernetes/policy.yaml"} {
		for _, o := range read(t, path) {
			c.eventuallyCreate(t, o)
		}
	}
}

// TestUninstall: the kinds of projectcalico.org go, with all that there is of them, while controllers run; none of these
// is held back for ever.
func TestUninstall(t *testing.T) {
	c := install(t)
	c.runControllers(t)
	for _, text := range []string{
		"{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: mine}, spec: {order: 5}}",
		"{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: mine.first}, spec: {tier: mine, types: [Ingress]}}",
	} {
		o := object{raw: []byte(text)}
		if err := kyaml.Unmarshal(o.raw, &o); err != nil {
			t.Fatal(err)
		}
		c.eventuallyCreate(t, o)
	}
	for _, o := range read(t, "examples/kubernetes/policy.yaml") { // stays, and is in the tier default
		c.eventuallyCreate(t, o)
	}
	const tier = "/apis/projectcalico.org/v3/tiers/mine"
	eventually(t, "the tier is kept for its policies", func() error {
		var o object
		if err := c.get(tier, &o); err != nil || len(o.Finalizers) == 0 {
			return fmt.Errorf("finalizers %v, %w", o.Finalizers, err)
		}
		return nil
	})
	const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	kinds := slices.DeleteFunc(parts(t), func(o object) bool { return o.Kind != "CustomResourceDefinition" })
	// In a cluster the garbage collector of Kubernetes watches all kinds. A kind that nobody has ever listed may not go before
	// the API server looks at all kinds again, in five minutes: "storage is (re)initializing", says its finalizer, whose next
	// try then meets its own write.
	for _, o := range kinds {
		plural, group, _ := strings.Cut(o.Name, ".")
		eventually(t, o.Name+" is listed", func() error {
			var list struct{ Items []object }
			return c.get("/apis/"+group+"/v3/"+plural, &list)
		})
	}
	for _, o := range kinds {
		if err := c.do(http.MethodDelete, crds+"/"+o.Name, nil, http.StatusOK); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "the kinds are gone", func() error {
		var list struct{ Items []object }
		if err := c.get(crds, &list); err != nil {
			return err
		}
		for _, o := range list.Items {
			return fmt.Errorf("%s and %d others are there", o.Name, len(list.Items)-1)
		}
		return nil
	})
}

// runControllers runs what the Deployment runs, until the test ends.
func (c *cluster) runControllers(t *testing.T) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	from := kube.Config{Kubeconfig: c.Kubeconfig(), Log: log}
	rc, err := from.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	core, err := corev1client.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	leases, err := coordinationv1client.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	all, err := controllers.New(controllers.Config{
		Log: log, Registry: prometheus.NewRegistry(),
		OpenStore: func(ctx context.Context) (datastore.Store, error) { return kube.Open(ctx, from) },
		Kubernetes: &controllers.Kubernetes{Core: core,
			Lease: controllers.Lease{Client: leases, Namespace: namespace, Identity: "test"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- all.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func (c *cluster) create(o object) error {
	body, err := kyaml.YAMLToJSON(o.raw)
	if err != nil {
		return err
	}
	path := "/apis/" + o.APIVersion
	if o.APIVersion == "v1" {
		path = "/api/v1"
	}
	if o.Namespace != "" {
		path += "/namespaces/" + o.Namespace
	}
	if err := c.do(http.MethodPost, path+"/"+plurals[o.Kind]+"?fieldValidation=Strict", body, http.StatusCreated); err != nil {
		return fmt.Errorf("%s/%s: %w", o.Kind, o.Name, err)
	}
	return nil
}

// eventuallyCreate creates an object of a kind that is perhaps too new to be served already.
func (c *cluster) eventuallyCreate(t *testing.T, o object) {
	t.Helper()
	eventually(t, "creating", func() error { return c.create(o) })
}

func (c *cluster) do(method, path string, body []byte, want int) error {
	r, err := c.request(method, path, body)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); r.StatusCode != want {
		return fmt.Errorf("%s: %.800s", r.Status, b)
	}
	return nil
}

func (c *cluster) get(path string, into any) error {
	r, err := c.request(http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return errors.New(r.Status)
	}
	return json.NewDecoder(r.Body).Decode(into)
}

func (c *cluster) request(method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequest(method, c.URL()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	return c.client.Do(r)
}

// eventually waits until fn says nothing.
func eventually(t *testing.T, what string, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
