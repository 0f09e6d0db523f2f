package kube

import (
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore/kube/convert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// endpoint is the WorkloadEndpoint of a pod, in little memory. It is never changed.
type endpoint struct {
	key      api.Key
	rev      string
	uid      string
	data     []byte // as JSON, without what is here beside it
	partial  []string
	problems []api.Problem
	status   []netip.Addr // what the pod says of its addresses
	finished bool

	addrs []netip.Addr // that it has: of its lease, and those of status that are nobody's to give
}

func newEndpoint(w *api.WorkloadEndpoint, a convert.PodAddresses, problems []api.Problem) *endpoint {
	e := &endpoint{key: api.KeyOf(w), rev: w.ResourceVersion, uid: string(w.UID), partial: w.Spec.Partial, problems: problems,
		status: a.IPs, finished: a.Finished}
	short := *w
	short.TypeMeta, short.Namespace, short.Name, short.UID, short.ResourceVersion = metav1.TypeMeta{}, "", "", "", ""
	short.Spec.IPNetworks = nil
	e.data, _ = json.Marshal(&short) // it holds nothing that can't be encoded
	return e
}

// object returns e's WorkloadEndpoint.
func (e *endpoint) object() (*api.WorkloadEndpoint, error) {
	w := &api.WorkloadEndpoint{}
	if err := json.Unmarshal(e.data, w); err != nil {
		return nil, err
	}
	w.APIVersion, w.Kind = api.GroupVersion, e.key.Kind
	w.Namespace, w.Name, w.UID, w.ResourceVersion = e.key.Namespace, e.key.Name, types.UID(e.uid), e.rev
	w.Spec.Partial = slices.Clone(e.partial)
	for _, a := range e.addrs {
		w.Spec.IPNetworks = append(w.Spec.IPNetworks, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return w, nil
}

// same says that e and o are told alike, but for the revision.
func (e *endpoint) same(o *endpoint) bool {
	return e.key == o.key && e.uid == o.uid && string(e.data) == string(o.data) && slices.Equal(e.addrs, o.addrs) &&
		slices.Equal(e.partial, o.partial) && slices.Equal(e.problems, o.problems)
}

// joiner gives pods the addresses that blocks hold for their UIDs. It has no clock, no lock and no goroutine; what it
// knows is a function of the pods, blocks and pools that it was told of last, in whatever order.
//
//	pods        ns/name  ->  endpoint            -+
//	blocks      UID      ->  addresses, by block  +->  the endpoints that have changed
//	pools       name     ->  prefix               |
//	namespaces  name                             -+
//
// A pod is told of only once its namespace is known: without the labels that it has from there it could be taken for one
// of another kind of namespace.
type joiner struct {
	pods   map[string]*endpoint
	byUID  map[string][]string // sources of pods
	leases map[string][]lease  // by UID
	blocks map[string][]string // UIDs that a block has addresses for
	pools  map[string]netip.Prefix
	// spaces are the namespaces that are known; nil if that does not matter. hidden holds the sources of pods that wait for
	// theirs, by namespace.
	spaces map[string]bool
	hidden map[string]map[string]bool
}

// lease is the addresses that a block holds for a UID.
type lease struct {
	block string
	addrs []netip.Addr
}

// joined is a change of what is told of a key. e is nil if it is gone.
type joined struct {
	key   api.Key
	e     *endpoint
	known bool // told before
}

func newJoiner() *joiner {
	return &joiner{pods: map[string]*endpoint{}, byUID: map[string][]string{}, leases: map[string][]lease{},
		blocks: map[string][]string{}, pools: map[string]netip.Prefix{}, hidden: map[string]map[string]bool{}}
}

// pod takes in a pod; nil if it is gone, or is no endpoint.
func (j *joiner) pod(src string, e *endpoint) []joined {
	old := j.pods[src]
	if old != nil && (e == nil || e.uid != old.uid) {
		j.byUID[old.uid] = slices.DeleteFunc(j.byUID[old.uid], func(s string) bool { return s == src })
		if len(j.byUID[old.uid]) == 0 {
			delete(j.byUID, old.uid)
		}
	}
	if e == nil {
		delete(j.pods, src)
		if old == nil || j.show(old, src) {
			return nil
		}
		return []joined{{key: old.key, known: true}}
	}
	if old == nil || e.uid != old.uid {
		j.byUID[e.uid] = append(j.byUID[e.uid], src)
	}
	e.addrs = j.addresses(e)
	j.pods[src] = e
	if old == nil && j.hide(e, src) || old != nil && j.hidden[old.key.Namespace][src] {
		return nil
	}
	switch {
	case old == nil:
		return []joined{{key: e.key, e: e}}
	case old.key != e.key:
		return []joined{{key: old.key, known: true}, {key: e.key, e: e}}
	case old.same(e):
		return nil
	}
	return []joined{{key: e.key, e: e, known: true}}
}

// hide keeps a new pod back if its namespace is not known, and says so.
func (j *joiner) hide(e *endpoint, src string) bool {
	ns := e.key.Namespace
	if j.spaces == nil || j.spaces[ns] {
		return false
	}
	if j.hidden[ns] == nil {
		j.hidden[ns] = map[string]bool{}
	}
	j.hidden[ns][src] = true
	return true
}

// show ends that a pod is kept back, and says whether it was.
func (j *joiner) show(e *endpoint, src string) bool {
	ns := e.key.Namespace
	was := j.hidden[ns][src]
	delete(j.hidden[ns], src)
	if len(j.hidden[ns]) == 0 {
		delete(j.hidden, ns)
	}
	return was
}

// namespace takes in that a namespace is there, or no more. The last of its pods go by themselves.
func (j *joiner) namespace(name string, there bool) []joined {
	if !there {
		delete(j.spaces, name)
		return nil
	}
	if j.spaces[name] {
		return nil
	}
	j.spaces[name] = true
	var out []joined
	for _, src := range sorted(j.hidden[name]) {
		out = append(out, joined{key: j.pods[src].key, e: j.pods[src]})
	}
	delete(j.hidden, name)
	return out
}

// block takes in what a block holds for whom; nil if it is gone.
func (j *joiner) block(src string, leases map[string][]netip.Addr) []joined {
	var touched []string
	for _, uid := range j.blocks[src] {
		if leases[uid] == nil {
			touched = append(touched, uid)
			j.setLease(uid, lease{block: src})
		}
	}
	uids := make([]string, 0, len(leases))
	for uid, addrs := range leases {
		uids = append(uids, uid)
		if j.setLease(uid, lease{src, addrs}) {
			touched = append(touched, uid)
		}
	}
	slices.Sort(uids)
	if len(uids) == 0 {
		delete(j.blocks, src)
	} else {
		j.blocks[src] = uids
	}
	slices.Sort(touched)
	var out []joined
	for _, uid := range touched {
		for _, pod := range j.byUID[uid] {
			out = j.refresh(out, pod)
		}
	}
	return out
}

// setLease says whether l is another one than before; without addresses there is none.
func (j *joiner) setLease(uid string, l lease) bool {
	ls := j.leases[uid]
	i := slices.IndexFunc(ls, func(o lease) bool { return o.block == l.block })
	switch {
	case i >= 0 && slices.Equal(ls[i].addrs, l.addrs):
		return false
	case i >= 0:
		ls = slices.Delete(ls, i, i+1)
	}
	if len(l.addrs) > 0 {
		ls = append(ls, l)
		slices.SortFunc(ls, func(a, b lease) int { return a.addrs[0].Compare(b.addrs[0]) })
	}
	if len(ls) == 0 {
		delete(j.leases, uid)
	} else {
		j.leases[uid] = ls
	}
	return true
}

// pool takes in the range of a pool; the zero Prefix if it is gone.
func (j *joiner) pool(src string, p netip.Prefix) []joined {
	if j.pools[src] == p {
		return nil
	}
	if p.IsValid() {
		j.pools[src] = p
	} else {
		delete(j.pools, src)
	}
	var out []joined
	for pod, e := range j.pods {
		if len(e.status) > 0 {
			out = j.refresh(out, pod)
		}
	}
	slices.SortFunc(out, func(a, b joined) int { return compareKeys(a.key, b.key) })
	return out
}

// refresh adds a pod to out if its addresses have changed.
func (j *joiner) refresh(out []joined, src string) []joined {
	e := j.pods[src]
	addrs := j.addresses(e)
	if slices.Equal(addrs, e.addrs) {
		return out
	}
	now := *e
	now.addrs = addrs
	j.pods[src] = &now
	if j.hidden[now.key.Namespace][src] {
		return out
	}
	return append(out, joined{key: e.key, e: &now, known: true})
}

// addresses returns what e has: what blocks hold for it, and what it says itself of addresses that no pool has.
func (j *joiner) addresses(e *endpoint) []netip.Addr {
	if e.finished {
		return nil
	}
	var out []netip.Addr
	if e.uid != "" {
		for _, l := range j.leases[e.uid] {
			out = append(out, l.addrs...)
		}
	}
	for _, a := range e.status {
		if !j.pooled(a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (j *joiner) pooled(a netip.Addr) bool {
	for _, p := range j.pools {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// all returns all endpoints that may be told, as if none had been told before.
func (j *joiner) all() []joined {
	out := make([]joined, 0, len(j.pods))
	for src, e := range j.pods {
		if j.hidden[e.key.Namespace][src] {
			continue
		}
		out = append(out, joined{key: e.key, e: e})
	}
	return out
}
