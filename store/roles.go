package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/authpb"
	etcdpb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/auth"

	"github.com/tortie/tortie/store/join"
)

// dataPrefix begins the keys of resources: see package datastore/etcd.
const dataPrefix = "/tortie/v1/"

// nodeKinds are what nodes write. Whose of them a node may write, the guard knows: a role has only prefixes.
var nodeKinds = [...]string{"BlockAffinity", "IPAMBlock", "IPAMHandle", "WorkloadEndpoint"}

// perm is one permission of a role.
type perm struct {
	typ      pb.Permission_Type
	key, end string
}

func prefixPerm(typ pb.Permission_Type, prefix string) perm {
	return perm{typ, prefix, clientv3.GetPrefixRangeEnd(prefix)}
}

// permsOf is what a member may do.
func permsOf(i identity) []perm {
	if i.role == join.RoleAdmin {
		return []perm{prefixPerm(pb.READWRITE, dataPrefix)}
	}
	out := []perm{prefixPerm(pb.READ, dataPrefix), {typ: pb.READWRITE, key: nodeKey(i.name)}}
	for _, k := range nodeKinds {
		out = append(out, prefixPerm(pb.READWRITE, dataPrefix+k+"/"))
	}
	return out
}

func nodeKey(name string) string { return dataPrefix + "Node//" + name }

// access keeps etcd's users and roles as members say. A member's user and its role have the member's name.
type access struct {
	auth  clientv3.Auth // what is written
	state authState     // what is there: this process's own etcd, which needs no round through its log to tell
	mu    sync.Mutex    // one at a time looks what is there and adds what is not
}

// authState is the part of etcd's AuthStore that reads.
type authState interface {
	IsAuthEnabled() bool
	UserGet(*etcdpb.AuthUserGetRequest) (*etcdpb.AuthUserGetResponse, error)
	UserList(*etcdpb.AuthUserListRequest) (*etcdpb.AuthUserListResponse, error)
	RoleGet(*etcdpb.AuthRoleGetRequest) (*etcdpb.AuthRoleGetResponse, error)
	RoleList(*etcdpb.AuthRoleListRequest) (*etcdpb.AuthRoleListResponse, error)
}

// enable switches authentication on. Each step can be the last before a crash: the next start goes on.
func (a *access) enable(ctx context.Context) error {
	ctx = asRoot(ctx)
	if err := a.role(ctx, rootName); err != nil {
		return err
	}
	if err := a.user(ctx, rootName); err != nil {
		return err
	}
	if a.state.IsAuthEnabled() {
		return nil
	}
	if _, err := a.auth.AuthEnable(ctx); err != nil {
		return fmt.Errorf("switching authentication on: %w", err)
	}
	return nil
}

// role makes a role, if there is none.
func (a *access) role(ctx context.Context, name string) error {
	_, err := a.state.RoleGet(&etcdpb.AuthRoleGetRequest{Role: name})
	if errors.Is(err, auth.ErrRoleNotFound) {
		_, err = a.auth.RoleAdd(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("making etcd's role %s: %w", name, err)
	}
	return nil
}

// user makes a user who has the role of the same name, if there is none. It has no password: certificates are all that
// counts.
func (a *access) user(ctx context.Context, name string) error {
	u, err := a.state.UserGet(&etcdpb.AuthUserGetRequest{Name: name})
	if errors.Is(err, auth.ErrUserNotFound) {
		u = nil
		_, err = a.auth.UserAddWithOptions(ctx, name, "", &clientv3.UserAddOptions{NoPassword: true})
	}
	if err != nil {
		return fmt.Errorf("making etcd's user %s: %w", name, err)
	}
	if u == nil || !slices.Contains(u.Roles, name) {
		_, err = a.auth.UserGrantRole(ctx, name, name)
	}
	if err != nil {
		return fmt.Errorf("granting etcd's role %s: %w", name, err)
	}
	return nil
}

// grant makes a member's role what it should be, and its user.
func (a *access) grant(ctx context.Context, i identity) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx = asRoot(ctx)
	name := i.String()
	if err := a.role(ctx, name); err != nil {
		return err
	}
	have := map[perm]bool{}
	r, err := a.state.RoleGet(&etcdpb.AuthRoleGetRequest{Role: name})
	if err != nil {
		return fmt.Errorf("reading etcd's role %s: %w", name, err)
	}
	for _, p := range r.Perm {
		have[perm{p.PermType, string(p.Key), string(p.RangeEnd)}] = true
	}
	for _, p := range permsOf(i) {
		if have[p] {
			delete(have, p)
			continue
		}
		if _, err := a.auth.RoleGrantPermission(ctx, name, p.key, p.end, clientv3.PermissionType(p.typ)); err != nil {
			return fmt.Errorf("giving etcd's role %s its permissions: %w", name, err)
		}
	}
	for p := range have { // of another release
		if _, err := a.auth.RoleRevokePermission(ctx, name, p.key, p.end); err != nil {
			return fmt.Errorf("taking permissions of etcd's role %s: %w", name, err)
		}
	}
	return a.user(ctx, name)
}

// withdraw removes a member's user and role.
func (a *access) withdraw(ctx context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx = asRoot(ctx)
	_, err := a.state.UserGet(&etcdpb.AuthUserGetRequest{Name: name})
	if err == nil {
		_, err = a.auth.UserDelete(ctx, name)
	}
	if err != nil && !errors.Is(err, auth.ErrUserNotFound) {
		return fmt.Errorf("removing etcd's user %s: %w", name, err)
	}
	_, err = a.state.RoleGet(&etcdpb.AuthRoleGetRequest{Role: name})
	if err == nil {
		_, err = a.auth.RoleDelete(ctx, name)
	}
	if err != nil && !errors.Is(err, auth.ErrRoleNotFound) {
		return fmt.Errorf("removing etcd's role %s: %w", name, err)
	}
	return nil
}

// reconcile makes users and roles what the members say, wherever a crash has stopped us.
func (a *access) reconcile(ctx context.Context, members []Member) error {
	want := map[string]bool{}
	for _, m := range members {
		want[m.identity().String()] = true
		if err := a.grant(ctx, m.identity()); err != nil {
			return err
		}
	}
	users, err := a.state.UserList(&etcdpb.AuthUserListRequest{})
	if err != nil {
		return fmt.Errorf("listing etcd's users: %w", err)
	}
	roles, err := a.state.RoleList(&etcdpb.AuthRoleListRequest{})
	if err != nil {
		return fmt.Errorf("listing etcd's roles: %w", err)
	}
	for _, name := range append(users.Users, roles.Roles...) {
		// Others than ours are left: an operator may have made them.
		if _, ours := parseIdentity(name); ours && strings.Contains(name, ":") && !want[name] {
			if err := a.withdraw(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}
