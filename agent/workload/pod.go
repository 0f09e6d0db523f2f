package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/internal/agentapi"
)

const (
	// podPatience is how long an attach waits until the API server has told of the pod.
	podPatience = 10 * time.Second
	// memberPatience is how long an attach waits until the pod is seen with its addresses. Its own policy is in force by
	// then; what is waited for is that policy of other pods of this node knows it.
	memberPatience = 2 * time.Second
	// podInterface is the interface in the name of a pod's WorkloadEndpoint, which all of its interfaces use.
	podInterface = "eth0"
)

// Pods is what the API server tells of pods. Where it is the store, it has a WorkloadEndpoint of each pod, and the agent
// writes none.
type Pods interface {
	// WaitPod waits until the graph has been told of the pod with this UID, and of its namespace. An error says what is
	// missing.
	WaitPod(ctx context.Context, key api.Key, uid string) (Pod, error)
	// WaitMember waits until the graph has been told that the pod has addrs.
	WaitMember(ctx context.Context, key api.Key, uid string, addrs []netip.Addr) error
}

// Pod is what annotations ask for.
type Pod struct {
	Annotations map[string]string // of the pod
	Namespace   map[string]string // of its namespace
}

// byFamily is names or prefixes of pools for IPv4 and for IPv6.
type byFamily [2][]string

// ofPod waits for the pod that a request is about, and lays over the request what its annotations ask for.
func (w *Workloads) ofPod(ctx context.Context, r agentapi.AttachRequest, e ledger.Entry) (agentapi.AttachRequest, wishes, error) {
	var none wishes
	x := r.Workload
	switch {
	case x.Orchestrator != orchestratorKubernetes:
		return r, none, agentapi.Errorf(agentapi.CodeBadRequest,
			"attach: this node is of a Kubernetes cluster, where only pods can be plugged in: CNI_ARGS has no K8S_POD_NAME")
	case x.UID == "":
		return r, none, agentapi.Errorf(agentapi.CodeBadRequest,
			"attach: the runtime does not say which pod this is: CNI_ARGS has no K8S_POD_UID (containerd 1.6 and CRI-O 1.24, or newer, have it)")
	case len(x.Labels)+len(x.Profiles)+len(x.Ports)+len(x.SourcePrefixes) > 0 || x.ServiceAccount != "":
		return r, none, agentapi.Errorf(agentapi.CodeBadRequest,
			"attach: labels, profiles, ports and allowed source prefixes of a pod are those of the pod: the network configuration can't add any")
	}
	pod, err := w.waitPod(ctx, e, x)
	if err != nil {
		return r, none, err
	}
	wish, err := readWishes(pod)
	if err == nil {
		err = w.permitted(wish)
	}
	if err == nil {
		r, err = wish.over(r)
	}
	if err != nil {
		return r, none, agentapi.Errorf(agentapi.CodeBadRequest, "attach: pod %s/%s: %v", x.Namespace, x.Name, err)
	}
	return r, wish, nil
}

// waitPod waits for a pod. It is unknown only if the API server could have told of it.
func (w *Workloads) waitPod(ctx context.Context, e ledger.Entry, x agentapi.Workload) (Pod, error) {
	if _, err := w.o.Store(); err != nil {
		return Pod{}, storeError("attach: nothing was done, try again", err)
	}
	wait, cancel := context.WithTimeout(ctx, podPatience)
	defer cancel()
	pod, err := w.o.Pods.WaitPod(wait, endpointKey(e), e.UID)
	switch {
	case err == nil:
		return pod, nil
	case !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
		return pod, waitError(fmt.Sprintf("attach: pod %s/%s", x.Namespace, x.Name), err)
	}
	if _, err := w.o.Store(); err != nil {
		return Pod{}, storeError("attach: nothing was done, try again", err)
	}
	return Pod{}, agentapi.Errorf(agentapi.CodeUnknownPod, "attach: pod %s/%s: %v; try again", x.Namespace, x.Name, err)
}

// wishes is what annotations ask for.
type wishes struct {
	pools    byFamily
	families []string
	addrs    []netip.Addr
	noIPAM   []netip.Addr // addresses that nobody is asked about
	floating []netip.Addr
	mac      string
}

// Annotations, all below annotationPrefix. A namespace can have those of pools and families; the pod's come first.
const (
	annotationPrefix   = "cni.projectcalico.org/"
	annotationPools4   = annotationPrefix + "ipv4pools"
	annotationPools6   = annotationPrefix + "ipv6pools"
	annotationFamilies = annotationPrefix + "ipFamilies"
	annotationAddrs    = annotationPrefix + "ipAddrs"
	annotationMAC      = annotationPrefix + "hwAddr"
	annotationNoIPAM   = annotationPrefix + "ipAddrsNoIpam"

	familyIPv4 = "IPv4"
	familyIPv6 = "IPv6"
)

func readWishes(p Pod) (wishes, error) {
	var x wishes
	for name, into := range map[string]*[]string{annotationPools4: &x.pools[0], annotationPools6: &x.pools[1], annotationFamilies: &x.families} {
		from, text := "", p.Annotations[name]
		if text == "" {
			from, text = " of its namespace", p.Namespace[name]
		}
		if err := readList(name+from, text, into); err != nil {
			return x, err
		}
	}
	for _, f := range x.families {
		if f != familyIPv4 && f != familyIPv6 {
			return x, fmt.Errorf("annotation %s: %q is neither IPv4 nor IPv6", annotationFamilies, f)
		}
	}
	for name, into := range map[string]*[]netip.Addr{annotationAddrs: &x.addrs, annotationNoIPAM: &x.noIPAM} {
		var err error
		if *into, err = readAddrs(name, p.Annotations[name]); err != nil {
			return x, err
		}
	}
	if len(x.addrs) > 0 && len(x.noIPAM) > 0 {
		return x, fmt.Errorf("annotations %s, %s: a pod can't have both", annotationAddrs, annotationNoIPAM)
	}
	var err error
	if x.floating, err = api.AnnotationAddrs(p.Annotations[api.AnnotationFloatingIPs]); err != nil {
		return x, fmt.Errorf("annotation %s: %w", api.AnnotationFloatingIPs, err)
	}
	if _, err := api.AnnotationPrefixes(p.Annotations[api.AnnotationSourcePrefixes]); err != nil {
		return x, fmt.Errorf("annotation %s: %w", api.AnnotationSourcePrefixes, err)
	}
	x.mac = p.Annotations[annotationMAC]
	return x, nil
}

// readAddrs reads a list of at most one address of each family.
func readAddrs(name, text string) ([]netip.Addr, error) {
	var texts []string
	if err := readList(name, text, &texts); err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", name, err)
		}
		if slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Unmap().Is4() == b.Is4() }) {
			return nil, fmt.Errorf("annotation %s: want at most one address of each family", name)
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

// permitted says whether this node's settings let pods have what they wish.
func (w *Workloads) permitted(x wishes) error {
	if len(x.noIPAM) > 0 && !w.o.NoIPAM {
		return fmt.Errorf("annotation %s: the agents' settings do not allow it (cni.ipAddrsNoIpam: true would)", annotationNoIPAM)
	}
	if len(x.floating) > 0 && !w.o.FloatingIPs {
		return fmt.Errorf("annotation %s: the agents' settings do not allow it (cni.floatingIPs: true would)", api.AnnotationFloatingIPs)
	}
	return nil
}

// outside refuses addresses without IPAM that are in a pool: IPAM would give them to somebody else, too.
func (w *Workloads) outside(ctx context.Context, addrs []netip.Addr) error {
	if w.o.Addresses == nil {
		return nil
	}
	in := func(pools []*api.IPPool) (netip.Addr, string) {
		for _, p := range pools {
			prefix, err := api.ParsePrefix(p.Spec.CIDR)
			if i := slices.IndexFunc(addrs, prefix.Contains); err == nil && i >= 0 {
				return addrs[i], p.Name
			}
		}
		return netip.Addr{}, ""
	}
	pools, err := w.pools(ctx, func(pools []*api.IPPool) bool {
		_, pool := in(pools)
		return pool != ""
	})
	if err != nil {
		return err
	}
	if a, pool := in(pools); pool != "" {
		return agentapi.Errorf(agentapi.CodeBadRequest, "attach: annotation %s: %s is in IPPool %s: ask for it by %s, or take one that is in no pool",
			annotationNoIPAM, a, pool, annotationAddrs)
	}
	return nil
}

// readList reads a JSON list of texts, as these annotations are written; nil if there is none.
func readList(name, text string, into *[]string) (err error) {
	if *into, err = api.AnnotationList(text); err != nil {
		return fmt.Errorf("annotation %s: %w", name, err)
	}
	return nil
}

// over is r with these wishes: those of the network configuration are for pods that have none.
func (x wishes) over(r agentapi.AttachRequest) (agentapi.AttachRequest, error) {
	r.MAC = cmp.Or(x.mac, r.MAC)
	if len(r.Addresses) > 0 {
		for name, addrs := range map[string][]netip.Addr{annotationAddrs: x.addrs, annotationNoIPAM: x.noIPAM} {
			if len(addrs) > 0 {
				return r, fmt.Errorf("annotation %s: another plugin gives addresses to the pods of this network", name)
			}
		}
		return r, nil
	}
	if len(x.noIPAM) > 0 {
		r.Addresses, r.Allocate = x.noIPAM, nil
		return r, nil
	}
	want := agentapi.Allocate{}
	if r.Allocate != nil {
		want = *r.Allocate
	}
	if len(x.families) > 0 {
		want.V4, want.V6 = slices.Contains(x.families, familyIPv4), slices.Contains(x.families, familyIPv6)
	}
	if len(x.addrs) > 0 {
		want.Addresses = x.addrs
	}
	r.Allocate = &want
	return r, nil
}

// member waits until policy of other pods of this node knows the pod's addresses. It does not wait for ever: that they are
// known elsewhere comes by itself, too.
func (w *Workloads) member(ctx context.Context, e ledger.Entry) {
	if w.o.Pods == nil || !e.Allocated {
		return // who has given the address tells the API server of it when all is done
	}
	wait, cancel := context.WithTimeout(ctx, memberPatience)
	defer cancel()
	if err := w.o.Pods.WaitMember(wait, endpointKey(e), e.UID, e.Addrs); err != nil && ctx.Err() == nil {
		w.o.Log.Info("the API server has not told of a pod's addresses yet", "endpoint", e.Namespace+"/"+e.Name, "addresses", e.Addrs)
	}
}
