package convert

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"text/template"

	"github.com/tortie/tortie/api"
	"sigs.k8s.io/network-policy-api/conformance"
	"sigs.k8s.io/yaml"
)

// TestUpstreamManifests: every policy of the network-policy-api's own conformance suite is understood whole, but for those
// that select nodes.
func TestUpstreamManifests(t *testing.T) {
	seen := map[string]int{}
	err := fs.WalkDir(conformance.Manifests, "base", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		data, err := fs.ReadFile(conformance.Manifests, path)
		if err != nil {
			return err
		}
		page, err := template.New(path).Parse(string(data))
		if err != nil {
			return err
		}
		var filled bytes.Buffer
		if err := page.Execute(&filled, map[string][]int{"HostNetworkPorts": {1, 2, 3, 4, 5, 6, 7, 8, 9}}); err != nil {
			return err
		}
		for _, doc := range strings.Split(filled.String(), "\n---\n") {
			upstreamManifest(t, path, doc, seen)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen["ClusterNetworkPolicy"] < 20 || seen["NetworkPolicy"] < 1 || seen["rules"] < 120 {
		t.Errorf("only these were seen: %v", seen)
	}
}

func upstreamManifest(t *testing.T, path, doc string, seen map[string]int) {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var problems []api.Problem
	switch {
	case bytes.Contains(data, []byte(`"kind":"ClusterNetworkPolicy"`)):
		var p *api.GlobalNetworkPolicy
		if p, problems, err = ClusterNetworkPolicy(data); err == nil {
			seen["ClusterNetworkPolicy"]++
			seen["rules"] += len(p.Spec.Ingress) + len(p.Spec.Egress)
		}
	case bytes.Contains(data, []byte(`"kind":"NetworkPolicy"`)):
		_, problems, err = NetworkPolicy(data)
		seen["NetworkPolicy"]++
	}
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	for _, p := range problems {
		t.Errorf("%s: %v", path, p)
	}
}
