package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	kyaml "sigs.k8s.io/yaml"

	"github.com/tortie/tortie/test/kubetest"
)

// plurals are the kinds of the manifest in paths.
var plurals = map[string]string{
	"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "ConfigMap": "configmaps",
	"CustomResourceDefinition": "customresourcedefinitions", "DaemonSet": "daemonsets", "Deployment": "deployments",
	"IPPool": "ippools", "Namespace": "namespaces", "NetworkPolicy": "networkpolicies", "PodDisruptionBudget": "poddisruptionbudgets",
	"Role": "roles", "RoleBinding": "rolebindings", "ServiceAccount": "serviceaccounts",
	"ValidatingAdmissionPolicy": "validatingadmissionpolicies", "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}

// TestServer: a real API server takes the manifest in its order, every field of it, and then the examples.
func TestServer(t *testing.T) {
	s, err := kubetest.Start(t.TempDir(), nil)
	if errors.Is(err, kubetest.ErrMissing) && os.Getenv("TORTIE_E2E") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	client, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	objects := read(t, "deploy/tortie.yaml")
	for _, o := range objects {
		if err := create(client, s.URL(), o); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d objects", len(objects))
	deadline := time.Now().Add(20 * time.Second)
	for _, path := range []string{"examples/kubernetes/pool.yaml", "examples/kubernetes/policy.yaml"} {
		for _, o := range read(t, path) {
			for err = create(client, s.URL(), o); err != nil && time.Now().Before(deadline); err = create(client, s.URL(), o) {
				time.Sleep(50 * time.Millisecond) // until kinds that are new are served
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}

func create(c *http.Client, base string, o object) error {
	body, err := kyaml.YAMLToJSON(o.raw)
	if err != nil {
		return err
	}
	url := base + "/apis/" + o.APIVersion
	if o.APIVersion == "v1" {
		url = base + "/api/v1"
	}
	if o.Namespace != "" {
		url += "/namespaces/" + o.Namespace
	}
	r, err := c.Post(url+"/"+plurals[o.Kind]+"?fieldValidation=Strict", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s/%s: %s: %.800s", o.Kind, o.Name, r.Status, b)
	}
	return nil
}
