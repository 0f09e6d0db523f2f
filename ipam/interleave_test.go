package ipam

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// meddler lets something happen right before a call of the store.
type meddler struct {
	datastore.Store
	before func(verb string, key api.Key) bool // true = that was it
}

func (m *meddler) call(verb string, key api.Key) {
	if f := m.before; f != nil {
		m.before = nil
		if !f(verb, key) {
			m.before = f
		}
	}
}

func (m *meddler) Get(ctx context.Context, key api.Key) (api.Object, error) {
	m.call("get", key)
	return m.Store.Get(ctx, key)
}

func (m *meddler) Update(ctx context.Context, o api.Object) (api.Object, error) {
	m.call("update", api.KeyOf(o))
	return m.Store.Update(ctx, o)
}

func (m *meddler) Txn(ctx context.Context, ops ...datastore.Op) error {
	key := ops[0].Key
	if ops[0].Verb != datastore.Delete {
		key = api.KeyOf(ops[0].Object)
	}
	m.call([]string{"create", "update", "delete"}[ops[0].Verb], key)
	return m.Store.Txn(ctx, ops...)
}

func (b *bench) meddled(node string, oneByOne bool, f func(verb string, key api.Key) bool) *Allocator {
	a := New(Config{Store: &meddler{b.store, f}, Node: node, OneByOne: oneByOne, Clock: func() time.Time { return b.now }})
	a.wait = func(context.Context, int) error { return nil }
	return a
}

func (b *bench) affinity(node, cidr, state string) *api.BlockAffinity {
	b.t.Helper()
	o := &api.BlockAffinity{Spec: api.BlockAffinitySpec{State: state, Node: node, CIDR: cidr}}
	o.Name = affinityName(node, netip.MustParsePrefix(cidr))
	b.raw(o)
	return o
}

// block writes one, of which handle, if it is not "", has the first address.
func (b *bench) block(cidr, affinity, handle string) {
	b.t.Helper()
	bl := newBlock(netip.MustParsePrefix(cidr)).edit()
	bl.obj.Spec.Affinity = affinity
	if handle != "" {
		bl.take(0, handle, api.Owner{Node: "n1"})
	}
	b.raw(bl.obj)
}

func (b *bench) remove(kind, name string) {
	b.t.Helper()
	if err := b.store.Delete(b.t.Context(), api.Key{Kind: kind, Name: name}, ""); err != nil {
		b.t.Error(err)
	}
}

// catalogued checks that each block has an affinity: those that look for free ranges see no blocks.
func (b *bench) catalogued() {
	b.t.Helper()
	have := map[netip.Prefix]bool{}
	for _, o := range list1[*api.BlockAffinity](b, "BlockAffinity") {
		have[rangeOf(o)] = true
	}
	for _, o := range list1[*api.IPAMBlock](b, "IPAMBlock") {
		if p := netip.MustParsePrefix(o.Spec.CIDR); !have[p] {
			b.t.Errorf("block %s has no affinity", p)
		}
	}
}

const wide, narrow = "10.0.0.0/29", "10.0.0.4/30"

// TestHalfWritten has the second family's last address go to somebody else after the first family's was written.
func TestHalfWritten(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/29", ", blockSize: 29"), poolYAML("v6", "fd00::/127", ", blockSize: 127"))
	other := b.node("n2")
	b.assign(other, Request{Handle: "o1", V6: true})
	a := b.meddled("n1", true, func(verb string, key api.Key) bool {
		if verb != "update" || key.Name != "fd00---127" {
			return false
		}
		b.assign(other, Request{Handle: "o2", V6: true})
		return true
	})
	if r, err := a.Assign(t.Context(), Request{Handle: "h", V4: true, V6: true}); !errors.Is(err, ErrFull) {
		t.Errorf("%+v, %v", r, err)
	}
	u, err := a.Show(t.Context())
	if err != nil || u.Pools[0].Used != 0 || u.Pools[1].Used != 2 {
		t.Errorf("usage %+v, %v; want nothing of IPv4 to be left", u.Pools, err)
	}
}

// TestGhostTakesBack is the same, but the process was given up meanwhile: the node has released the handle and asked
// for it again.
func TestGhostTakesBack(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/32", ", blockSize: 32"), poolYAML("v6", "fd00::/127", ", blockSize: 127"))
	other := b.node("n2")
	b.assign(other, Request{Handle: "o1", V6: true})
	var now Held
	ghost := b.meddled("n1", true, func(verb string, key api.Key) bool {
		if verb != "update" || key.Name != "fd00---127" {
			return false
		}
		b.assign(other, Request{Handle: "o2", V6: true})
		n1 := b.meddled("n1", true, nil)
		if got := b.release(n1, "h", ReleaseOptions{}); len(got) != 1 {
			t.Errorf("released %v", got)
		}
		now = b.v4(n1, "h")
		return true
	})
	if r, err := ghost.Assign(t.Context(), Request{Handle: "h", V4: true, V6: true}); !errors.Is(err, ErrFull) {
		t.Errorf("%+v, %v", r, err)
	}
	if got := b.release(b.node("n1"), "h", ReleaseOptions{Held: []Held{now}}); len(got) != 1 {
		t.Errorf("%+v is gone", now)
	}
}

// TestUncertainBlock finds a block of this node that overlaps another one, as a process that was thought dead can leave
// it: nobody gives an address of it, not even to those who had one, and nobody borrows of it.
func TestUncertainBlock(t *testing.T) {
	for _, oneByOne := range []bool{false, true} {
		b := newBench(t, poolYAML("v4", "10.0.0.0/28", ", blockSize: 30"))
		b.affinity("n1", wide, statePending)
		b.block(wide, "host:n1", "h")
		b.affinity("n2", narrow, stateConfirmed)
		b.block(narrow, "host:n2", "other")
		n1 := b.meddled("n1", oneByOne, nil)
		for _, handle := range []string{"h", "h2", "h3"} {
			if h := b.v4(n1, handle); netip.MustParsePrefix(wide).Contains(h.Addr) {
				t.Errorf("%s got %s, of a block that may overlap another", handle, h.Addr)
			}
		}
		n3 := b.meddled("n3", oneByOne, nil)
		for range 12 {
			r, err := n3.Assign(t.Context(), Request{Handle: "x" + b.now.String(), V4: true})
			b.now = b.now.Add(surveyAge)
			if err == nil && r.Addrs[0].Block == netip.MustParsePrefix(wide) {
				t.Errorf("%s was borrowed of it", r.Addrs[0].Addr)
			}
		}
		cleaner := b.meddled("cleaner", oneByOne, nil)
		for range 4 {
			b.collect(cleaner)
			b.now = b.now.Add(DefaultGrace + time.Second)
			for _, o := range list1[*api.BlockAffinity](b, "BlockAffinity") {
				if rangeOf(o).String() == wide && o.Spec.State == stateConfirmed {
					t.Fatal("its affinity was confirmed")
				}
			}
		}
		if _, err := b.store.Get(t.Context(), api.Key{Kind: "IPAMBlock", Name: blockName(netip.MustParsePrefix(wide))}); !errors.Is(err, datastore.ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
	}
}

func TestAffinityGoesBeforeItsBlockComes(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ", blockSize: 29"))
	o := b.affinity("n1", wide, statePending)
	a := b.meddled("n1", false, func(verb string, key api.Key) bool {
		if verb == "get" {
			return false
		}
		b.remove("BlockAffinity", o.Name)
		return true
	})
	b.v4(a, "h")
	b.catalogued()
}

func TestSomebodyElseConfirms(t *testing.T) {
	for _, oneByOne := range []bool{false, true} {
		b := newBench(t, poolYAML("v4", "10.0.0.0/28", ", blockSize: 29"))
		o := b.affinity("n1", wide, statePending)
		b.block(wide, "host:n1", "h")
		a := b.meddled("n1", oneByOne, func(verb string, key api.Key) bool {
			if verb != "update" {
				return false
			}
			c := *o
			c.Spec.State = stateConfirmed
			if _, err := b.store.Store.Update(t.Context(), &c); err != nil {
				t.Error(err)
			}
			return true
		})
		if h := b.v4(a, "h"); h.Addr.String() != "10.0.0.0" {
			t.Errorf("h has 10.0.0.0, and got %s", h.Addr)
		}
	}
}

// TestRangeGoesWhileItIsTaken removes the affinity between the block's write and the confirmation, and gives a part of
// the range to another node.
func TestRangeGoesWhileItIsTaken(t *testing.T) {
	for _, taken := range []bool{true, false} {
		b := newBench(t, poolYAML("v4", "10.0.0.0/28", ", blockSize: 29"))
		var lost netip.Prefix
		a := b.meddled("n1", true, func(verb string, key api.Key) bool {
			if verb != "update" || key.Kind != "BlockAffinity" {
				return false
			}
			lost = netip.MustParsePrefix(list1[*api.IPAMBlock](b, "IPAMBlock")[0].Spec.CIDR)
			b.remove("BlockAffinity", key.Name)
			if taken {
				part := netip.PrefixFrom(lost.Addr(), 30).String()
				b.affinity("n2", part, stateConfirmed)
				b.block(part, "host:n2", "other")
			}
			return true
		})
		h := b.v4(a, "h")
		if taken && h.Block.Overlaps(lost) {
			t.Errorf("%s is of a range that is another node's", h.Addr)
		}
		if !taken {
			b.catalogued()
			if again := b.v4(b.node("n1"), "h"); again.Addr != h.Addr {
				t.Errorf("after a restart %s is %s", h.Addr, again.Addr)
			}
		}
	}
}

// TestNobodysBlockInUse drops the wish for a block that somebody has addresses in: the block stays.
func TestNobodysBlockInUse(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/28", ", blockSize: 30"))
	b.affinity("n1", wide, statePending)
	b.block(wide, "", "h")
	b.affinity("n2", narrow, stateConfirmed)
	b.block(narrow, "host:n2", "")
	b.v4(b.node("n1"), "x")
	if _, err := b.store.Get(t.Context(), api.Key{Kind: "IPAMBlock", Name: blockName(netip.MustParsePrefix(wide))}); err != nil {
		t.Errorf("the block went, with h's address: %v", err)
	}
}

// TestBlockGoesWhileOthersPlan loses a block between the plan of one request and that of the next one of its batch.
func TestBlockGoesWhileOthersPlan(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/28", ", blockSize: 29"))
	a := b.meddled("n1", false, nil)
	h := b.v4(a, "h")
	b.release(a, "h", ReleaseOptions{})
	looked := 0
	a.store.(*meddler).before = func(verb string, key api.Key) bool {
		if verb != "get" || key.Kind != "IPAMBlock" {
			return false
		}
		if looked++; looked < 2 { // the first is of the round itself
			return false
		}
		b.remove("IPAMBlock", blockName(h.Block))
		b.remove("BlockAffinity", affinityName("n1", h.Block))
		return true
	}
	a.blocks[h.Block].stale = true
	req := Request{Handle: "h2", V4: true, Owner: api.Owner{Node: "n1"}}
	j := &assign{req: &req}
	tickets := []*ticket{{job: j}, {job: &release{handle: "unknown"}}}
	a.process(t.Context(), tickets)
	if tickets[0].err != nil || tickets[1].err != nil || len(j.result.Addrs) != 1 {
		t.Fatalf("%v, %v, %+v", tickets[0].err, tickets[1].err, j.result)
	}
	b.catalogued()
}

// TestHiddenBlock meets a block whose affinity is lost: nothing is left of the wish for it.
func TestHiddenBlock(t *testing.T) {
	for _, oneByOne := range []bool{false, true} {
		b := newBench(t, poolYAML("v4", wide, ", blockSize: 29"), config("strictAffinity: true"))
		b.block(wide, "host:n2", "other")
		if r, err := b.meddled("n1", oneByOne, nil).Assign(t.Context(), Request{Handle: "h", V4: true}); !errors.Is(err, ErrFull) {
			t.Errorf("%+v, %v", r, err)
		}
		if left := list1[*api.BlockAffinity](b, "BlockAffinity"); len(left) > 0 {
			t.Errorf("%+v", left)
		}
	}
}

func TestSetAffinity(t *testing.T) {
	bl := newBlock(netip.MustParsePrefix(wide)).edit()
	bl.obj.Spec.Affinity = "host:n1"
	for i, node := range []string{"n1", "n2", "n3"} {
		bl.take(i, "h"+node, api.Owner{Node: node, Pod: "p"})
	}
	for _, affinity := range []string{"", "host:n2", "virtual:lb", "host:n3", "host:n1"} {
		bl = bl.edit()
		bl.setAffinity(affinity, time.Now())
		for i, node := range []string{"n1", "n2", "n3"} {
			if o := bl.owner(i); o.Node != node || o.Pod != "p" {
				t.Errorf("once the block is of %q, the address used on %s is used on %q", affinity, node, o.Node)
			}
			if _, named := bl.attribute(i).Secondary["node"]; named != (affinity != "host:"+node) {
				t.Errorf("in a block of %q node %s is named: %v", affinity, node, named)
			}
		}
	}
}
