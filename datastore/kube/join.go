package kube

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

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
	account  string // service account; "" = none
	data     []byte // as JSON, without what is here beside it
	problems []api.Problem
	status   []netip.Addr // what the pod says of its addresses
	partial  []string     // of its ports, and then of its status: those count unless a block says what it has
	unread   int          // how many of partial are of its status
	finished bool

	given // what blocks and pools make of that
}

func newEndpoint(w *api.WorkloadEndpoint, a convert.PodAddresses, problems []api.Problem) *endpoint {
	e := &endpoint{key: api.KeyOf(w), rev: w.ResourceVersion, uid: string(w.UID), account: w.Spec.ServiceAccountName,
		partial: slices.Concat(w.Spec.Partial, a.Unread), unread: len(a.Unread), problems: problems, status: a.IPs, finished: a.Finished}
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
	w.Spec.Partial = slices.Clone(e.lost())
	w.Spec.IPNetworks, w.Spec.Foreign = networks(e.addrs), networks(e.foreign())
	return w, nil
}

func networks(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return out
}

// lost is what can't be read of what e gives to sets.
func (e *endpoint) lost() []string {
	if e.leased {
		return e.partial[:len(e.partial)-e.unread]
	}
	return e.partial
}

// told are the problems of e.
func (e *endpoint) told() []api.Problem {
	if e.odd == nil || !e.odd.lasting {
		return e.problems
	}
	out := slices.Clone(e.problems)
	for _, s := range e.odd.strays {
		out = append(out, s.problem(e.key.Namespace+"/"+podOf(e.key.Name)))
	}
	return out
}

// same says that e and o are told alike, but for the revision.
func (e *endpoint) same(o *endpoint) bool {
	return e.key == o.key && e.uid == o.uid && string(e.data) == string(o.data) && slices.Equal(e.addrs, o.addrs) &&
		slices.Equal(e.foreign(), o.foreign()) && slices.Equal(e.lost(), o.lost()) && slices.Equal(e.told(), o.told())
}

// joiner gives pods the addresses that blocks hold for their UIDs. It has no clock, no lock and no goroutine; what it
// knows is a function of the pods, blocks and pools that it was told of last, in whatever order.
//
//	pods        ns/name  ->  endpoint            -+
//	blocks      UID      ->  addresses, by block  +->  the endpoints that have changed
//	pools       name     ->  range                |
//	namespaces  name                             -+
//	accounts    ns/name                          -+
//
// A pod is told of only once its namespace and its service account are known: without the labels that it has from there it
// could be taken for one of another kind, and policy that is for it would pass it by. There may be no such account, though:
// whoever has read all that there are excuses those who wait for one, at first all and later after a while.
type joiner struct {
	pods   map[string]*endpoint
	byUID  map[string][]string // sources of pods
	leases map[string][]lease  // by UID
	blocks map[string]held
	pools  map[string]poolRange
	ranges ranges // of blocks
	// loose holds the pods that have addresses of status in disabled pools, and no lease of them: they are theirs if no block
	// has them. aged counts the sweeps that have seen a pod with strays, until they are told of.
	loose map[string]bool
	aged  map[string]int
	// spaces and accounts are the namespaces and service accounts that are known; nil if that does not matter. hidden holds
	// the sources of pods that wait for theirs, by what they wait for; true: a sweep has seen it.
	spaces, accounts map[string]bool
	hidden           map[string]map[string]bool
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
		blocks: map[string]held{}, pools: map[string]poolRange{}, ranges: newRanges(), loose: map[string]bool{}, aged: map[string]int{},
		hidden: map[string]map[string]bool{}}
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
		delete(j.loose, src)
		delete(j.aged, src)
		if old == nil || j.show(old, src) {
			return nil
		}
		return []joined{{key: old.key, known: true}}
	}
	if old == nil || e.uid != old.uid {
		j.byUID[e.uid] = append(j.byUID[e.uid], src)
	}
	if old != nil && e.uid == old.uid {
		j.give(src, e, old.given)
	} else {
		j.give(src, e, given{})
	}
	j.pods[src] = e
	swept := old != nil && e.uid == old.uid && j.hidden[j.accountOf(old)][src]
	fresh := old == nil || j.show(old, src)
	switch {
	case fresh && j.hide(e, src, swept):
		return nil
	case fresh:
		return []joined{{key: e.key, e: e}}
	case old.key != e.key:
		return []joined{{key: old.key, known: true}, {key: e.key, e: e}}
	case old.same(e):
		return nil
	}
	return []joined{{key: e.key, e: e, known: true}}
}

// accountOf is the service account that e needs, as namespace/name; "" if it needs none.
func (j *joiner) accountOf(e *endpoint) string {
	if j.accounts == nil || e.account == "" {
		return ""
	}
	return e.key.Namespace + "/" + e.account
}

// missing is what e has to wait for; "" if for nothing.
func (j *joiner) missing(e *endpoint) string {
	if j.spaces != nil && !j.spaces[e.key.Namespace] {
		return e.key.Namespace
	}
	if a := j.accountOf(e); a != "" && !j.accounts[a] {
		return a
	}
	return ""
}

// hide keeps a new pod back if something is missing, and says so. swept: a sweep has seen that it waits.
func (j *joiner) hide(e *endpoint, src string, swept bool) bool {
	what := j.missing(e)
	if what == "" {
		return false
	}
	if j.hidden[what] == nil {
		j.hidden[what] = map[string]bool{}
	}
	j.hidden[what][src] = swept
	return true
}

func (j *joiner) isHidden(e *endpoint, src string) bool {
	_, space := j.hidden[e.key.Namespace][src]
	_, account := j.hidden[j.accountOf(e)][src]
	return space || account
}

// show ends that a pod is kept back, and says whether it was.
func (j *joiner) show(e *endpoint, src string) bool {
	was := j.isHidden(e, src)
	for _, what := range []string{e.key.Namespace, j.accountOf(e)} {
		delete(j.hidden[what], src)
		if len(j.hidden[what]) == 0 {
			delete(j.hidden, what)
		}
	}
	return was
}

// namespace takes in that a namespace is there, or no more. The last of its pods go by themselves.
func (j *joiner) namespace(name string, there bool) []joined { return j.arrive(j.spaces, name, there) }

// serviceAccount takes in that a service account, as namespace/name, is there, or no more.
func (j *joiner) serviceAccount(name string, there bool) []joined {
	return j.arrive(j.accounts, name, there)
}

// arrive tells of the pods that have waited for nothing else.
func (j *joiner) arrive(known map[string]bool, name string, there bool) []joined {
	if !there {
		delete(known, name)
		return nil
	}
	if known[name] {
		return nil
	}
	known[name] = true
	waiting := sorted(j.hidden[name])
	delete(j.hidden, name)
	var out []joined
	for _, src := range waiting {
		if e := j.pods[src]; !j.hide(e, src, false) {
			out = append(out, joined{key: e.key, e: e})
		}
	}
	return out
}

// lacking says whether pods wait for service accounts.
func (j *joiner) lacking() bool {
	for what := range j.hidden {
		if strings.Contains(what, "/") {
			return true
		}
	}
	return false
}

// excuse tells of the pods that wait for service accounts: all, or those that waited at the last sweep already.
func (j *joiner) excuse(all bool) []joined {
	var out []joined
	for _, what := range sorted(j.hidden) {
		if !strings.Contains(what, "/") {
			continue
		}
		for _, src := range sorted(j.hidden[what]) {
			e := j.pods[src]
			if !all && !j.hidden[what][src] {
				j.hidden[what][src] = true
				continue
			}
			j.show(e, src)
			if j.spaces[e.key.Namespace] {
				out = append(out, joined{key: e.key, e: e})
			} else {
				j.hide(e, src, true) // its namespace has gone meanwhile
			}
		}
	}
	return out
}

// block takes in a block, and what it holds for whom; no leases and the zero Prefix if it is gone.
func (j *joiner) block(src string, cidr netip.Prefix, leases map[string][]netip.Addr) []joined {
	var touched []string
	old := j.blocks[src]
	for _, uid := range old.uids {
		if leases[uid] == nil {
			touched = append(touched, uid)
			j.setLease(uid, lease{block: src})
		}
	}
	now := held{uids: make([]string, 0, len(leases)), cidr: cidr}
	for uid, addrs := range leases {
		now.uids = append(now.uids, uid)
		if j.setLease(uid, lease{src, addrs}) {
			touched = append(touched, uid)
		}
	}
	slices.Sort(now.uids)
	if len(now.uids) == 0 && !cidr.IsValid() {
		delete(j.blocks, src)
	} else {
		j.blocks[src] = now
	}
	var pods []string
	if old.cidr != cidr {
		j.ranges.count(old.cidr, -1)
		j.ranges.count(cidr, 1)
		for pod := range j.loose {
			if slices.ContainsFunc(j.pods[pod].status, func(a netip.Addr) bool { return old.cidr.Contains(a) || cidr.Contains(a) }) {
				pods = append(pods, pod)
			}
		}
		slices.Sort(pods)
	}
	slices.Sort(touched)
	var out []joined
	for _, uid := range touched {
		for _, pod := range j.byUID[uid] {
			out = j.refresh(out, pod)
		}
	}
	for _, pod := range pods {
		out = j.refresh(out, pod)
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

// pool takes in the range of a pool; the zero poolRange if it is gone.
func (j *joiner) pool(src string, p poolRange) []joined {
	if j.pools[src] == p {
		return nil
	}
	if p.prefix.IsValid() {
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

// refresh adds a pod to out if what it has been given is another thing now.
func (j *joiner) refresh(out []joined, src string) []joined {
	e := j.pods[src]
	now := *e
	j.give(src, &now, e.given)
	j.pods[src] = &now
	if now.same(e) || j.isHidden(&now, src) {
		return out
	}
	return append(out, joined{key: e.key, e: &now, known: true})
}

// all returns all endpoints that may be told, as if none had been told before.
func (j *joiner) all() []joined {
	out := make([]joined, 0, len(j.pods))
	for src, e := range j.pods {
		if j.isHidden(e, src) {
			continue
		}
		out = append(out, joined{key: e.key, e: e})
	}
	return out
}
