package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// Allocation is an address that somebody has, and who.
type Allocation struct {
	Held
	Handle string    `json:"handle"`
	Owner  api.Owner `json:"owner"`
}

// Use is an address that somebody uses, whether or not it has been allocated.
type Use struct {
	Addr netip.Addr `json:"addr"`
	By   string     `json:"by"` // for people: "WorkloadEndpoint/prod/web-0"
}

// Finding is an object that is not as it should be.
type Finding struct {
	Key     api.Key `json:"key"`
	Problem string  `json:"problem"`

	revision string
}

// Double is an address that is there twice: used by several, or in several blocks.
type Double struct {
	Addr netip.Addr `json:"addr"`
	By   []string   `json:"by"`
}

// Report is what an audit found. All of it empty means that blocks and uses agree.
type Report struct {
	// What has been looked at.
	Blocks    int `json:"blocks"`
	Allocated int `json:"allocated"`
	Used      int `json:"used"`

	Leaked  []Allocation `json:"leaked"`  // nobody uses them
	Missing []Use        `json:"missing"` // used, in a pool, and not allocated: they may be given to somebody else
	Double  []Double     `json:"double"`
	Objects []Finding    `json:"objects"` // affinities, blocks and records of handles
}

// AuditOptions says what counts as used.
type AuditOptions struct {
	// InUse returns the addresses that are used; nil = those of the WorkloadEndpoints and of the nodes' tunnels. It is
	// called after the blocks have been read: an address that is both allocated and used meanwhile is not a leak. Where
	// pods or load balancers have no objects in this store, only their owner knows, and has to say.
	InUse func(context.Context) ([]Use, error)
}

// Audit compares blocks, affinities, records of handles, and uses. It writes nothing.
func (a *Allocator) Audit(ctx context.Context, o AuditOptions) (Report, error) {
	w, err := a.view(ctx, o)
	if err != nil {
		return Report{}, fmt.Errorf("auditing addresses: %w", err)
	}
	return w.report(), nil
}

// world is everything that there is.
type world struct {
	rules      *rules
	blocks     []*block
	affinities []*api.BlockAffinity
	handles    []*api.IPAMHandle
	nodes      map[string]bool
	uses       []Use
	unreadable []Finding
}

func (a *Allocator) view(ctx context.Context, o AuditOptions) (*world, error) {
	s, err := a.settings(ctx)
	if err != nil {
		return nil, err
	}
	w := &world{rules: s.rules(), nodes: map[string]bool{}}
	// Affinities come first: with a block that is gone by now, one would look as if it led nowhere, but is not the
	// same at a second look.
	if w.affinities, err = a.readAffinities(ctx); err != nil {
		return nil, err
	}
	objects, err := list[*api.IPAMBlock](ctx, a.store, "IPAMBlock")
	if errors.Is(err, datastore.ErrUnreadable) {
		w.unreadable = append(w.unreadable, Finding{Key: api.Key{Kind: "IPAMBlock"}, Problem: err.Error()})
	} else if err != nil {
		return nil, err
	}
	for _, o := range objects {
		b, err := readBlock(o)
		if err != nil {
			w.unreadable = append(w.unreadable, Finding{Key: api.KeyOf(o), Problem: err.Error()})
			continue
		}
		w.blocks = append(w.blocks, b)
	}
	if w.handles, err = list[*api.IPAMHandle](ctx, a.store, "IPAMHandle"); err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return nil, err
	}
	nodes, err := list[*api.Node](ctx, a.store, "Node")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return nil, err
	}
	for _, n := range nodes {
		w.nodes[n.Name] = true
	}
	inUse := o.InUse
	if inUse == nil {
		inUse = func(ctx context.Context) ([]Use, error) { return storedUses(ctx, a.store, nodes) }
	}
	w.uses, err = inUse(ctx)
	return w, err
}

// storedUses are the addresses that objects of the store speak of. One that can't be read might use any.
func storedUses(ctx context.Context, s Store, nodes []*api.Node) ([]Use, error) {
	endpoints, err := list[*api.WorkloadEndpoint](ctx, s, "WorkloadEndpoint")
	if err != nil {
		return nil, err
	}
	var uses []Use
	add := func(o api.Object, addr string) {
		if p, err := api.ParsePrefix(addr); err == nil {
			uses = append(uses, Use{p.Addr(), api.KeyOf(o).String()})
		}
	}
	for _, e := range endpoints {
		for _, n := range e.Spec.IPNetworks {
			add(e, n)
		}
	}
	for _, n := range nodes {
		addrs := []string{n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr}
		if n.Spec.BGP != nil {
			addrs = append(addrs, n.Spec.BGP.IPv4IPIPTunnelAddr)
		}
		if n.Spec.Wireguard != nil {
			addrs = append(addrs, n.Spec.Wireguard.InterfaceIPv4Address, n.Spec.Wireguard.InterfaceIPv6Address)
		}
		for _, a := range addrs {
			add(n, a)
		}
	}
	return uses, nil
}

func (w *world) report() Report {
	r := Report{Blocks: len(w.blocks), Used: len(w.uses), Objects: append(w.unreadable, w.objects()...)}
	users := map[netip.Addr][]string{}
	for _, u := range w.uses {
		if !slices.Contains(users[u.Addr], u.By) {
			users[u.Addr] = append(users[u.Addr], u.By)
		}
	}
	holders := map[netip.Addr][]string{}
	usedHandles := map[string]bool{}
	all := w.allocations()
	for _, a := range all {
		holders[a.Addr] = append(holders[a.Addr], a.Block.String())
		if len(users[a.Addr]) > 0 {
			usedHandles[a.Handle] = true
		}
	}
	for _, a := range all {
		// A handle whose other address is used is somebody's who is alive: it goes as a whole, or not at all.
		if len(users[a.Addr]) == 0 && !usedHandles[a.Handle] {
			r.Leaked = append(r.Leaked, a)
		}
	}
	r.Allocated = len(holders)
	for addr, by := range users {
		if len(by) > 1 {
			r.Double = append(r.Double, Double{addr, by})
		}
		if len(holders[addr]) == 0 && w.gives(addr) {
			r.Missing = append(r.Missing, Use{addr, by[0]})
		}
	}
	for addr, blocks := range holders {
		if len(blocks) > 1 {
			r.Double = append(r.Double, Double{addr, blocks})
		}
	}
	slices.SortFunc(r.Missing, func(a, b Use) int { return a.Addr.Compare(b.Addr) })
	slices.SortFunc(r.Double, func(a, b Double) int { return cmp.Or(a.Addr.Compare(b.Addr), slices.Compare(a.By, b.By)) })
	return r
}

// gives says whether an address can be given to a workload: a pool or a block has it for that.
func (w *world) gives(a netip.Addr) bool {
	p := w.rules.poolOf(netip.PrefixFrom(a, a.BitLen()))
	switch {
	case p == nil || p.obj.Spec.OnlyTunnels():
		return false
	case p.obj.Spec.Disabled: // its blocks live on
		return slices.ContainsFunc(w.blocks, func(b *block) bool { return b.prefix.Contains(a) })
	}
	return true
}

func (w *world) allocations() []Allocation {
	var all []Allocation
	for _, b := range w.blocks {
		for i := range b.obj.Spec.Allocations {
			if h, ok := b.handle(i); ok {
				all = append(all, Allocation{Held{nth(b.prefix, i), b.prefix, w.rules.poolName(b.prefix), b.token(i)}, h, b.owner(i)})
			}
		}
	}
	return all
}

// objects finds what does not fit together.
func (w *world) objects() []Finding {
	var out []Finding
	note := func(o api.Object, format string, args ...any) {
		out = append(out, Finding{api.KeyOf(o), fmt.Sprintf(format, args...), o.GetResourceVersion()})
	}
	blocks := map[netip.Prefix]*block{}
	for _, b := range w.blocks {
		blocks[b.prefix] = b
	}
	owned := map[netip.Prefix]bool{}
	for _, o := range w.affinities {
		p := rangeOf(o)
		b := blocks[p]
		if b != nil && b.obj.Spec.Affinity == affinityOf(o) {
			owned[p] = true
		}
		switch {
		case o.Spec.State != stateConfirmed:
			note(o, "is %s: node %s began something, or is about to end it", o.Spec.State, o.Spec.Node)
		case b == nil:
			note(o, "has no block")
		case b.obj.Spec.Affinity != affinityOf(o):
			note(o, "is for %s, but the block says %q", o.Spec.Node, b.obj.Spec.Affinity)
		case w.gone(o.Spec.Node, affinityOf(o)):
			note(o, "is of node %s, which is gone", o.Spec.Node)
		}
	}
	for i, b := range w.blocks {
		switch {
		case b.obj.Spec.Affinity == "":
			note(b.obj, "is nobody's")
		case !owned[b.prefix]:
			note(b.obj, "is of %s, but has no affinity", b.obj.Spec.Affinity)
		}
		if w.rules.poolOf(b.prefix) == nil {
			note(b.obj, "is in no pool")
		}
		for _, other := range w.blocks[i+1:] {
			if b.prefix.Overlaps(other.prefix) {
				note(b.obj, "overlaps block %s", other.prefix)
			}
		}
	}
	return append(out, w.records(blocks)...)
}

// records finds handles' records of blocks that the handle has nothing in.
func (w *world) records(blocks map[netip.Prefix]*block) []Finding {
	var out []Finding
	for _, h := range w.handles {
		for _, cidr := range slices.Sorted(maps.Keys(h.Spec.Block)) {
			p, err := api.ParsePrefix(cidr)
			if b := blocks[p]; err != nil || b == nil || len(b.heldBy(h.Spec.HandleID)) == 0 {
				out = append(out, Finding{api.KeyOf(h), fmt.Sprintf("has nothing in %s, though it says so", cidr), h.ResourceVersion})
				break
			}
		}
	}
	return out
}

// gone says whether a node is no more. Nodes that have no object while others do are.
func (w *world) gone(node, affinity string) bool {
	return strings.HasPrefix(affinity, "host:") && len(w.nodes) > 0 && !w.nodes[node]
}
