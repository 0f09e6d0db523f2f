package linux

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func ptr[T any](v T) *T { return &v }

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func np(name string) drivers.PolicyID {
	return drivers.PolicyID{Kind: drivers.KindNetworkPolicy, Namespace: "default", Name: name}
}

// smallState has a bit of everything.
func smallState() *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{
		Name: "n1", WorkloadPrefixes: []string{"tort"}, EndpointToHost: drivers.ToHostReturn,
		FailsafeIn:  []drivers.Failsafe{{Proto: 6, Port: 22}, {Proto: 17, Port: 68, Net: prefix("10.0.0.0/8")}},
		FailsafeOut: []drivers.Failsafe{{Proto: 17, Port: 53}},
	}
	s.Sets["s:hash"] = drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.65.0.1")), drivers.AddrMember(addr("fd65::1")))
	s.Sets["s:wide"] = drivers.NewSet(drivers.SetNet, drivers.NetMember(prefix("10.0.0.0/8")), drivers.AddrMember(addr("11.0.0.0")),
		drivers.NetMember(prefix("224.0.0.0/3")))
	s.Sets["p:http"] = drivers.NewSet(drivers.SetPort, drivers.PortMember(addr("10.65.0.1"), 6, 80), drivers.PortMember(addr("fd65::1"), 6, 80))
	add := func(id drivers.PolicyID, in, out []drivers.Rule) {
		p := &drivers.Policy{ID: id, Tier: "default", In: in, Out: out}
		p.SetRuleIDs()
		s.Policies[id] = p
	}
	add(np("web"), []drivers.Rule{
		{Action: drivers.Log, Match: drivers.Match{Proto: ptr(uint8(6))}},
		{Action: drivers.Allow, Match: drivers.Match{
			Proto: ptr(uint8(6)), Src: drivers.Side{Sets: []drivers.SetID{"s:hash"}, NotSets: []drivers.SetID{"s:wide"}},
			Dst: drivers.Side{Ports: []drivers.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8080}}, PortSets: []drivers.SetID{"p:http"}},
		}},
		{Action: drivers.Deny, Match: drivers.Match{NotICMP: &drivers.ICMP{Type: 8}, Src: drivers.Side{NotNets: []netip.Prefix{prefix("192.168.0.0/16"), prefix("10.1.0.0/16")}}}},
		{Action: drivers.Allow, Match: drivers.Match{Src: drivers.Side{NotPorts: []drivers.PortRange{{First: 1, Last: 1023}}}}},
	}, []drivers.Rule{{Action: drivers.Allow, Match: drivers.Match{IPVersion: 4}}, {Action: drivers.Allow, Match: drivers.Match{
		ICMP: &drivers.ICMP{Type: 128, Code: ptr(uint8(0))}, Dst: drivers.Side{Services: []drivers.SetID{"p:http"}, Nets: []netip.Prefix{prefix("fd00::/8")}}}}})
	add(np("pass"), []drivers.Rule{{Action: drivers.Pass, Match: drivers.Match{Src: drivers.Side{Nets: []netip.Prefix{prefix("10.65.0.0/24")}}}}}, nil)
	prof := drivers.PolicyID{Kind: drivers.KindProfile, Name: "kns.default"}
	add(prof, []drivers.Rule{{Action: drivers.Allow}}, []drivers.Rule{{Action: drivers.Allow}})
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{
		{Name: "first", Default: drivers.Deny, Policies: []drivers.PolicyID{np("pass"), np("web")}},
		{Name: "default", Default: drivers.Pass, Policies: []drivers.PolicyID{np("web")}},
	}}
	for i, n := range []string{"torta", "tortb"} {
		id := drivers.EndpointID{Sandbox: n, Interface: "eth0"}
		s.Endpoints[id] = &drivers.Endpoint{
			ID: id, Name: "default/" + n, Iface: n, MAC: drivers.MAC{2, 0, 0, 0, 0, byte(i)},
			Addrs:  []netip.Addr{addr(fmt.Sprintf("10.65.0.%d", i+1)), addr(fmt.Sprintf("fd65::%d", i+1))},
			Policy: drivers.EndpointPolicy{Normal: drivers.Directions{In: l, Out: l}}, Profiles: []drivers.PolicyID{prof},
		}
	}
	hid := drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "h", Interface: "eth0"}
	d := drivers.Directions{In: l, Out: l}
	s.Endpoints[hid] = &drivers.Endpoint{ID: hid, Name: "h", Iface: "eth0", Policy: drivers.EndpointPolicy{
		Normal: d, Forward: d, PreDNAT: drivers.Directions{In: l}, Untracked: d}}
	all := drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "all", Interface: drivers.AllHostIfaces}
	s.Endpoints[all] = &drivers.Endpoint{ID: all, Name: "all", Iface: drivers.AllHostIfaces, Policy: drivers.EndpointPolicy{Normal: d}}
	s.Peers["n2"] = &drivers.Peer{Name: "n2", Addrs: []netip.Addr{addr("172.20.0.3"), addr("fd20::3")}}
	s.Masquerade = drivers.Masquerade{From: []netip.Prefix{prefix("10.65.0.0/16"), prefix("fd65::/64")}, Except: []netip.Prefix{prefix("10.65.0.0/16"), prefix("fd65::/64")}}
	return s
}

// TestRenderGolden shows the whole program of a small State.
func TestRenderGolden(t *testing.T) {
	t.Parallel()
	got := Render(smallState()).String()
	file := filepath.Join("testdata", "small.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("the program changed; -update if it should:\n%s", d)
	}
}

// walker changes a State at random, and says what it changed.
type walker struct {
	rng *rand.Rand
	s   *drivers.State
	ch  *drivers.Changes

	noTunnels bool
	plain     bool // rules are about a port, and most of them about a set
}

func newWalker(seed uint64) *walker {
	w := &walker{rng: rand.New(rand.NewPCG(seed, 1)), s: smallState()}
	for i := range 4 {
		w.s.Sets[w.set(i)] = w.members(i)
		w.s.Policies[w.policy(i).ID] = w.policy(i)
	}
	return w
}

func (w *walker) set(i int) drivers.SetID { return drivers.SetID(fmt.Sprintf("w:%d", i%8)) }

// members gives sets of every flavour: empty families, single addresses, prefixes within each other.
func (w *walker) members(i int) *drivers.Set {
	var ms []drivers.Member
	for range w.rng.IntN(6) {
		bits := 32
		if i%2 == 0 && !w.plain {
			bits = 24 + w.rng.IntN(9)
		}
		a := netip.AddrFrom4([4]byte{10, 66, byte(w.rng.IntN(2)), byte(w.rng.IntN(256))})
		if w.rng.IntN(4) == 0 {
			a, bits = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x66, 15: byte(w.rng.IntN(8))}), 96+bits
		}
		ms = append(ms, drivers.NetMember(netip.PrefixFrom(a, bits)))
	}
	return drivers.NewSet(drivers.SetNet, ms...)
}

func (w *walker) policy(i int) *drivers.Policy {
	p := &drivers.Policy{ID: np(fmt.Sprintf("w%d", i%8)), Tier: "default"}
	for range w.rng.IntN(4) {
		r := drivers.Rule{Action: drivers.Action(w.rng.IntN(4))}
		if w.plain {
			port := uint16(80 + w.rng.IntN(2))
			r.Action = drivers.Action(w.rng.IntN(2))
			r.Match = drivers.Match{Proto: ptr(uint8(l4TCP)), Dst: drivers.Side{Ports: []drivers.PortRange{{First: port, Last: port}}}}
			if w.rng.IntN(8) > 0 {
				r.Match.Src.Sets = []drivers.SetID{w.set(w.rng.IntN(8))}
			}
			p.In, p.Out = append(p.In, r), append(p.Out, r)
			continue
		}
		if w.rng.IntN(2) == 0 {
			r.Match.Src.Sets = []drivers.SetID{w.set(w.rng.IntN(8))}
		}
		if w.rng.IntN(3) == 0 {
			r.Match.Dst.NotSets = []drivers.SetID{w.set(w.rng.IntN(8))}
		}
		p.In, p.Out = append(p.In, r), append(p.Out, r)
	}
	p.SetRuleIDs()
	return p
}

func (w *walker) list() *drivers.TierList {
	l := &drivers.TierList{}
	for i := range w.rng.IntN(3) {
		t := drivers.TierPolicies{Name: fmt.Sprint("tier", i), Default: drivers.Action(2 * w.rng.IntN(2))}
		for range w.rng.IntN(4) {
			t.Policies = append(t.Policies, np(fmt.Sprintf("w%d", w.rng.IntN(8))))
		}
		if i == 0 && w.rng.IntN(4) == 0 { // long enough for groups
			for j := range 100 {
				t.Policies = append(t.Policies, np(fmt.Sprintf("w%d", j%8)))
			}
		}
		l.Tiers = append(l.Tiers, t)
	}
	return l
}

// step changes one thing.
func (w *walker) step() {
	w.ch = drivers.NewChanges()
	i := w.rng.IntN(8)
	n := 12
	if w.noTunnels {
		n = 11
	}
	switch w.rng.IntN(n) {
	case 0, 1, 2:
		w.changeSet(w.set(i), w.members(i))
	case 3:
		w.changeSet(w.set(i), nil)
	case 4, 5:
		p := w.policy(i)
		w.s.Policies[p.ID], w.ch.Policies[p.ID] = p, struct{}{}
	case 6:
		id := np(fmt.Sprintf("w%d", i))
		delete(w.s.Policies, id)
		w.ch.Policies[id] = struct{}{}
	case 7, 8, 9:
		w.changeEndpoint(i)
	case 10:
		w.s.Node.EndpointToHost = drivers.EndpointToHost(w.rng.IntN(3))
		w.s.Node.AllowEncapFromWorkloads = w.rng.IntN(2) == 0
		w.ch.Node = true
	case 11:
		dst := prefix("10.99.0.0/24")
		if w.s.Routes[dst] == nil {
			w.s.Routes[dst] = &drivers.Route{Dst: dst, Kind: drivers.RouteRemote, Encap: drivers.EncapVXLAN}
		} else {
			delete(w.s.Routes, dst)
		}
		w.ch.Routes[dst] = struct{}{}
	}
}

func (w *walker) changeSet(id drivers.SetID, set *drivers.Set) {
	old := w.s.Sets[id]
	sc := &drivers.SetChange{Full: old == nil || set == nil}
	w.ch.Sets[id] = sc
	if set == nil {
		delete(w.s.Sets, id)
		return
	}
	w.s.Sets[id] = set
	if sc.Full {
		return
	}
	sc.Added, sc.Removed = map[drivers.Member]struct{}{}, map[drivers.Member]struct{}{}
	for m := range set.All() {
		if !old.Has(m) {
			sc.Added[m] = struct{}{}
		}
	}
	for m := range old.All() {
		if !set.Has(m) {
			sc.Removed[m] = struct{}{}
		}
	}
}

func (w *walker) changeEndpoint(i int) {
	ids := []drivers.EndpointID{
		{Sandbox: "w0", Interface: "eth0"}, {Sandbox: "w1", Interface: "eth0"}, {Sandbox: "w2", Interface: "eth0"},
		{Kind: drivers.HostInterface, Sandbox: "h", Interface: "eth1"}, {Kind: drivers.HostInterface, Sandbox: "h", Interface: "*"},
	}
	id := ids[i%len(ids)]
	w.ch.Endpoints[id] = struct{}{}
	if w.rng.IntN(3) == 0 {
		delete(w.s.Endpoints, id)
		return
	}
	e := &drivers.Endpoint{ID: id, Name: id.Sandbox, Iface: id.Interface, Profiles: []drivers.PolicyID{np("w1"), np("w2")}[:w.rng.IntN(3)]}
	e.Policy.Normal = drivers.Directions{In: w.list(), Out: w.list()}
	if id.Kind == drivers.Workload {
		// Two may claim one interface.
		e.Iface, e.Addrs = fmt.Sprint("tortw", w.rng.IntN(3)), []netip.Addr{addr("10.65.1.1"), addr("fd65::1:1")}
	} else {
		e.Policy.Forward, e.Policy.PreDNAT.In = drivers.Directions{In: w.list()}, w.list()
		e.Policy.Untracked = drivers.Directions{In: w.list(), Out: w.list()}
	}
	if w.rng.IntN(5) == 0 {
		e.Degraded = "degraded"
	}
	w.s.Endpoints[id] = e
}

// TestCompilerFollows renders a random walk change by change; each program must be the one that its State has by itself,
// and all that changed in it must have been marked.
func TestCompilerFollows(t *testing.T) {
	t.Parallel()
	seeds, steps := uint64(6), 150
	if testing.Short() {
		seeds, steps = 2, 60
	}
	for seed := range seeds {
		w := newWalker(seed)
		c, render := newCompiler(), Render
		if seed%2 == 1 {
			c.limits, render = mergeAll(), renderMerged
			w.plain = seed == 3
		}
		c.update(w.s, nil)
		clear(c.touched)
		before := objects(c.prog)
		for i := range steps {
			w.step()
			c.update(w.s, w.ch)
			now := objects(c.prog)
			if d := cmp.Diff(objects(render(w.s)), now); d != "" {
				t.Fatalf("seed %d, step %d: %s", seed, i, d)
			}
			for k := range c.touched {
				delete(before, k)
				delete(now, k)
			}
			if d := cmp.Diff(before, now); d != "" {
				t.Fatalf("seed %d, step %d: changed and not marked: %s", seed, i, d)
			}
			clear(c.touched)
			before = objects(c.prog)
		}
	}
}

// objects is a program as text, by object.
func objects(p Program) map[Key]string {
	m := map[Key]string{}
	for k := range p.Chains {
		one := Program{Chains: map[Key]*Chain{k: p.Chains[k]}}
		m[k] = one.String()
	}
	for k := range p.Sets {
		one := Program{Sets: map[Key]*SetObject{k: p.Sets[k]}}
		m[k] = one.String()
	}
	return m
}

// TestUnchangedIsNotTouched says what a change costs: its own objects, and no other.
func TestUnchangedIsNotTouched(t *testing.T) {
	t.Parallel()
	s := smallState()
	c := newCompiler()
	c.update(s, nil)
	clear(c.touched)
	ch := drivers.NewChanges()
	m := drivers.AddrMember(addr("10.65.0.7"))
	s.Sets["s:hash"] = s.Sets["s:hash"].With([]drivers.Member{m}, nil)
	ch.Sets["s:hash"] = &drivers.SetChange{Added: map[drivers.Member]struct{}{m: {}}}
	c.update(s, ch)
	var got []string
	for k := range c.touched {
		got = append(got, k.Name[:3])
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"s4h", "s6h"}, got); d != "" {
		t.Errorf("a member more: %s", d)
	}
}

// TestProgramSize: endpoints that share lists cost what is their own, not the lists again.
func TestProgramSize(t *testing.T) {
	t.Parallel()
	base := Render(scaleState(10, 300, 1, true)).Size()
	if got := Render(scaleState(110, 300, 1, true)).Size() - base; got > 100*12 {
		t.Errorf("100 more endpoints cost %d rules", got)
	}
	if got := Render(scaleState(10, 400, 1, true)).Size() - base; got > 100*6+20 {
		t.Errorf("100 more policies cost %d rules", got)
	}
}

// TestCasesAgree: what the kernel would do with the programs of the suite's cases is what the oracle says of them, merged
// wherever it can be done or not at all; and a compiler that follows a case from scene to scene makes the same programs.
func TestCasesAgree(t *testing.T) {
	t.Parallel()
	cases, err := drivertest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		following := newCompiler()
		following.limits = mergeAll()
		var before *drivers.State
		for _, sc := range c.Scenes {
			low, _ := drivers.Lower(sc.State, everythingButHTTP())
			var pks []drivers.Packet
			for _, l := range sc.Lines {
				for _, p := range l.Probes {
					if p.Packet.SrcPort == 0 && hasPorts(p.Packet.Proto) {
						p.Packet.SrcPort = 40000
					}
					pks = append(pks, p.Packet)
				}
			}
			plain, all := Render(low), renderMerged(low)
			t.Run(c.Name+"/"+sc.Title, func(t *testing.T) {
				agree(t, low, &plain, pks)
				agree(t, low, &all, pks)
			})
			if before == nil {
				following.update(low.Clone(), nil)
			} else {
				following.update(low.Clone(), drivertest.Diff(before, low))
			}
			if d := cmp.Diff(objects(all), objects(following.prog)); d != "" {
				t.Fatalf("%s, %s: a compiler that followed makes another program: %s", c.Name, sc.Title, d)
			}
			before = low
		}
	}
}

// everythingButHTTP is what nftables can do.
func everythingButHTTP() drivers.Features {
	f := drivers.AllFeatures("nftables")
	f.HTTP = false
	return f
}
