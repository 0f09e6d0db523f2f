package calcgraph

import (
	"iter"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// inlineIDs is how many ids a posting keeps in a plain list; above it is a compressed bitmap. A bitmap for each of a
// quarter of a million distinct names would waste tens of megabytes.
const inlineIDs = 16

// posting is a set of the ids of things: one inside, up to 16 in a list, more in a compressed bitmap.
type posting struct {
	n    uint32
	one  uint32 // if n is 1 and more is nil
	more *manyIDs
}

type manyIDs struct {
	list []uint32        // up to inlineIDs, not sorted
	bits *roaring.Bitmap // nil = list holds them
}

func (p *posting) len() int { return int(p.n) }

// add puts in an id that is not there.
func (p *posting) add(id uint32) {
	p.n++
	switch {
	case p.n == 1 && p.more == nil:
		p.one = id
	case p.more == nil:
		p.more = &manyIDs{list: []uint32{p.one, id}}
	case p.more.bits != nil:
		p.more.bits.Add(id)
	case len(p.more.list) < inlineIDs:
		p.more.list = append(p.more.list, id)
	default:
		p.more.bits = roaring.BitmapOf(p.more.list...)
		p.more.bits.Add(id)
		p.more.list = nil
	}
}

// remove takes out an id that is there.
func (p *posting) remove(id uint32) {
	p.n--
	switch {
	case p.n == 0:
		*p = posting{}
	case p.more.bits != nil:
		p.more.bits.Remove(id)
		if p.n <= inlineIDs/2 {
			p.more.list, p.more.bits = p.more.bits.ToArray(), nil
		}
	default:
		i := slices.Index(p.more.list, id)
		p.more.list = slices.Delete(p.more.list, i, i+1)
	}
	if p.n == 1 && p.more != nil {
		if p.more.bits != nil {
			p.one = p.more.bits.Minimum()
		} else {
			p.one = p.more.list[0]
		}
		p.more = nil
	}
}

// all yields the ids. The posting must not change meanwhile.
func (p *posting) all() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		switch {
		case p.n == 0:
		case p.more == nil:
			yield(p.one)
		case p.more.bits != nil:
			for it := p.more.bits.Iterator(); it.HasNext(); {
				if !yield(it.Next()) {
					return
				}
			}
		default:
			for _, id := range p.more.list {
				if !yield(id) {
					return
				}
			}
		}
	}
}
