package ctl

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
)

// bench is a command line with a store in memory and no agent.
type bench struct {
	t     *testing.T
	store *mem.Store
	dir   string
	in    string
	edits string // the editor of the environment
}

func newBench(t *testing.T) *bench {
	return &bench{t: t, store: mem.New(), dir: t.TempDir()}
}

// run calls the command line and returns what it printed, both streams together, and the exit code.
func (b *bench) run(args ...string) (out string, code int) {
	b.t.Helper()
	var buf bytes.Buffer
	env := &Env{
		In: strings.NewReader(b.in), Out: &buf, Err: &buf, Editor: b.edits,
		Store:  func(context.Context) (datastore.Store, error) { return unclosed{b.store}, nil },
		Socket: func() string { return filepath.Join(b.dir, "no-agent.sock") },
	}
	root := &cobra.Command{Use: "tortie", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands(env)...)
	root.SetArgs(args)
	root.SetOut(&buf)
	root.SetErr(&buf)
	err := root.ExecuteContext(b.t.Context())
	if err != nil && err.Error() != "" {
		buf.WriteString("tortie: " + err.Error() + "\n")
	}
	return buf.String(), ExitCode(err)
}

// unclosed keeps the store between two calls of the command line.
type unclosed struct{ datastore.Store }

func (unclosed) Close() error { return nil }

func (b *bench) file(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

const tier = `
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100}
`

const policy = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: role == 'web'
  ingress:
    - action: Allow
      protocol: TCP
      destination: {ports: [80, "8000:8080", http]}
`

func wants(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, w := range texts {
		if !strings.Contains(out, w) {
			t.Errorf("the output lacks %q:\n%s", w, out)
		}
	}
}

func TestApplyGetDelete(t *testing.T) {
	b := newBench(t)
	f := b.file("a.yaml", tier+"---"+policy)
	steps := []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"apply", "-f", f, "--dry-run"}, 0, []string{"Tier/security created (dry run)"}},
		{[]string{"get", "tiers"}, 0, []string{"no tiers in the store"}},
		{[]string{"apply", "-f", f}, 0, []string{"Tier/security created", "NetworkPolicy/shop/web created"}},
		{[]string{"apply", "-f", f}, 0, []string{"Tier/security unchanged", "NetworkPolicy/shop/web unchanged"}},
		{[]string{"get", "np", "-n", "shop"}, 0, []string{"NAMESPACE", "shop", "web", "default", "1 in, 0 out", "role == 'web'"}},
		{[]string{"get", "networkpolicies"}, 0, []string{"no networkpolicies in namespace default (-A looks in all)"}},
		{[]string{"get", "cnp", "-A", "-o", "name"}, 0, []string{"NetworkPolicy/shop/web"}},
		{[]string{"get", "cnp", "web", "-n", "shop", "-o", "yaml"}, 0, []string{"8000:8080", "- http", "kind: NetworkPolicy"}},
		{[]string{"get", "cnp", "web", "-n", "shop", "-o", "json"}, 0, []string{`"kind": "NetworkPolicy"`}},
		{[]string{"get", "cnp", "web", "-n", "shop", "-o", "xml"}, ExitUsage, []string{"the formats are table, wide, yaml, json and name"}},
		{[]string{"get", "widgets"}, ExitUsage, []string{`there is no kind "widgets"`, "networkpolicies"}},
		{[]string{"get", "tier", "none"}, ExitMissing, []string{"Tier/none", "not found"}},
		{[]string{"delete", "tier"}, ExitUsage, []string{"say what to delete"}},
		{[]string{"delete", "tier", "none"}, ExitMissing, []string{"not found"}},
		{[]string{"delete", "tier", "none", "--ignore-not-found"}, 0, nil},
		{[]string{"delete", "-f", f}, 0, []string{"NetworkPolicy/shop/web deleted", "Tier/security deleted"}},
		{[]string{"get", "all", "-A"}, 0, []string{"no all in the store"}},
	}
	for _, s := range steps {
		out, code := b.run(s.args...)
		if code != s.code {
			t.Errorf("%v: exit code %d, want %d:\n%s", s.args, code, s.code, out)
		}
		wants(t, out, s.want...)
	}
}

// TestApplyIsAllOrNothingAboutMistakes says that a mistake anywhere keeps everything from being written.
func TestApplyIsAllOrNothingAboutMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":  {strings.Replace(policy, "selector:", "selektor:", 1), "NetworkPolicy/shop/web: spec.selektor"},
		"bad selector":   {strings.Replace(policy, "role == 'web'", "role = 'web'", 1), "spec.selector"},
		"bad port":       {strings.Replace(policy, "8000:8080", "8080:8000", 1), "8080:8000"},
		"unknown kind":   {strings.Replace(policy, "NetworkPolicy", "NetworkPolitics", 1), "NetworkPolitics"},
		"not even YAML":  {"a: [", "yaml"},
		"nothing at all": {"", "no objects"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			out, code := b.run("apply", "-f", b.file("tier.yaml", tier), "-f", b.file("b.yaml", c.text))
			if name == "nothing at all" {
				out, code = b.run("apply", "-f", b.file("b.yaml", c.text))
			}
			if code == 0 {
				t.Errorf("exit code 0:\n%s", out)
			}
			wants(t, out, c.want)
			if out, _ := b.run("get", "tiers", "-o", "name"); name != "nothing at all" && strings.Contains(out, "security") {
				t.Errorf("something was written:\n%s", out)
			}
		})
	}
}

func TestApplyReadsStandardInputAndFolders(t *testing.T) {
	b := newBench(t)
	b.in = tier
	if out, code := b.run("apply", "-f", "-"); code != 0 || !strings.Contains(out, "Tier/security created") {
		t.Errorf("standard input: %d\n%s", code, out)
	}
	b.file("p.yaml", policy)
	b.file("notes.txt", "not YAML: [")
	if out, code := b.run("apply", "-f", b.dir); code != 0 || !strings.Contains(out, "NetworkPolicy/shop/web created") {
		t.Errorf("folder: %d\n%s", code, out)
	}
}

const shop = `
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 192.0.2.2/24}}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: b1}
spec: {cidr: 10.65.1.0/26, node: n1, state: confirmed}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: b2}
spec: {cidr: 10.65.2.0/26, node: n2, state: confirmed}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web-1, namespace: shop, labels: {role: web}}
spec: {orchestrator: lab, workload: web-1, node: n1, endpoint: eth0, interfaceName: tort1, ipNetworks: [10.65.1.1/32]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: db-2, namespace: shop, labels: {role: db}}
spec: {orchestrator: lab, workload: db-2, node: n2, endpoint: eth0, interfaceName: tort2, ipNetworks: [10.65.2.1/32]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: role == 'web'
  types: [Egress]
  egress: [{action: Allow}]
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: role == 'db'
  types: [Ingress]
  ingress:
    - action: Allow
      protocol: TCP
      source: {selector: role == 'web'}
      destination: {ports: [5432]}
`

// TestExplain follows flows over two nodes, from files and from the store.
func TestExplain(t *testing.T) {
	b := newBench(t)
	f := b.file("shop.yaml", shop)
	if out, code := b.run("apply", "-f", f); code != 0 {
		t.Fatal(out)
	}
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"10.65.1.1", "10.65.2.1", "tcp", "5432"}, 0, []string{"ALLOW", "shop/web-1", "on n1", "on n2", "NetworkPolicy/shop/db"}},
		{[]string{"shop/web-1", "db-2", "tcp", "5433"}, ExitDenied, []string{"DENY", "on n2"}},
		{[]string{"db-2", "web-1", "tcp", "80"}, ExitDenied, []string{"DENY", "on n2", "no policy and no profile allows it"}},
		{[]string{"198.51.100.9", "db-2", "tcp", "5432"}, ExitDenied, []string{"DENY", "on n2"}},
		{[]string{"web-1", "198.51.100.9", "icmp"}, 0, []string{"ALLOW", "on n1"}},
		{[]string{"web-1", "198.51.100.9", "icmp", "3/1"}, 0, []string{"3/1"}},
		{[]string{"web-1", "nobody", "tcp", "1"}, ExitMissing, []string{`"nobody" is neither`}},
		{[]string{"198.51.100.9", "198.51.100.10", "tcp", "1"}, ExitMissing, []string{"neither"}},
		{[]string{"web-1", "db-2"}, ExitUsage, []string{"which port?"}},
		{[]string{"web-1", "db-2", "ftp", "80"}, ExitUsage, []string{`"ftp" is no protocol`}},
		{[]string{"web-1", "db-2", "tcp", "http"}, ExitUsage, []string{"no port number"}},
		{[]string{"10.65.1.1", "fd00::1", "tcp", "80"}, ExitUsage, []string{"different families"}},
		{[]string{"web-1", "db-2", "icmpv6"}, ExitUsage, []string{"does not run between IPv4"}},
	} {
		for _, from := range [][]string{{"-f", f}, {"--no-agent"}} {
			args := append(append([]string{"explain"}, from...), c.args...)
			out, code := b.run(args...)
			if code != c.code {
				t.Errorf("%v: exit code %d, want %d:\n%s", args, code, c.code, out)
			}
			wants(t, out, c.want...)
		}
	}
	out, _ := b.run("explain", "-f", f, "web-1", "db-2", "tcp", "5432", "-o", "json")
	wants(t, out, `"verdict": "allow"`, `"node": "n2"`)
	out, code := b.run("explain", "web-1", "db-2", "tcp", "5432")
	if code != 0 {
		t.Errorf("without an agent: exit code %d", code)
	}
	wants(t, out, "no agent answers here")
}

func TestStatusAndAttachWithoutAgent(t *testing.T) {
	b := newBench(t)
	out, code := b.run("status")
	if code != ExitError {
		t.Errorf("status: exit code %d", code)
	}
	wants(t, out, "is the agent running here?")
	if out, code = b.run("attach", "none", "--address", "10.0.0.1"); code != ExitError {
		t.Errorf("attach of a missing namespace: exit code %d", code)
	}
	wants(t, out, "ip netns add none")
	if out, code = b.run("attach", "none", "--address", "ten"); code != ExitUsage {
		t.Errorf("attach with a bad address: exit code %d\n%s", code, out)
	}
}
