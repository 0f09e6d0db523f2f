package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

func workloadOf(namespace, name, workload, pod string) api.Object {
	o := &api.WorkloadEndpoint{}
	o.Kind, o.Namespace, o.Name, o.Spec.Workload, o.Spec.Pod = "WorkloadEndpoint", namespace, name, workload, pod
	return o
}

func TestWorkloadNames(t *testing.T) {
	for _, c := range []struct {
		name   string
		worlds [][]api.Object
		want   []string
	}{
		{"the workload's", [][]api.Object{{workloadOf("shop", "n1-cni-web-eth0", "web", "")}}, []string{"n1-cni-web-eth0=web"}},
		{"the pod's goes first", [][]api.Object{{workloadOf("shop", "n1-k8s-web-eth0", "w", "web-7f")}}, []string{"n1-k8s-web-eth0=web-7f"}},
		{"none", [][]api.Object{{workloadOf("shop", "web", "", "")}}, []string{"web=web"}},
		{"two interfaces", [][]api.Object{{workloadOf("shop", "n1-cni-web-eth0", "web", ""), workloadOf("shop", "n1-cni-web-net1", "web", ""), workloadOf("shop", "n1-cni-db-eth0", "db", "")}},
			[]string{"n1-cni-db-eth0=db", "n1-cni-web-eth0=n1-cni-web-eth0", "n1-cni-web-net1=n1-cni-web-net1"}},
		{"of two namespaces", [][]api.Object{{workloadOf("shop", "n1-cni-web-eth0", "web", ""), workloadOf("ops", "n2-cni-web-eth0", "web", "")}},
			[]string{"n1-cni-web-eth0=web", "n2-cni-web-eth0=web"}},
		{"what another resource is called", [][]api.Object{{workloadOf("shop", "web", "w", ""), workloadOf("shop", "n1-cni-web-eth0", "web", "")}},
			[]string{"n1-cni-web-eth0=n1-cni-web-eth0", "web=w"}},
		{"of two worlds, the same", [][]api.Object{{workloadOf("shop", "n1-cni-web-eth0", "web", "")}, {workloadOf("shop", "n1-cni-web-eth0", "web", "")}},
			[]string{"n1-cni-web-eth0=web"}},
		{"of two worlds, different", [][]api.Object{{workloadOf("shop", "n1-cni-web-eth0", "web", "")}, {workloadOf("shop", "n2-cni-web-eth0", "web", "")}},
			[]string{"n1-cni-web-eth0=n1-cni-web-eth0", "n2-cni-web-eth0=n2-cni-web-eth0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var worlds []map[api.Key]api.Object
			for _, objects := range c.worlds {
				w := map[api.Key]api.Object{}
				for _, o := range objects {
					w[api.KeyOf(o)] = o
				}
				worlds = append(worlds, w)
			}
			got := map[string]string{}
			for key, name := range workloadNames(worlds...) {
				got[key.Name] = name
			}
			want := map[string]string{}
			for _, pair := range c.want {
				k, v, _ := strings.Cut(pair, "=")
				want[k] = v
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("names differ from those wanted (-want +got):\n%s", d)
			}
		})
	}
}

// TestOneName: every command names a workload in the same way, and takes that name.
func TestOneName(t *testing.T) {
	b := newBench(t)
	f := b.file("logged.yaml", loggedText)
	two := b.file("two.yaml", loggedText+strings.NewReplacer("-db-eth0", "-db-net1", "tort2", "tort3", "10.65.1.2", "10.65.1.3").Replace(
		loggedText[strings.Index(loggedText, "---\napiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: n1-cni-db"):strings.Index(loggedText, "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy")]))
	for _, c := range []struct {
		args      []string
		has, lack string
	}{
		{[]string{"connectivity", "-f", f, "-o", "json"}, `"shop/web"`, "cni"},
		{[]string{"policy", "preview", "-f", f, "--against", f, "--delete", "-o", "json"}, `"shop/web"`, "cni"},
		{[]string{"explain", "-f", f, "shop/web", "shop/db", "tcp", "80"}, "shop/web (10.65.1.1) -> shop/db (10.65.1.2)", "cni"},
		{[]string{"connectivity", "-f", two, "-o", "json"}, `"shop/n1-cni-db-net1"`, `"shop/db"`},
		{[]string{"explain", "-f", two, "web", "n1-cni-db-net1", "tcp", "80"}, "shop/web (10.65.1.1) -> shop/n1-cni-db-net1 (10.65.1.3)", "eth0 "},
		{[]string{"explain", "-f", two, "shop/web", "shop/db", "tcp", "80"}, "may be WorkloadEndpoint/shop/n1-cni-db-eth0 or WorkloadEndpoint/shop/n1-cni-db-net1", "DENY"},
	} {
		out, _ := b.run(c.args...)
		wants(t, out, c.has)
		if strings.Contains(out, c.lack) {
			t.Errorf("%v: the output has %q:\n%s", c.args, c.lack, out)
		}
	}
}

// TestNamesWithoutStore: while the store is away, the workloads of this node still have names.
func TestNamesWithoutStore(t *testing.T) {
	objects, err := api.Decode([]byte(loggedText))
	if err != nil {
		t.Fatal(err)
	}
	var state bytes.Buffer
	if err := drivers.EncodeState(&state, newWorld(objects, "").states["n1"]); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	playAgent(t, socket, map[agentapi.Verb]any{
		agentapi.VerbState: json.RawMessage(state.Bytes()),
		agentapi.VerbList: agentapi.ListResponse{Attachments: []agentapi.Attachment{
			{Sandbox: "shop/n1-cni-web-eth0", Interface: "eth0", Endpoint: "shop/n1-cni-web-eth0", Addresses: []netip.Addr{netip.MustParseAddr("10.65.1.1")}},
		}},
	})
	for _, c := range []struct {
		from, to string
		code     int
		want     string
	}{
		{"shop/web", "shop/db", ExitDenied, "DENY  shop/web (10.65.1.1) -> shop/db (10.65.1.2)"},
		{"web", "n1", ExitDenied, "shop/web (10.65.1.1) -> n1 (192.0.2.11)"},
		{"shop/n1-cni-web-eth0", "10.65.1.2", ExitDenied, "DENY  shop/web (10.65.1.1)"},
		{"ops/web", "shop/db", ExitMissing, `"ops/web" is neither`},
		{"shop/nobody", "shop/db", ExitMissing, `"shop/nobody" is neither`},
	} {
		var buf bytes.Buffer
		env := &Env{In: strings.NewReader(""), Out: &buf, Err: &buf, Socket: func() string { return socket },
			Store: func(context.Context) (datastore.Store, error) {
				return nil, fmt.Errorf("opening: %w", datastore.ErrUnavailable)
			}}
		root := &cobra.Command{Use: "tortie", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(Commands(env)...)
		root.SetArgs([]string{"explain", c.from, c.to, "tcp", "80"})
		err := root.ExecuteContext(t.Context())
		if err != nil {
			buf.WriteString(err.Error())
		}
		if code := ExitCode(err); code != c.code {
			t.Errorf("%s -> %s: exit code %d, want %d", c.from, c.to, code, c.code)
		}
		wants(t, buf.String(), c.want)
	}
}

// playAgent answers requests on a socket as an agent would.
func playAgent(t *testing.T, socket string, answers map[agentapi.Verb]any) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			playAnswer(c, answers)
		}
	}()
}

func playAnswer(c net.Conn, answers map[agentapi.Verb]any) {
	defer c.Close()
	var req agentapi.Request
	if agentapi.ReadFrame(c, &req, agentapi.MaxRequest) != nil {
		return
	}
	resp := agentapi.Response{Version: agentapi.Version}
	body, err := json.Marshal(answers[req.Verb])
	if err != nil {
		resp.Error = agentapi.Errorf(agentapi.CodeInternal, "%v", err)
	}
	resp.Body = body
	_ = agentapi.WriteFrame(c, resp, agentapi.MaxResponse)
}
