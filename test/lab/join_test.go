//go:build linux

package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/tortie/tortie/store"
	"github.com/tortie/tortie/store/join"
)

// onlyFrom lets workloads of the namespace x hear those with a role alone.
const onlyFrom = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: only, namespace: x}
spec:
  selector: role == 'server'
  types: [Ingress]
  ingress:
    - action: Allow
      source: {selector: "role == '%s'"}
`

// joined is a lab whose nodes have joined by token, with a server on n1 and a client on each other.
type joined struct {
	*Lab
	t       *testing.T
	server  *Workload
	clients map[string]*Workload
	office  *Host
}

func newJoined(t *testing.T) *joined {
	t.Helper()
	j := &joined{Lab: newLab(t, Options{Nodes: 3, Join: true}), t: t, clients: map[string]*Workload{}}
	if _, err := j.applyText(t.Context(), twoPools); err != nil {
		t.Fatal(err)
	}
	add := func(node int, name string) *Workload {
		s := poolSpec(node, name)
		s.Labels = map[string]string{"role": name}
		w, err := j.AddWorkload(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	j.server = add(1, "server")
	for i, name := range []string{"friend", "stranger"} {
		j.clients[name] = add(i+2, name)
	}
	office, err := j.AddOutside("office", 10)
	if err != nil {
		t.Fatal(err)
	}
	j.office = office.Host
	return j
}

// hears waits until exactly these clients reach the server.
func (j *joined) hears(want ...string) {
	j.t.Helper()
	eventually(j.t, 15*time.Second, fmt.Sprintf("the server hears %v", want), func() error {
		for name, c := range j.clients {
			err := c.Echo(j.t.Context(), "tcp", j.server.Addr(4), 80)
			if ok := err == nil; ok != slices.Contains(want, name) {
				return fmt.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
}

func (j *joined) must(out string, err error) string {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
	return out
}

// refused checks that a command failed, and what it says.
func (j *joined) refused(what string, err error, want ...string) {
	j.t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			j.t.Errorf("%s: %v; want %q", what, err, w)
		}
	}
}

// raw is etcd's own client on a node, with the node's certificate.
func (j *joined) raw(n *Node) *clientv3.Client {
	j.t.Helper()
	f := n.Files()
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		j.t.Fatal(err)
	}
	pem, err := os.ReadFile(f.CA)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		j.t.Fatal("no authority: ", err)
	}
	dial := func(ctx context.Context, _ string) (conn net.Conn, err error) {
		err = n.ns.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", j.StoreAddr())
			return err
		})
		return conn, err
	}
	now := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return call(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + j.StoreAddr()}, Logger: zap.NewNop(),
		TLS:         &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial), grpc.WithChainUnaryInterceptor(now)}})
	if err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { c.Close() })
	return c
}

// as runs the command line on a node, with the node's certificate.
func (j *joined) as(n *Node, args ...string) (string, error) {
	f := n.Files()
	flags := []string{"--store", "https://" + j.StoreAddr(), "--store-ca", f.CA, "--store-cert", f.Cert, "--store-key", f.Key}
	return j.Run(j.t.Context(), n.Host, n.dir(), append(flags, args...)...)
}

func (j *joined) members() map[string]store.MemberStatus {
	j.t.Helper()
	var all []store.MemberStatus
	out := j.must(j.Tortie(j.t.Context(), nil, "store", "members", "-o", "json"))
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		j.t.Fatal(err)
	}
	by := map[string]store.MemberStatus{}
	for _, m := range all {
		by[m.Name] = m
	}
	return by
}

// TestJoin: three hosts join a store by token, and policy works between them, also through a restart of the store; none
// can write what is another's; one is expelled and is out at once.
func TestJoin(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJoined(t)
	j.hears("friend", "stranger")

	token := j.must(j.Token(ctx, "--role", "admin"))
	home := t.TempDir()
	j.must(j.Run(ctx, j.office, home, "join", token, "--name", "ann"))
	policy := filepath.Join(home, "policy.yaml")
	write := func(role string) {
		t.Helper()
		if err := os.WriteFile(policy, fmt.Appendf(nil, onlyFrom, role), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("friend")
	j.must(j.Run(ctx, j.office, home, "apply", "-f", policy))
	j.hears("friend")

	j.Store.Kill()
	if err := j.StartStore(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "an administrator's write after a restart", func() error {
		write("stranger")
		_, err := j.Run(ctx, j.office, home, "apply", "-f", policy)
		return err
	})
	j.hears("stranger")
	eventually(t, 15*time.Second, "all nodes connected", func() error {
		for _, n := range j.Nodes {
			if m := j.members()[n.NodeName()]; m.Connections == 0 || m.From != n.Addr(4).String() {
				return fmt.Errorf("%s: %+v", n.NodeName(), m)
			}
		}
		return nil
	})
	j.foreignBlock()
	j.expel(write, policy)
}

// foreignBlock: n1 can't write n2's block, by whatever client; an administrator can.
func (j *joined) foreignBlock() {
	t, ctx := j.t, j.t.Context()
	t.Helper()
	n1 := j.raw(j.Nodes[0])
	res, err := n1.Get(ctx, "/tortie/v1/IPAMBlock/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, kv := range res.Kvs {
		var b struct {
			Spec struct{ Affinity string }
		}
		if err := json.Unmarshal(kv.Value, &b); err != nil {
			t.Fatal(err)
		}
		owner := strings.TrimPrefix(b.Spec.Affinity, "host:")
		seen[owner] = true
		stolen := strings.Replace(string(kv.Value), b.Spec.Affinity, "host:n1", 1)
		same := clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision)
		_, put := n1.Put(ctx, string(kv.Key), stolen)
		_, del := n1.Delete(ctx, string(kv.Key))
		_, txn := n1.Txn(ctx).If(same).Then(clientv3.OpPut(string(kv.Key), stolen)).Commit()
		for what, err := range map[string]error{"put": put, "delete": del, "transaction": txn} {
			if own := owner == "n1" && what == "transaction"; !own && grpcstatus.Code(err) != codes.PermissionDenied {
				t.Errorf("a raw %s of the block of %s, by n1: %v", what, owner, err)
			}
		}
		if owner != "n2" {
			continue
		}
		file := filepath.Join(t.TempDir(), "block.yaml")
		if err := os.WriteFile(file, []byte(stolen), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := j.as(j.Nodes[0], "replace", "-f", file)
		j.refused("tortie replace of n2's block with n1's certificate", err, "node n1 may not write IPAMBlock", "it is that of node n2")
		_, err = j.as(j.Nodes[0], "delete", "ipamblock", strings.TrimPrefix(string(kv.Key), "/tortie/v1/IPAMBlock//"))
		j.refused("tortie delete of n2's block with n1's certificate", err, "node n1 may not write IPAMBlock")
	}
	if !seen["n1"] || !seen["n2"] || !seen["n3"] {
		t.Errorf("blocks of %v only", seen)
	}
	_, err = j.as(j.Nodes[0], "delete", "networkpolicy", "only", "-n", "x")
	j.refused("deleting a policy with a node's certificate", err, "needs a certificate of an administrator")
}

// expel: n3 is out at once, and comes back with a new token, without a restart of its agent.
func (j *joined) expel(write func(string), policy string) {
	t, ctx := j.t, j.t.Context()
	t.Helper()
	n3 := j.Nodes[2]
	raw := j.raw(n3)
	if _, err := raw.Get(ctx, "/tortie/v1/Node//n3"); err != nil {
		t.Fatal(err)
	}
	_, err := j.Tortie(ctx, nil, "store", "expel", "n3", "--leftovers")
	j.refused("the leftovers of a member", err, "n3 is a member")
	out := j.must(j.Tortie(ctx, nil, "store", "expel", "n3"))
	if !strings.Contains(out, "n3 expelled") || !strings.Contains(out, "removed: 1 workload endpoints, 2 addresses, 2 blocks") {
		t.Errorf("expel says %q", out)
	}
	if _, err := raw.Get(ctx, "/tortie/v1/Node//n3"); err == nil {
		t.Error("n3 can read")
	}
	if _, err := raw.Put(ctx, "/tortie/v1/Node//n3", "{}"); err == nil {
		t.Error("n3 can write")
	}
	_, err = j.as(n3, "get", "nodes")
	j.refused("tortie on n3", err, "refused by the store", "join again with a new token")
	if nodes := j.must(j.as(j.Nodes[0], "get", "nodes", "-o", "name")); strings.Contains(nodes, "n3") || !strings.Contains(nodes, "n2") {
		t.Errorf("nodes: %q", nodes)
	}
	eventually(t, 15*time.Second, "n3's agent to say why", func() error {
		if !strings.Contains(n3.Agent.Tail(), "expelled") {
			return fmt.Errorf("it says %s", n3.Agent.Tail())
		}
		return nil
	})
	// What n3 sends no longer comes from somebody with a role.
	j.hears()
	write("friend")
	j.must(j.Tortie(ctx, nil, "apply", "-f", policy))
	j.hears("friend")

	j.must(n3.Join(ctx))
	eventually(t, 15*time.Second, "n3 back", func() error {
		if m := j.members()["n3"]; m.Connections == 0 {
			return fmt.Errorf("%+v", m)
		}
		return n3.AwaitReady(ctx)
	})
}

// TestJoinRefusals: what a host hears that can't join.
func TestJoinRefusals(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := newLab(t, Options{Nodes: 1, Join: true})
	j := &joined{Lab: l, t: t}
	out, err := l.AddOutside("newcomer", 20)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	try := func(token, name string, flags ...string) error {
		args := append([]string{"join", token, "--name", name, "--dir", filepath.Join(dir, name), "--config", filepath.Join(dir, name+".yaml")}, flags...)
		_, err := l.Run(ctx, out.Host, dir, args...)
		return err
	}
	good := j.must(l.Token(ctx, "--uses", "2"))
	if err := try(good, "n8"); err != nil {
		t.Fatal(err)
	}
	if err := try(good, "n8"); err != nil {
		t.Errorf("again: %v", err)
	}
	j.refused("n1's name", try(good, "n1"), "n1 has joined already, from 172.31.0.1", "--replace")
	if err := try(good, "n1", "--replace"); err != nil {
		t.Errorf("taking n1's place: %v", err)
	}
	eventually(t, 15*time.Second, "n1's agent to be out", func() error {
		if !strings.Contains(l.Nodes[0].Agent.Tail(), "replaced") {
			return fmt.Errorf("it says %s", l.Nodes[0].Agent.Tail())
		}
		return nil
	})
	j.refused("a used token", try(good, "n9"), "used already, by n8, n1", "tortie store token")
	j.refused("a garbled token", try(good[:len(good)-4]+"AAAA", "n9"), "a letter is missing or wrong")
	j.refused("no token", try("hello", "n9"), "not a join token")

	revoked := j.must(l.Token(ctx))
	var all []store.Token
	if err := json.Unmarshal([]byte(j.must(l.Tortie(ctx, nil, "store", "token", "list", "-o", "json"))), &all); err != nil {
		t.Fatal(err)
	}
	for _, tok := range all {
		if tok.State(time.Now()) == "valid" {
			j.must(l.Tortie(ctx, nil, "store", "token", "revoke", tok.ID))
		}
	}
	j.refused("a revoked token", try(revoked, "n9"), "this token was revoked", "tortie store token")
	expired := j.must(l.Token(ctx, "--ttl", "1s"))
	eventually(t, 10*time.Second, "a token to expire", func() error {
		if !strings.Contains(j.must(l.Tortie(ctx, nil, "store", "token", "list")), "expired") {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	j.refused("an expired token", try(expired, "n9"), "this token expired at", "tortie store token")

	parsed, err := join.Parse(j.must(l.Token(ctx)))
	if err != nil {
		t.Fatal(err)
	}
	parsed.CA[0]++
	j.refused("another authority", try(parsed.String(), "n9"), "this is not the store that the token is of", "Nothing was sent")
	if es, err := filepath.Glob(filepath.Join(dir, "n9", "*.crt")); err != nil || len(es) > 0 {
		t.Errorf("a host that did not join has %v, %v", es, err)
	}
	if err := l.Store.Stop(); err != nil {
		t.Fatal(err)
	}
	parsed.CA[0]--
	j.refused("no store", try(parsed.String(), "n9"), "no store answers at the token's addresses")
	if err := l.StartStore(ctx); err != nil {
		t.Fatal(err)
	}
	if err := try(parsed.String(), "n9"); err != nil {
		t.Errorf("the same token, once the store is back: %v", err)
	}
}

// TestJoinRestore: agents believe a store that was restored from an older snapshot.
func TestJoinRestore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := newJoined(t)
	apply := func(role string) {
		t.Helper()
		if _, err := j.applyText(ctx, fmt.Sprintf(onlyFrom, role)); err != nil {
			t.Fatal(err)
		}
	}
	apply("friend")
	j.hears("friend")
	file := filepath.Join(j.Dir, "snap.db")
	j.must(j.Tortie(ctx, nil, "store", "snapshot", "save", file))
	apply("stranger")
	j.hears("stranger")
	if err := j.Store.Stop(); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(j.Dir, "store")
	_, err := j.Tortie(ctx, nil, "store", "snapshot", "restore", file, "--dir", data)
	j.refused("restoring over a store", err, "there is a store in this directory already")
	if err := os.Rename(data, data+".old"); err != nil {
		t.Fatal(err)
	}
	j.must(j.Tortie(ctx, nil, "store", "snapshot", "restore", file, "--dir", data))
	if err := j.StartStore(ctx); err != nil {
		t.Fatal(err)
	}
	j.hears("friend")
}

// TestJoinRenewal: an agent renews its certificate in time, and goes on with the new one when the old one's connections
// end, without a restart and without a word from anybody.
func TestJoinRenewal(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := &joined{Lab: newLab(t, Options{Nodes: 1, Join: true, StoreArgs: []string{"--certificate-life", "9s"}}), t: t}
	n1 := j.Nodes[0]
	_, first, err := n1.Files().Validity()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "a connection that outlives two certificates", func() error {
		_, until, err := n1.Files().Validity()
		if err == nil && until.Sub(first) < 10*time.Second {
			err = fmt.Errorf("valid until %v, the first one until %v", until, first)
		}
		return err
	})
	if m := j.members()["n1"]; m.Connections == 0 {
		t.Errorf("members: %+v", m)
	}
	w, err := j.applyText(ctx, twoPools)
	if err != nil {
		t.Fatal(w, err)
	}
	if _, err := j.AddWorkload(ctx, poolSpec(1, "late")); err != nil {
		t.Errorf("plugging in with a renewed certificate: %v", err)
	}
	if out := j.must(j.Run(ctx, n1.Host, n1.dir(), "join", "--renew", "--config", n1.settings())); !strings.Contains(out, "node n1 renewed") {
		t.Errorf("join --renew says %q", out)
	}
}
