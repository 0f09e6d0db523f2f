package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
)

func nodeYAML(name, labels string) string {
	return fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: %s, labels: {%s}}, spec: {}}", name, labels)
}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestPoolSelection(t *testing.T) {
	node := nodeYAML("n1", "zone: a")
	for _, c := range []struct {
		name    string
		objects []string
		req     Request
		pools   string // of the addresses, in order
		err     error
		says    []string
	}{
		{name: "only pool", objects: []string{poolYAML("v4", "10.0.0.0/24", "")}, pools: "v4"},
		{name: "both families", objects: []string{poolYAML("v4", "10.0.0.0/24", ""), poolYAML("v6", "fd00::/64", "")}, req: Request{V6: true}, pools: "v4 v6"},
		{name: "no pool at all", err: ErrNoPool, says: []string{"IPv4", "create an IPPool"}},
		{name: "none of the family", objects: []string{poolYAML("v4", "10.0.0.0/24", "")}, req: Request{V6: true}, err: ErrNoPool, says: []string{"IPv6"}},
		{name: "the first by name", objects: []string{poolYAML("b", "10.0.0.0/24", ""), poolYAML("a", "10.1.0.0/24", "")}, pools: "a"},
		{name: "disabled", objects: []string{poolYAML("a", "10.0.0.0/24", ", disabled: true")}, err: ErrNoPool, says: []string{"a: it is disabled", "n1"}},
		{name: "disabled and another", objects: []string{poolYAML("a", "10.0.0.0/24", ", disabled: true"), poolYAML("b", "10.1.0.0/24", "")}, pools: "b"},
		{name: "manual", objects: []string{poolYAML("a", "10.0.0.0/24", ", assignmentMode: Manual")}, err: ErrNoPool, says: []string{"assignmentMode", "by name"}},
		{name: "manual, named", objects: []string{poolYAML("a", "10.0.0.0/24", ", assignmentMode: Manual")}, req: Request{Pools: []string{"a"}}, pools: "a"},
		{name: "for tunnels", objects: []string{poolYAML("a", "10.0.0.0/24", ", allowedUses: [Tunnel]")}, err: ErrNoPool, says: []string{"allowedUses are Tunnel, not Workload"}},
		{name: "for tunnels, named", objects: []string{poolYAML("a", "10.0.0.0/24", ", allowedUses: [Tunnel]")}, req: Request{Pools: []string{"a"}}, err: ErrNoPool},
		{name: "a tunnel", objects: []string{poolYAML("a", "10.0.0.0/24", ", allowedUses: [Workload]"), poolYAML("b", "10.1.0.0/24", ", allowedUses: [Tunnel]")}, req: Request{Use: UseTunnel}, pools: "b"},
		{name: "a load balancer", objects: []string{poolYAML("a", "10.0.0.0/24", ""), poolYAML("b", "10.1.0.0/24", ", allowedUses: [LoadBalancer]")}, req: Request{Use: UseLoadBalancer}, pools: "b"},
		{name: "node selector", objects: []string{node, poolYAML("a", "10.0.0.0/24", ", nodeSelector: zone == 'b'"), poolYAML("b", "10.1.0.0/24", ", nodeSelector: zone == 'a'")}, pools: "b"},
		{name: "node selector of another node", objects: []string{node, poolYAML("a", "10.0.0.0/24", ", nodeSelector: zone == 'b'")}, err: ErrNoPool, says: []string{"nodeSelector zone == 'b' does not match node n1"}},
		{name: "node without object", objects: []string{poolYAML("a", "10.0.0.0/24", ", nodeSelector: '!has(zone)'")}, pools: "a"},
		{name: "node selector, named", objects: []string{node, poolYAML("a", "10.0.0.0/24", ", nodeSelector: zone == 'b'")}, req: Request{Pools: []string{"a"}}, pools: "a"},
		{name: "namespace selector", objects: []string{poolYAML("a", "10.0.0.0/24", ", namespaceSelector: env == 'prod'"), poolYAML("b", "10.1.0.0/24", "")},
			req: Request{NamespaceLabels: map[string]string{"env": "prod"}}, pools: "a"},
		{name: "namespace selector of another", objects: []string{poolYAML("a", "10.0.0.0/24", ", namespaceSelector: env == 'prod'")},
			req: Request{Owner: api.Owner{Namespace: "dev", Pod: "web"}}, err: ErrNoPool, says: []string{`namespaceSelector env == 'prod' does not match namespace "dev"`, "dev/web on node n1"}},
		{name: "by prefix", objects: []string{poolYAML("a", "10.0.0.0/24", ""), poolYAML("b", "10.1.0.0/24", "")}, req: Request{Pools: []string{"10.1.0.0/24"}}, pools: "b"},
		{name: "named in its order", objects: []string{poolYAML("a", "10.0.0.0/24", ""), poolYAML("b", "10.1.0.0/24", "")}, req: Request{Pools: []string{"b", "a"}}, pools: "b"},
		{name: "one family named", objects: []string{poolYAML("a", "10.0.0.0/24", ""), poolYAML("b", "10.1.0.0/24", ""), poolYAML("v6", "fd00::/64", "")},
			req: Request{V6: true, Pools: []string{"b"}}, pools: "b v6"},
		{name: "named, unknown", objects: []string{poolYAML("a", "10.0.0.0/24", "")}, req: Request{Pools: []string{"x"}}, err: ErrNoPool, says: []string{`named "x"`}},
		{name: "named, disabled", objects: []string{poolYAML("a", "10.0.0.0/24", ", disabled: true")}, req: Request{Pools: []string{"a"}}, err: ErrNoPool, says: []string{"a: it is disabled"}},
		{name: "fixed", objects: []string{poolYAML("a", "10.0.0.0/24", ""), poolYAML("v6", "fd00::/64", "")}, req: Request{Addrs: addrs("fd00::99", "10.0.0.77")}, pools: "v6 a"},
		{name: "fixed, whatever selectors say", objects: []string{poolYAML("a", "10.0.0.0/24", ", nodeSelector: has(x), assignmentMode: Manual")}, req: Request{Addrs: addrs("10.0.0.77")}, pools: "a"},
		{name: "fixed and reserved", objects: []string{poolYAML("a", "10.0.0.0/24", ""), reservation("10.0.0.0/24")}, req: Request{Addrs: addrs("10.0.0.77")}, pools: "a"},
		{name: "fixed, in no pool", objects: []string{poolYAML("a", "10.0.0.0/24", "")}, req: Request{Addrs: addrs("10.0.1.1")}, err: ErrNoPool, says: []string{"10.0.1.1"}},
		{name: "fixed, disabled", objects: []string{poolYAML("a", "10.0.0.0/24", ", disabled: true")}, req: Request{Addrs: addrs("10.0.0.1")}, err: ErrNoPool, says: []string{"disabled"}},
		{name: "all is reserved", objects: []string{poolYAML("a", "10.0.0.0/24", ""), reservation("10.0.0.0/25, 10.0.0.128/25")}, err: ErrFull, says: []string{"pool a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.objects...)
			c.req.Handle = "h"
			c.req.V4 = len(c.req.Addrs) == 0
			r, err := b.node("n1").Assign(t.Context(), c.req)
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			var pools []string
			for i, h := range r.Addrs {
				pools = append(pools, h.Pool)
				if len(c.req.Addrs) > 0 && h.Addr != c.req.Addrs[i] {
					t.Errorf("%s instead of %s", h.Addr, c.req.Addrs[i])
				}
			}
			if got := strings.Join(pools, " "); got != c.pools {
				t.Errorf("of pools %q, want %q", got, c.pools)
			}
		})
	}
}

func TestReservations(t *testing.T) {
	b := newBench(t, poolYAML("a", "10.0.0.0/28", ", blockSize: 30"), reservation("10.0.0.0/29, 10.0.0.9, 10.0.0.12/31"))
	a := b.node("n1")
	want := map[string]bool{"10.0.0.8": true, "10.0.0.10": true, "10.0.0.11": true, "10.0.0.14": true, "10.0.0.15": true}
	for i := range 5 {
		h := b.v4(a, fmt.Sprint("h", i))
		if !want[h.Addr.String()] {
			t.Errorf("%s is given", h.Addr)
		}
		delete(want, h.Addr.String())
	}
	if _, err := a.Assign(t.Context(), Request{Handle: "x", V4: true}); !errors.Is(err, ErrFull) {
		t.Errorf("when only reserved ones are left: %v", err)
	}
	u, err := a.Show(t.Context())
	if err != nil || u.Pools[0].Reserved != 11 || u.Pools[0].Free != 0 || u.Pools[0].Used != 5 || u.Pools[0].Blocks != 2 {
		t.Errorf("usage %+v, %v", u.Pools, err)
	}
	b.assign(a, Request{Handle: "router", Addrs: addrs("10.0.0.9")})
}

func TestBorrowing(t *testing.T) {
	b := newBench(t, poolYAML("a", "10.0.0.0/30", ", blockSize: 31"))
	n1, n2, n3 := b.node("n1"), b.node("n2"), b.node("n3")
	b.v4(n1, "a0")
	b.v4(n2, "b0")
	c0, c1 := b.v4(n3, "c0"), b.v4(n3, "c1")
	if c0.Block == c1.Block {
		t.Errorf("%s and %s are of one block: whose is full?", c0.Addr, c1.Addr)
	}
	if _, err := n3.Assign(t.Context(), Request{Handle: "c2", V4: true}); !errors.Is(err, ErrFull) {
		t.Errorf("with all given: %v", err)
	}
	u, err := n1.Show(t.Context())
	if err != nil || u.Blocks[0].Borrowed != 1 || u.Blocks[1].Borrowed != 1 {
		t.Errorf("usage %+v, %v", u.Blocks, err)
	}
	for _, o := range list1[*api.IPAMBlock](b, "IPAMBlock") {
		for addr, owner := range o.Owners() {
			if (addr == c0.Addr || addr == c1.Addr) != (owner.Node == "n3") {
				t.Errorf("%s is used on %s", addr, owner.Node)
			}
		}
	}
	// n1 does not know yet what became of its block.
	b.release(n1, "a0", ReleaseOptions{})
	b.v4(n1, "a1")
	if _, err := n1.Assign(t.Context(), Request{Handle: "a2", V4: true}); !errors.Is(err, ErrFull) {
		t.Errorf("an address that n3 borrowed: %v", err)
	}
	b.release(n3, "c0", ReleaseOptions{})
	b.release(n3, "c1", ReleaseOptions{})
	if h := list1[*api.IPAMHandle](b, "IPAMHandle"); len(h) > 0 {
		t.Errorf("records are left: %+v", h)
	}
}

func TestStrictAffinity(t *testing.T) {
	b := newBench(t, poolYAML("a", "10.0.0.0/30", ", blockSize: 31"), config("strictAffinity: true, maxBlocksPerHost: 1"))
	n1, n2, n3 := b.node("n1"), b.node("n2"), b.node("n3")
	a0 := b.v4(n1, "a0")
	b.v4(n1, "a1")
	for _, c := range []struct {
		node *Allocator
		req  Request
		err  error
		says string
	}{
		{n1, Request{V4: true}, ErrFull, "has 1 blocks, maxBlocksPerHost"},
		{n2, Request{Addrs: []netip.Addr{a0.Addr}}, ErrTaken, "strictAffinity"},
		{n1, Request{Addrs: []netip.Addr{nth(netip.MustParsePrefix("10.0.0.0/30"), ordinal(netip.MustParsePrefix("10.0.0.0/30"), a0.Addr)^2)}},
			ErrFull, "nobody's, but the node has 1 blocks, maxBlocksPerHost"},
	} {
		c.req.Handle = "x"
		if _, err := c.node.Assign(t.Context(), c.req); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.req, err, c.says)
		}
	}
	b.v4(n2, "b0")
	if _, err := n3.Assign(t.Context(), Request{Handle: "c0", V4: true}); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "strictAffinity") {
		t.Errorf("without a block for it: %v", err)
	}
	b.apply(config("strictAffinity: true, autoAllocateBlocks: false"))
	if _, err := n3.Assign(t.Context(), Request{Handle: "c0", V4: true}); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "autoAllocateBlocks") {
		t.Errorf("without taking blocks: %v", err)
	}
	b.v4(n2, "b1") // its block has room
}

func TestReclaim(t *testing.T) {
	for _, oneByOne := range []bool{false, true} {
		b := newBench(t, poolYAML("a", "10.0.0.0/30", ", blockSize: 31"), config("strictAffinity: true"))
		nodes := map[string]*Allocator{}
		for _, n := range []string{"n1", "n2", "n3"} {
			nodes[n] = b.node(n)
			nodes[n].oneByOne = oneByOne
		}
		h := b.v4(nodes["n1"], "a")
		b.v4(nodes["n2"], "b")
		b.release(nodes["n1"], "a", ReleaseOptions{})
		b.now = b.now.Add(MinReclaimAge - time.Second)
		if _, err := nodes["n3"].Assign(t.Context(), Request{Handle: "c", V4: true}); !errors.Is(err, ErrFull) {
			t.Errorf("the block is not a minute old: %v", err)
		}
		b.now = b.now.Add(surveyAge)
		if got := b.v4(nodes["n3"], "c"); got.Block != h.Block {
			t.Errorf("of block %s, not of %s, which is empty", got.Block, h.Block)
		}
		if _, err := nodes["n1"].Assign(t.Context(), Request{Handle: "a", V4: true}); !errors.Is(err, ErrFull) {
			t.Errorf("who has lost his block, without knowing it, allocates: %v", err)
		}
		b.release(nodes["n2"], "b", ReleaseOptions{})
		b.now = b.now.Add(2 * MinReclaimAge)
		b.v4(nodes["n1"], "a")
		if n := len(list1[*api.BlockAffinity](b, "BlockAffinity")); n != 2 {
			t.Errorf("%d affinities, want 2", n)
		}
	}
}

func TestFixedAddressTaken(t *testing.T) {
	b := newBench(t, poolYAML("a", "10.0.0.0/24", ""))
	n1, n2 := b.node("n1"), b.node("n2")
	b.assign(n1, Request{Handle: "h1", Addrs: addrs("10.0.0.5"), Owner: api.Owner{Namespace: "prod", Pod: "db-0"}})
	for _, n := range []*Allocator{n1, n2} {
		_, err := n.Assign(t.Context(), Request{Handle: "h2", Addrs: addrs("10.0.0.5")})
		if !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "address 10.0.0.5 is taken by prod/db-0 on node n1") {
			t.Errorf("on %s: %v", n.node, err)
		}
	}
	// An address that is free in another node's block is borrowed.
	if r := b.assign(n2, Request{Handle: "h2", Addrs: addrs("10.0.0.6")}); r.Addrs[0].Block != blockOf(r.Addrs[0].Addr, 26) {
		t.Errorf("%+v", r)
	}
	if got := b.release(n2, "h2", ReleaseOptions{}); len(got) != 1 {
		t.Errorf("released %v", got)
	}
	if r := b.assign(n2, Request{Handle: "h3", Addrs: addrs("10.0.0.5", "10.0.0.200")[1:]}); r.Addrs[0].Addr.String() != "10.0.0.200" {
		t.Errorf("%+v", r)
	}
	if got, err := n2.ReleaseAddrs(t.Context(), addrs("10.0.0.5", "10.0.0.7", "10.0.0.200")...); err != nil || len(got) != 2 {
		t.Errorf("by an operator: %v, %v", got, err)
	}
	b.assign(n2, Request{Handle: "h2", Addrs: addrs("10.0.0.5")})
}

func TestVirtual(t *testing.T) {
	b := newBench(t, poolYAML("lb", "10.0.0.0/24", ", allowedUses: [LoadBalancer]"), poolYAML("w", "10.1.0.0/24", ""))
	lb := New(Config{Store: b.store, Node: "load-balancer", Virtual: true, Clock: func() time.Time { return b.now }})
	b.assign(lb, Request{Handle: "lb-1", V4: true, Use: UseLoadBalancer})
	affinities := list1[*api.BlockAffinity](b, "BlockAffinity")
	if len(affinities) != 1 || affinities[0].Spec.Type != "virtual" || list1[*api.IPAMBlock](b, "IPAMBlock")[0].Spec.Affinity != "virtual:load-balancer" {
		t.Errorf("affinities %+v", affinities)
	}
	lb = New(Config{Store: b.store, Node: "load-balancer", Virtual: true, Clock: func() time.Time { return b.now }})
	if got := b.release(lb, "lb-1", ReleaseOptions{}); len(got) != 1 {
		t.Errorf("released %v", got)
	}
}

// TestFixedAddressGivenBack: by somebody else, while this node remembers who had it.
func TestFixedAddressGivenBack(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/24", ""))
	n1, controllers := b.node("n1"), b.node("controllers")
	had := b.v4(n1, "gone")
	b.v4(n1, "stays")
	if got, err := controllers.ReleaseAddrs(t.Context(), had.Addr); err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	got, err := n1.Assign(t.Context(), Request{Handle: "new", Addrs: []netip.Addr{had.Addr}})
	if err != nil || len(got.Addrs) != 1 || got.Addrs[0].Addr != had.Addr {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := n1.Assign(t.Context(), Request{Handle: "late", Addrs: []netip.Addr{had.Addr}}); !errors.Is(err, ErrTaken) {
		t.Errorf("it is taken now: %v", err)
	}
}
