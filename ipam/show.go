package ipam

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// Usage is who has how much.
type Usage struct {
	Pools  []PoolUsage  `json:"pools"` // by name
	Blocks []BlockUsage `json:"blocks"`
}

// PoolUsage counts the addresses of a pool. The IPv6 ones are more than whole numbers can count.
type PoolUsage struct {
	Name     string       `json:"name"`
	CIDR     netip.Prefix `json:"cidr"`
	Size     float64      `json:"size"`
	Used     int          `json:"used"`     // somebody has them
	Cooling  int          `json:"cooling"`  // released a moment ago
	Reserved float64      `json:"reserved"` // nobody has them, and they are only for those who ask for them
	Free     float64      `json:"free"`
	Blocks   int          `json:"blocks"`
}

// BlockUsage counts the addresses of a block.
type BlockUsage struct {
	CIDR     netip.Prefix `json:"cidr"`
	Pool     string       `json:"pool,omitempty"`     // "" = it is in none
	Affinity string       `json:"affinity,omitempty"` // "host:n1"; "" = it is nobody's
	Size     int          `json:"size"`
	Used     int          `json:"used"`
	Borrowed int          `json:"borrowed"` // of those, on other nodes
	Cooling  int          `json:"cooling"`
	Reserved int          `json:"reserved"`
	Free     int          `json:"free"`
}

// Show counts addresses.
func (a *Allocator) Show(ctx context.Context) (Usage, error) {
	var u Usage
	s, err := a.settings(ctx)
	if err != nil {
		return u, fmt.Errorf("counting addresses: %w", err)
	}
	r := s.rules()
	objects, err := list[*api.IPAMBlock](ctx, a.store, "IPAMBlock")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return u, fmt.Errorf("counting addresses: %w", err)
	}
	now := a.now()
	for _, o := range objects {
		b, err := readBlock(o)
		if err != nil {
			continue // an audit shows it
		}
		n := BlockUsage{CIDR: b.prefix, Pool: r.poolName(b.prefix), Affinity: o.Spec.Affinity, Size: blockLen(b.prefix)}
		n.Used, n.Cooling = b.held(now, r.cooldown)
		for i := range n.Size {
			if _, ok := b.handle(i); ok {
				if "host:"+b.owner(i).Node != o.Spec.Affinity {
					n.Borrowed++
				}
			} else if at := b.attribute(i); r.isReserved(nth(b.prefix, i)) && (at == nil || cooled(at.ReleasedAt, now, r.cooldown)) {
				n.Reserved++
			}
		}
		n.Free = n.Size - n.Used - n.Cooling - n.Reserved
		u.Blocks = append(u.Blocks, n)
	}
	slices.SortFunc(u.Blocks, func(a, b BlockUsage) int { return comparePrefixes(a.CIDR, b.CIDR) })
	for _, p := range r.pools {
		u.Pools = append(u.Pools, r.usage(p, u.Blocks))
	}
	return u, nil
}

func (r *rules) usage(p *pool, blocks []BlockUsage) PoolUsage {
	n := PoolUsage{Name: p.name, CIDR: p.prefix, Size: size(p.prefix), Reserved: r.reservedIn(p.prefix)}
	for _, b := range blocks {
		if !contains(p.prefix, b.CIDR) {
			continue
		}
		n.Blocks++
		n.Used += b.Used
		n.Cooling += b.Cooling
		// Reserved addresses that somebody has, or had a moment ago, count as that.
		n.Reserved -= r.reservedIn(b.CIDR) - float64(b.Reserved)
	}
	n.Free = max(0, n.Size-float64(n.Used)-float64(n.Cooling)-n.Reserved)
	return n
}

func size(p netip.Prefix) float64 { return math.Exp2(float64(p.Addr().BitLen() - p.Bits())) }

// reservedIn is how many addresses of a range are reserved, each counted once.
func (r *rules) reservedIn(p netip.Prefix) float64 {
	n := 0.0
	for i, res := range r.reserved {
		inside := func(other netip.Prefix) bool { return contains(other, res) }
		switch {
		case contains(res, p):
			return size(p)
		case !contains(p, res) || slices.ContainsFunc(r.reserved[:i], inside):
		case slices.ContainsFunc(r.reserved[i+1:], func(other netip.Prefix) bool { return other != res && inside(other) }):
		default:
			n += size(res)
		}
	}
	return n
}

// Configure changes how addresses are managed, and returns the new configuration.
func (a *Allocator) Configure(ctx context.Context, change func(*api.IPAMConfigurationSpec)) (api.IPAMConfigurationSpec, error) {
	key := api.Key{Kind: "IPAMConfiguration", Name: api.IPAMConfigurationName}
	for range maxClaims {
		o, err := a.store.Get(ctx, key)
		verb := datastore.Update
		if errors.Is(err, datastore.ErrNotFound) {
			n := &api.IPAMConfiguration{}
			n.Name = key.Name
			o, err, verb = n, nil, datastore.Create
		}
		if err != nil {
			return api.IPAMConfigurationSpec{}, fmt.Errorf("configuring addresses: %w", err)
		}
		c := o.(*api.IPAMConfiguration)
		api.Default(c)
		change(&c.Spec)
		if errs := api.Validate(c); len(errs) > 0 {
			return c.Spec, fmt.Errorf("configuring addresses: %w: %w", ErrInvalid, errs.ToAggregate())
		}
		if c.Spec.MaxBlocksPerHost > 0 && !c.Spec.StrictAffinity {
			return c.Spec, fmt.Errorf("configuring addresses: %w: maxBlocksPerHost %d needs strictAffinity: a node at its limit would borrow",
				ErrInvalid, c.Spec.MaxBlocksPerHost)
		}
		if err = a.store.Txn(ctx, datastore.Op{Verb: verb, Object: c}); !conflict(err) {
			if err != nil {
				err = fmt.Errorf("configuring addresses: %w", err)
			}
			return c.Spec, err
		}
	}
	return api.IPAMConfigurationSpec{}, fmt.Errorf("configuring addresses: %w", ErrBusy)
}
