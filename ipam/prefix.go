package ipam

import (
	"encoding/binary"
	"hash/fnv"
	"iter"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/tortie/tortie/api"
)

// number is an address as a number; IPv4 ones have 32 bits.
type number struct{ hi, lo uint64 }

func numberOf(a netip.Addr) number {
	if a.Is4() {
		b := a.As4()
		return number{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addr is the address of the family of like.
func (n number) addr(like netip.Addr) netip.Addr {
	if like.Is4() {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], n.hi)
	binary.BigEndian.PutUint64(b[8:], n.lo)
	return netip.AddrFrom16(b)
}

// plus adds i << shift.
func (n number) plus(i uint64, shift int) number {
	hi, lo := uint64(0), i
	switch {
	case shift >= 64:
		hi, lo = i<<(shift-64), 0
	case shift > 0:
		hi, lo = i>>(64-shift), i<<shift
	}
	var carry uint64
	n.lo, carry = bits.Add64(n.lo, lo, 0)
	n.hi, _ = bits.Add64(n.hi, hi, carry)
	return n
}

// nth is the address with an ordinal in a block.
func nth(block netip.Prefix, ordinal int) netip.Addr {
	return numberOf(block.Addr()).plus(uint64(ordinal), 0).addr(block.Addr())
}

// ordinal is the place of an address in a block that contains it. Blocks have at most 4096 addresses.
func ordinal(block netip.Prefix, a netip.Addr) int {
	return int(numberOf(a).lo - numberOf(block.Addr()).lo)
}

// blockLen is the number of addresses of a block.
func blockLen(block netip.Prefix) int { return 1 << (block.Addr().BitLen() - block.Bits()) }

// blockOf is the block of some size that holds an address.
func blockOf(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits).Masked() }

// contains says whether all of inner is in outer.
func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// maxWalk bounds the blocks of huge IPv6 pools that are looked at: the first 2^40.
const maxWalk = 40

// blockCount is the number of blocks of a pool, as far as they are looked at.
func blockCount(pool netip.Prefix, size int) uint64 { return 1 << min(size-pool.Bits(), maxWalk) }

// walk gives the blocks of a pool, each once, in an order that depends on the seed. Nodes that start at different places
// with different strides seldom want the same block.
func walk(pool netip.Prefix, size int, seed uint64) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		n := blockCount(pool, size) // a power of two: an odd stride visits all
		base, shift := numberOf(pool.Addr()), pool.Addr().BitLen()-size
		at, stride := seed&(n-1), bits.RotateLeft64(seed, 32)|1
		for range n {
			if !yield(netip.PrefixFrom(base.plus(at, shift).addr(pool.Addr()), size)) {
				return
			}
			at = (at + stride) & (n - 1)
		}
	}
}

// seedOf makes a seed of names.
func seedOf(names ...string) uint64 {
	h := fnv.New64a()
	for _, n := range names {
		h.Write([]byte(n))
		h.Write([]byte{0})
	}
	// FNV's low bits are poor for names that differ in the last letter.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>29
}

var nameOfPrefix = strings.NewReplacer(".", "-", ":", "-", "/", "-")

// blockName is what the IPAMBlock of a prefix is called: 10-65-1-0-26.
func blockName(p netip.Prefix) string {
	name := nameOfPrefix.Replace(p.String())
	if name[0] == '-' { // ::/122
		name = "0" + name
	}
	return name
}

func affinityName(node string, p netip.Prefix) string { return node + "-" + blockName(p) }

// BlockKey is where the block of a range is stored.
func BlockKey(p netip.Prefix) api.Key { return api.Key{Kind: "IPAMBlock", Name: blockName(p)} }

// NewBlock makes a block whose addresses are all free, and that is nobody's: for those who bring blocks along.
func NewBlock(p netip.Prefix) *api.IPAMBlock { return newBlock(p).obj }

// NewAffinity makes the affinity of a block that says whose it is, as for a node that has claimed it; nil if the block is
// nobody's.
func NewAffinity(b *api.IPAMBlock) (*api.BlockAffinity, error) {
	k, err := readBlock(b)
	if err != nil {
		return nil, err
	}
	kind, node, ok := strings.Cut(b.Spec.Affinity, ":")
	if !ok {
		return nil, nil
	}
	o := &api.BlockAffinity{Spec: api.BlockAffinitySpec{State: stateConfirmed, Node: node, Type: kind, CIDR: k.prefix.String(), Deleted: "false"}}
	o.Name = affinityName(node, k.prefix)
	if kind == "virtual" {
		o.Name = "virtual-" + o.Name
	}
	return o, nil
}

// NewHandle makes the record of a handle of a node that has addresses in blocks of others: how many, by the range of the
// block.
func NewHandle(handle, node string, blocks map[string]int) *api.IPAMHandle {
	o := &api.IPAMHandle{Spec: api.IPAMHandleSpec{HandleID: handle, Block: blocks}}
	o.Name, o.Annotations = handleKey(handle).Name, map[string]string{annotationNode: node}
	return o
}
