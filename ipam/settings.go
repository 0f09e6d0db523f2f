package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
	"github.com/tortie/tortie/datastore"
)

// DefaultMaxBlocks is how many blocks of each family a node takes if nothing else is configured.
const DefaultMaxBlocks = 20

// Settings is what users say about addresses.
type Settings struct {
	Pools        []*api.IPPool
	Reservations []*api.IPReservation
	Config       api.IPAMConfigurationSpec
	// Unreadable says why no address may be given: something that forbids some can't be read. They are taken back all
	// the same.
	Unreadable error
}

// SettingKinds are the kinds of objects that Settings are made of.
func SettingKinds() []string { return []string{"IPPool", "IPReservation", "IPAMConfiguration"} }

// ReadSettings reads them from a store.
func ReadSettings(ctx context.Context, s Store, log *slog.Logger) (Settings, error) {
	var out Settings
	pools, err := list[*api.IPPool](ctx, s, "IPPool")
	if errors.Is(err, datastore.ErrUnreadable) {
		log.Warn("pools are left out", "error", err)
	} else if err != nil {
		return out, err
	}
	// A reservation that can't be read may be of any address. Neither does a configuration that can't be read mean the
	// default.
	out.Pools = pools
	out.Reservations, err = list[*api.IPReservation](ctx, s, "IPReservation")
	if errors.Is(err, datastore.ErrUnreadable) {
		out.Unreadable = err
	} else if err != nil {
		return out, err
	}
	o, err := s.Get(ctx, api.Key{Kind: "IPAMConfiguration", Name: api.IPAMConfigurationName})
	switch {
	case errors.Is(err, datastore.ErrUnreadable):
		out.Unreadable = err
	case errors.Is(err, datastore.ErrNotFound):
	case err != nil:
		return out, err
	default:
		out.Config = o.(*api.IPAMConfiguration).Spec
	}
	return out, nil
}

// list returns what could be read, also beside an error.
func list[T api.Object](ctx context.Context, s Store, kind string) ([]T, error) {
	objects, err := s.List(ctx, kind, "")
	out := make([]T, 0, len(objects))
	for _, o := range objects {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out, err
}

// rules is Settings as the allocator wants them.
type rules struct {
	pools     []*pool
	reserved  []netip.Prefix
	strict    bool
	auto      bool // blocks are taken when needed
	maxBlocks int
	cooldown  time.Duration
	none      error // why no address may be given
}

type pool struct {
	obj                *api.IPPool
	name               string
	prefix             netip.Prefix
	blockSize          int
	disabled           string // why, "" = it is not
	nodes, namespaces  *selector.Selector
	allNodes, allSpace bool
}

func (s Settings) rules() *rules {
	r := &rules{
		strict: s.Config.StrictAffinity, auto: s.Config.AutoAllocateBlocks == nil || *s.Config.AutoAllocateBlocks,
		maxBlocks: s.Config.MaxBlocksPerHost, cooldown: time.Duration(s.Config.IPCooldownSeconds) * time.Second, none: s.Unreadable,
	}
	if r.maxBlocks <= 0 {
		r.maxBlocks = DefaultMaxBlocks
	}
	for _, o := range s.Pools {
		if p := readPool(o); p != nil {
			r.pools = append(r.pools, p)
		}
	}
	for _, o := range s.Reservations {
		for _, c := range o.Spec.ReservedCIDRs {
			p, err := api.ParsePrefix(c)
			if err != nil {
				r.none = fmt.Errorf("reservation %s: %w", o.Name, err)
				continue
			}
			r.reserved = append(r.reserved, p)
		}
	}
	return r
}

// blind is the error of a request for which it would have to be known which addresses may be given.
func (r *rules) blind() error {
	return fmt.Errorf("no address is given while it is not known which are reserved: %w", r.none)
}

// readPool returns nil for a pool that is not valid.
func readPool(o *api.IPPool) *pool {
	prefix, err := api.ParsePrefix(o.Spec.CIDR)
	if err != nil {
		return nil
	}
	p := &pool{obj: o, name: o.Name, prefix: prefix, blockSize: o.Spec.BlockSize}
	if p.blockSize == 0 {
		p.blockSize = prefix.Addr().BitLen() - 6
	}
	switch {
	case p.blockSize < prefix.Bits() || p.blockSize > prefix.Addr().BitLen() || prefix.Addr().BitLen()-p.blockSize > 12:
		p.disabled = fmt.Sprintf("blocks of /%d don't fit in it", p.blockSize)
	case o.Spec.Disabled:
		p.disabled = "it is disabled"
	case o.DeletionTimestamp != nil:
		p.disabled = "it is being deleted"
	}
	if p.nodes, p.allNodes, err = readSelector(o.Spec.NodeSelector); err != nil {
		p.disabled = "its nodeSelector can't be read"
	}
	if p.namespaces, p.allSpace, err = readSelector(o.Spec.NamespaceSelector); err != nil {
		p.disabled = "its namespaceSelector can't be read"
	}
	return p
}

func readSelector(s string) (sel *selector.Selector, all bool, err error) {
	if s == "" || s == "all()" {
		return nil, true, nil
	}
	sel, err = selector.Parse(s)
	return sel, false, err
}

// isReserved says whether an address is only for those who ask for it.
func (r *rules) isReserved(a netip.Addr) bool {
	for _, p := range r.reserved {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// usable says whether a block has an address that is not reserved.
func (r *rules) usable(b netip.Prefix) bool {
	touched := false
	for _, p := range r.reserved {
		if contains(p, b) {
			return false
		}
		touched = touched || p.Overlaps(b)
	}
	if !touched {
		return true
	}
	for i := range blockLen(b) {
		if !r.isReserved(nth(b, i)) {
			return true
		}
	}
	return false
}

// poolOf is the smallest pool that an address or block is in, nil for none.
func (r *rules) poolOf(b netip.Prefix) *pool {
	var best *pool
	for _, p := range r.pools {
		if contains(p.prefix, b) && (best == nil || p.prefix.Bits() > best.prefix.Bits()) {
			best = p
		}
	}
	return best
}

// poolName names the pool of a block for people.
func (r *rules) poolName(b netip.Prefix) string {
	if p := r.poolOf(b); p != nil {
		return p.name
	}
	return ""
}
