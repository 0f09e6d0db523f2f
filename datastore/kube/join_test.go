package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore/kube/convert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// podState is a pod of the model.
type podState struct {
	node, uid string
	status    []string
	finished  bool
	label     string
	account   string
}

func (p podState) endpoint(src string) *endpoint {
	w := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns" + src[3:], Name: p.node + "-k8s-" + src + "-eth0", UID: types.UID(p.uid),
		Labels: map[string]string{"l": p.label}, ResourceVersion: fmt.Sprint(rand.IntN(1e9))}}
	w.Spec.ServiceAccountName = p.account
	return newEndpoint(w, convert.PodAddresses{IPs: addrs(p.status...), Finished: p.finished}, nil)
}

func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// world is what a joiner is told, and what its consumer holds.
type world struct {
	j      *joiner
	pods   map[string]podState
	blocks map[string]map[string][]netip.Addr
	pools  map[string]poolRange
	strays map[string]*strayed
	spaces map[string]bool
	// accounts are as namespace/name; those who waited for one that is not there were excused in the last step.
	accounts map[string]bool
	excused  bool
	shown    map[string]bool   // pods whose namespace and account have been known
	told     map[string]string // endpoint by name: UID, label and addresses
	events   int
}

// strayed is the strays of a pod, and how often they were seen in a sweep.
type strayed struct {
	of   string // UID and addresses
	seen int
}

func newWorld() *world {
	return &world{j: newJoiner(), pods: map[string]podState{}, blocks: map[string]map[string][]netip.Addr{}, pools: map[string]poolRange{},
		strays: map[string]*strayed{},
		spaces: map[string]bool{}, accounts: map[string]bool{}, shown: map[string]bool{}, told: map[string]string{}}
}

func (w *world) take(t *testing.T, changes []joined) {
	t.Helper()
	w.events += len(changes)
	for _, c := range changes {
		_, had := w.told[c.key.Name]
		if had != c.known {
			t.Errorf("%s: known %v, but told %v", c.key.Name, c.known, had)
		}
		if c.e == nil {
			delete(w.told, c.key.Name)
			continue
		}
		o, err := c.e.object()
		if err != nil {
			t.Fatal(err)
		}
		now := tell(o, c.e.told())
		if w.told[c.key.Name] == now {
			t.Errorf("%s told again: %s", c.key.Name, now)
		}
		w.told[c.key.Name] = now
	}
}

func tell(o *api.WorkloadEndpoint, problems []api.Problem) string {
	return fmt.Sprintf("%s %s %s %v %v %d", o.UID, o.Labels["l"], o.Spec.ServiceAccountName, o.Spec.IPNetworks, o.Spec.Foreign, len(problems))
}

// cidr is the range of a block of the model.
func (w *world) cidr(block string) netip.Prefix {
	return netip.MustParsePrefix("10.0." + block + ".0/30")
}

// addresses computes what a pod has.
func (w *world) addresses(p podState) (has, foreign, strays []string) {
	if p.finished {
		return nil, nil, nil
	}
	var leased []netip.Addr
	for _, b := range w.blocks {
		leased = append(leased, b[p.uid]...)
	}
	slices.SortFunc(leased, netip.Addr.Compare)
	for _, a := range append(leased, addrs(p.status...)...) {
		enabled, disabled, blocked := false, false, false
		for _, pool := range w.pools {
			enabled = enabled || pool.prefix.Contains(a) && !pool.disabled
			disabled = disabled || pool.prefix.Contains(a) && pool.disabled
		}
		for b := range w.blocks {
			blocked = blocked || w.cidr(b).Contains(a)
		}
		text := netip.PrefixFrom(a, a.BitLen()).String()
		switch {
		case slices.Contains(has, text):
		case slices.Contains(leased, a), !enabled && !disabled:
			has = append(has, text)
		case !enabled && !blocked:
			has, foreign = append(has, text), append(foreign, text)
		default:
			strays = append(strays, text)
		}
	}
	return has, foreign, strays
}

// want computes from scratch what must have been told.
func (w *world) want(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for src, p := range w.pods {
		_, _, strays := w.addresses(p)
		pools := []string{} // of several the joiner names one, and begins anew with another
		if o := w.j.pods[src].odd; o != nil {
			for _, s := range o.strays {
				pools = append(pools, fmt.Sprint(s.pool, s.inBlock))
			}
		}
		if of := fmt.Sprint(p.uid, strays, pools); w.strays[src] == nil || w.strays[src].of != of {
			w.strays[src] = &strayed{of: of}
		}
		ns := "ns" + src[3:]
		account := p.account == "" || w.accounts[ns+"/"+p.account] || w.excused
		if w.shown[src] = w.shown[src] || w.j.spaces == nil || w.spaces[ns] && account; !w.shown[src] {
			continue
		}
		has, foreign, strays := w.addresses(p)
		problems := 0
		if w.strays[src].seen >= agedSweeps {
			problems = len(strays)
		}
		out[p.node+"-k8s-"+src+"-eth0"] = fmt.Sprintf("%s %s %s %v %v %d", p.uid, p.label, p.account, has, foreign, problems)
	}
	return out
}

// step changes something.
func (w *world) step(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	uid := func() string { return fmt.Sprintf("uid%d", rnd.IntN(5)) }
	w.excused = false
	switch rnd.IntN(10) {
	case 9:
		for range agedSweeps / 2 {
			w.take(t, w.j.age())
		}
		for _, s := range w.strays {
			s.seen += agedSweeps / 2
		}
	case 8:
		if w.excused = rnd.IntN(3) == 0; w.excused {
			w.take(t, w.j.excuse(true))
		}
	case 7:
		account := fmt.Sprintf("ns%d/sa%d", rnd.IntN(6), rnd.IntN(2))
		w.accounts[account] = rnd.IntN(3) > 0
		if w.j.accounts != nil {
			w.take(t, w.j.serviceAccount(account, w.accounts[account]))
		}
	case 6:
		ns := fmt.Sprintf("ns%d", rnd.IntN(6))
		w.spaces[ns] = rnd.IntN(3) > 0
		if w.j.spaces != nil {
			w.take(t, w.j.namespace(ns, w.spaces[ns]))
		}
	case 0, 1, 2:
		src := fmt.Sprintf("pod%d", rnd.IntN(6))
		if rnd.IntN(4) == 0 {
			delete(w.pods, src)
			delete(w.shown, src)
			delete(w.strays, src)
			w.take(t, w.j.pod(src, nil))
			return
		}
		p := podState{node: fmt.Sprintf("n%d", rnd.IntN(2)), uid: uid(), finished: rnd.IntN(5) == 0, label: fmt.Sprint(rnd.IntN(2)),
			account: []string{"", "sa0", "sa1"}[rnd.IntN(3)]}
		if rnd.IntN(2) == 0 {
			p.status = []string{fmt.Sprintf("10.%d.%d.%d", rnd.IntN(2), rnd.IntN(3), rnd.IntN(5)), fmt.Sprintf("fd00::%d", rnd.IntN(4))}
		}
		w.pods[src] = p
		w.take(t, w.j.pod(src, p.endpoint(src)))
	case 3, 4:
		src := fmt.Sprint(rnd.IntN(3))
		b := map[string][]netip.Addr{}
		for i := range rnd.IntN(4) {
			u := uid()
			b[u] = append(b[u], netip.MustParseAddr(fmt.Sprintf("10.0.%s.%d", src, i)))
		}
		w.blocks[src] = b
		cidr := w.cidr(src)
		if rnd.IntN(4) == 0 {
			delete(w.blocks, src)
			b, cidr = nil, netip.Prefix{}
		}
		w.take(t, w.j.block(src, cidr, maps.Clone(b)))
	case 5:
		src := fmt.Sprint(rnd.IntN(3))
		p := poolRange{netip.MustParsePrefix([]string{"10.0.0.0/16", "10.1.0.0/16", "fd00::/64", "10.0.0.0/8"}[rnd.IntN(4)]), rnd.IntN(2) == 0}
		if rnd.IntN(3) == 0 {
			p = poolRange{}
		}
		if w.pools[src] = p; !p.prefix.IsValid() {
			delete(w.pools, src)
		}
		w.take(t, w.j.pool(src, p))
	}
}

// TestJoinModel: after any history the endpoints are those of a world computed from scratch, and each was told once for
// each change.
func TestJoinModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 150 {
		w := newWorld()
		if i%2 == 0 {
			w.j.spaces, w.j.accounts = map[string]bool{}, map[string]bool{}
		}
		for i := range 60 {
			w.step(t, rnd)
			if diff := cmp.Diff(w.want(t), w.told); diff != "" {
				t.Fatalf("after step %d: %s", i, diff)
			}
		}
		for src := range w.pods {
			w.take(t, w.j.pod(src, nil))
		}
		for src := range w.blocks {
			w.take(t, w.j.block(src, netip.Prefix{}, nil))
		}
		if n := len(w.j.pods) + len(w.j.byUID) + len(w.j.leases) + len(w.j.blocks) + len(w.j.hidden) +
			len(w.j.ranges.blocks) + len(w.j.ranges.lengths) + len(w.j.loose) + len(w.j.aged); n != 0 || len(w.told) != 0 {
			t.Fatalf("something stays when all is gone: %+v, %v", w.j, w.told)
		}
	}
}

// TestJoinTouchesNoOthers: a write of a block costs events of those whose addresses move.
func TestJoinTouchesNoOthers(t *testing.T) {
	w := newWorld()
	leases := map[string][]netip.Addr{}
	for i := range 50 {
		src, uid := fmt.Sprintf("pod%d", i), fmt.Sprintf("u%d", i)
		w.take(t, w.j.pod(src, podState{node: "n", uid: uid}.endpoint(src)))
		if i > 0 {
			leases[uid] = addrs(fmt.Sprintf("10.0.0.%d", i))
		}
	}
	w.take(t, w.j.block("b", netip.MustParsePrefix("10.0.0.0/26"), maps.Clone(leases)))
	w.events = 0
	leases["u0"], leases["u1"] = leases["u1"], nil
	delete(leases, "u1")
	w.take(t, w.j.block("b", netip.MustParsePrefix("10.0.0.0/26"), maps.Clone(leases)))
	if w.events != 2 {
		t.Errorf("%d events for one address that moves from one pod to another", w.events)
	}
}

// TestLeases: who has which addresses, by a block as it is stored.
func TestLeases(t *testing.T) {
	const uid = "0a1b2c3d-0000-4000-8000-000000000001"
	released := metav1.Now()
	b := api.IPAMBlock{ObjectMeta: metav1.ObjectMeta{Name: "10-0-0-0-29"}, Spec: api.IPAMBlockSpec{CIDR: "10.0.0.0/29", Affinity: "host:n",
		Allocations: api.Allocations{0, api.Free, 1, 0, api.Free, api.Free, api.Free, 2}, Unallocated: []int{1, 4, 5, 6},
		Attributes: []api.AllocationAttribute{
			{HandleID: "a", Secondary: api.Owner{Namespace: "ns", Pod: "p", UID: uid, Node: "n"}.Attributes("host:n")},
			{HandleID: "tunnel", Secondary: api.Owner{Node: "n", Type: "vxlanTunnelAddress"}.Attributes("host:n")},
			{ReleasedAt: &released, Secondary: map[string]string{"uid": "x"}},
		}}}
	data, err := json.Marshal(&b)
	if err != nil {
		t.Fatal(err)
	}
	it := stored("IPAMBlock", &rawObject{ObjectMeta: metav1.ObjectMeta{Name: b.Name}, data: data})
	want := map[string][]netip.Addr{uid: addrs("10.0.0.0", "10.0.0.3")}
	if it.cidr != netip.MustParsePrefix("10.0.0.0/29") {
		t.Errorf("the block is %s", it.cidr)
	}
	if diff := cmp.Diff(want, it.leases, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || it.err != nil {
		t.Errorf("%s %v", diff, it.err)
	}
}

// TestStatusInPools: an address that a pod names itself counts in a disabled pool, unless a block has it, and never in an
// enabled one. What does not count is told, once it has lasted.
func TestStatusInPools(t *testing.T) {
	const mine, other = "u1", "u2"
	on, off := poolRange{prefix: netip.MustParsePrefix("10.66.0.0/16")}, poolRange{netip.MustParsePrefix("10.66.0.0/16"), true}
	narrow := poolRange{prefix: netip.MustParsePrefix("10.66.0.0/24")}
	block := netip.MustParsePrefix("10.66.0.0/26")
	for _, c := range []struct {
		name    string
		pools   map[string]poolRange
		block   netip.Prefix
		leases  map[string][]netip.Addr
		has     []string
		foreign bool
		problem string // has these words
	}{
		{name: "no pool", has: []string{"10.66.0.6/32"}},
		{name: "disabled", pools: map[string]poolRange{"off": off}, has: []string{"10.66.0.6/32"}, foreign: true},
		{name: "disabled, and other blocks", pools: map[string]poolRange{"off": off}, block: netip.MustParsePrefix("10.66.0.64/26"), has: []string{"10.66.0.6/32"}, foreign: true},
		{name: "disabled, in a block of another pod's", pools: map[string]poolRange{"off": off}, block: block, leases: map[string][]netip.Addr{other: addrs("10.66.0.6")},
			problem: "10.66.0.6 of pod ns1/pod1 is in a block of IPPool off,"},
		{name: "disabled, in a block that has it free", pools: map[string]poolRange{"off": off}, block: block, problem: "10.66.0.6 of pod ns1/pod1 is in a block of IPPool off,"},
		{name: "disabled, in its own block", pools: map[string]poolRange{"off": off}, block: block, leases: map[string][]netip.Addr{mine: addrs("10.66.0.6")}, has: []string{"10.66.0.6/32"}},
		{name: "enabled", pools: map[string]poolRange{"on": on}, problem: "10.66.0.6 of pod ns1/pod1 is in IPPool on,"},
		{name: "enabled, another's", pools: map[string]poolRange{"on": on}, block: block, leases: map[string][]netip.Addr{other: addrs("10.66.0.6")}, problem: "IPPool on,"},
		{name: "enabled, its own", pools: map[string]poolRange{"on": on}, block: block, leases: map[string][]netip.Addr{mine: addrs("10.66.0.6")}, has: []string{"10.66.0.6/32"}},
		{name: "in both", pools: map[string]poolRange{"off": off, "on": narrow}, problem: "IPPool on,"},
	} {
		for _, podFirst := range []bool{true, false} {
			w := newWorld()
			pod := func() {
				w.take(t, w.j.pod("ns1/pod1", podState{node: "n", uid: mine, status: []string{"10.66.0.6"}}.endpoint("pod1")))
			}
			if podFirst {
				pod()
			}
			for name, p := range c.pools {
				w.take(t, w.j.pool(name, p))
			}
			w.take(t, w.j.block("b", c.block, c.leases))
			if !podFirst {
				pod()
			}
			e := w.j.pods["ns1/pod1"]
			o, err := e.object()
			if err != nil || !slices.Equal(o.Spec.IPNetworks, c.has) || (len(o.Spec.Foreign) > 0) != c.foreign || len(e.told()) > 0 {
				t.Errorf("%s: has %v, not given %v, problems %v, %v", c.name, o.Spec.IPNetworks, o.Spec.Foreign, e.told(), err)
			}
			events := w.events
			for range 2 * agedSweeps {
				w.take(t, w.j.age())
			}
			told := fmt.Sprint(w.j.pods["ns1/pod1"].told())
			if (c.problem == "") != (told == "[]") || !strings.Contains(told, c.problem) || w.events-events != min(1, len(c.problem)) || w.j.aging() {
				t.Errorf("%s: once it has lasted: %s, want %q; %d events", c.name, told, c.problem, w.events-events)
			}
			w.take(t, w.j.block("b", block, map[string][]netip.Addr{mine: addrs("10.66.0.6")}))
			if now := w.j.pods["ns1/pod1"]; len(now.told()) > 0 || now.odd != nil || !slices.Equal(now.addrs, addrs("10.66.0.6")) {
				t.Errorf("%s: once a block has it: %v, problems %v", c.name, now.addrs, now.told())
			}
		}
	}
}

// TestStrayForAMoment: what lasts less than the sweeps is not told, and begins anew.
func TestStrayForAMoment(t *testing.T) {
	w := newWorld()
	block, held := netip.MustParsePrefix("10.66.0.0/26"), map[string][]netip.Addr{"u1": addrs("10.66.0.6")}
	w.take(t, w.j.pool("on", poolRange{prefix: netip.MustParsePrefix("10.66.0.0/16")}))
	for range 3 {
		w.take(t, w.j.pod("ns1/pod1", podState{node: "n", uid: "u1", status: []string{"10.66.0.6"}, label: fmt.Sprint(w.events)}.endpoint("pod1")))
		for range agedSweeps - 1 {
			w.take(t, w.j.age())
		}
		w.take(t, w.j.block("b", block, held))
		w.take(t, w.j.block("b", block, nil))
	}
	for range agedSweeps - 1 {
		w.take(t, w.j.age())
	}
	if e := w.j.pods["ns1/pod1"]; len(e.told()) > 0 || !w.j.aging() {
		t.Errorf("told too early: %v", e.told())
	}
	w.take(t, w.j.pod("ns1/pod1", podState{node: "n", uid: "u1", finished: true}.endpoint("pod1")))
	if e := w.j.pods["ns1/pod1"]; len(e.told()) > 0 || w.j.aging() {
		t.Errorf("told of a pod that has ended: %v", e.told())
	}
}

// TestUnreadStatus: an address of status that can't be read may be one that nobody else knows of, unless a block says what
// the pod has.
func TestUnreadStatus(t *testing.T) {
	w := newWorld()
	o := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns1", Name: "n-k8s-pod1-eth0", UID: "u1"}, Spec: api.WorkloadEndpointSpec{Partial: []string{"port: odd"}}}
	w.take(t, w.j.pod("ns1/pod1", newEndpoint(o, convert.PodAddresses{Unread: []string{"ip: odd"}}, nil)))
	block := netip.MustParsePrefix("10.66.0.0/26")
	for i, c := range []struct {
		leases map[string][]netip.Addr
		want   []string
	}{
		{nil, []string{"port: odd", "ip: odd"}},
		{map[string][]netip.Addr{"u1": addrs("10.66.0.6")}, []string{"port: odd"}},
		{map[string][]netip.Addr{"u2": addrs("10.66.0.6")}, []string{"port: odd", "ip: odd"}},
	} {
		w.take(t, w.j.block("b", block, c.leases))
		got, err := w.j.pods["ns1/pod1"].object()
		if err != nil || !slices.Equal(got.Spec.Partial, c.want) {
			t.Errorf("step %d: %v, want %v (%v)", i, got.Spec.Partial, c.want, err)
		}
	}
}
