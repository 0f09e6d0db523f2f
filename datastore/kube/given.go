package kube

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
)

// given is what blocks and pools make of a pod's addresses.
type given struct {
	addrs  []netip.Addr // that it has: of its leases, and those of status that are nobody's to give
	leased bool         // a block holds some of them for it
	odd    *odd         // nil for nearly all; never changed
}

// odd is what few pods have: addresses of status that pools have ranges for, and did not give.
type odd struct {
	foreign []netip.Addr // in a disabled pool, which has not given them
	strays  []stray
	lasting bool // the strays have been there for a while, and are told of
}

func (g given) foreign() []netip.Addr {
	if g.odd == nil {
		return nil
	}
	return g.odd.foreign
}

// stray is an address of a pod's status that does not count: it is for a pool to give, and no block holds it for the pod.
// That may be so for a moment, since pods and blocks come in streams of their own, and while a pod ends.
type stray struct {
	addr    netip.Addr
	pool    string
	inBlock bool // of a disabled pool
}

func (s stray) problem(pod string) api.Problem {
	where, advice := "in IPPool "+s.pool, "; if another program gives such addresses, disable the pool"
	if s.inBlock {
		where, advice = "in a block of IPPool "+s.pool, ""
	}
	return api.Problem{Path: "status.podIPs", Reason: fmt.Sprintf("%s of pod %s is %s, and no block holds it for the pod: "+
		"it does not count, and policy by the pod's labels misses it%s", s.addr, pod, where, advice)}
}

// poolRange is the range of a pool that gives pods their addresses, or did before it was disabled.
type poolRange struct {
	prefix   netip.Prefix
	disabled bool
}

// held is what a block is, and the UIDs that it has addresses for.
type held struct {
	uids []string
	cidr netip.Prefix
}

// ranges finds out whether an address is in a block.
type ranges struct {
	blocks  map[netip.Prefix]int
	lengths map[int]int // of their prefixes
}

func newRanges() ranges {
	return ranges{map[netip.Prefix]int{}, map[int]int{}}
}

func (r ranges) count(p netip.Prefix, d int) {
	if !p.IsValid() {
		return
	}
	if r.blocks[p] += d; r.blocks[p] == 0 {
		delete(r.blocks, p)
	}
	if r.lengths[p.Bits()] += d; r.lengths[p.Bits()] == 0 {
		delete(r.lengths, p.Bits())
	}
}

func (r ranges) hold(a netip.Addr) bool {
	for n := range r.lengths {
		if p, err := a.Prefix(n); err == nil && r.blocks[p] > 0 {
			return true
		}
	}
	return false
}

// give finds out what e has: what blocks hold for it, and what it says itself of addresses that are nobody's to give. Those are
// the ones that no pool has, and those of a disabled pool, which gives none any more, that are in no block. Whatever a block
// has is for the block to say: an address may be another's by now. was is what e had before.
func (j *joiner) give(src string, e *endpoint, was given) {
	var now given
	var rare odd
	loose := false
	if !e.finished {
		if e.uid != "" {
			for _, l := range j.leases[e.uid] {
				now.addrs = append(now.addrs, l.addrs...)
			}
		}
		now.leased = len(now.addrs) > 0
		for _, a := range e.status {
			if slices.Contains(now.addrs, a) {
				continue
			}
			name, p := j.poolOf(a)
			switch blocked := p.disabled && j.ranges.hold(a); {
			case name == "":
				now.addrs = append(now.addrs, a)
			case p.disabled && !blocked:
				now.addrs, rare.foreign = append(now.addrs, a), append(rare.foreign, a)
			default:
				rare.strays = append(rare.strays, stray{a, name, blocked})
			}
			loose = loose || p.disabled
		}
	}
	same := was.odd != nil && slices.Equal(rare.strays, was.odd.strays)
	switch {
	case len(rare.strays) == 0:
		delete(j.aged, src)
	case same:
		rare.lasting = was.odd.lasting
	default:
		j.aged[src] = 0
	}
	if len(rare.foreign)+len(rare.strays) > 0 {
		now.odd = &rare
	}
	e.given = now
	if loose {
		j.loose[src] = true
	} else {
		delete(j.loose, src)
	}
}

// poolOf returns the pool of an address, "" for none. Of several an enabled one counts, and then the smallest.
func (j *joiner) poolOf(a netip.Addr) (name string, best poolRange) {
	for n, p := range j.pools {
		if !p.prefix.Contains(a) {
			continue
		}
		if name == "" || best.disabled && !p.disabled ||
			best.disabled == p.disabled && cmp.Or(cmp.Compare(p.prefix.Bits(), best.prefix.Bits()), cmp.Compare(name, n)) > 0 {
			name, best = n, p
		}
	}
	return name, best
}

// agedSweeps is how many sweeps have to see a stray before it is told of: half a minute's, since a pod that ends may have
// given its addresses back that long before its status says so.
const agedSweeps = 60

// aging says whether strays have yet to be told of.
func (j *joiner) aging() bool { return len(j.aged) > 0 }

// age is a sweep: it tells of the pods whose strays have lasted.
func (j *joiner) age() []joined {
	var out []joined
	for _, src := range sorted(j.aged) {
		if j.aged[src]++; j.aged[src] < agedSweeps {
			continue
		}
		delete(j.aged, src)
		e := *j.pods[src]
		e.odd = &odd{foreign: e.odd.foreign, strays: e.odd.strays, lasting: true}
		j.pods[src] = &e
		if !j.isHidden(&e, src) {
			out = append(out, joined{key: e.key, e: &e, known: true})
		}
	}
	return out
}
