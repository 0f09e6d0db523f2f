package calico

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/ipam"
)

const (
	// podHandle comes before the id of the sandbox in the handles of Calico's plugin.
	podHandle = "k8s-pod-network."
	// reservedOnWindows is the handle of addresses that nobody may have on Windows.
	reservedOnWindows = "windows-reserved-ipam-handle"
	podInterface      = "eth0"
)

// cluster is whose addresses can be.
type cluster struct {
	pods  map[string]Pod // by namespace/name
	nodes map[string]bool
}

func readCluster(ctx context.Context, from Source) (*cluster, error) {
	pods, err := from.Pods(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading pods: %w", err)
	}
	nodes, err := from.Nodes(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading nodes: %w", err)
	}
	c := &cluster{pods: map[string]Pod{}, nodes: map[string]bool{}}
	for _, p := range pods {
		c.pods[p.Namespace+"/"+p.Name] = p
	}
	for _, n := range nodes {
		c.nodes[n] = true
	}
	return c, nil
}

// lease is an address that somebody has.
type lease struct {
	addr   netip.Addr
	handle string
	owner  api.Owner
	seq    uint64
}

// planBlocks plans the blocks, their affinities, and the records of handles that need one.
func planBlocks(ctx context.Context, from Source, to datastore.Store, objects []*object) ([]Step, error) {
	if len(objects) == 0 {
		return nil, nil
	}
	c, err := readCluster(ctx, from)
	if err != nil {
		return nil, err
	}
	here, err := readBlocks(ctx, to)
	if err != nil {
		return nil, err
	}
	var out []Step
	borrowed := map[string]*api.IPAMHandle{}
	for _, o := range objects {
		steps, err := c.planBlock(ctx, to, here, o, borrowed)
		if err != nil {
			return nil, err
		}
		out = append(out, steps...)
	}
	for _, name := range slices.Sorted(maps.Keys(borrowed)) {
		h := borrowed[name]
		key := api.KeyOf(h)
		s := Step{Kind: "IPAMHandle", To: &key, Object: h}
		if err := s.compare(ctx, to, true); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// readBlocks returns the blocks that are here, by their range.
func readBlocks(ctx context.Context, to datastore.Store) (map[netip.Prefix]*api.IPAMBlock, error) {
	objects, err := to.List(ctx, "IPAMBlock", "")
	if err != nil {
		return nil, err // one that can't be read may have any address
	}
	here := map[netip.Prefix]*api.IPAMBlock{}
	for _, o := range objects {
		b, ok := o.(*api.IPAMBlock)
		if !ok {
			continue
		}
		p, err := api.ParsePrefix(b.Spec.CIDR)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", api.KeyOf(b), err)
		}
		here[p] = b
	}
	return here, nil
}

func (c *cluster) planBlock(ctx context.Context, to datastore.Store, here map[netip.Prefix]*api.IPAMBlock, o *object, borrowed map[string]*api.IPAMHandle) ([]Step, error) {
	s := Step{Action: Skip, Kind: "IPAMBlock", From: o.Metadata.Name}
	leave := func(format string, args ...any) ([]Step, error) {
		s.Why = append(s.Why, fmt.Sprintf(format, args...))
		return []Step{s}, nil
	}
	var spec api.IPAMBlockSpec
	if err := json.Unmarshal(o.Spec, &spec); err != nil {
		s.Action = Conflict // who knows what addresses are in use
		return leave("it can't be read: %v", err)
	}
	p, err := api.ParsePrefix(spec.CIDR)
	if err != nil || len(spec.Allocations) != 1<<(p.Addr().BitLen()-p.Bits()) {
		s.Action = Conflict
		return leave("it can't be read: %d allocations for %q", len(spec.Allocations), spec.CIDR)
	}
	if i := slices.IndexFunc(spec.Allocations, func(at int) bool { return at >= len(spec.Attributes) }); i >= 0 {
		s.Action = Conflict
		return leave("it can't be read: allocations[%d] is attribute %d of %d, so nobody knows whose the address is", i, spec.Allocations[i], len(spec.Attributes))
	}
	leases, dropped := c.leases(&spec, p)
	s.Why = dropped
	key := ipam.BlockKey(p)
	node, host := strings.CutPrefix(spec.Affinity, "host:")
	switch {
	case spec.Deleted:
		return leave("it has been deleted")
	case len(leases) == 0 && (!host || !c.nodes[node]):
		return leave("nobody has an address of it, and its node is gone (%s)", cmp.Or(spec.Affinity, "nobody's"))
	}
	for other := range here {
		if other.Overlaps(p) && other != p {
			s.Action = Conflict
			return leave("block %s is here, and overlaps it", other)
		}
	}
	s.To = &key
	b, why := merge(here[p], &spec, p, leases)
	if why != "" {
		s.Action = Conflict
		return leave("%s", why)
	}
	if s.Action, s.Object = Create, b; here[p] != nil {
		s.Action = Update
		if sameBlock(here[p].Spec, b.Spec) {
			s.Action, s.Object = Same, nil
		}
	}
	steps := []Step{s}
	// The block first: whoever finds an affinity without one makes an empty one.
	a, err := ipam.NewAffinity(b)
	if err != nil {
		return nil, err
	}
	if a != nil {
		steps, err = withAffinity(ctx, to, a, steps)
	}
	for _, l := range leases {
		if spec.Affinity != "host:"+l.owner.Node && host {
			addHandle(borrowed, l, p)
		}
	}
	return steps, err
}

func withAffinity(ctx context.Context, to datastore.Store, a *api.BlockAffinity, steps []Step) ([]Step, error) {
	key := api.KeyOf(a)
	a.TypeMeta = typeOf(key.Kind)
	f := Step{Kind: "BlockAffinity", To: &key, Object: a}
	err := f.compare(ctx, to, false)
	if f.Action == Keep {
		f.Why = []string{"it is here already: the node is at work on it"}
	}
	return append(steps, f), err
}

func addHandle(borrowed map[string]*api.IPAMHandle, l lease, p netip.Prefix) {
	h := borrowed[l.handle]
	if h == nil {
		h = ipam.NewHandle(l.handle, l.owner.Node, map[string]int{})
		h.TypeMeta = typeOf("IPAMHandle")
		borrowed[l.handle] = h
	}
	h.Spec.Block[p.String()]++
}

func sameBlock(a, b api.IPAMBlockSpec) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return errors.Join(err1, err2) == nil && string(x) == string(y)
}

// leases returns who has addresses of a block, and which stay behind and why.
func (c *cluster) leases(spec *api.IPAMBlockSpec, p netip.Prefix) (out []lease, dropped []string) {
	used := map[string]bool{} // handles of which an address is known to be a living pod's
	type doubt struct {
		lease
		why string
	}
	var doubts []doubt
	addr := p.Addr()
	for i, at := range spec.Allocations {
		if i > 0 {
			addr = addr.Next()
		}
		if at < 0 || spec.Attributes[at].ReleasedAt != nil {
			continue
		}
		attr := &spec.Attributes[at]
		l := lease{addr: addr, handle: handleFor(attr.HandleID), owner: api.OwnerOf(attr.Secondary, spec.Affinity), seq: spec.SequenceNumberForAllocation[strconv.Itoa(i)]}
		why, maybe := c.claim(&l, attr.HandleID)
		switch {
		case why == "":
			used[l.handle] = true
			out = append(out, l)
		case maybe:
			doubts = append(doubts, doubt{l, why})
		default:
			dropped = append(dropped, fmt.Sprintf("%s stays behind: %s", addr, why))
		}
	}
	for _, d := range doubts { // another interface of a sandbox that lives, or an old sandbox
		if used[d.handle] {
			out = append(out, d.lease)
		} else {
			dropped = append(dropped, fmt.Sprintf("%s stays behind: %s", d.addr, d.why))
		}
	}
	slices.SortFunc(out, func(a, b lease) int { return a.addr.Compare(b.addr) })
	return out, dropped
}

// claim says why nobody has an address; "" if somebody does, whose UID is then in the lease. With maybe, another address
// of the same handle may tell.
func (c *cluster) claim(l *lease, handle string) (why string, maybe bool) {
	o := &l.owner
	switch {
	case handle == reservedOnWindows:
		return "it is reserved for Windows", false
	case o.Pod != "":
		p, ok := c.pods[o.Namespace+"/"+o.Pod]
		switch {
		case !ok:
			return fmt.Sprintf("pod %s/%s is gone", o.Namespace, o.Pod), false
		case p.Finished:
			return fmt.Sprintf("pod %s/%s has finished", o.Namespace, o.Pod), false
		case o.Node != "" && p.Node != o.Node:
			return fmt.Sprintf("pod %s/%s is another one now, on node %s", o.Namespace, o.Pod, p.Node), false
		}
		o.UID = p.UID
		if len(p.IPs) > 0 && !slices.Contains(p.IPs, l.addr) {
			return fmt.Sprintf("pod %s/%s has other addresses", o.Namespace, o.Pod), true
		}
	case o.Type != "" && o.Node != "" && !c.nodes[o.Node]:
		return fmt.Sprintf("node %s is gone", o.Node), false
	}
	return "", false // a pod's, a tunnel's, a load balancer's, or nobody can tell
}

// handleFor is how Tortie calls a handle: what its plugin gives back when the sandbox goes.
func handleFor(handle string) string {
	if id, ok := strings.CutPrefix(handle, podHandle); ok && id != "" {
		return ipam.HandleOf(id, podInterface)
	}
	return handle
}

// merge adds leases to a block that is here, or makes one; why says which address is somebody else's here.
func merge(have *api.IPAMBlock, spec *api.IPAMBlockSpec, p netip.Prefix, leases []lease) (b *api.IPAMBlock, why string) {
	if have != nil {
		b = api.DeepCopy(have).(*api.IPAMBlock)
		if b.Spec.Affinity != spec.Affinity {
			return nil, fmt.Sprintf("it is of %s here, and of %s at Calico", cmp.Or(b.Spec.Affinity, "nobody"), cmp.Or(spec.Affinity, "nobody"))
		}
	} else {
		b = ipam.NewBlock(p)
		b.TypeMeta = typeOf("IPAMBlock")
		b.Spec.Affinity, b.Spec.AffinityClaimTime, b.Spec.SequenceNumber = spec.Affinity, spec.AffinityClaimTime, spec.SequenceNumber
		b.Spec.Unallocated = slices.Clone(spec.Unallocated) // who has waited longest comes first
		for i := range b.Spec.Allocations {
			if !slices.Contains(b.Spec.Unallocated, i) {
				b.Spec.Unallocated = append(b.Spec.Unallocated, i)
			}
		}
	}
	base, changed := p.Addr(), false
	for _, l := range leases {
		i := distance(base, l.addr)
		if at := b.Spec.Allocations[i]; at >= 0 && b.Spec.Attributes[at].ReleasedAt == nil {
			now := api.OwnerOf(b.Spec.Attributes[at].Secondary, b.Spec.Affinity)
			if b.Spec.Attributes[at].HandleID == l.handle && now.UID == l.owner.UID {
				continue
			}
			return nil, fmt.Sprintf("%s is %s here, and %s at Calico", l.addr, people(now), people(l.owner))
		}
		changed = true
		b.Spec.Unallocated = slices.DeleteFunc(b.Spec.Unallocated, func(n int) bool { return n == i })
		b.Spec.Allocations[i] = len(b.Spec.Attributes)
		b.Spec.Attributes = append(b.Spec.Attributes, api.AllocationAttribute{HandleID: l.handle, Secondary: l.owner.Attributes(b.Spec.Affinity)})
		if b.Spec.SequenceNumberForAllocation == nil {
			b.Spec.SequenceNumberForAllocation = map[string]uint64{}
		}
		b.Spec.SequenceNumberForAllocation[strconv.Itoa(i)] = l.seq
		if have != nil {
			b.Spec.SequenceNumberForAllocation[strconv.Itoa(i)] = have.Spec.SequenceNumber + 1
		}
	}
	if have != nil && changed {
		b.Spec.SequenceNumber++
	}
	return b, ""
}

func people(o api.Owner) string {
	switch {
	case o.Pod != "":
		return "pod " + o.Namespace + "/" + o.Pod + "'s"
	case o.Type != "":
		return o.Type + " of node " + o.Node
	}
	return "somebody's"
}

func typeOf(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: kind}
}

// distance is how far an address of a block is from its first one.
func distance(base, a netip.Addr) int {
	x, y := base.As16(), a.As16()
	return (int(y[14])<<8 | int(y[15])) - (int(x[14])<<8 | int(x[15]))
}
