package linux

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// sh runs a command inside ns.
func sh(t testing.TB, ns *netns.Ns, command string) {
	t.Helper()
	var out []byte
	err := ns.Do(func() (err error) {
		out, err = exec.Command("sh", "-c", command).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func apply(t testing.TB, d *Driver, s *drivers.State, ch *drivers.Changes) {
	t.Helper()
	if err := d.Apply(context.Background(), s, ch); err != nil {
		t.Fatal(err)
	}
}

// TestTampered damages the tables in every way that comes to mind; a resync mends each, and writes no more than it must.
func TestTampered(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	d := openDriver(t, ns, nil)
	s := smallState()
	apply(t, d, s, nil)
	whole := d.Writes()
	want := nftDump(t, ns)
	policy := policyChain(np("web"), true, stylePlain).Name
	wide := strings.Fields(d.comp.sets["s:wide"].face)[1]
	hash := strings.Fields(d.comp.sets["s:hash"].face)[1]
	for _, damage := range []struct {
		command string
		writes  int
	}{
		{"nft delete table inet tortie", whole},
		{"nft delete table arp tortie", 30},
		{"nft flush table inet tortie", whole},
		{"nft flush chain inet tortie " + policy, 20},
		{"nft add rule inet tortie " + policy + " accept", 20},
		{"nft insert rule inet tortie forward-from accept", 20},
		{"nft add chain inet tortie extra; nft add rule inet tortie extra drop", 2},
		{"nft add set inet tortie extra '{ type ipv4_addr; }'", 2},
		{"nft add element inet tortie " + hash + " '{ 9.9.9.9 }'", 1},
		{"nft delete element inet tortie " + hash + " '{ 10.65.0.1 }'", 1},
		{"nft flush set inet tortie " + hash, 1},
		{"nft add element inet tortie " + wide + " '{ 192.168.0.0/16, 11.0.0.1 }'", 1},
		{"nft delete element inet tortie " + wide + " '{ 10.0.0.0/8 }'; nft add element inet tortie " + wide + " '{ 10.0.0.0/16 }'", 2},
		{"nft flush map inet tortie egress", 1},
		{"nft delete element inet tortie source '{ \"torta\" }'; nft add element inet tortie source '{ \"torta\" : accept }'", 2},
		{"nft chain inet tortie forward-from '{ policy drop; }'", whole},
		{"nft add table inet tortie '{ flags dormant; }'", whole},
		{"nft add table ip other; nft delete rule inet tortie forward-from handle $(nft -a list chain inet tortie forward-from | " +
			"sed -n 's/.*hairpin.*handle //p'); nft delete table ip other", 20},
	} {
		before := d.Writes()
		sh(t, ns, damage.command)
		if cmp.Diff(want, nftDump(t, ns)) == "" {
			t.Fatalf("%s: no damage", damage.command)
		}
		apply(t, d, s, nil)
		if diff := cmp.Diff(want, nftDump(t, ns)); diff != "" {
			t.Fatalf("%s: not mended: %s", damage.command, diff)
		}
		if n := d.Writes() - before; n > damage.writes+3 {
			t.Errorf("%s: mended by %d writes, want at most %d", damage.command, n, damage.writes)
		}
		apply(t, d, s, nil)
	}
}

// TestTableGone: a small change meets tables that somebody has deleted, and brings all of them back.
func TestTableGone(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	d := openDriver(t, ns, nil)
	s := smallState()
	apply(t, d, s, nil)
	sh(t, ns, "nft delete table inet tortie")
	ch := drivers.NewChanges()
	m := drivers.AddrMember(addr("10.65.0.7"))
	s.Sets["s:hash"] = s.Sets["s:hash"].With([]drivers.Member{m}, nil)
	ch.Sets["s:hash"] = &drivers.SetChange{Added: map[drivers.Member]struct{}{m: {}}}
	apply(t, d, s, ch)
	other := netnstest.New(t)
	apply(t, openDriver(t, other, nil), s, nil)
	if diff := cmp.Diff(nftDump(t, other), nftDump(t, ns)); diff != "" {
		t.Error(diff)
	}
}

// TestKick: what others do to our tables is heard, what they do to theirs and what we do is not.
func TestKick(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	kicks := make(chan struct{}, 100)
	d := openDriver(t, ns, func(o *Options) { o.Kick = func() { kicks <- struct{}{} } })
	s := smallState()
	apply(t, d, s, nil)
	sh(t, ns, "nft add table inet other; nft add chain inet other c")
	s.Node.AllowEncapFromWorkloads = true
	ch := drivers.NewChanges()
	ch.Node = true
	apply(t, d, s, ch)
	for _, command := range []string{
		"nft insert rule inet tortie forward-from accept", "nft delete table arp tortie",
		"nft add element inet tortie workloads '{ \"x\" }'",
	} {
		for len(kicks) > 0 { // of the last command
			<-kicks
		}
		// An event of the past would be in the queue ahead of this one's.
		sh(t, ns, "nft add chain inet other c; "+command)
		select {
		case <-kicks:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: not heard", command)
		}
	}
	for len(kicks) > 0 {
		<-kicks
	}
	// Events come in order: once the last one is heard, those before it would have been.
	s.Node.AllowEncapFromWorkloads = false
	apply(t, d, s, nil)
	sh(t, ns, "nft add table inet another; nft add element inet tortie workloads '{ \"y\" }'")
	select {
	case <-kicks:
	case <-time.After(10 * time.Second):
		t.Fatal("not heard")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if len(kicks) > 0 {
		t.Errorf("%d kicks too many: for what is ours, or nobody's business", len(kicks))
	}
}

// TestWalk follows a random walk with hints on the kernel, and compares with what a driver makes that comes fresh to it,
// from time to time. A resync after each step must find nothing to do.
func TestWalk(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		ns := netnstest.New(t)
		merge := func(o *Options) {
			if seed%2 == 1 {
				o.limits = mergeAll()
			}
		}
		d := openDriver(t, ns, merge)
		w := newWalker(seed + 100)
		w.plain = seed == 3
		w.noTunnels = true
		apply(t, d, w.s, nil)
		for i := range 60 {
			w.step()
			if err := d.Apply(context.Background(), w.s, w.ch); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
			before := d.Writes()
			if err := d.Apply(context.Background(), w.s, nil); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
			if n := d.Writes() - before; n != 0 {
				t.Fatalf("seed %d, step %d: the resync wrote %d objects", seed, i, n)
			}
			if i%20 != 19 {
				continue
			}
			fresh := netnstest.New(t)
			apply(t, openDriver(t, fresh, merge), w.s, nil)
			if diff := cmp.Diff(nftDump(t, fresh), nftDump(t, ns)); diff != "" {
				t.Fatalf("seed %d, step %d ('-' fresh): %s", seed, i, diff)
			}
		}
	}
}

// TestIntervals walks one set through prefixes that lie within each other, in every order of coming and going.
func TestIntervals(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	d := openDriver(t, ns, nil)
	w := newWalker(7)
	pool := []netip.Prefix{
		prefix("0.0.0.0/0"), prefix("10.0.0.0/8"), prefix("10.0.0.0/9"), prefix("10.128.0.0/9"), prefix("10.1.0.0/16"),
		prefix("10.1.2.0/24"), prefix("10.1.2.3/32"), prefix("10.1.2.4/32"), prefix("11.0.0.0/8"), prefix("255.255.255.255/32"),
		prefix("224.0.0.0/3"), prefix("0.0.0.0/32"), prefix("::/0"), prefix("fd00::/8"), prefix("fd00::/16"), prefix("fd01::/16"),
		prefix("ffff::/16"), prefix("::/128"), prefix("fd00::1/128"),
	}
	w.s.Policies[np("w0")] = &drivers.Policy{ID: np("w0"), In: []drivers.Rule{{Match: drivers.Match{Src: drivers.Side{Sets: []drivers.SetID{w.set(0)}}}}}}
	for id, e := range w.s.Endpoints {
		c := *e
		c.Policy.Normal.In = &drivers.TierList{Tiers: []drivers.TierPolicies{{Policies: []drivers.PolicyID{np("w0")}}}}
		w.s.Endpoints[id] = &c
	}
	w.s.Sets[w.set(0)] = drivers.NewSet(drivers.SetNet)
	apply(t, d, w.s, nil)
	for i := range 200 {
		var ms []drivers.Member
		for _, p := range pool {
			if w.rng.IntN(3) == 0 {
				ms = append(ms, drivers.NetMember(p))
			}
		}
		w.ch = drivers.NewChanges()
		w.changeSet(w.set(0), drivers.NewSet(drivers.SetNet, ms...))
		apply(t, d, w.s, w.ch)
		before := d.Writes()
		apply(t, d, w.s, nil)
		if n := d.Writes() - before; n != 0 {
			t.Fatalf("step %d: the resync wrote %d objects", i, n)
		}
	}
}

// stubborn is a kernel that refuses transactions with some objects in them, and does not say for which.
type stubborn struct {
	kernel
	bad  map[drivers.ObjectRef]bool
	last error

	dry, commits, reads int
}

func (k *stubborn) read(want *Program) (*tables, error) {
	k.reads++
	return k.kernel.read(want)
}

func (k *stubborn) commit(ops []op, dry bool) error {
	if dry {
		k.dry++
	} else {
		k.commits++
	}
	for i := range ops {
		if k.bad[ops[i].owner()] {
			k.last = unix.EINVAL
			return &refusedOps{err: unix.EINVAL}
		}
	}
	return k.kernel.commit(ops, dry)
}

// ownLists gives each endpoint of a scaleState a list of its own, of one policy.
func ownLists(s *drivers.State) *drivers.State {
	for id, e := range s.Endpoints {
		c := *e
		l := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{np("p" + id.Sandbox)}}}}
		c.Policy.Normal = drivers.Directions{In: l, Out: l}
		s.Endpoints[id] = &c
	}
	return s
}

// TestBisect refuses two objects of a hundred without saying which.
func TestBisect(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	now := time.Unix(1e9, 0)
	d := openDriver(t, ns, func(o *Options) { o.Clock = func() time.Time { return now } })
	s := ownLists(scaleState(100, 100, 1, true))
	bad := []drivers.ObjectRef{
		{Kind: drivers.ObjPolicy, Policy: np("p17")}, {Kind: drivers.ObjSet, Set: "s:60"},
	}
	k := &stubborn{kernel: d.kernel, bad: map[drivers.ObjectRef]bool{bad[0]: true, bad[1]: true}}
	d.kernel = k
	ctx := context.Background()
	var partly *drivers.ApplyError
	if err := d.Apply(ctx, s, nil); !errors.As(err, &partly) || len(partly.Failed) != 2 || partly.Failed[bad[0]] == nil || partly.Failed[bad[1]] == nil {
		t.Fatalf("got %v", err)
	}
	suspects := 100 + 200 + 100 // policies, sets of both families (one object each), endpoints
	if limit := 2 * (int(math.Ceil(math.Log2(float64(suspects)))) + 2); k.dry > limit {
		t.Errorf("%d tries, want at most %d", k.dry, limit)
	}
	dump := nftDump(t, ns)
	for name, want := range map[string]int{"tort" + fmt.Sprintf("%011x", 17): 1, "tort" + fmt.Sprintf("%011x", 60): 1, "tort" + fmt.Sprintf("%011x", 18): 0} {
		if got := strings.Count(dump, `"`+name+`" : jump l-egress-out-`+hashName("degraded", string(stylePlain), fmt.Sprint(false, noFailsafes))); got != want {
			t.Errorf("%s is on %d stand-ins, want %d", name, got, want)
		}
	}
	// Other changes go through, and the search is not repeated.
	k.dry = 0
	ch := drivers.NewChanges()
	p := scalePolicy(3, 999)
	s.Policies[p.ID], ch.Policies[p.ID] = p, struct{}{}
	if err := d.Apply(ctx, s, ch); !errors.As(err, &partly) || len(partly.Failed) != 2 || k.dry != 0 {
		t.Fatalf("%d tries, error %v", k.dry, err)
	}
	// It is tried again when its time has come, and when it changes.
	now = now.Add(firstQuarantine)
	if err := d.Apply(ctx, s, drivers.NewChanges()); !errors.As(err, &partly) || len(partly.Failed) != 2 || k.dry == 0 {
		t.Fatalf("%d tries, error %v", k.dry, err)
	}
	k.bad = nil
	p = scalePolicy(17, 999)
	ch = drivers.NewChanges()
	s.Policies[p.ID], ch.Policies[p.ID] = p, struct{}{}
	if err := d.Apply(ctx, s, ch); !errors.As(err, &partly) || len(partly.Failed) != 1 || partly.Failed[bad[1]] == nil {
		t.Fatalf("got %v", err)
	}
	now = now.Add(maxQuarantine)
	apply(t, d, s, drivers.NewChanges())
	fresh := netnstest.New(t)
	apply(t, openDriver(t, fresh, nil), s, nil)
	if diff := cmp.Diff(nftDump(t, fresh), nftDump(t, ns)); diff != "" {
		t.Errorf("after all is well again: %s", diff)
	}
}

// TestQuarantine: beside objects that stay refused, and that the hints name for as long as they are, each of fifty changes
// is one transaction. Nothing is searched for or read back, until a refused object gets another value.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	now := time.Unix(1e9, 0)
	d := openDriver(t, ns, func(o *Options) { o.Clock = func() time.Time { return now } })
	s := ownLists(scaleState(20, 20, 1, false))
	bad := map[drivers.ObjectRef]bool{{Kind: drivers.ObjPolicy, Policy: np("p7")}: true, {Kind: drivers.ObjSet, Set: "s:8"}: true}
	k := &stubborn{kernel: d.kernel, bad: bad}
	d.kernel = k
	ch := drivers.NewChanges() // as the owner keeps it: what has changed, and what has failed with all that needs it
	for _, n := range []string{"2", "7", "8"} {
		ch.Endpoints[drivers.EndpointID{Sandbox: n, Interface: "eth0"}] = struct{}{}
	}
	ch.Policies[np("p7")], ch.Policies[np("p8")] = struct{}{}, struct{}{}
	ch.Sets["s:8"] = &drivers.SetChange{Full: true}
	mustFail := func(ch *drivers.Changes) {
		t.Helper()
		var partly *drivers.ApplyError
		if err := d.Apply(ctx, s, ch); !errors.As(err, &partly) || len(partly.Failed) != len(bad) {
			t.Fatalf("got %v", err)
		}
	}
	mustFail(nil)
	k.dry, k.commits, k.reads = 0, 0, 0
	for i := range 50 {
		e := *s.Endpoints[drivers.EndpointID{Sandbox: "2", Interface: "eth0"}]
		e.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 65, 0, byte(i)})}
		s.Endpoints[e.ID] = &e
		mustFail(ch)
	}
	if k.dry != 0 || k.commits != 50 || k.reads != 0 {
		t.Errorf("50 changes took %d trials, %d transactions and %d readings of the tables", k.dry, k.commits, k.reads)
	}
	// Another value is tried at once, and refused as well; and then one that is taken.
	p := scalePolicy(7, 1234)
	s.Policies[p.ID] = p
	if mustFail(ch); k.dry == 0 {
		t.Error("a policy with another value was not tried")
	}
	delete(bad, drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: p.ID})
	s.Policies[p.ID] = scalePolicy(7, 1235)
	mustFail(ch)
	delete(bad, drivers.ObjectRef{Kind: drivers.ObjSet, Set: "s:8"})
	s.Sets["s:8"] = s.Sets["s:8"].With([]drivers.Member{drivers.AddrMember(addr("10.9.9.9"))}, nil)
	apply(t, d, s, ch)
}

// TestRestart starts over an older world: what is right is not touched, what is unwanted goes, what is foreign stays.
func TestRestart(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	sh(t, ns, "nft add table inet foreign; nft add chain inet foreign c; nft add rule inet foreign c accept")
	s := smallState()
	first := openDriver(t, ns, nil)
	apply(t, first, s, nil)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	want := nftDump(t, ns)
	second := openDriver(t, ns, nil)
	if diff := cmp.Diff(want, nftDump(t, ns)); diff != "" {
		t.Fatalf("Close or Open wrote: %s", diff)
	}
	apply(t, second, s, nil)
	if second.Writes() != 0 {
		t.Errorf("the second driver wrote %d objects", second.Writes())
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	third := openDriver(t, ns, nil)
	empty := drivers.NewState()
	empty.Node = s.Node
	apply(t, third, empty, nil)
	fresh := netnstest.New(t)
	sh(t, fresh, "nft add table inet foreign; nft add chain inet foreign c; nft add rule inet foreign c accept")
	apply(t, openDriver(t, fresh, nil), empty, nil)
	if diff := cmp.Diff(nftDump(t, fresh), nftDump(t, ns)); diff != "" {
		t.Errorf("an older world was not swept: %s", diff)
	}
	if err := third.Clean(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := nftDump(t, ns); strings.Contains(got, "tortie") || !strings.Contains(got, "foreign") {
		t.Errorf("after Clean: %s", got)
	}
	apply(t, third, s, nil)
}

func TestInspect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, command string
		want          int
	}{
		{"nothing", "true", 0},
		{"policy drop", "nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'", 1},
		{"last rule rejects", "nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; }'; " +
			"nft add rule inet firewalld filter_FORWARD ct state established accept; nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited", 1},
		{"input", "nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; policy drop; }'", 1},
		{"legacy", "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP", 2},
		{"some other drop", "nft add table ip filter; nft add chain ip filter FORWARD '{ type filter hook forward priority 0; }'; " +
			"nft add rule ip filter FORWARD tcp dport 25 drop", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := netnstest.New(t)
			d := openDriver(t, ns, nil)
			apply(t, d, smallState(), nil)
			sh(t, ns, c.command)
			problems, err := d.Inspect(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if len(problems) != c.want {
				t.Fatalf("got %d problems: %+v", len(problems), problems)
			}
			for _, p := range problems { // the mend mends
				sh(t, ns, strings.ReplaceAll(p.Mend, `"tort*"`, `'"tort*"'`))
			}
			if problems, err = d.Inspect(context.Background()); err != nil || len(problems) != 0 {
				t.Errorf("after the mend: %+v, %v", problems, err)
			}
		})
	}
}

func TestCutFlows(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	d := openDriver(t, ns, nil)
	flow := func(src, dst string) *netlink.ConntrackFlow {
		f := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 100}
		if addr(src).Is6() {
			f.FamilyType = unix.AF_INET6
		}
		f.Forward = netlink.IPTuple{SrcIP: addr(src).AsSlice(), DstIP: addr(dst).AsSlice(), SrcPort: 1000, DstPort: 53, Protocol: unix.IPPROTO_UDP}
		f.Reverse = netlink.IPTuple{SrcIP: addr(dst).AsSlice(), DstIP: addr(src).AsSlice(), SrcPort: 53, DstPort: 1000, Protocol: unix.IPPROTO_UDP}
		return f
	}
	var left []string
	err := ns.Do(func() error {
		for _, f := range []*netlink.ConntrackFlow{
			flow("10.65.0.1", "10.65.0.2"), flow("10.65.0.3", "10.65.0.1"), flow("10.65.0.3", "10.65.0.2"), flow("fd65::1", "fd65::2"), flow("fd65::3", "fd65::2"),
		} {
			if err := netlink.ConntrackCreate(netlink.ConntrackTable, netlink.InetFamily(f.FamilyType), f); err != nil {
				return err
			}
		}
		if err := d.CutFlows(context.Background(), []netip.Addr{addr("10.65.0.1"), addr("fd65::1")}); err != nil {
			return err
		}
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			fs, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return err
			}
			for _, f := range fs {
				left = append(left, f.Forward.SrcIP.String()+" "+f.Forward.DstIP.String())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.65.0.3 10.65.0.2", "fd65::3 fd65::2"}, left); diff != "" {
		t.Error(diff)
	}
}
