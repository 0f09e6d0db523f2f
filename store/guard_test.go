package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/ipam"
	"github.com/tortie/tortie/store/join"
)

// denied says whether etcd, or the guard before it, refused for lack of rights.
func denied(err error) bool { return status.Code(err) == codes.PermissionDenied }

// put writes an object as root, and returns its key and revision.
func (c *cluster) put(o api.Object) (string, int64) {
	c.t.Helper()
	key, value := stored(c.t, o)
	res, err := c.root().Put(c.t.Context(), key, value)
	if err != nil {
		c.t.Fatal(err)
	}
	return key, res.Header.Revision
}

func stored(t *testing.T, o api.Object) (key, value string) {
	t.Helper()
	k := api.KeyOf(o)
	b, err := api.Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	return dataPrefix + k.Kind + "/" + k.Namespace + "/" + k.Name, string(b)
}

// swap is the transaction that the guard wants to see.
func swap(ctx context.Context, c *clientv3.Client, key string, rev int64, op clientv3.Op) (bool, error) {
	res, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).Then(op).Commit()
	if err != nil {
		return false, err
	}
	return res.Succeeded, nil
}

// blockOf makes a block of four addresses; holders are nodes by ordinal.
func blockOf(affinity string, holders map[int]string) *api.IPAMBlock {
	b := &api.IPAMBlock{ObjectMeta: metav1.ObjectMeta{Name: "10-9-0-0-30", UID: "u1"}}
	b.Spec = api.IPAMBlockSpec{CIDR: "10.9.0.0/30", Affinity: affinity, SequenceNumber: 7, Attributes: []api.AllocationAttribute{}}
	for i := range 4 {
		node, ok := holders[i]
		if !ok {
			b.Spec.Allocations = append(b.Spec.Allocations, api.Free)
			b.Spec.Unallocated = append(b.Spec.Unallocated, i)
			continue
		}
		b.Spec.Allocations = append(b.Spec.Allocations, len(b.Spec.Attributes))
		b.Spec.Attributes = append(b.Spec.Attributes, api.AllocationAttribute{HandleID: fmt.Sprintf("h%d", i),
			Secondary: api.Owner{Pod: "p", Namespace: "x", Node: node}.Attributes("")})
	}
	return b
}

// next is b after one more write, with other holders.
func next(b *api.IPAMBlock, holders map[int]string) *api.IPAMBlock {
	n := blockOf(b.Spec.Affinity, holders)
	n.Spec.SequenceNumber = b.Spec.SequenceNumber + 1
	return n
}

type holders = map[int]string

// TestBlockRules: what the node n1 may do to a block.
func TestBlockRules(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	n1 := c.member(join.RoleNode, "n1").raw()
	ctx := t.Context()
	mine, theirs := blockOf("host:n1", holders{0: "n1", 1: "n2"}), blockOf("host:n2", holders{0: "n1", 1: "n2", 2: "n3"})
	free, empty := blockOf("", nil), blockOf("host:n2", nil)
	with := func(b *api.IPAMBlock, change func(*api.IPAMBlock)) *api.IPAMBlock {
		c := api.DeepCopy(b).(*api.IPAMBlock)
		c.Spec.SequenceNumber++
		change(c)
		return c
	}
	affinity := func(a string) func(*api.IPAMBlock) { return func(b *api.IPAMBlock) { b.Spec.Affinity = a } }
	for _, r := range []struct {
		name            string
		old, now        *api.IPAMBlock // nil = none
		alone, together bool           // allowed without and with sharing
	}{
		{"make its own", nil, blockOf("host:n1", holders{0: "n1"}), true, true},
		{"make nobody's", nil, free, true, true},
		{"make another's", nil, empty, false, false},
		{"make its own with another's address", nil, blockOf("host:n1", holders{0: "n2"}), false, false},
		{"make it under another's name", nil, with(free, func(b *api.IPAMBlock) { b.Spec.CIDR = "10.9.0.4/30" }), false, false},
		{"take nobody's", free, with(free, affinity("host:n1")), true, true},
		{"take nobody's for another", free, with(free, affinity("host:n2")), false, false},
		{"take an address of its own", mine, next(mine, holders{0: "n1", 1: "n2", 2: "n1"}), true, true},
		{"give one to another", mine, next(mine, holders{0: "n1", 1: "n2", 2: "n2"}), false, false},
		{"give one back", mine, next(mine, holders{1: "n2"}), true, true},
		{"take what another has in it", mine, next(mine, holders{0: "n1"}), false, false},
		{"hand it to another", mine, with(mine, affinity("host:n2")), false, false},
		{"give it up", mine, with(mine, affinity("")), true, true},
		{"remove it while another has an address", mine, nil, false, false},
		{"remove it", blockOf("host:n1", holders{0: "n1"}), nil, true, true},
		{"remove nobody's", free, nil, true, true},
		{"give back in another's", theirs, next(theirs, holders{1: "n2", 2: "n3"}), true, true},
		{"borrow", theirs, next(theirs, holders{0: "n1", 1: "n2", 2: "n3", 3: "n1"}), false, true},
		{"borrow for a third", theirs, next(theirs, holders{0: "n1", 1: "n2", 2: "n3", 3: "n3"}), false, false},
		{"free its owner's in another's", theirs, next(theirs, holders{0: "n1", 2: "n3"}), false, false},
		{"take its owner's in another's", theirs, next(theirs, holders{0: "n1", 1: "n1", 2: "n3"}), false, false},
		{"free a third's in another's", theirs, next(theirs, holders{0: "n1", 1: "n2"}), false, false},
		{"take another's over", empty, with(empty, affinity("host:n1")), false, false},
		{"set another's free", empty, with(empty, affinity("")), false, false},
		{"rewrite another's", theirs, with(theirs, func(*api.IPAMBlock) {}), true, true}, // nothing changes but its number
		{"run another's number up", theirs, with(theirs, func(b *api.IPAMBlock) { b.Spec.SequenceNumber += 9 }), false, false},
		{"label another's", theirs, with(theirs, func(b *api.IPAMBlock) { b.Labels = map[string]string{"a": "b"} }), false, false},
		{"remove another's", theirs, nil, false, false},
		{"remove another's empty one", empty, nil, false, true},
		{"remove another's new one", with(empty, func(b *api.IPAMBlock) {
			b.Spec.AffinityClaimTime = &metav1.Time{Time: time.Now().Truncate(time.Second)}
		}), nil, false, false},
	} {
		for _, share := range []bool{false, true} {
			config := &api.IPAMConfiguration{ObjectMeta: metav1.ObjectMeta{Name: api.IPAMConfigurationName}}
			config.Spec.StrictAffinity = !share
			c.put(config)
			key, want := dataPrefix+"IPAMBlock//10-9-0-0-30", r.alone
			if share {
				want = r.together
			}
			rev := int64(0)
			if r.old != nil {
				key, rev = c.put(r.old)
			} else if _, err := c.root().Delete(ctx, key); err != nil {
				t.Fatal(err)
			}
			op := clientv3.OpDelete(key)
			if r.now != nil {
				_, value := stored(t, r.now)
				op = clientv3.OpPut(key, value)
			}
			done, err := swap(ctx, n1, key, rev, op)
			if want && (err != nil || !done) || !want && !denied(err) {
				t.Errorf("%s, sharing %v: done %v, %v; want allowed %v", r.name, share, done, err, want)
			}
		}
	}
}

// TestNodeRights: what else a node may write, and by which calls.
func TestNodeRights(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	n1, admin := c.member(join.RoleNode, "n1").raw(), c.member(join.RoleAdmin, "ann").raw()
	ctx := t.Context()
	meta := func(ns, name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }
	endpoint := func(name, node string) api.Object {
		w := &api.WorkloadEndpoint{ObjectMeta: meta("x", name)}
		w.Spec.Node, w.Spec.Orchestrator, w.Spec.Workload, w.Spec.Endpoint = node, "lab", "w", "eth0"
		return w
	}
	affinity := func(name, node, cidr string) api.Object {
		return &api.BlockAffinity{ObjectMeta: meta("", name), Spec: api.BlockAffinitySpec{State: "pending", Node: node, Type: "host", CIDR: cidr}}
	}
	handle := func(node string) api.Object {
		h := &api.IPAMHandle{ObjectMeta: meta("", "h"), Spec: api.IPAMHandleSpec{HandleID: "h", Block: map[string]int{"10.9.0.0/30": 1}}}
		h.Annotations = map[string]string{annotationNode: node}
		return h
	}
	for _, r := range []struct {
		name     string
		old, now api.Object
		ok       bool
	}{
		{"its endpoint", nil, endpoint("n1-lab-w-eth0", "n1"), true},
		{"another's endpoint", nil, endpoint("n2-lab-w-eth0", "n2"), false},
		{"an endpoint under another's name", nil, endpoint("n2-lab-w-eth0", "n1"), false},
		{"over another's endpoint", endpoint("n1-lab-w-eth0", "n2"), endpoint("n1-lab-w-eth0", "n1"), false},
		{"away with another's endpoint", endpoint("n2-lab-w-eth0", "n2"), nil, false},
		{"away with its endpoint", endpoint("n1-lab-w-eth0", "n1"), nil, true},
		{"its affinity", nil, affinity("n1-10-9-0-0-30", "n1", "10.9.0.0/30"), true},
		{"another's affinity", nil, affinity("n2-10-9-0-0-30", "n2", "10.9.0.0/30"), false},
		{"an affinity of a node whose name goes on", nil, affinity("n1-10-9-0-0-30", "n1-10", "9.0.0.0/30"), false},
		{"an affinity under another range's name", nil, affinity("n1-10-9-0-0-30", "n1", "10.9.0.4/30"), false},
		{"away with another's affinity", affinity("n2-10-9-0-0-30", "n2", "10.9.0.0/30"), nil, false},
		{"its handle", nil, handle("n1"), true},
		{"another's handle", handle("n2"), handle("n1"), false},
		{"its handle, given away", handle("n1"), handle("n2"), false},
		{"its Node", nil, &api.Node{ObjectMeta: meta("", "n1")}, true},
		{"another Node", nil, &api.Node{ObjectMeta: meta("", "n2")}, false},
		{"a policy", nil, &api.GlobalNetworkPolicy{ObjectMeta: meta("", "p"), Spec: api.GlobalNetworkPolicySpec{}}, false},
		{"a pool", nil, &api.IPPool{ObjectMeta: meta("", "p"), Spec: api.IPPoolSpec{CIDR: "10.0.0.0/8"}}, false},
		{"the settings of addresses", nil, &api.IPAMConfiguration{ObjectMeta: meta("", "default")}, false},
	} {
		o := r.now
		if o == nil {
			o = r.old
		}
		key, value := stored(t, o)
		if _, err := c.root().Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		rev := int64(0)
		if r.old != nil {
			_, rev = c.put(r.old)
		}
		op := clientv3.OpPut(key, value)
		if r.now == nil {
			op = clientv3.OpDelete(key)
		}
		if done, err := swap(ctx, n1, key, rev, op); r.ok && (err != nil || !done) || !r.ok && !denied(err) {
			t.Errorf("%s: done %v, %v; want allowed %v", r.name, done, err, r.ok)
		}
		if _, err := admin.Put(ctx, key, value); err != nil {
			t.Errorf("%s, by an administrator: %v", r.name, err)
		}
	}
	rawCalls(t, c, n1, admin)
}

// absent writes a key that is not there.
func absent(ctx context.Context, c *clientv3.Client, key, value string) error {
	_, err := swap(ctx, c, key, 0, clientv3.OpPut(key, value))
	return err
}

// rawCalls tries to get around the guard.
func rawCalls(t *testing.T, c *cluster, n1, admin *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	theirs := blockOf("host:n2", nil)
	key, rev := c.put(theirs)
	_, value := stored(t, blockOf("host:n1", nil))
	put, eq := clientv3.OpPut(key, value), clientv3.Compare(clientv3.ModRevision(key), "=", rev)
	for name, f := range map[string]func(*clientv3.Client) error{
		"a key that is none":  func(c *clientv3.Client) error { return absent(ctx, c, dataPrefix+"IPAMBlock/x/10-9-0-0-30", value) },
		"a key that goes on":  func(c *clientv3.Client) error { return absent(ctx, c, key+"/x", value) },
		"a kind that is none": func(c *clientv3.Client) error { return absent(ctx, c, dataPrefix+"IPAMBlock//", value) },
		"a put":               func(c *clientv3.Client) error { _, err := c.Put(ctx, key, value); return err },
		"a delete":            func(c *clientv3.Client) error { _, err := c.Delete(ctx, key); return err },
		"a delete of all":     func(c *clientv3.Client) error { _, err := c.Delete(ctx, dataPrefix, clientv3.WithPrefix()); return err },
		"a bare transaction":  func(c *clientv3.Client) error { _, err := c.Txn(ctx).Then(put).Commit(); return err },
		"a comparison of versions": func(c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), ">", 0)).Then(put).Commit()
			return err
		},
		"a comparison of a range": func(c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(eq.WithRange(key + "0")).Then(put).Commit()
			return err
		},
		"a revision to come": func(c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev+1000)).Then(put).Commit()
			return err
		},
		"the other branch": func(c *clientv3.Client) error { _, err := c.Txn(ctx).If(eq).Else(put).Commit(); return err },
		"a nested transaction": func(c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(eq).Then(clientv3.OpTxn(nil, []clientv3.Op{put}, nil)).Commit()
			return err
		},
		"the authority":                func(c *clientv3.Client) error { _, err := c.Get(ctx, authorityKey); return err },
		"the tokens":                   func(c *clientv3.Client) error { _, err := c.Get(ctx, tokenPrefix, clientv3.WithPrefix()); return err },
		"a lease":                      func(c *clientv3.Client) error { _, err := c.Grant(ctx, 100); return err },
		"users":                        func(c *clientv3.Client) error { _, err := c.UserList(ctx); return err },
		"switching authentication off": func(c *clientv3.Client) error { _, err := c.AuthDisable(ctx); return err },
		"a snapshot": func(c *clientv3.Client) error {
			r, err := c.Snapshot(ctx)
			if err == nil {
				_, err = r.Read(make([]byte, 1))
			}
			return err
		},
		"members":    func(c *clientv3.Client) error { _, err := c.MemberList(ctx); return err },
		"compaction": func(c *clientv3.Client) error { _, err := c.Compact(ctx, 1); return err },
		"a watch of secrets": func(c *clientv3.Client) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			r := <-c.Watch(ctx, storePrefix, clientv3.WithPrefix())
			return r.Err()
		},
	} {
		if err := f(n1); !denied(err) && (err == nil || !strings.Contains(err.Error(), "permission denied")) {
			t.Errorf("%s by a node: %v", name, err)
		}
		switch name {
		case "the authority", "the tokens", "a lease", "users", "switching authentication off", "a snapshot", "members", "compaction", "a watch of secrets":
			if err := f(admin); !denied(err) && (err == nil || !strings.Contains(err.Error(), "permission denied")) {
				t.Errorf("%s by an administrator: %v", name, err)
			}
		}
	}
	// A comparison that can't hold any more is answered by etcd, so that honest clients learn what is there.
	res, err := n1.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev-1)).Then(put).Else(clientv3.OpGet(key)).Commit()
	if err != nil || res.Succeeded || len(res.Responses[0].GetResponseRange().Kvs) != 1 {
		t.Errorf("a revision that is gone: %+v, %v", res, err)
	}
	got, err := c.root().Get(ctx, key)
	if err != nil || got.Kvs[0].ModRevision != rev {
		t.Errorf("the block was written: %v, %v", got, err)
	}
}

// store opens Tortie's own client with the host's certificate.
func (h host) store() *etcd.Store {
	h.c.t.Helper()
	s, err := etcd.Open(etcd.Config{Endpoints: []string{"https://" + h.c.addr}, CAFile: h.CA, CertFile: h.Cert, KeyFile: h.Key})
	if err != nil {
		h.c.t.Fatal(err)
	}
	h.c.t.Cleanup(func() { s.Close() })
	return s
}

// TestAllocators runs the real allocators of three nodes, each with its certificate: they need nothing that they may not
// do, share only if they may, and always give back.
func TestAllocators(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	admin := c.member(join.RoleAdmin, "ann").store()
	pool := &api.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "small"}, Spec: api.IPPoolSpec{CIDR: "10.9.0.0/29", BlockSize: 30}}
	if _, err := admin.Create(ctx, pool); err != nil {
		t.Fatal(err)
	}
	alloc := map[string]*ipam.Allocator{}
	for _, n := range []string{"n1", "n2", "n3"} {
		alloc[n] = ipam.New(ipam.Config{Store: c.member(join.RoleNode, n).store(), Node: n})
	}
	assign := func(node, handle string) (ipam.Result, error) {
		return alloc[node].Assign(ctx, ipam.Request{Handle: handle, V4: true, Owner: api.Owner{Pod: handle, Namespace: "x"}})
	}
	used := map[netip.Addr]string{}
	for _, n := range []string{"n1", "n1", "n1", "n2"} {
		h := fmt.Sprintf("%s.%d", n, len(used))
		r, err := assign(n, h)
		if err != nil {
			t.Fatalf("%s: %v", h, err)
		}
		if used[r.Addrs[0].Addr] != "" {
			t.Errorf("%s has what %s has", h, used[r.Addrs[0].Addr])
		}
		used[r.Addrs[0].Addr] = h
	}
	if _, err := assign("n3", "n3.0"); !errors.Is(err, datastore.ErrForbidden) || !strings.Contains(err.Error(), "strictAffinity: false") {
		t.Errorf("borrowing without leave: %v", err)
	}
	config := &api.IPAMConfiguration{ObjectMeta: metav1.ObjectMeta{Name: api.IPAMConfigurationName}}
	if _, err := admin.Create(ctx, config); err != nil {
		t.Fatal(err)
	}
	var borrowed []string
	for i := range 4 {
		h := fmt.Sprintf("n3.%d", i)
		if _, err := assign("n3", h); err != nil {
			t.Fatalf("borrowing with leave: %v", err)
		}
		borrowed = append(borrowed, h)
	}
	if _, err := assign("n3", "n3.9"); !errors.Is(err, ipam.ErrFull) {
		t.Errorf("all are taken: %v", err)
	}
	stored, err := admin.Get(ctx, api.KeyOf(config))
	if err != nil {
		t.Fatal(err)
	}
	stored.(*api.IPAMConfiguration).Spec.StrictAffinity = true
	if _, err := admin.Update(ctx, stored); err != nil {
		t.Fatal(err)
	}
	for _, h := range borrowed {
		if got, err := alloc["n3"].Release(ctx, h, ipam.ReleaseOptions{}); err != nil || len(got) != 1 {
			t.Errorf("giving back %s: %v, %v", h, got, err)
		}
	}
	for a, h := range used {
		node, _, _ := strings.Cut(h, ".")
		if got, err := alloc[node].Release(ctx, h, ipam.ReleaseOptions{}); err != nil || len(got) != 1 || got[0] != a {
			t.Errorf("releasing %s: %v, %v", h, got, err)
		}
	}
	// All blocks are empty and old, as far as this one knows; but they are others'.
	late := ipam.New(ipam.Config{Store: c.member(join.RoleNode, "n4").store(), Node: "n4",
		Clock: func() time.Time { return time.Now().Add(10 * ipam.MinReclaimAge) }})
	if _, err := late.Assign(ctx, ipam.Request{Handle: "n4.0", V4: true}); !errors.Is(err, ipam.ErrFull) {
		t.Errorf("taking an empty block without leave: %v", err)
	}
	report, err := ipam.New(ipam.Config{Store: admin, Node: "auditor"}).Audit(ctx, ipam.AuditOptions{})
	if err != nil || report.Allocated != 0 || len(report.Objects) > 0 {
		b, _ := json.Marshal(report)
		t.Errorf("in the end: %s, %v", b, err)
	}
}

// TestJoinsMeanwhile: what others write is not disturbed by hosts that join and leave, though each changes etcd's users
// and roles, which makes requests that are under way fail.
func TestJoinsMeanwhile(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	s := c.member(join.RoleNode, "n1").store()
	node, err := s.Create(ctx, &api.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	writes := 0
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			node.SetLabels(map[string]string{"n": fmt.Sprint(writes)})
			var err error
			if node, err = s.Update(ctx, node); err != nil {
				t.Errorf("write %d: %v", writes, err)
				return
			}
			writes++
		}
	}()
	for i := range 10 {
		name := fmt.Sprintf("x%d", i)
		c.member(join.RoleNode, name)
		if _, err := c.admin.Expel(ctx, name); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
	t.Logf("%d writes", writes)
	if writes < 10 {
		t.Errorf("%d writes only", writes)
	}
}
