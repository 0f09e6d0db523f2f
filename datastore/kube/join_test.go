package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
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
	pools  map[string]netip.Prefix
	spaces map[string]bool
	// accounts are as namespace/name; those who waited for one that is not there were excused in the last step.
	accounts map[string]bool
	excused  bool
	shown    map[string]bool   // pods whose namespace and account have been known
	told     map[string]string // endpoint by name: UID, label and addresses
	events   int
}

func newWorld() *world {
	return &world{j: newJoiner(), pods: map[string]podState{}, blocks: map[string]map[string][]netip.Addr{}, pools: map[string]netip.Prefix{},
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
		now := tell(o)
		if w.told[c.key.Name] == now {
			t.Errorf("%s told again: %s", c.key.Name, now)
		}
		w.told[c.key.Name] = now
	}
}

func tell(o *api.WorkloadEndpoint) string {
	return fmt.Sprintf("%s %s %s %v", o.UID, o.Labels["l"], o.Spec.ServiceAccountName, o.Spec.IPNetworks)
}

// want computes from scratch what must have been told.
func (w *world) want(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for src, p := range w.pods {
		ns := "ns" + src[3:]
		account := p.account == "" || w.accounts[ns+"/"+p.account] || w.excused
		if w.shown[src] = w.shown[src] || w.j.spaces == nil || w.spaces[ns] && account; !w.shown[src] {
			continue
		}
		var got []string
		if !p.finished {
			var leased []netip.Addr
			for _, b := range w.blocks {
				leased = append(leased, b[p.uid]...)
			}
			slices.SortFunc(leased, netip.Addr.Compare)
			for _, a := range append(leased, addrs(p.status...)...) {
				pooled := false
				for _, pool := range w.pools {
					pooled = pooled || pool.Contains(a)
				}
				text := netip.PrefixFrom(a, a.BitLen()).String()
				if (slices.Contains(leased, a) || !pooled) && !slices.Contains(got, text) {
					got = append(got, text)
				}
			}
		}
		out[p.node+"-k8s-"+src+"-eth0"] = fmt.Sprintf("%s %s %s %v", p.uid, p.label, p.account, got)
	}
	return out
}

// step changes something.
func (w *world) step(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	uid := func() string { return fmt.Sprintf("uid%d", rnd.IntN(5)) }
	w.excused = false
	switch rnd.IntN(9) {
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
			w.take(t, w.j.pod(src, nil))
			return
		}
		p := podState{node: fmt.Sprintf("n%d", rnd.IntN(2)), uid: uid(), finished: rnd.IntN(5) == 0, label: fmt.Sprint(rnd.IntN(2)),
			account: []string{"", "sa0", "sa1"}[rnd.IntN(3)]}
		if rnd.IntN(2) == 0 {
			p.status = []string{fmt.Sprintf("10.%d.0.%d", rnd.IntN(3), rnd.IntN(4)), fmt.Sprintf("fd00::%d", rnd.IntN(4))}
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
		if rnd.IntN(4) == 0 {
			b = nil
		}
		w.blocks[src] = b
		w.take(t, w.j.block(src, maps.Clone(b)))
	case 5:
		src := fmt.Sprint(rnd.IntN(3))
		p := netip.MustParsePrefix([]string{"10.0.0.0/16", "10.1.0.0/16", "fd00::/64", "10.0.0.0/8"}[rnd.IntN(4)])
		if rnd.IntN(3) == 0 {
			p = netip.Prefix{}
		}
		if w.pools[src] = p; !p.IsValid() {
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
			w.take(t, w.j.block(src, nil))
		}
		if n := len(w.j.pods) + len(w.j.byUID) + len(w.j.leases) + len(w.j.blocks) + len(w.j.hidden); n != 0 || len(w.told) != 0 {
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
	w.take(t, w.j.block("b", maps.Clone(leases)))
	w.events = 0
	leases["u0"], leases["u1"] = leases["u1"], nil
	delete(leases, "u1")
	w.take(t, w.j.block("b", maps.Clone(leases)))
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
	if diff := cmp.Diff(want, it.leases, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || it.err != nil {
		t.Errorf("%s %v", diff, it.err)
	}
}
