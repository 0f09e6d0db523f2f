package fake_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/fake"
)

func policyID(i int) drivers.PolicyID {
	return drivers.PolicyID{Kind: drivers.KindGlobalNetworkPolicy, Name: fmt.Sprint("p", i)}
}
func setID(i int) drivers.SetID { return drivers.SetID(fmt.Sprint("s", i)) }
func endpointID(i int) drivers.EndpointID {
	return drivers.EndpointID{Sandbox: fmt.Sprint("e", i), Interface: "eth0"}
}

func setRef(i int) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjSet, Set: setID(i)}
}
func policyRef(i int) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: policyID(i)}
}
func endpointRef(i int) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: endpointID(i)}
}

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }

// newPolicy allows port from what is in the sets.
func newPolicy(i int, port uint16, sets ...int) *drivers.Policy {
	r := drivers.Rule{Action: drivers.Allow}
	tcp := uint8(6)
	r.Match.Proto, r.Match.Dst.Ports = &tcp, []drivers.PortRange{{First: port, Last: port}}
	for _, s := range sets {
		r.Match.Src.Sets = append(r.Match.Src.Sets, setID(s))
	}
	p := &drivers.Policy{ID: policyID(i), Tier: "default", In: []drivers.Rule{r}}
	p.SetRuleIDs()
	return p
}

func newEndpoint(i int, policies ...int) *drivers.Endpoint {
	t := drivers.TierPolicies{Name: "default"}
	for _, p := range policies {
		t.Policies = append(t.Policies, policyID(p))
	}
	return &drivers.Endpoint{ID: endpointID(i), Name: fmt.Sprint("ns/e", i), Iface: fmt.Sprint("tort", i), Addrs: []netip.Addr{addr(i)},
		Policy: drivers.EndpointPolicy{Normal: drivers.Directions{In: &drivers.TierList{Tiers: []drivers.TierPolicies{t}}}}}
}

func newSet(members ...int) *drivers.Set {
	var ms []drivers.Member
	for _, m := range members {
		ms = append(ms, drivers.AddrMember(addr(m)))
	}
	return drivers.NewSet(drivers.SetNet, ms...)
}

// newState has sets 1 and 2, policies 1 (of set 1) and 2 (of set 2), and endpoints 1 and 2 with one of them each.
func newState() *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{Name: "n", WorkloadPrefixes: []string{"tort"}}
	s.Masquerade.From = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	s.Peers["m"] = &drivers.Peer{Name: "m"}
	dst := netip.MustParsePrefix("10.1.0.0/24")
	s.Routes[dst] = &drivers.Route{Dst: dst, Kind: drivers.RouteRemote, Encap: drivers.EncapVXLAN, Peer: "m"}
	for i := 1; i <= 2; i++ {
		s.Sets[setID(i)], s.Policies[policyID(i)], s.Endpoints[endpointID(i)] = newSet(9), newPolicy(i, 80, i), newEndpoint(i, i)
	}
	return s
}

// reaches reports whether 10.0.0.9, out there, reaches an endpoint.
func reaches(w *fake.World, i int, port uint16) bool {
	t := w.Evaluate(drivers.Packet{From: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"},
		To: drivers.Place{Kind: drivers.PlaceWorkload, Iface: fmt.Sprint("tort", i)}, Src: addr(9), Dst: addr(i), Proto: 6, DstPort: port})
	return t.Verdict == drivers.VerdictAllow
}

func open(t *testing.T, w *fake.World) *fake.Driver {
	t.Helper()
	d, err := fake.Open(t.Context(), drivers.Options{}, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func apply(t *testing.T, d drivers.Driver, want *drivers.State, ch *drivers.Changes) {
	t.Helper()
	if err := d.Apply(t.Context(), want, ch); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, w *fake.World, want *drivers.State) {
	t.Helper()
	if d := cmp.Diff(want.String(), w.State().String()); d != "" {
		t.Fatalf("the World (-want +got):\n%s", d)
	}
}

// failed returns the names of the objects in err, which must be an *ApplyError.
func failed(t *testing.T, err error) map[drivers.ObjectRef]error {
	t.Helper()
	var ae *drivers.ApplyError
	if !errors.As(err, &ae) {
		t.Fatalf("error %v is no ApplyError", err)
	}
	return ae.Failed
}

func onlyFailed(t *testing.T, err error, want ...drivers.ObjectRef) {
	t.Helper()
	got := failed(t, err)
	for _, o := range want {
		if got[o] == nil {
			t.Errorf("%s is not among the failed: %v", o, err)
		}
	}
	if len(got) != len(want) {
		t.Errorf("failed: %v, want %v", err, want)
	}
}

func TestApplyAndEvaluate(t *testing.T) {
	w, want := fake.NewWorld(), newState()
	d := open(t, w)
	if reaches(w, 1, 80) {
		t.Error("a workload is reached before there is an Apply")
	}
	apply(t, d, want, nil)
	holds(t, w, want)
	if !reaches(w, 1, 80) || reaches(w, 1, 81) || reaches(w, 3, 80) {
		t.Error("the World does not enforce the State")
	}
	n := w.Writes()
	apply(t, d, want, nil)
	apply(t, d, want, drivers.NewChanges())
	if w.Writes() != n {
		t.Errorf("%d writes for nothing", w.Writes()-n)
	}
}

// TestRandomWalk merges random updates, applies each with its Changes, and compares; a second driver takes over now and
// then, the World is meddled with, and writes fail.
func TestRandomWalk(t *testing.T) {
	for seed := range uint64(30) {
		g := rand.New(rand.NewPCG(seed, 3))
		w, want, ch := fake.NewWorld(), newState(), (*drivers.Changes)(nil)
		d := open(t, w)
		for step := range 60 {
			want.Merge(randomUpdate(g, want), ch)
			switch g.IntN(8) {
			case 0:
				d.Close()
				d, ch = open(t, w), nil
			case 1:
				meddle(g, w)
				ch = nil
			case 2:
				w.FailWrite(1 + g.IntN(6))
			}
			err := d.Apply(t.Context(), want, ch)
			w.FailWrite(0)
			if err != nil {
				if !errors.Is(err, fake.ErrInjected) {
					t.Fatalf("seed %d, step %d: %v", seed, step, err)
				}
				if ch != nil {
					ch.AfterError()
				}
				continue
			}
			ch = drivers.NewChanges()
			if d := cmp.Diff(want.String(), w.State().String()); d != "" {
				t.Fatalf("seed %d, step %d (-want +got):\n%s", seed, step, d)
			}
		}
	}
}

// randomUpdate changes a State so that references still resolve.
func randomUpdate(g *rand.Rand, s *drivers.State) *drivers.Update {
	u := drivers.NewUpdate()
	usedSets, usedPolicies := map[drivers.SetID]bool{}, map[drivers.PolicyID]bool{}
	for i := 1; i <= 5; i++ {
		if g.IntN(2) == 0 {
			continue
		}
		if u.Endpoints[endpointID(i)] = nil; g.IntN(3) > 0 {
			u.Endpoints[endpointID(i)] = newEndpoint(i, 1+g.IntN(5), 1+g.IntN(5))
		}
	}
	after := s.Clone()
	after.Merge(u, nil)
	for _, e := range after.Endpoints {
		for id := range e.PolicyIDs {
			usedPolicies[id] = true
		}
	}
	for i := 1; i <= 5; i++ {
		id := policyID(i)
		switch {
		case !usedPolicies[id]:
			u.Policies[id] = nil
		case after.Policies[id] == nil || g.IntN(3) == 0:
			u.Policies[id] = newPolicy(i, uint16(80+g.IntN(3)), 1+g.IntN(5))
		}
	}
	after.Merge(u, nil)
	for _, p := range after.Policies {
		for id := range p.SetIDs {
			usedSets[id] = true
		}
	}
	for i := 1; i <= 5; i++ {
		id := setID(i)
		was := after.Sets[id]
		switch {
		case !usedSets[id]:
			u.Sets[id] = drivers.SetUpdate{Full: true}
		case was == nil:
			u.Sets[id] = drivers.SetUpdate{Set: newSet(g.IntN(9)), Full: true}
		default:
			m := drivers.AddrMember(addr(g.IntN(20)))
			up := drivers.SetUpdate{Added: []drivers.Member{m}}
			if was.Has(m) {
				up.Added, up.Removed = nil, up.Added
			}
			up.Set = was.With(up.Added, up.Removed)
			u.Sets[id] = up
		}
	}
	return u
}

// meddle does what another program might do to what is ours.
func meddle(g *rand.Rand, w *fake.World) {
	w.Edit(func(s *drivers.State) {
		i := 1 + g.IntN(5)
		switch g.IntN(6) {
		case 0:
			delete(s.Sets, setID(i))
		case 1:
			s.Sets[setID(i)] = newSet(1, 2, 3)
		case 2:
			delete(s.Policies, policyID(i))
		case 3:
			s.Policies[policyID(i)] = &drivers.Policy{ID: policyID(i)}
		case 4:
			delete(s.Endpoints, endpointID(i))
		default:
			s.Node, s.Masquerade = drivers.Node{}, drivers.Masquerade{}
			clear(s.Routes)
			clear(s.Peers)
		}
	})
}

// TestWrongHintsShow: the driver looks where Changes says, and nowhere else.
func TestWrongHintsShow(t *testing.T) {
	for name, change := range map[string]func(s *drivers.State){
		"a set":       func(s *drivers.State) { s.Sets[setID(1)] = newSet(1) },
		"a policy":    func(s *drivers.State) { s.Policies[policyID(1)] = newPolicy(1, 99) },
		"an endpoint": func(s *drivers.State) { s.Endpoints[endpointID(1)] = newEndpoint(1, 2) },
		"a route":     func(s *drivers.State) { clear(s.Routes) },
		"a peer":      func(s *drivers.State) { clear(s.Peers) },
		"the node":    func(s *drivers.State) { s.Node.Name = "x" },
		"masquerade":  func(s *drivers.State) { s.Masquerade = drivers.Masquerade{} },
	} {
		w, want := fake.NewWorld(), newState()
		d := open(t, w)
		apply(t, d, want, nil)
		change(want)
		apply(t, d, want, drivers.NewChanges())
		if want.String() == w.State().String() {
			t.Errorf("%s was changed without a hint", name)
		}
		apply(t, d, want, nil)
		holds(t, w, want)
	}
}

func TestSetDeltasAreExact(t *testing.T) {
	m := func(i int) map[drivers.Member]struct{} {
		return map[drivers.Member]struct{}{drivers.AddrMember(addr(i)): {}}
	}
	for name, c := range map[string]struct {
		change drivers.SetChange
		want   error // nil = it works
	}{
		"add":            {drivers.SetChange{Added: m(1)}, nil},
		"remove":         {drivers.SetChange{Removed: m(9)}, nil},
		"add again":      {drivers.SetChange{Added: m(9)}, fs.ErrExist},
		"remove nothing": {drivers.SetChange{Removed: m(1)}, fs.ErrNotExist},
	} {
		w, want := fake.NewWorld(), newState()
		d := open(t, w)
		apply(t, d, want, nil)
		ch := drivers.NewChanges()
		ch.Sets[setID(1)] = &c.change
		err := d.Apply(t.Context(), want, ch)
		if c.want == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		onlyFailed(t, err, setRef(1))
		if !errors.Is(failed(t, err)[setRef(1)], c.want) || reaches(w, 1, 80) || !reaches(w, 2, 80) {
			t.Errorf("%s: %v; or the endpoints are not as they should be:\n%s", name, err, w.Dump())
		}
		ch.AfterError()
		apply(t, d, want, ch)
		holds(t, w, want)
	}
}

// TestPoison: an object that is refused for good leaves all others enforced, and its dependants denied.
func TestPoison(t *testing.T) {
	refused := errors.New("refused")
	for name, o := range map[string]drivers.ObjectRef{"set": setRef(1), "policy": policyRef(1), "endpoint": endpointRef(1)} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, from the start: %v", name, first), func(t *testing.T) {
				w, want := fake.NewWorld(), newState()
				d := open(t, w)
				var ch *drivers.Changes
				if !first {
					apply(t, d, want, nil)
					ch = drivers.NewChanges()
				}
				u := drivers.NewUpdate()
				u.Sets[setID(1)] = drivers.SetUpdate{Set: newSet(9, 8), Full: true}
				u.Policies[policyID(1)] = newPolicy(1, 81, 1)
				u.Policies[policyID(2)] = newPolicy(2, 81, 2)
				u.Endpoints[endpointID(1)] = newEndpoint(1, 1)
				u.Endpoints[endpointID(1)].Generation = 2
				u.Endpoints[endpointID(3)] = newEndpoint(3, 2)
				want.Merge(u, ch)
				w.Refuse(o, refused)
				err := d.Apply(t.Context(), want, ch)
				onlyFailed(t, err, o)
				if !errors.Is(failed(t, err)[o], refused) {
					t.Errorf("%v does not say why", err)
				}
				if reaches(w, 1, 80) || reaches(w, 1, 81) || !reaches(w, 2, 81) || !reaches(w, 3, 81) {
					t.Errorf("endpoint 1 must be denied, 2 and 3 open:\n%s", w.Dump())
				}
				if e := w.State().Endpoints[endpointID(1)]; e == nil || e.Degraded == "" {
					t.Errorf("endpoint 1 is not on a stand-in: %+v", e)
				}
				if ch != nil {
					ch.AfterError()
				}
				n := w.Writes()
				onlyFailed(t, d.Apply(t.Context(), want, ch), o)
				if w.Writes() > n+1 {
					t.Errorf("%d writes to be refused again", w.Writes()-n)
				}
				w.Accept(o)
				apply(t, d, want, ch)
				holds(t, w, want)
			})
		}
	}
}

// TestDanglingReferences: what names something that nobody wants fails itself.
func TestDanglingReferences(t *testing.T) {
	w, want := fake.NewWorld(), newState()
	want.Policies[policyID(1)] = newPolicy(1, 80, 7)
	want.Endpoints[endpointID(3)] = newEndpoint(3, 2, 8)
	want.Sets[setID(2)] = drivers.NewSet(drivers.SetPort)
	d := open(t, w)
	err := d.Apply(t.Context(), want, nil)
	onlyFailed(t, err, policyRef(1), policyRef(2), endpointRef(3))
	if !strings.Contains(err.Error(), "s7") || !strings.Contains(err.Error(), "kind port") || !strings.Contains(err.Error(), "p8") {
		t.Errorf("the error does not say what is missing: %v", err)
	}
	for i := 1; i <= 3; i++ {
		if reaches(w, i, 80) {
			t.Errorf("endpoint %d is reached", i)
		}
	}
	// A policy that is removed while an endpoint still names it: the old one in the World must not count.
	want = newState()
	apply(t, d, want, nil)
	ch := drivers.NewChanges()
	u := drivers.NewUpdate()
	u.Policies[policyID(1)] = nil
	u.Endpoints[endpointID(1)] = newEndpoint(1, 1)
	want.Merge(u, ch)
	onlyFailed(t, d.Apply(t.Context(), want, ch), endpointRef(1))
	if reaches(w, 1, 80) || w.State().Policies[policyID(1)] != nil {
		t.Error("the removed policy lives on")
	}
}

// TestRemovalOfWhatIsInUse: a hint that forgets who refers to a thing is found out.
func TestRemovalOfWhatIsInUse(t *testing.T) {
	w, want := fake.NewWorld(), newState()
	d := open(t, w)
	apply(t, d, want, nil)
	delete(want.Policies, policyID(1))
	delete(want.Sets, setID(1))
	ch := drivers.NewChanges()
	ch.Policies[policyID(1)] = struct{}{}
	ch.Sets[setID(1)] = &drivers.SetChange{Full: true}
	onlyFailed(t, d.Apply(t.Context(), want, ch), policyRef(1), setRef(1))
}

// TestEveryWriteMayFail fails each write of a way from one State to another in turn, with the World moving on between.
func TestEveryWriteMayFail(t *testing.T) {
	for n := 1; ; n++ {
		w, want, ch := fake.NewWorld(), newState(), drivers.NewChanges()
		d := open(t, w)
		apply(t, d, want, nil)
		u := drivers.NewUpdate()
		u.Sets[setID(1)] = drivers.SetUpdate{}
		u.Sets[setID(3)] = drivers.SetUpdate{Set: newSet(1, 2), Full: true}
		u.Sets[setID(2)] = drivers.SetUpdate{Set: newSet(9, 1), Added: []drivers.Member{drivers.AddrMember(addr(1))}}
		u.Policies[policyID(1)], u.Policies[policyID(3)] = nil, newPolicy(3, 82, 3, 2)
		u.Endpoints[endpointID(1)], u.Endpoints[endpointID(4)] = nil, newEndpoint(4, 3, 2)
		u.Routes[netip.MustParsePrefix("10.1.0.0/24")], u.Peers["m"] = nil, nil
		want.Merge(u, ch)
		w.FailWrite(n)
		err := d.Apply(t.Context(), want, ch)
		if err == nil {
			if n < 8 {
				t.Errorf("only %d writes", n-1)
			}
			holds(t, w, want)
			return
		}
		if !errors.Is(err, fake.ErrInjected) || errors.As(err, new(*drivers.ApplyError)) {
			t.Fatalf("write %d: %v", n, err)
		}
		ch.AfterError()
		u = drivers.NewUpdate()
		u.Endpoints[endpointID(2)] = nil
		u.Endpoints[endpointID(5)] = newEndpoint(5, 2)
		want.Merge(u, ch)
		apply(t, d, want, ch)
		holds(t, w, want)
	}
}

func TestRestartSweepsAndLeavesForeignAlone(t *testing.T) {
	w, want := fake.NewWorld(), newState()
	w.AddForeign(setRef(50), "a stranger's set")
	w.AddForeign(policyRef(2), "a stranger where we want to be")
	d := open(t, w)
	err := d.Apply(t.Context(), want, nil)
	onlyFailed(t, err, policyRef(2))
	if !reaches(w, 1, 80) || reaches(w, 2, 80) {
		t.Error("endpoint 1 must be open and 2 denied")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !reaches(w, 1, 80) {
		t.Error("Close took something away")
	}
	if err := d.Apply(t.Context(), want, nil); err == nil {
		t.Error("Apply on a closed driver")
	}
	next := newState()
	for i := range 3 {
		delete(next.Policies, policyID(i))
		delete(next.Endpoints, endpointID(i))
		delete(next.Sets, setID(i))
	}
	d = open(t, w)
	apply(t, d, next, nil)
	holds(t, w, next)
	want2 := map[drivers.ObjectRef]string{setRef(50): "a stranger's set", policyRef(2): "a stranger where we want to be"}
	if diff := cmp.Diff(want2, w.Foreign(), cmp.Comparer(func(a, b drivers.ObjectRef) bool { return a == b })); diff != "" {
		t.Errorf("foreign things (-want +got):\n%s", diff)
	}
	if !strings.Contains(w.Dump(), "foreign set s50: a stranger's set") {
		t.Errorf("the dump does not show them:\n%s", w.Dump())
	}
	if err := d.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	holds(t, w, drivers.NewState())
	if len(w.Foreign()) != 2 {
		t.Error("Clean touched foreign things")
	}
}

// TestForeignInThePlaceOfOurs: where a stranger comes between, dependants are denied.
func TestForeignInThePlaceOfOurs(t *testing.T) {
	for name, o := range map[string]drivers.ObjectRef{"set": setRef(1), "policy": policyRef(1)} {
		w, want := fake.NewWorld(), newState()
		d := open(t, w)
		apply(t, d, want, nil)
		w.AddForeign(o, "a stranger")
		want.Policies[policyID(1)] = newPolicy(1, 81, 1)
		want.Sets[setID(1)] = newSet(8, 9)
		onlyFailed(t, d.Apply(t.Context(), want, nil), o)
		if reaches(w, 1, 80) || reaches(w, 1, 81) || !reaches(w, 2, 80) {
			t.Errorf("%s: endpoint 1 must be denied, and 2 open:\n%s", name, w.Dump())
		}
	}
}

func TestFirstApplyHasNoHint(t *testing.T) {
	w := fake.NewWorld()
	d := open(t, w)
	if err := d.Apply(t.Context(), newState(), drivers.NewChanges()); err == nil || w.Writes() > 0 {
		t.Errorf("error %v, %d writes", err, w.Writes())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Apply(ctx, newState(), nil); !errors.Is(err, context.Canceled) || w.Writes() > 0 {
		t.Errorf("cancelled: error %v, %d writes", err, w.Writes())
	}
	if _, err := fake.Open(ctx, drivers.Options{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v", err)
	}
}

// TestFeaturesAreEnforced: what Lower would have taken out is refused.
func TestFeaturesAreEnforced(t *testing.T) {
	w, want := fake.NewWorld(), newState()
	f := drivers.AllFeatures("fake")
	f.NotSets, f.Encaps = false, []drivers.Encap{drivers.EncapNone}
	w.SetFeatures(f)
	p := newPolicy(1, 80)
	p.In[0].Match.Src.NotSets = []drivers.SetID{setID(2)}
	want.Policies[policyID(1)] = p
	d := open(t, w)
	route := drivers.ObjectRef{Kind: drivers.ObjRoute, Route: netip.MustParsePrefix("10.1.0.0/24")}
	err := d.Apply(t.Context(), want, nil)
	onlyFailed(t, err, policyRef(1), route)
	if !errors.Is(failed(t, err)[policyRef(1)], drivers.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
	low, losses := drivers.Lower(want, d.Features())
	if len(losses) != 2 {
		t.Errorf("losses %+v", losses)
	}
	apply(t, d, low, nil)
	holds(t, w, low)
}
