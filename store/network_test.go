package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/tortie/tortie/store/join"
)

// cluster is a store on the network of this machine, and hosts that have joined it.
type cluster struct {
	t     *testing.T
	cfg   Config
	addr  string
	log   *output
	admin Admin
	stop  func()
}

func newCluster(t *testing.T, change ...func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, log: &output{}}
	c.cfg = config(shortDir(t), c.log)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = l.Addr().String()
	l.Close()
	c.cfg.Listen = append(c.cfg.Listen, "https://"+c.addr)
	for _, f := range change {
		f(&c.cfg)
	}
	c.admin = Admin{Socket: socketOf(c.cfg)}
	c.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.log.String())
		}
	})
	return c
}

func (c *cluster) start() { c.stop = start(c.t, c.cfg) }

// token makes a token.
func (c *cluster) token(q TokenRequest) join.Token {
	c.t.Helper()
	if q.Role == "" {
		q.Role = join.RoleNode
	}
	if q.Uses == 0 {
		q.Uses = 1
	}
	if q.TTL == 0 {
		q.TTL = time.Hour
	}
	n, err := c.admin.NewToken(c.t.Context(), q)
	if err != nil {
		c.t.Fatal(err)
	}
	t, err := join.Parse(n.Text)
	if err != nil {
		c.t.Fatal(err)
	}
	return t
}

// host is a host that wants to join.
type host struct {
	c *cluster
	join.Files
}

func (c *cluster) host() host { return host{c, join.FilesIn(c.t.TempDir(), "node")} }

func (h host) join(t join.Token, name string, replace bool) error {
	h.c.t.Helper()
	key, err := h.MakeKey()
	if err != nil {
		h.c.t.Fatal(err)
	}
	g, _, err := t.Ask(h.c.t.Context(), name, key, replace)
	if err != nil {
		return err
	}
	return h.Store(g)
}

// member is a host that has joined.
func (c *cluster) member(role, name string) host {
	c.t.Helper()
	h := c.host()
	if err := h.join(c.token(TokenRequest{Role: role}), name, false); err != nil {
		c.t.Fatal(err)
	}
	return h
}

// raw is etcd's own client, with the host's certificate.
func (h host) raw() *clientv3.Client {
	h.c.t.Helper()
	cert, err := tls.LoadX509KeyPair(h.Cert, h.Key)
	if err != nil {
		h.c.t.Fatal(err)
	}
	pem, err := os.ReadFile(h.CA)
	if err != nil {
		h.c.t.Fatal(err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + h.c.addr}, Logger: zap.NewNop(),
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: poolOf(h.c.t, pem)},
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any,
			cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return call(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
		})}})
	if err != nil {
		h.c.t.Fatal(err)
	}
	h.c.t.Cleanup(func() { c.Close() })
	return c
}

func (c *cluster) root() *clientv3.Client { return client(c.t, c.cfg) }

// refusal checks that an error is a refusal with a code, whose words say want.
func refusedWith(t *testing.T, what string, err error, code, want string) {
	t.Helper()
	var r *join.Refused
	if !errors.As(err, &r) || r.Code != code || !strings.Contains(r.Reason, want) {
		t.Errorf("%s: %v; want %s, %q", what, err, code, want)
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	one := c.token(TokenRequest{})
	n1 := c.host()
	if err := n1.join(one, "n1", false); err != nil {
		t.Fatal(err)
	}
	if m := mode(t, n1.Key); m != 0o600 {
		t.Errorf("key %o", m)
	}
	if g, err := n1.Hello(t.Context(), c.addr); err != nil || g.Name != "n1" || g.Role != join.RoleNode {
		t.Errorf("hello: %+v, %v", g, err)
	}
	if err := n1.join(one, "n1", false); err != nil {
		t.Errorf("again, as after a lost answer: %v", err)
	}
	refusedWith(t, "a used token", c.host().join(one, "n2", false), join.CodeToken, "used already, by n1")
	refusedWith(t, "a used token, for the same name", c.host().join(one, "n1", false), join.CodeToken, "used already, by n1")

	two := c.token(TokenRequest{Uses: 2})
	refusedWith(t, "another's name", c.host().join(two, "n1", false), join.CodeTaken, "--replace")
	refusedWith(t, "no name", c.host().join(two, "No Name", false), join.CodeName, "node name")
	refusedWith(t, "root", c.host().join(two, "node:x", false), join.CodeName, "node name")
	if err := c.host().join(two, "n2", false); err != nil {
		t.Errorf("after refusals, which are no uses: %v", err)
	}
	wrong := two
	wrong.Secret[3]++
	refusedWith(t, "a wrong secret", c.host().join(wrong, "n3", false), join.CodeToken, "does not know")
	wrong = two
	wrong.ID[0]++
	refusedWith(t, "an unknown id", c.host().join(wrong, "n3", false), join.CodeToken, "does not know")
	if _, err := c.admin.Revoke(t.Context(), two.IDString()); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, "a revoked token", c.host().join(two, "n3", false), join.CodeToken, "revoked")
	if _, err := c.admin.Revoke(t.Context(), "0000000000"); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Errorf("revoking what is not there: %v", err)
	}

	bound := c.token(TokenRequest{Name: "n4"})
	refusedWith(t, "a token for another name", c.host().join(bound, "n5", false), join.CodeName, "only for the name")
	short := c.token(TokenRequest{TTL: time.Second})
	if !until(t, patience, func() bool {
		all, err := c.admin.Tokens(t.Context())
		for _, tok := range all {
			if tok.ID == short.IDString() {
				return err == nil && tok.State(time.Now()) == "expired"
			}
		}
		return false
	}) {
		t.Fatal("it does not expire")
	}
	refusedWith(t, "an expired token", c.host().join(short, "n6", false), join.CodeToken, "expired at")

	members, err := c.admin.Members(t.Context())
	if err != nil || len(members) != 2 || members[0].Name != "n1" || members[1].Name != "n2" || members[0].From != "127.0.0.1" {
		t.Errorf("members %+v, %v", members, err)
	}
	// Nothing of a secret is stored.
	res, err := c.root().Get(t.Context(), tokenPrefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range res.Kvs {
		for _, tok := range []join.Token{one, two, bound, short} {
			if strings.Contains(string(kv.Value), string(tok.Secret[:])) {
				t.Error("a secret is stored")
			}
		}
	}
}

// TestReplace: another host takes a name over, and the first one is out.
func TestReplace(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	old := c.member(join.RoleNode, "n1")
	was := old.raw()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := was.Get(ctx, nodeKey("n1")); err != nil {
		t.Fatal(err)
	}
	fresh := c.host()
	if err := fresh.join(c.token(TokenRequest{}), "n1", true); err != nil {
		t.Fatal(err)
	}
	if _, err := was.Get(ctx, nodeKey("n1")); err == nil {
		t.Error("the one that was replaced can still read")
	}
	if _, err := old.Hello(ctx, c.addr); !errors.Is(err, join.ErrRefused) {
		t.Errorf("its certificate: %v", err)
	}
	if _, err := fresh.raw().Get(ctx, nodeKey("n1")); err != nil {
		t.Errorf("the new one: %v", err)
	}
}

// TestInBetween: who shows another authority than the token's hears no secret.
func TestInBetween(t *testing.T) {
	t.Parallel()
	good, bad := newCluster(t), newCluster(t)
	tok := good.token(TokenRequest{})
	tok.Addrs = []string{bad.addr, good.addr}
	err := good.host().join(tok, "n1", false)
	if !errors.Is(err, join.ErrAuthority) || !strings.Contains(err.Error(), "Nothing was sent") {
		t.Errorf("joining at somebody else's: %v", err)
	}
	// With the right authority's certificate in the chain, but not its signature.
	forged := bad.token(TokenRequest{})
	var stolen storedAuthority
	reg := &registry{kv: good.root(), now: time.Now}
	if _, err := reg.read(t.Context(), authorityKey, &stolen); err != nil {
		t.Fatal(err)
	}
	l := impostor(t, bad, stolen.Cert)
	forged.CA, forged.Addrs = tok.CA, []string{l}
	if err := good.host().join(forged, "n1", false); !errors.Is(err, join.ErrAuthority) {
		t.Errorf("joining at an impostor's: %v", err)
	}
}

// impostor listens with a certificate of one store, and shows another's authority beside it.
func impostor(t *testing.T, c *cluster, ca []byte) string {
	t.Helper()
	a, err := openAuthority(t.Context(), c.root(), []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.newServer([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	cert.Certificate[1] = ca
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{join.Protocol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var req join.Request
				if err := join.ReadFrame(conn, &req); err == nil {
					t.Error("it was told a secret")
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestExpel: from that moment nothing of the member is served: requests, watches, new connections, its tokens.
func TestExpel(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	shared := c.token(TokenRequest{Uses: 5})
	n1, n2 := c.host(), c.host()
	for name, h := range map[string]host{"n1": n1, "n2": n2} {
		if err := h.join(shared, name, false); err != nil {
			t.Fatal(err)
		}
	}
	out, stay := n1.raw(), n2.raw()
	watches := map[string]clientv3.WatchChan{}
	for name, r := range map[string]*clientv3.Client{"out": out, "stay": stay} {
		w := r.Watch(clientv3.WithRequireLeader(ctx), dataPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		if first := <-w; first.Err() != nil {
			t.Fatal(first.Err())
		}
		watches[name] = w
	}
	done, err := c.admin.Expel(ctx, "n1")
	if err != nil || done.Cut == 0 || len(done.Revoked) != 1 {
		t.Fatalf("expel: %+v, %v", done, err)
	}
	if _, err := out.Get(ctx, nodeKey("n1")); err == nil {
		t.Error("it reads")
	}
	if _, err := out.Put(ctx, nodeKey("n1"), `{}`); err == nil {
		t.Error("it writes")
	}
	if _, err := c.root().Put(ctx, dataPrefix+"Tier//x", `{}`); err != nil {
		t.Fatal(err)
	}
	if got := <-watches["stay"]; len(got.Events) != 1 {
		t.Errorf("the one that stays: %+v", got)
	}
	select { // its client tries on, and says nothing meanwhile
	case got := <-watches["out"]:
		if len(got.Events) > 0 {
			t.Errorf("its watch goes on: %+v", got)
		}
	default:
	}
	if _, err := n1.Hello(ctx, c.addr); !errors.Is(err, join.ErrRefused) {
		t.Errorf("its certificate: %v", err)
	}
	if _, err := n1.Renew(ctx, c.addr); !errors.Is(err, join.ErrRefused) {
		t.Errorf("renewing it: %v", err)
	}
	refusedWith(t, "its token", n1.join(shared, "n1", false), join.CodeToken, "revoked")
	users, err := c.root().UserList(ctx)
	if err != nil || strings.Contains(strings.Join(users.Users, " "), "n1") {
		t.Errorf("etcd's users: %v, %v", users, err)
	}
	if _, err := c.admin.Expel(ctx, "n1"); err == nil || !strings.Contains(err.Error(), "not joined") {
		t.Errorf("again: %v", err)
	}
	if err := n1.join(c.token(TokenRequest{}), "n1", false); err != nil {
		t.Errorf("with a new token: %v", err)
	}
	if _, err := n1.raw().Get(ctx, nodeKey("n1")); err != nil {
		t.Errorf("back again: %v", err)
	}
}

// TestRestart: who has joined before a restart is a member after it.
func TestRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n1 := c.member(join.RoleNode, "n1")
	tok := c.token(TokenRequest{})
	c.stop()
	c.start()
	if _, err := n1.raw().Get(ctx, nodeKey("n1")); err != nil {
		t.Errorf("a member: %v", err)
	}
	if err := c.host().join(tok, "n2", false); err != nil {
		t.Errorf("a token: %v", err)
	}
	if strings.Contains(c.log.String(), "level=ERROR") {
		t.Errorf("log:\n%s", c.log.String())
	}
}

// TestRenewal: certificates are renewed in time, and connections end with the certificate that they were made with.
func TestRenewal(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(cfg *Config) { cfg.CertLife = 6 * time.Second })
	n1 := c.member(join.RoleNode, "n1")
	lazy := c.member(join.RoleNode, "n2")
	_, first, err := n1.Validity()
	if err != nil || !n1.Ours() {
		t.Fatal(err)
	}
	idle := lazy.raw()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := idle.Get(ctx, nodeKey("n2")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	kctx, stop := context.WithCancel(ctx)
	go func() {
		defer close(done)
		n1.Keep(kctx, c.addr, logTo(c.log))
	}()
	defer func() {
		stop()
		<-done
	}()
	if !until(t, patience, func() bool {
		_, now, err := n1.Validity()
		return err == nil && now.Sub(first) > 2*time.Second
	}) {
		t.Fatal("it is not renewed")
	}
	if _, err := n1.Hello(ctx, c.addr); err != nil {
		t.Errorf("the new one: %v", err)
	}
	if !until(t, patience, func() bool {
		_, err := idle.Get(ctx, nodeKey("n2"))
		return err != nil
	}) {
		t.Error("a connection outlives its certificate")
	}
	if err := lazy.join(c.token(TokenRequest{}), "n2", false); err != nil {
		t.Errorf("joining again with the same key: %v", err)
	}
}

func TestTokenNeedsNetwork(t *testing.T) {
	t.Parallel()
	cfg := config(shortDir(t), &output{})
	start(t, cfg)
	_, err := Admin{Socket: socketOf(cfg)}.NewToken(t.Context(), TokenRequest{Role: join.RoleNode, Uses: 1, TTL: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "--listen https://") {
		t.Errorf("a token of a store that nobody can reach: %v", err)
	}
	for name, a := range map[string]Admin{"nothing there": {Socket: filepath.Join(t.TempDir(), "s")}, "the network": {Socket: "https://127.0.0.1:1"}} {
		if _, err := a.Tokens(t.Context()); err == nil {
			t.Errorf("%s: it answers", name)
		}
	}
}

func TestComplaints(t *testing.T) {
	var o output
	c := newComplaints(logTo(&o))
	for range 1000 {
		c.tell("refused", identity{join.RoleNode, "n1"}, errCrash)
	}
	c.tell("refused", identity{join.RoleNode, "n2"}, errCrash)
	c.tell("refused otherwise", identity{join.RoleNode, "n1"}, errCrash)
	if got := strings.Count(o.String(), "\n"); got != 3 {
		t.Errorf("%d lines:\n%s", got, o.String())
	}
}

func TestLimiter(t *testing.T) {
	now := time.Now()
	l := newLimiter(func() time.Time { return now })
	passed := func(host string, n int) (k int) {
		for range n {
			if l.allow(host) {
				k++
			}
		}
		return k
	}
	if k := passed("a", 1000); k != joinBurstHost {
		t.Errorf("one host: %d at once", k)
	}
	if k := passed("b", 1000); k != joinBurstHost {
		t.Errorf("another: %d", k)
	}
	now = now.Add(joinEveryHost)
	if k := passed("a", 1000); k != 1 {
		t.Errorf("a little later: %d", k)
	}
	total := 0
	for i := range 200 {
		total += passed(string(rune('c'+i)), 1)
	}
	if total > joinBurst {
		t.Errorf("many hosts: %d at once", total)
	}
}

func poolOf(t *testing.T, pem []byte) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate")
	}
	return p
}
