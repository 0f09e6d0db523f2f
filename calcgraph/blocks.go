package calcgraph

import (
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
)

// block is a range of addresses that belongs to a node: a confirmed BlockAffinity.
type block struct {
	key    api.Key
	prefix netip.Prefix
	node   string
}

// blocks finds the block of an address, and the blocks of a node.
type blocks struct {
	byKey    map[api.Key]*block
	byPrefix map[netip.Prefix][]*block // sorted by node: the first counts
	byNode   map[string]map[*block]struct{}
	lengths  [2]map[int]int // how many blocks have a prefix length, by family
}

func newBlocks() *blocks {
	return &blocks{
		byKey: map[api.Key]*block{}, byPrefix: map[netip.Prefix][]*block{}, byNode: map[string]map[*block]struct{}{},
		lengths: [2]map[int]int{{}, {}},
	}
}

// readBlock returns nil for an affinity that is not, or not yet, a node's block.
func readBlock(key api.Key, o *api.BlockAffinity, probs *problems) *block {
	if o.Spec.State != "confirmed" || o.Spec.Deleted == "true" || o.Spec.Type != "" && o.Spec.Type != "host" {
		return nil
	}
	p, err := api.ParsePrefix(o.Spec.CIDR)
	if err != nil {
		probs.add("spec.cidr", "the block is ignored: %v", err)
		return nil
	}
	if o.Spec.Node == "" {
		probs.add("spec.node", "the block is ignored: it has no node")
		return nil
	}
	return &block{key: key, prefix: p, node: o.Spec.Node}
}

func (bs *blocks) add(b *block) {
	bs.byKey[b.key] = b
	same := append(bs.byPrefix[b.prefix], b)
	slices.SortFunc(same, func(a, b *block) int {
		if a.node != b.node {
			if a.node < b.node {
				return -1
			}
			return 1
		}
		return compareKeys(a.key, b.key)
	})
	bs.byPrefix[b.prefix] = same
	put(bs.byNode, b.node, b)
	bs.lengths[family(b.prefix.Addr())][b.prefix.Bits()]++
}

func (bs *blocks) remove(b *block) {
	delete(bs.byKey, b.key)
	same := slices.DeleteFunc(bs.byPrefix[b.prefix], func(x *block) bool { return x == b })
	if len(same) == 0 {
		delete(bs.byPrefix, b.prefix)
	} else {
		bs.byPrefix[b.prefix] = same
	}
	take(bs.byNode, b.node, b)
	lengths := bs.lengths[family(b.prefix.Addr())]
	if lengths[b.prefix.Bits()]--; lengths[b.prefix.Bits()] == 0 {
		delete(lengths, b.prefix.Bits())
	}
}

// at returns the block that is p, nil for none.
func (bs *blocks) at(p netip.Prefix) *block {
	if same := bs.byPrefix[p]; len(same) > 0 {
		return same[0]
	}
	return nil
}

// of returns the smallest block that holds a, nil for none.
func (bs *blocks) of(a netip.Addr) *block {
	var best *block
	for n := range bs.lengths[family(a)] {
		if p, err := a.Prefix(n); err == nil && (best == nil || n > best.prefix.Bits()) {
			if b := bs.at(p); b != nil {
				best = b
			}
		}
	}
	return best
}
