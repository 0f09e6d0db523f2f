package kube

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/kube/convert"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// source is a resource of the API server, and what its objects become.
type source struct {
	name       string // what kubectl calls it
	path       string // "/api/v1"
	plural     string
	namespaced bool
	kind       string // of what its objects become
	// list makes an empty list of a type of Kubernetes' own; nil for what is read as JSON.
	list func() runtime.Object
	// convert never fails: what can't be used is an item that says why.
	convert func(o runtime.Object) *item
	// native says that its objects become policies, which could have the name of a stored one: see nativeOf.
	native bool
}

// Names of sources that others speak of.
const (
	pods            = "pods"
	namespaces      = "namespaces"
	serviceAccounts = "serviceaccounts"
	nodes           = "nodes"
	endpointSlices  = "endpointslices"
	policies        = "networkpolicies.networking.k8s.io"
	clusterPolicies = "clusternetworkpolicies.policy.networking.k8s.io"
	blocks          = "ipamblocks.projectcalico.org"
	pools           = "ippools.projectcalico.org"
)

// nativeOf returns the policy of Kubernetes' own, as namespace/name, that becomes the one named key; false if none can.
func nativeOf(key api.Key) (from string, ok bool) {
	switch key.Kind {
	case "NetworkPolicy":
		from, ok = strings.CutPrefix(key.Name, convert.NetworkPolicyPrefix)
		return key.Namespace + "/" + from, ok && from != ""
	case "GlobalNetworkPolicy":
		if from, ok = strings.CutPrefix(key.Name, convert.AdminPolicyPrefix); !ok {
			from, ok = strings.CutPrefix(key.Name, convert.BaselinePolicyPrefix)
		}
	}
	return from, ok && from != ""
}

// item is one object of a source, as it is kept and told.
type item struct {
	src string // namespace/name of the object
	rev string

	key      api.Key
	obj      api.Object // nil if there is none, or if err
	problems []api.Problem
	err      error
	sum      uint64 // of all of that; 0 = rev says all

	pod    *endpoint               // pods
	leases map[string][]netip.Addr // blocks: addresses by the UID of who has them
	cidr   netip.Prefix            // blocks
	pool   poolRange               // pools
}

// none says that nothing becomes of the object.
func (it *item) none() bool { return it.obj == nil && it.err == nil && it.pod == nil }

func srcKey(o metav1.Object) string {
	if ns := o.GetNamespace(); ns != "" {
		return ns + "/" + o.GetName()
	}
	return o.GetName()
}

// sources returns what is read of the API server.
func sources(seed maphash.Seed) []*source {
	c := converter{seed}
	out := []*source{
		{name: pods, path: "/api/v1", plural: "pods", namespaced: true, kind: "WorkloadEndpoint",
			list: listOf[corev1.Pod](corev1.SchemeGroupVersion, "Pod"), convert: c.pod},
		{name: namespaces, path: "/api/v1", plural: "namespaces", kind: "Profile",
			list: listOf[corev1.Namespace](corev1.SchemeGroupVersion, "Namespace"), convert: c.namespace},
		{name: serviceAccounts, path: "/api/v1", plural: "serviceaccounts", namespaced: true, kind: "Profile",
			list: listOf[corev1.ServiceAccount](corev1.SchemeGroupVersion, "ServiceAccount"), convert: c.serviceAccount},
		{name: nodes, path: "/api/v1", plural: "nodes", kind: "Node",
			list: listOf[corev1.Node](corev1.SchemeGroupVersion, "Node"), convert: c.node},
		{name: endpointSlices, path: "/apis/discovery.k8s.io/v1", plural: "endpointslices", namespaced: true, kind: "EndpointSlice",
			list: listOf[discoveryv1.EndpointSlice](discoveryv1.SchemeGroupVersion, "EndpointSlice"), convert: c.slice},
		{name: policies, path: "/apis/networking.k8s.io/v1", plural: "networkpolicies", namespaced: true, kind: "NetworkPolicy",
			convert: c.policy, native: true},
		{name: clusterPolicies, path: "/apis/policy.networking.k8s.io/v1alpha2", plural: "clusternetworkpolicies", kind: "GlobalNetworkPolicy",
			convert: c.clusterPolicy, native: true},
	}
	derived := map[string]bool{"WorkloadEndpoint": true, "Profile": true, "Node": true, "EndpointSlice": true}
	for _, k := range api.Kinds() {
		if derived[k.Kind] {
			continue
		}
		out = append(out, &source{name: k.Plural + ".projectcalico.org", path: "/apis/" + api.GroupVersion, plural: k.Plural,
			namespaced: k.Namespaced, kind: k.Kind, convert: func(o runtime.Object) *item {
				it := stored(k.Kind, o.(*rawObject))
				it.sum = maphash.Bytes(c.seed, o.(*rawObject).data) | 1 // its revision is in there, too
				return it
			}})
	}
	for _, src := range out {
		src.convert = src.guarded(src.convert)
	}
	return out
}

// guarded is convert, for objects that could not be read, too. What they would be is not there.
func (src *source) guarded(convert func(runtime.Object) *item) func(runtime.Object) *item {
	return func(o runtime.Object) *item {
		r, ok := o.(*rawObject)
		if !ok || r.err == nil {
			return convert(o)
		}
		it := &item{src: srcKey(r), rev: r.ResourceVersion, key: src.keyOf(r)}
		it.err = fmt.Errorf("%s %s: %w: %w", src.name, it.src, datastore.ErrUnreadable, r.err)
		return it
	}
}

// nameless is how an object is called of which not even the name can be read.
const nameless = "?"

// keyOf is the key of what an object becomes of which no more than the name is known.
func (src *source) keyOf(r *rawObject) api.Key {
	name := cmp.Or(r.Name, nameless)
	k := api.Key{Kind: src.kind, Name: name}
	if info, ok := api.KindByName(src.kind); ok && info.Namespaced {
		k.Namespace = cmp.Or(r.Namespace, nameless)
	}
	switch src.name {
	case pods: // nobody knows its node
		k.Name = api.WorkloadEndpointName(nameless, "k8s", name, "eth0")
	case namespaces:
		k.Name = api.NamespaceProfilePrefix + name
	case serviceAccounts:
		k.Name = api.ServiceAccountProfilePrefix + r.Namespace + "." + name
	case policies:
		k.Name = convert.NetworkPolicyPrefix + name
	case clusterPolicies:
		k.Name = convert.AdminPolicyPrefix + name
	}
	return k
}

// stored reads an object of one of our own kinds.
func stored(kind string, r *rawObject) *item {
	it := &item{src: srcKey(r), rev: r.ResourceVersion, key: api.Key{Kind: kind, Namespace: r.Namespace, Name: r.Name}}
	o, problems, err := api.DecodeStored(kind, r.data)
	if err != nil {
		it.err = unreadable(r, fmt.Errorf("%v: %w: %w", it.key, datastore.ErrUnreadable, err))
		return it
	}
	o.SetManagedFields(nil)
	it.obj, it.problems = o, problems
	switch o := o.(type) {
	case *api.IPAMBlock:
		it.leases = leasesOf(o)
		if p, err := netip.ParsePrefix(o.Spec.CIDR); err == nil {
			it.cidr = p.Masked()
		}
	case *api.IPPool:
		if !o.Spec.OnlyTunnels() {
			it.pool.prefix, _ = netip.ParsePrefix(o.Spec.CIDR) // else the addresses of pods in it are another's
			it.pool.disabled = o.Spec.Disabled
		}
	}
	return it
}

func unreadable(o metav1.Object, err error) error {
	return &datastore.UnreadableError{UID: string(o.GetUID()), Err: err}
}

func leasesOf(b *api.IPAMBlock) map[string][]netip.Addr {
	m := map[string][]netip.Addr{}
	for a, owner := range b.Owners() {
		if owner.UID != "" {
			m[owner.UID] = append(m[owner.UID], a)
		}
	}
	return m
}

// converter makes items of Kubernetes' own objects.
type converter struct{ seed maphash.Seed }

func (c converter) pod(o runtime.Object) *item {
	p := o.(*corev1.Pod)
	it := &item{src: srcKey(p), rev: p.ResourceVersion}
	w, addresses, problems := convert.Pod(p)
	if w == nil {
		return it
	}
	it.key, it.pod = api.KeyOf(w), newEndpoint(w, addresses, problems)
	return it
}

func (c converter) namespace(o runtime.Object) *item {
	return derived(c, o.(*corev1.Namespace), convert.Namespace(o.(*corev1.Namespace)), nil, nil)
}

func (c converter) serviceAccount(o runtime.Object) *item {
	return derived(c, o.(*corev1.ServiceAccount), convert.ServiceAccount(o.(*corev1.ServiceAccount)), nil, nil)
}

func (c converter) node(o runtime.Object) *item {
	n, problems := convert.Node(o.(*corev1.Node))
	return derived(c, o.(*corev1.Node), n, problems, nil)
}

func (c converter) slice(o runtime.Object) *item {
	return derived(c, o.(*discoveryv1.EndpointSlice), convert.EndpointSlice(o.(*discoveryv1.EndpointSlice)), nil, nil)
}

func (c converter) policy(o runtime.Object) *item {
	r := o.(*rawObject)
	p, problems, err := convert.NetworkPolicy(r.data)
	it := derived(c, r, p, problems, err)
	if err != nil {
		it.key = api.Key{Kind: "NetworkPolicy", Namespace: r.Namespace, Name: convert.NetworkPolicyPrefix + r.Name}
	}
	return it
}

func (c converter) clusterPolicy(o runtime.Object) *item {
	r := o.(*rawObject)
	p, problems, err := convert.ClusterNetworkPolicy(r.data)
	it := derived(c, r, p, problems, err)
	if err != nil {
		it.key = api.Key{Kind: "GlobalNetworkPolicy", Name: convert.AdminPolicyPrefix + r.Name}
	}
	return it
}

// derived makes an item of what was converted. Its content is summed up, since most changes of Kubernetes' objects mean
// nothing to us.
func derived[T any, P interface {
	*T
	api.Object
}](c converter, from metav1.Object, o P, problems []api.Problem, err error) *item {
	it := &item{src: srcKey(from), rev: from.GetResourceVersion(), problems: problems}
	switch {
	case err != nil:
		it.err = unreadable(from, fmt.Errorf("%s: %w: %w", it.src, datastore.ErrUnreadable, err))
	case o != nil:
		it.key, it.obj = api.KeyOf(o), o
		o.SetResourceVersion("")
	default:
		return it
	}
	it.sum = c.sum(it)
	if o != nil {
		o.SetResourceVersion(it.rev)
	}
	return it
}

func (c converter) sum(it *item) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	if it.obj != nil {
		if b, err := api.Encode(it.obj); err == nil {
			h.Write(b)
		}
	}
	if s, ok := it.obj.(*api.EndpointSlice); ok {
		for _, p := range s.Partial { // which is not in the JSON
			h.WriteString(p)
		}
	}
	for _, p := range it.problems {
		h.WriteString(p.Error())
	}
	if it.err != nil {
		h.WriteString(it.err.Error())
	}
	var unread *datastore.UnreadableError
	if errors.As(it.err, &unread) {
		h.WriteString(unread.UID)
	}
	return h.Sum64() | 1
}
