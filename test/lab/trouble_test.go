//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// status is what `tortie status` prints for a node, whatever its exit code.
func status(ctx context.Context, n *Node) string {
	out, _ := n.lab.Tortie(ctx, n, "status")
	return out
}

// TestForeignTable puts a firewall of somebody else in the way, as Docker or firewalld do, and wants it shown, with a mend
// that works.
func TestForeignTable(t *testing.T) {
	ctx := t.Context()
	l := newLab(t, Options{Nodes: 1})
	if err := pairWorks(ctx, l); err != nil {
		t.Fatal(err)
	}
	n := l.Nodes[0]
	if out := status(ctx, n); strings.Contains(out, "In the way") || !strings.Contains(out, "enforced") {
		t.Fatalf("before:\n%s", out)
	}
	nft := func(text string) {
		t.Helper()
		cmd := exec.Command("ip", "netns", "exec", n.Netns(), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
	}
	nft("table ip docker { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
	a, b := l.workloads[0], l.workloads[1]
	if err := a.Echo(ctx, "tcp", b.Addr(4), 80); !errors.Is(err, ErrDropped) {
		t.Fatalf("the foreign table does not drop: %v", err)
	}
	out := status(ctx, n)
	for _, want := range []string{"In the way", "table ip docker", "FORWARD", "mend:"} {
		if !strings.Contains(out, want) {
			t.Errorf("status does not say %q:\n%s", want, out)
		}
	}
	for _, line := range strings.Split(out, "\n") { // do what it says
		if _, mend, ok := strings.Cut(line, "mend: "); ok {
			if out, err := exec.Command("ip", "netns", "exec", n.Netns(), "sh", "-c", mend).CombinedOutput(); err != nil {
				t.Fatalf("mend %q: %v: %s", mend, err, out)
			}
		}
	}
	if err := a.Echo(ctx, "tcp", b.Addr(4), 80); err != nil {
		t.Errorf("after the mend: %v\n%s", err, out)
	}
}

// TestBadObjects writes objects that no Tortie would write straight into the store. Each fails closed, is named by
// status, and nothing else suffers.
func TestBadObjects(t *testing.T) {
	ctx := t.Context()
	l := newLab(t, Options{Nodes: 2})
	if _, err := l.Tortie(ctx, nil, "apply", "-f", "../../examples/demo/network"); err != nil {
		t.Fatal(err)
	}
	client, server := twoWorkloads(t, l)
	if _, err := l.applyText(ctx, clientPolicy(9001)); err != nil {
		t.Fatal(err)
	}
	reach := func(port uint16) error { return client.Echo(ctx, "tcp", server.Addr(4), port) }
	eventually(t, 10*time.Second, "policy", func() error { return reach(9001) })

	c, err := clientv3.New(clientv3.Config{Endpoints: []string{l.StoreEndpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, value := range map[string]string{
		"garbage": `{"spec": `,
		"future": `{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy","metadata":{"name":"future","namespace":"x"},"spec":{
			"selector":"role == 'server'","types":["Ingress"],"ingress":[{"action":"Allow","onlyOnSundays":true}]}}`,
		"selector": `{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy","metadata":{"name":"selector","namespace":"x"},"spec":{
			"selector":"role = = 'server'","types":["Ingress"],"ingress":[{"action":"Allow"}]}}`,
	} {
		if _, err := c.Put(ctx, "/tortie/v1/NetworkPolicy/x/"+name, value); err != nil {
			t.Fatal(err)
		}
	}
	n := server.Node
	eventually(t, 10*time.Second, "status names the bad objects", func() error {
		out := status(ctx, n)
		for _, want := range []string{"NetworkPolicy/x/garbage", "NetworkPolicy/x/future", "onlyOnSundays", "NetworkPolicy/x/selector"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in\n%s", want, out)
			}
		}
		return nil
	})
	if err := reach(9001); err != nil {
		t.Errorf("what was allowed: %v", err)
	}
	if err := reach(9002); !errors.Is(err, ErrDropped) {
		t.Errorf("what was denied: %v", err)
	}
	if _, err := l.applyText(ctx, clientPolicy(9002)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "a good policy beside bad ones", func() error { return reach(9002) })
}
