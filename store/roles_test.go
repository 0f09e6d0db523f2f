package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/tortie/tortie/store/join"
)

var errCrash = errors.New("crash")

// crashing is etcd's authentication, until a number of writes have been done.
type crashing struct {
	clientv3.Auth
	left int
}

func (c *crashing) step() error {
	if c.left == 0 {
		return errCrash
	}
	c.left--
	return nil
}

func (c *crashing) AuthEnable(ctx context.Context) (*clientv3.AuthEnableResponse, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	return c.Auth.AuthEnable(ctx)
}

func (c *crashing) RoleAdd(ctx context.Context, name string) (*clientv3.AuthRoleAddResponse, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	return c.Auth.RoleAdd(ctx, name)
}

func (c *crashing) RoleDelete(ctx context.Context, name string) (*clientv3.AuthRoleDeleteResponse, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	return c.Auth.RoleDelete(ctx, name)
}

func (c *crashing) UserDelete(ctx context.Context, name string) (*clientv3.AuthUserDeleteResponse, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	return c.Auth.UserDelete(ctx, name)
}

func (c *crashing) UserAddWithOptions(ctx context.Context, name, password string, o *clientv3.UserAddOptions) (*clientv3.AuthUserAddResponse, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	return c.Auth.UserAddWithOptions(ctx, name, password, o)
}

func (c *crashing) UserGrantRole(ctx context.Context, user, role string) (*clientv3.AuthUserGrantRoleResponse, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	return c.Auth.UserGrantRole(ctx, user, role)
}

func (c *crashing) RoleGrantPermission(ctx context.Context, name, key, end string, p clientv3.PermissionType) (*clientv3.AuthRoleGrantPermissionResponse, error) {
	if err := c.step(); err != nil {
		return nil, err
	}
	return c.Auth.RoleGrantPermission(ctx, name, key, end, p)
}

// bench is an etcd in this process, without listeners.
type bench struct {
	t   *testing.T
	cfg Config
	e   *embed.Etcd
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, cfg: config(shortDir(t), &output{}).withDefaults()}
	unlock, err := lock(b.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(func() {
		b.e.Close()
		unlock()
	})
	return b
}

func (b *bench) start() {
	b.t.Helper()
	var err error
	if b.e, err = startEtcd(b.t.Context(), b.cfg); err != nil {
		b.t.Fatal(err)
	}
}

// reopen starts the store again, after what was a crash, and checks etcd's users and roles.
func (b *bench) reopen(what string, want ...string) {
	b.t.Helper()
	b.e.Close()
	b.start()
	n, err := openNetwork(b.t.Context(), b.e.Server, b.cfg)
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	ctx := asRoot(b.t.Context())
	u, err := n.client.UserList(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := n.client.RoleList(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	if !slices.Equal(u.Users, want) || !slices.Equal(r.Roles, want) || !b.e.Server.AuthStore().IsAuthEnabled() {
		b.t.Errorf("%s: users %v, roles %v, want %v", what, u.Users, r.Roles, want)
	}
	for _, name := range want[:len(want)-1] {
		r, err := n.client.RoleGet(ctx, name)
		if i, ok := parseIdentity(name); err != nil || !ok || len(r.Perm) != len(permsOf(i)) {
			b.t.Errorf("%s: role %s: %v, %v", what, name, r, err)
		}
	}
}

// access is what may crash after some writes.
func (b *bench) access(writes int) *access {
	return &access{auth: &crashing{Auth: v3client.New(b.e.Server).Auth, left: writes}, state: b.e.Server.AuthStore()}
}

// TestAuthCrash: the store dies after each write to etcd's users and roles, in its first start and when somebody joins or
// is expelled; the next start makes them what they should be.
func TestAuthCrash(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	crashed := func(what string, err error) bool {
		t.Helper()
		if err != nil && !errors.Is(err, errCrash) {
			t.Fatalf("%s: %v", what, err)
		}
		return err != nil
	}
	var b *bench
	for n, again := 0, true; again; n++ {
		b = newBench(t)
		what := fmt.Sprintf("first start, killed after %d writes", n)
		again = crashed(what, b.access(n).enable(ctx))
		b.reopen(what, "root")
	}
	n1 := identity{join.RoleNode, "n1"}
	for n, again := 0, true; again; n++ {
		reg := &registry{kv: v3client.New(b.e.Server).KV, now: time.Now}
		if ok, err := reg.write(ctx, change{memberKey(n1), 0, Member{Name: "n1", Role: join.RoleNode}}); err != nil || !ok {
			t.Fatal(ok, err)
		}
		what := fmt.Sprintf("join, killed after %d writes", n)
		again = crashed(what, b.access(n).grant(ctx, n1))
		b.reopen(what, "node:n1", "root")

		reg = &registry{kv: v3client.New(b.e.Server).KV, now: time.Now}
		if _, err := reg.remove(ctx, n1); err != nil {
			t.Fatal(err)
		}
		what = fmt.Sprintf("expel, killed after %d writes", n)
		again = crashed(what, b.access(n).withdraw(ctx, n1.String())) || again
		b.reopen(what, "root")
	}
}
