package helm

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write deploy/tortie.yaml")

const (
	chartDir = "../../deploy/helm/tortie"
	manifest = "../../deploy/tortie.yaml"

	// Helm keeps what it knows of a release in the release's namespace, so that can't be one of its objects:
	// `helm install --create-namespace` makes it, and docs/install-kubernetes.md has the command for the labels.
	head = `# Tortie on Kubernetes: kubectl apply -f this, then an IPPool; docs/install-kubernetes.md says which.
#
# Made out of deploy/helm/tortie, deploy/crds and deploy/policies, by "go test ./... -update" in test/helm: change those.
apiVersion: v1
kind: Namespace
metadata:
  name: tortie-system
  labels:
    app.kubernetes.io/name: tortie
    # The agent uses the node's network and folders.
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/audit: privileged
    pod-security.kubernetes.io/warn: privileged
`
)

// order is that of the templates in the manifest: what others stand on first.
var order = []string{"rbac.yaml", "policies.yaml", "config.yaml", "agent.yaml", "controllers.yaml", "pools.yaml"}

// render is what the chart makes of values (YAML), with its CRDs if wanted.
func render(t *testing.T, values string, crds bool) (string, error) {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(values), &given); err != nil {
		t.Fatal(err)
	}
	v, err := util.ToRenderValues(c, given, common.ReleaseOptions{Name: "tortie", Namespace: "tortie-system", Revision: 1, IsInstall: true},
		common.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	out, err := engine.Render(c, v)
	if err != nil {
		return "", err
	}
	b := &strings.Builder{}
	if crds {
		for _, crd := range c.CRDObjects() {
			document(b, string(crd.File.Data))
		}
	}
	for _, name := range order {
		document(b, out["tortie/templates/"+name])
		delete(out, "tortie/templates/"+name)
	}
	for name := range out {
		if !strings.HasSuffix(name, ".tpl") && !strings.HasSuffix(name, "/NOTES.txt") {
			t.Errorf("%s is not in order", name)
		}
	}
	return b.String(), nil
}

// document adds what a file has, which may be several documents or none.
func document(b *strings.Builder, text string) {
	text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "---"))
	if text != "" {
		b.WriteString("---\n" + text + "\n")
	}
}

// TestManifest: deploy/tortie.yaml is what the chart renders by default, and the namespace.
func TestManifest(t *testing.T) {
	out, err := render(t, "", true)
	if err != nil {
		t.Fatal(err)
	}
	want := []byte(head + out)
	if *update {
		if err := os.WriteFile(manifest, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		g, w := lines(string(got)), lines(string(want))
		i := 0
		for i < min(len(g), len(w)) && g[i] == w[i] {
			i++
		}
		t.Errorf("%s is not what is rendered, from line %d on; in test/helm: go test ./... -update", manifest, i+1)
	}
}

func lines(s string) []string { return strings.Split(s, "\n") }

// TestValues: what each value changes, as the lines that are in the output then and are not by default.
func TestValues(t *testing.T) {
	byDefault, err := render(t, "", false)
	if err != nil {
		t.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, c := range []struct {
		values string
		want   []string
	}{
		{"image: {repository: example.com/tortie, tag: v2, pullPolicy: Never}", []string{
			"image: example.com/tortie:v2", "imagePullPolicy: Never"}},
		{"image: {tag: v2, digest: '" + digest + "'}", []string{"image: ghcr.io/tortie/tortie@" + digest}},
		{"imagePullSecrets: [mine]", []string{"imagePullSecrets:", "- name: mine"}},
		{"apiServers: ['https://192.0.2.1:6443']", []string{`apiServers: ["https://192.0.2.1:6443"]`}},
		{"pools: [{name: pods, cidr: 10.244.0.0/16, natOutgoing: true}, {name: six, cidr: 'fd00::/64', blockSize: 122}]", []string{
			"apiVersion: projectcalico.org/v3", "kind: IPPool", "name: pods", "annotations: {helm.sh/resource-policy: keep}",
			"cidr: 10.244.0.0/16", "natOutgoing: true", "name: six", "blockSize: 122", "cidr: fd00::/64"}},
		{"agent: {config: {logLevel: debug, failsafeIn: ['tcp:22']}}", []string{"failsafeIn:", "- tcp:22", "logLevel: debug"}},
		{"agent: {cni: {confName: 05-tortie.conflist}}", []string{"confName: 05-tortie.conflist"}},
		{"agent: {listen: {host: '', port: 1234}}", []string{
			`listen: ":1234"`, `httpGet: {host: "127.0.0.1", port: 1234, path: /livez}`, `httpGet: {host: "127.0.0.1", port: 1234, path: /readyz}`}},
		{"agent: {listen: {host: '::1'}}", []string{
			`listen: "[::1]:9091"`, `httpGet: {host: "::1", port: 9091, path: /livez}`, `httpGet: {host: "::1", port: 9091, path: /readyz}`}},
		{"agent: {cniBinDir: /usr/libexec/cni, cniConfDir: /etc/other/net.d}", []string{
			"- {name: cni-bin, hostPath: {path: /usr/libexec/cni, type: DirectoryOrCreate}}",
			"- {name: cni-conf, hostPath: {path: /etc/other/net.d, type: DirectoryOrCreate}}"}},
		{"agent: {maxUnavailable: 3, resources: {limits: {memory: 1Gi}}, nodeSelector: {a: b}, tolerations: []}", []string{
			"rollingUpdate: {maxUnavailable: 3}", "a: b", "[]", "limits:", "memory: 1Gi",
			`args: [controllers, --config, /etc/tortie/agent.yaml, --listen, "127.0.0.1:9095", --agent-nodes, "a=b,kubernetes.io/os=linux"]`}},
		{"agent: {nodeSelector: {kubernetes.io/os: null, example.com/tortie: ''}}", []string{`example.com/tortie: ""`,
			`args: [controllers, --config, /etc/tortie/agent.yaml, --listen, "127.0.0.1:9095", --agent-nodes, "example.com/tortie="]`}},
		{"controllers: {replicas: 1, listen: {host: 192.0.2.7, port: 99}, nodeSelector: {a: b}}", []string{
			"replicas: 1", "a: b", `args: [controllers, --config, /etc/tortie/agent.yaml, --listen, "192.0.2.7:99", --agent-nodes, "kubernetes.io/os=linux"]`,
			`httpGet: {host: "192.0.2.7", port: 99, path: /livez}`, `httpGet: {host: "192.0.2.7", port: 99, path: /readyz}`}},
		{"admissionPolicies: false", nil},
	} {
		out, err := render(t, c.values, false)
		if err != nil {
			t.Errorf("%s: %v", c.values, err)
			continue
		}
		if d := cmp.Diff(c.want, added(byDefault, out)); d != "" {
			t.Errorf("%s: %s", c.values, d)
		}
	}
}

// added is the lines of b that a does not have, each once. Those that every changed configuration changes are left out.
func added(a, b string) (out []string) {
	had := map[string]bool{}
	for _, l := range lines(a) {
		had[strings.TrimSpace(l)] = true
	}
	for _, l := range lines(b) {
		l = strings.TrimSpace(l)
		if !had[l] && !strings.HasPrefix(l, "tortie.io/config: ") {
			out, had[l] = append(out, l), true
		}
	}
	return out
}

// TestConfigurationRestarts: pods are made anew when their configuration changes, and only then.
func TestConfigurationRestarts(t *testing.T) {
	hashes := func(values string) (out []string) {
		text, err := render(t, values, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines(text) {
			if l = strings.TrimSpace(l); strings.HasPrefix(l, "tortie.io/config: ") {
				out = append(out, l)
			}
		}
		return out
	}
	byDefault := hashes("")
	if len(byDefault) != 2 {
		t.Errorf("%q, want one for the agents and one for the controllers", byDefault)
	}
	if got := hashes("controllers: {replicas: 1}"); !slices.Equal(got, byDefault) {
		t.Errorf("%q became %q", byDefault, got)
	}
	if got := hashes("agent: {config: {mtu: 1400}}"); got[0] == byDefault[0] || got[1] == byDefault[1] {
		t.Errorf("%q is still %q", byDefault, got)
	}
}

// TestBadValues: what has no effect is refused.
func TestBadValues(t *testing.T) {
	for _, c := range []struct{ values, want string }{
		{"pool: []", "additional properties 'pool' not allowed"},
		{"agent: {image: x}", "additional properties 'image' not allowed"},
		{"agent: {config: {store: {}}}", "at '/agent/config/store': false schema"},
		{"agent: {cni: {binDir: /x}}", "at '/agent/cni/binDir': false schema"},
		{"agent: {cniBinDir: opt}", "does not match pattern '^/'"},
		{"image: {digest: latest}", "/image/digest"},
		{"pools: [{cidr: 10.0.0.0/8}]", "missing property 'name'"},
		{"controllers: {replicas: 0}", "/controllers/replicas"},
		{"agent: {listen: {port: 0}}", "/agent/listen/port"},
		{"agent: {listen: {host: '[::1]'}}", "/agent/listen/host"},
		{"admissionPolicies: 'no'", "got string, want boolean"},
	} {
		if _, err := render(t, c.values, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.values, err, c.want)
		}
	}
}

// TestLint: Helm has nothing to say against the chart.
func TestLint(t *testing.T) {
	for _, m := range lint.RunAll(chartDir, map[string]any{}, "tortie-system").Messages {
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
}
