package etcd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// withUsers makes users "root" and "agent" (password "secret"), who may do everything, and "guest" (the same), who may
// read network sets.
func withUsers(t *testing.T, srv *server) {
	t.Helper()
	ctx := background(t)
	c := srv.raw()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.RoleAdd(ctx, "all"))
	must(c.RoleGrantPermission(ctx, "all", "/tortie/", "/tortie0", clientv3.PermissionType(clientv3.PermReadWrite)))
	must(c.RoleAdd(ctx, "sets"))
	must(c.RoleGrantPermission(ctx, "sets", "/tortie/v1/NetworkSet/", "/tortie/v1/NetworkSet0", clientv3.PermissionType(clientv3.PermRead)))
	for user, role := range map[string]string{"root": "root", "agent": "all", "guest": "sets"} {
		must(c.UserAdd(ctx, user, "secret"))
		must(c.UserGrantRole(ctx, user, role))
	}
	must(c.AuthEnable(ctx))
}

func passwordFile(t *testing.T, password string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(f, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAuth(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.run = plainEtcd
	srv.start()
	withUsers(t, srv)
	ctx := background(t)
	file := passwordFile(t, "secret")
	agent := open(t, Config{Endpoints: []string{srv.endpoint()}, User: "agent", PasswordFile: file})
	w := watch(t, agent, "GlobalNetworkSet")
	mustCreate(t, agent, "a")
	w.untilHas("a")

	for name, cfg := range map[string]Config{
		"no user":        {},
		"wrong password": {User: "agent", PasswordFile: passwordFile(t, "guess")},
		"nobody":         {User: "nobody", PasswordFile: file},
	} {
		cfg.Endpoints = []string{srv.endpoint()}
		s := open(t, cfg)
		if _, err := s.Get(ctx, api.KeyOf(set("a"))); !errors.Is(err, datastore.ErrForbidden) {
			t.Errorf("%s: get: %v", name, err)
		}
		if _, err := s.Create(ctx, set("b")); !errors.Is(err, datastore.ErrForbidden) {
			t.Errorf("%s: create: %v", name, err)
		}
		refused := watch(t, s, "GlobalNetworkSet")
		refused.until("refusal", func() bool { return errors.Is(refused.last.Status.Err, datastore.ErrForbidden) })
		if refused.last.InSync {
			t.Errorf("%s: in sync", name)
		}
		refused.stop() // each of its tries costs the server a password hash
	}

	// A restarted server knows no token of before, and the password has changed meanwhile.
	root := open(t, Config{Endpoints: []string{srv.endpoint()}, User: "root", PasswordFile: file})
	if _, err := root.Get(ctx, api.KeyOf(set("a"))); err != nil {
		t.Fatal(err)
	}
	rc, err := clientv3.New(clientv3.Config{Endpoints: []string{srv.endpoint()}, Username: "root", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := rc.UserChangePassword(ctx, "agent", "fresh"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("fresh"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv.stop()
	srv.start()
	mustCreate(t, agent, "c")
	w.untilHas("c")
}

// TestSomeKindsRefused: what may be read is shown, what not is named, and there is no talk of being in sync.
func TestSomeKindsRefused(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.run = plainEtcd
	srv.start()
	withUsers(t, srv)
	ctx := background(t)
	file := passwordFile(t, "secret")
	agent := open(t, Config{Endpoints: []string{srv.endpoint()}, User: "agent", PasswordFile: file})
	sets := set("readable").ObjectMeta
	sets.Namespace = "default"
	if _, err := agent.Create(ctx, &api.NetworkSet{ObjectMeta: sets}); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, agent, "secret")
	guest := open(t, Config{Endpoints: []string{srv.endpoint()}, User: "guest", PasswordFile: file})
	if _, err := guest.Update(ctx, &api.NetworkSet{ObjectMeta: sets}); err != nil {
		t.Errorf("an update that changes nothing needs no right to write: %v", err)
	}
	if err := guest.Delete(ctx, api.Key{Kind: "NetworkSet", Namespace: "default", Name: "readable"}, ""); !errors.Is(err, datastore.ErrForbidden) {
		t.Errorf("delete: %v", err)
	}
	w := watch(t, guest, "NetworkSet", "GlobalNetworkSet")
	w.until("the refused kind", func() bool { return w.last.Status.Kinds["GlobalNetworkSet"] != nil && w.keys["readable"] })
	st := w.last.Status
	if !errors.Is(st.Kinds["GlobalNetworkSet"], datastore.ErrForbidden) || !errors.Is(st.Err, datastore.ErrForbidden) ||
		len(st.Kinds) != 1 || w.last.InSync || w.keys["secret"] {
		t.Errorf("in sync %v, keys %v, status %+v", w.last.InSync, w.keys, st)
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{srv.endpoint()}, Username: "root", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := root.UserGrantRole(ctx, "guest", "all"); err != nil {
		t.Fatal(err)
	}
	w.untilHas("secret")
	w.until("good news", func() bool { return w.last.Status.Connected && w.last.Status.Kinds == nil })
}
