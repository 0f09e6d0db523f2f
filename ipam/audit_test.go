package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
)

func (b *bench) audit(a *Allocator) Report {
	b.t.Helper()
	r, err := a.Audit(b.t.Context(), AuditOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) collect(a *Allocator) Collected {
	b.t.Helper()
	done, err := a.Collect(b.t.Context(), CollectOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

// raw writes an object past the allocator.
func (b *bench) raw(o api.Object) {
	b.t.Helper()
	if _, err := b.store.Create(b.t.Context(), o); err != nil {
		b.t.Fatal(err)
	}
}

func TestLeaks(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), poolYAML("v6", "fd00::/64", ""))
	a := b.node("n1")
	b.assign(a, attach("alive"))
	leak := b.assign(a, Request{Handle: "dead", V4: true, V6: true, Owner: api.Owner{Namespace: "prod", Pod: "dead"}})
	tunnel := b.assign(a, Request{Handle: "vxlan-tunnel-addr-n1", V4: true, Use: UseTunnel, Owner: api.Owner{Type: "vxlanTunnelAddress"}})
	b.apply(fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}, spec: {ipv4VXLANTunnelAddr: %s}}", tunnel.Addrs[0].Addr))
	// Half of what this one has is used: he is alive.
	half := b.assign(a, Request{Handle: "half", V4: true, V6: true})
	b.raw(endpoint("half", Result{Addrs: half.Addrs[:1]}))

	r := b.audit(a)
	if r.Blocks != 2 || r.Allocated != 7 || len(r.Missing)+len(r.Double)+len(r.Objects) > 0 {
		t.Errorf("audit %+v", r)
	}
	var leaked []netip.Addr
	for _, l := range r.Leaked {
		leaked = append(leaked, l.Addr)
		if l.Handle != "dead" || l.Owner.Pod != "dead" || l.Owner.Node != "n1" {
			t.Errorf("leaked %+v", l)
		}
	}
	if diff := cmp.Diff([]netip.Addr{leak.Addrs[0].Addr, leak.Addrs[1].Addr}, leaked, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("leaked (-want +got):\n%s", diff)
	}

	cleaner := b.node("cleaner")
	b.collect(cleaner)
	b.now = b.now.Add(DefaultGrace - time.Second)
	if done := b.collect(cleaner); len(done.Released) > 0 {
		t.Errorf("released before the grace is over: %+v", done)
	}
	b.assign(a, Request{Handle: "dead", V4: true, V6: true}) // it lives: tokens are new
	b.now = b.now.Add(2 * time.Second)
	if done := b.collect(cleaner); len(done.Released) > 0 {
		t.Errorf("released what was allocated anew: %+v", done)
	}
	b.now = b.now.Add(DefaultGrace)
	if done := b.collect(cleaner); len(done.Released) != 2 {
		t.Errorf("released %+v, want both addresses", done)
	}
	if r := b.audit(a); len(r.Leaked) > 0 || r.Allocated != 5 {
		t.Errorf("audit %+v", r)
	}
}

// TestConfirm releases only what is confirmed, and asks no more once nobody answers.
func TestConfirm(t *testing.T) {
	errOdd, errAway := errors.New("nobody can ask"), fmt.Errorf("%w: a test says so", datastore.ErrUnavailable)
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), poolYAML("v6", "fd00::/64", ""))
	a := b.node("n1")
	for i := range 6 {
		b.assign(a, Request{Handle: fmt.Sprint("h", i), V4: true, V6: true})
	}
	says := map[string]error{"h1": errOdd, "h4": errAway}
	asked := map[string]int{}
	cleaner := b.node("cleaner")
	collect := func() (Collected, error) {
		clear(asked)
		return cleaner.Collect(t.Context(), CollectOptions{Confirm: func(_ context.Context, l Allocation) (bool, error) {
			asked[l.Handle]++
			if l.Addr.Is4() && l.Handle != "h4" { // the first one of a handle is confirmed before the second one is asked about
				return true, nil
			}
			return says[l.Handle] == nil, says[l.Handle]
		}})
	}
	for range 2 {
		b.now = b.now.Add(DefaultGrace)
		done, err := collect()
		if err == nil {
			continue // too young
		}
		if !errors.Is(err, errAway) || asked["h5"] > 0 {
			t.Errorf("%v, asked %v", err, asked)
		}
		if len(done.Released) > 0 || len(done.Candidates) != 12 {
			t.Errorf("while nobody answers: %+v", done)
		}
	}
	delete(says, "h4")
	done, err := collect()
	if !errors.Is(err, errOdd) || len(done.Released) != 10 || len(done.Candidates) != 2 {
		t.Errorf("%v, %+v", err, done)
	}
	for _, l := range done.Candidates {
		if l.Handle != "h1" {
			t.Errorf("%s of %s is left", l.Addr, l.Handle)
		}
	}
}

// TestMistakesOfMany are told of a few objects.
func TestMistakesOfMany(t *testing.T) {
	var tr trouble
	for i := range 25 {
		tr.note(t.Context(), fmt.Errorf("mistake %d", i))
	}
	if text := tr.err().Error(); !strings.HasSuffix(text, "mistake 9\nand 15 more") || tr.away {
		t.Errorf("%s", text)
	}
	tr.note(t.Context(), datastore.ErrUnavailable)
	if !errors.Is(tr.err(), datastore.ErrUnavailable) || !tr.away {
		t.Errorf("%v", tr.err())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr = trouble{}
	if tr.note(ctx, errors.New("late")); !tr.away {
		t.Error("the work goes on though its time is over")
	}
}

func TestMissingAndDouble(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""))
	a := b.node("n1")
	r := b.assign(a, Request{Handle: "h", V4: true})
	b.raw(endpoint("one", r))
	b.raw(endpoint("two", r))
	held := func(addr string) Result { return Result{Addrs: []Held{{Addr: netip.MustParseAddr(addr)}}} }
	b.raw(endpoint("stranger", held("10.0.0.250")))
	b.raw(endpoint("elsewhere", held("192.0.2.1")))
	over := newBlock(blockOf(r.Addrs[0].Addr, 25))
	over.obj.Spec.Affinity = "host:n2"
	over = over.edit()
	over.take(ordinal(over.prefix, r.Addrs[0].Addr), "other", api.Owner{})
	b.raw(over.obj)

	got := b.audit(a)
	want := []Double{
		{r.Addrs[0].Addr, []string{r.Addrs[0].Block.String(), over.prefix.String()}},
		{r.Addrs[0].Addr, []string{"WorkloadEndpoint/prod/one", "WorkloadEndpoint/prod/two"}},
	}
	for i := range got.Double {
		slices.Sort(got.Double[i].By)
		slices.Sort(want[i].By)
	}
	addr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, got.Double, addr); diff != "" {
		t.Errorf("double (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Use{{netip.MustParseAddr("10.0.0.250"), "WorkloadEndpoint/prod/stranger"}}, got.Missing, addr); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	if len(got.Objects) != 2 { // no affinity, and the overlap
		t.Errorf("objects %+v", got.Objects)
	}
}

// TestAddressesOfOthers: nobody misses addresses that another program gives, in pools that give none.
func TestAddressesOfOthers(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), poolYAML("closed", "10.1.0.0/24", ", disabled: true"), poolYAML("tunnels", "10.2.0.0/24", ", allowedUses: [Tunnel]"))
	a := b.node("n1")
	block := newBlock(netip.MustParsePrefix("10.1.0.0/26")) // of before the pool was disabled
	block.obj.Spec.Affinity = "host:n1"
	b.raw(block.obj)
	for name, addr := range map[string]string{"open": "10.0.0.9", "closed": "10.1.0.9", "outside": "10.1.0.99", "tunnel": "10.2.0.9"} {
		b.raw(endpoint(name, Result{Addrs: []Held{{Addr: netip.MustParseAddr(addr)}}}))
	}
	var got []string
	for _, m := range b.audit(a).Missing {
		got = append(got, m.By)
	}
	if diff := cmp.Diff([]string{"WorkloadEndpoint/prod/open", "WorkloadEndpoint/prod/closed"}, got); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

// TestRubble cleans up what crashes can leave, each piece by itself.
func TestRubble(t *testing.T) {
	affinity := func(node, cidr, state string) *api.BlockAffinity {
		p := netip.MustParsePrefix(cidr)
		o := &api.BlockAffinity{Spec: api.BlockAffinitySpec{State: state, Node: node, CIDR: cidr}}
		o.Name = affinityName(node, p)
		return o
	}
	withBlock := func(cidr, affinity string, used bool) *api.IPAMBlock {
		bl := newBlock(netip.MustParsePrefix(cidr)).edit()
		bl.obj.Spec.Affinity = affinity
		if used {
			bl.take(3, "h", api.Owner{Node: "n1"})
		}
		return bl.obj
	}
	handle := &api.IPAMHandle{Spec: api.IPAMHandleSpec{HandleID: "h", Block: map[string]int{"10.0.0.0/26": 1}}}
	handle.Name = "h"
	const cidr = "10.0.0.0/26"
	for _, c := range []struct {
		name    string
		objects []api.Object
		blocks  int    // that are left
		state   string // of the affinity that is left, "" = none is
		handles int
	}{
		{"asked for, no more", []api.Object{affinity("n1", cidr, statePending)}, 0, "", 0},
		{"asked for, with a block", []api.Object{affinity("n1", cidr, statePending), withBlock(cidr, "", false)}, 0, "", 0},
		{"taken, not confirmed", []api.Object{affinity("n1", cidr, statePending), withBlock(cidr, "host:n1", true)}, 1, stateConfirmed, 0},
		{"asked for, but another was faster", []api.Object{affinity("n1", cidr, statePending), withBlock(cidr, "host:n2", true), affinity("n2", cidr, stateConfirmed)}, 1, stateConfirmed, 0},
		{"to be removed", []api.Object{affinity("n1", cidr, stateDeletion), withBlock(cidr, "host:n1", false)}, 0, "", 0},
		{"to be removed, but in use again", []api.Object{affinity("n1", cidr, stateDeletion), withBlock(cidr, "host:n1", true)}, 1, stateConfirmed, 0},
		{"removed, but for the affinity", []api.Object{affinity("n1", cidr, stateDeletion)}, 0, "", 0},
		{"confirmed, without a block", []api.Object{affinity("n1", cidr, stateConfirmed)}, 0, "", 0},
		{"block without affinity, in use", []api.Object{withBlock(cidr, "host:n1", true)}, 1, stateConfirmed, 0},
		{"block without affinity, empty", []api.Object{withBlock(cidr, "host:n1", false)}, 0, "", 0},
		{"nobody's, empty", []api.Object{withBlock(cidr, "", false)}, 0, "", 0},
		{"nobody's, in use", []api.Object{withBlock(cidr, "", true)}, 1, "", 0},
		{"in no pool, empty", []api.Object{withBlock("10.9.0.0/26", "host:n1", false), affinity("n1", "10.9.0.0/26", stateConfirmed)}, 0, "", 0},
		{"of a node that is gone", []api.Object{withBlock(cidr, "host:n9", false), affinity("n9", cidr, stateConfirmed)}, 0, "", 0},
		{"of a node that is gone, in use", []api.Object{withBlock(cidr, "host:n9", true), affinity("n9", cidr, stateConfirmed)}, 1, stateConfirmed, 0},
		{"empty, of a node that lives", []api.Object{withBlock(cidr, "host:n1", false), affinity("n1", cidr, stateConfirmed)}, 1, stateConfirmed, 0},
		{"record of nothing", []api.Object{handle}, 0, "", 0},
		{"record", []api.Object{handle, withBlock(cidr, "host:n2", true), affinity("n2", cidr, stateConfirmed)}, 1, stateConfirmed, 1},
	} {
		for _, oneByOne := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/oneByOne=%v", c.name, oneByOne), func(t *testing.T) {
				b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", ""), nodeYAML("n2", ""))
				for _, o := range c.objects {
					b.raw(o)
				}
				b.raw(endpoint("user", Result{Addrs: []Held{{Addr: netip.MustParseAddr("10.0.0.3")}}}))
				cleaner := b.node("n2")
				cleaner.oneByOne = oneByOne
				b.collect(cleaner)
				if n := b.store.since(func() { b.collect(cleaner) }); n > 0 {
					t.Errorf("%d writes before the grace is over", n)
				}
				for range 3 {
					b.now = b.now.Add(DefaultGrace + time.Second)
					b.collect(cleaner)
				}
				blocks, affinities := list1[*api.IPAMBlock](b, "IPAMBlock"), list1[*api.BlockAffinity](b, "BlockAffinity")
				state := ""
				if len(affinities) == 1 {
					state = affinities[0].Spec.State
				}
				if len(blocks) != c.blocks || len(affinities) > 1 || state != c.state {
					t.Errorf("%d blocks and affinities %+v are left", len(blocks), affinities)
				}
				if got := list1[*api.IPAMHandle](b, "IPAMHandle"); len(got) != c.handles {
					t.Errorf("records %+v are left", got)
				}
			})
		}
	}
}

func TestTidy(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/28", ", blockSize: 31"))
	a := b.node("n1")
	for i := range 6 {
		b.v4(a, fmt.Sprint("h", i))
	}
	for i := range 5 {
		b.release(a, fmt.Sprint("h", i), ReleaseOptions{})
	}
	tidy := func() int {
		if err := a.Tidy(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		return len(list1[*api.IPAMBlock](b, "IPAMBlock"))
	}
	if n := tidy(); n != 3 {
		t.Errorf("%d blocks at first sight", n)
	}
	b.now = b.now.Add(time.Minute)
	if n := tidy(); n != 1 {
		t.Errorf("%d blocks are left, want that in use", n)
	}
	b.release(a, "h5", ReleaseOptions{})
	for range 3 {
		b.now = b.now.Add(time.Minute)
		if n := tidy(); n != 1 {
			t.Errorf("%d blocks, want the last one to stay", n)
		}
	}
	b.v4(a, "again")
}

func TestShow(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""), poolYAML("v6", "fd00::/48", ""))
	a := b.node("n1")
	b.assign(a, Request{Handle: "h", V4: true, V6: true})
	b.raw(newBlock(netip.MustParsePrefix("10.9.0.0/26")).obj)
	u, err := a.Show(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := u.Pools[0]; p.Size != 256 || p.Used != 1 || p.Free != 255 || p.Blocks != 1 {
		t.Errorf("v4: %+v", p)
	}
	if p := u.Pools[1]; p.Size != 0x1p80 || p.Used != 1 || p.Blocks != 1 {
		t.Errorf("v6: %+v", p)
	}
	if len(u.Blocks) != 3 || u.Blocks[1].Pool != "" || u.Blocks[0].Affinity != "host:n1" || u.Blocks[0].Free != 63 {
		t.Errorf("blocks %+v", u.Blocks)
	}
}

func TestConfigure(t *testing.T) {
	b := newBench(t)
	a := b.node("n1")
	set := func(change func(*api.IPAMConfigurationSpec)) (api.IPAMConfigurationSpec, error) {
		return a.Configure(t.Context(), change)
	}
	got, err := set(func(s *api.IPAMConfigurationSpec) { s.StrictAffinity = true })
	if err != nil || !got.StrictAffinity || !*got.AutoAllocateBlocks {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = set(func(s *api.IPAMConfigurationSpec) { s.MaxBlocksPerHost = 3 }); err != nil || !got.StrictAffinity || got.MaxBlocksPerHost != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	for name, change := range map[string]func(*api.IPAMConfigurationSpec){
		"a limit without strict affinity":       func(s *api.IPAMConfigurationSpec) { s.StrictAffinity = false },
		"long cooldown":                         func(s *api.IPAMConfigurationSpec) { s.IPCooldownSeconds = 1201 },
		"no blocks, and none of others' either": func(s *api.IPAMConfigurationSpec) { *s = api.IPAMConfigurationSpec{AutoAllocateBlocks: new(bool)} },
	} {
		if got, err := set(change); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestUnreadable has things in the store that can't be understood: nobody guesses.
func TestUnreadable(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""))
	m := b.store.Store.(*mem.Store)
	a := b.node("n1")
	h := b.v4(a, "h")
	m.SetRaw(api.Key{Kind: "IPAMBlock", Name: blockName(h.Block)}, []byte(`{"spec":{"cidr":"`+h.Block.String()+`","allocations":"all"}}`))
	if r, err := a.Audit(t.Context(), AuditOptions{}); err != nil || len(r.Objects) == 0 {
		t.Errorf("audit %+v, %v", r, err)
	}
	other, err := a.Assign(t.Context(), Request{Handle: "h2", V4: true})
	if err != nil || other.Addrs[0].Block == h.Block {
		t.Errorf("with a block that can't be read: %+v, %v", other, err)
	}
	m.SetRaw(api.Key{Kind: "IPReservation", Name: "r"}, []byte(`{"spec":{"reservedCIDRs":"all"}}`))
	if _, err := a.Assign(t.Context(), Request{Handle: "h3", V4: true}); !errors.Is(err, datastore.ErrUnreadable) {
		t.Errorf("with a reservation that can't be read: %v", err)
	}
	// That an address is another one's is certain all the same.
	nobodys := netip.MustParsePrefix("10.0.0.0/26")
	for nobodys == h.Block || nobodys == other.Addrs[0].Block {
		nobodys = netip.PrefixFrom(nth(nobodys, 64), 26)
	}
	for addr, want := range map[netip.Addr]error{
		other.Addrs[0].Addr:        ErrTaken,
		other.Addrs[0].Addr.Next(): datastore.ErrUnreadable, // free, in the same block
		nobodys.Addr():             datastore.ErrUnreadable,
	} {
		if _, err := a.Assign(t.Context(), Request{Handle: "h3", Addrs: []netip.Addr{addr}}); !errors.Is(err, want) {
			t.Errorf("%s with a reservation that can't be read: %v", addr, err)
		}
	}
	if o, err := m.Get(t.Context(), api.Key{Kind: "IPAMBlock", Name: blockName(nobodys)}); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("a block was claimed: %v, %v", o, err)
	}
	if got := b.release(a, "h2", ReleaseOptions{}); len(got) != 1 {
		t.Errorf("released %v", got)
	}
}

func TestCancelled(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/25", ""))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.node("n1").Assign(ctx, Request{Handle: "h", V4: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
