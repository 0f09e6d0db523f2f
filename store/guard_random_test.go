package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/store/join"
)

// oneKey is an etcd that holds one key.
type oneKey struct{ key, value string }

func (k oneKey) Range(_ context.Context, key, _ []byte, _ mvcc.RangeOptions) (*mvcc.RangeResult, error) {
	r := &mvcc.RangeResult{Rev: 9}
	if string(key) == k.key {
		r.KVs = []*mvccpb.KeyValue{{Key: key, Value: []byte(k.value), ModRevision: 5}}
	}
	return r, nil
}

// overwrite judges what n1 writes over a block.
func overwrite(t *testing.T, old *api.IPAMBlock, value []byte) error {
	t.Helper()
	key, before := stored(t, old)
	g := &guard{kv: oneKey{key, before}, now: time.Now}
	return g.judge(t.Context(), identity{join.RoleNode, "n1"}, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: 5}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}},
	})
}

// kept checks that nobody but n1 has lost or got anything, for all who read the block; the configuration lets nobody
// borrow.
func kept(t *testing.T, old *api.IPAMBlock, value []byte) {
	t.Helper()
	o, _, err := api.DecodeStored("IPAMBlock", value)
	if err != nil {
		t.Fatalf("it can't be read: %v", err)
	}
	now := o.(*api.IPAMBlock)
	foreign := old.Spec.Affinity == "host:n2"
	if now.Spec.CIDR != old.Spec.CIDR || foreign && now.Spec.Affinity != old.Spec.Affinity || now.Spec.Affinity == "host:n2" && !foreign {
		t.Errorf("the block of %q is %s of %q", old.Spec.Affinity, now.Spec.CIDR, now.Spec.Affinity)
	}
	was, is := map[netip.Addr]api.Owner{}, map[netip.Addr]api.Owner{}
	for a, o := range old.Owners() {
		was[a] = o
	}
	for a, o := range now.Owners() {
		is[a] = o
	}
	for a, o := range was {
		if o.Node != "n1" && is[a] != o {
			t.Errorf("%v was %+v's, and is %+v's", a, o, is[a])
		}
	}
	for a, o := range is {
		if was[a] != o && o.Node != "n1" || foreign && was[a].Node != "n1" && o.Node == "n1" {
			t.Errorf("%v, which was %+v's, is %+v's", a, was[a], o)
		}
	}
}

// TestGuardRandom writes random blocks over random blocks.
func TestGuardRandom(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(7, 7))
	random := func() *api.IPAMBlock {
		h := holders{}
		for i := range 4 {
			if n := rnd.IntN(5); n > 1 {
				h[i] = fmt.Sprintf("n%d", n-1)
			}
		}
		b := blockOf([]string{"", "host:n1", "host:n2"}[rnd.IntN(3)], h)
		if rnd.IntN(4) == 0 && len(b.Spec.Attributes) > 0 { // an address that cools down
			b.Spec.Attributes[0] = api.AllocationAttribute{ReleasedAt: &metav1.Time{Time: time.Unix(1e9, 0)}}
		}
		b.Spec.SequenceNumber += uint64(rnd.IntN(2))
		return b
	}
	passed := map[string]int{}
	for range 4000 {
		old, now := random(), random()
		if rnd.IntN(2) == 0 { // a small change
			now = api.DeepCopy(old).(*api.IPAMBlock)
			now.Spec.SequenceNumber++
			if i := rnd.IntN(4); now.Spec.Allocations[i] == api.Free {
				now.Spec.Unallocated = slices.DeleteFunc(now.Spec.Unallocated, func(k int) bool { return k == i })
				now.Spec.Allocations[i] = len(now.Spec.Attributes)
				owner := api.Owner{Node: fmt.Sprintf("n%d", 1+rnd.IntN(2))}
				now.Spec.Attributes = append(now.Spec.Attributes, api.AllocationAttribute{HandleID: "x", Secondary: owner.Attributes("")})
			} else {
				now.Spec.Allocations[i] = api.Free
				now.Spec.Unallocated = append(now.Spec.Unallocated, i)
			}
		}
		_, value := stored(t, now)
		if err := overwrite(t, old, []byte(value)); err == nil {
			passed[old.Spec.Affinity]++
			kept(t, old, []byte(value))
		}
	}
	t.Logf("passed: %v", passed)
	if passed[""] < 50 || passed["host:n1"] < 50 || passed["host:n2"] < 50 {
		t.Errorf("too few pass to say anything: %v", passed)
	}
}

// FuzzGuard: whatever a node writes over another's block, if it passes, nobody else has lost or got anything.
func FuzzGuard(f *testing.F) {
	old := blockOf("host:n2", holders{0: "n1", 1: "n2", 2: "n3"})
	for _, h := range []holders{{0: "n1", 1: "n2", 2: "n3"}, {1: "n2", 2: "n3"}, {0: "n1", 1: "n2", 2: "n3", 3: "n1"}, {0: "n1"}, {}} {
		b, err := api.Encode(next(old, h))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if err := overwrite(t, old, value); err == nil {
			kept(t, old, value)
		}
	})
}
