package calcgraph

import (
	"iter"

	"github.com/tortie/tortie/api/selector"
)

// index knows which things a selector selects, without looking at all of either. There are three: of all things, for the
// selectors of rules; of nodes, for their selectors of nodes; of this node's endpoints, for the subjects of policies. T is
// what hangs on a selector.
//
// Selectors stand in buckets. A selector's primary bucket is that of a label which a thing must have to match; those
// that demand none are in the residual one. For a changed thing, a selector can have flipped only if its primary bucket
// is one of the thing's old or new labels (or residual), and only if an atom of it has: so it is also in the touch
// bucket of each pair that it compares, and of each key whose coming and going, or whose every change, can matter.
// Whichever of the two ways leads to fewer selectors is taken.
//
// Things stand in posting lists, by (key, value), for keys that an active selector demands; a new selector looks at the
// shortest of its lists.
type index[T any] struct {
	labels   *labels
	things   *things
	sels     map[string]*sel[T]
	byID     []*sel[T]
	freeIDs  []uint32
	keys     []*keyEntry[T] // by number; nil = no live selector mentions the key
	residual bucket[T]
	all      posting // things in this index

	// visit is told of each selector that matched a thing before or does now, if that has changed or what the thing
	// gives has.
	visit func(c *change, s *sel[T], was, is bool)

	stamp uint64
	diff  []labelDiff
	found []*bucket[T] // scratch of apply
}

// sel is a selector; equal ones share it.
type sel[T any] struct {
	id    uint32
	text  *selector.Selector
	expr  expr
	refs  int
	live  bool // in the buckets
	never bool // matches nothing, whatever the labels
	stamp uint64
	// places are where it stands, needs the keys that it demands.
	places []*place[T]
	needs  []uint32
	data   T
}

type place[T any] struct {
	sel *sel[T]
	in  *bucket[T]
	at  int
}

type bucket[T any] struct{ places []*place[T] }

func (b *bucket[T]) put(s *sel[T]) {
	p := &place[T]{sel: s, in: b, at: len(b.places)}
	b.places = append(b.places, p)
	s.places = append(s.places, p)
}

func (p *place[T]) remove() {
	b, last := p.in, len(p.in.places)-1
	b.places[p.at] = b.places[last]
	b.places[p.at].at = p.at
	b.places[last] = nil
	b.places = b.places[:last]
}

// keyEntry is what the live selectors want to know of a label key.
type keyEntry[T any] struct {
	refs    int // mentions by live selectors
	pairs   map[uint32]*pairEntry[T]
	present bucket[T] // primary: any value will do
	has     bucket[T] // touch: the label comes or goes
	any     bucket[T] // touch: its value changes

	demands int // by live selectors; the posting lists are there if above 0
	things  int
	lists   map[uint32]posting
}

type pairEntry[T any] struct {
	refs           int
	primary, touch bucket[T]
}

func newIndex[T any](l *labels, t *things) *index[T] {
	return &index[T]{labels: l, things: t, sels: map[string]*sel[T]{}}
}

// hold returns the selector, held once more. A new one lives only after insert.
func (ix *index[T]) hold(text *selector.Selector) *sel[T] {
	s := ix.sels[text.String()]
	if s == nil {
		s = &sel[T]{text: text}
		if n := len(ix.freeIDs); n > 0 {
			s.id, ix.freeIDs = ix.freeIDs[n-1], ix.freeIDs[:n-1]
			ix.byID[s.id] = s
		} else {
			s.id = uint32(len(ix.byID))
			ix.byID = append(ix.byID, s)
		}
		ix.sels[text.String()] = s
	}
	s.refs++
	return s
}

// forget removes a selector that nobody holds.
func (ix *index[T]) forget(s *sel[T]) {
	if s.live {
		for _, p := range s.places {
			p.remove()
		}
		for _, k := range s.needs {
			if e := ix.keys[k]; e.demands == 1 {
				e.demands, e.things, e.lists = 0, 0, nil
			} else {
				e.demands--
			}
		}
		s.expr.walk(func(x *expr) { ix.unmention(x) })
		s.expr.release(ix.labels)
		s.live = false
	}
	delete(ix.sels, s.text.String())
	ix.byID[s.id] = nil
	ix.freeIDs = append(ix.freeIDs, s.id)
}

// insert makes selectors live: from now on visit hears of what flips. What they match already is for scan to say.
func (ix *index[T]) insert(sels []*sel[T]) {
	fresh := map[uint32]bool{}
	for _, s := range sels {
		s.live = true
		s.expr = compile(ix.labels, s.text.Root())
		s.expr.walk(func(x *expr) { ix.mention(s, x) })
		ix.place(s, fresh)
	}
	ix.post(fresh)
}

// mention puts s into the touch buckets of an atom of it.
func (ix *index[T]) mention(s *sel[T], x *expr) {
	if x.key == 0 {
		return
	}
	for int(x.key) >= len(ix.keys) {
		ix.keys = append(ix.keys, nil)
	}
	e := ix.keys[x.key]
	if e == nil {
		e = &keyEntry[T]{pairs: map[uint32]*pairEntry[T]{}}
		ix.keys[x.key] = e
	}
	e.refs++
	switch x.op {
	case opHas:
		e.has.put(s)
	case opContains, opStarts, opEnds:
		e.any.put(s)
	}
	for p := range x.allPairs() {
		pe := e.pairs[p]
		if pe == nil {
			pe = &pairEntry[T]{}
			e.pairs[p] = pe
		}
		pe.refs++
		pe.touch.put(s)
	}
}

// unmention undoes mention, after s has left its places.
func (ix *index[T]) unmention(x *expr) {
	if x.key == 0 {
		return
	}
	e := ix.keys[x.key]
	for p := range x.allPairs() {
		if e.pairs[p].refs--; e.pairs[p].refs == 0 {
			delete(e.pairs, p)
		}
	}
	if e.refs--; e.refs == 0 {
		ix.keys[x.key] = nil
	}
}

// allPairs yields the pairs that an atom compares with.
func (e *expr) allPairs() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if e.pair != 0 && !yield(e.pair) {
			return
		}
		for _, p := range e.pairs {
			if !yield(p) {
				return
			}
		}
	}
}

// place puts s into its primary bucket, the emptiest that it can stand in, and notes in fresh the keys that it demands
// and that have no posting lists yet.
func (ix *index[T]) place(s *sel[T], fresh map[uint32]bool) {
	var best []*bucket[T]
	bestCost := -1
	for name, r := range s.text.Restrictions() {
		if r.Impossible() {
			s.never = true
		}
		if !r.Present || s.never {
			continue
		}
		key := ix.labels.keys[name]
		e := ix.keys[key]
		s.needs = append(s.needs, key)
		if e.demands++; e.demands == 1 {
			e.lists = map[uint32]posting{}
			fresh[key] = true
		}
		// A key alone says less than a value does.
		buckets, cost := []*bucket[T]{&e.present}, 8+4*len(e.present.places)
		if r.Values != nil {
			buckets, cost = nil, 0
			for _, v := range r.Values {
				l, _ := ix.labels.find(name, v)
				b := &e.pairs[l.pair].primary
				buckets, cost = append(buckets, b), cost+1+len(b.places)
			}
		}
		if bestCost < 0 || cost < bestCost {
			best, bestCost = buckets, cost
		}
	}
	if s.never {
		return
	}
	if best == nil {
		best = []*bucket[T]{&ix.residual}
	}
	for _, b := range best {
		b.put(s)
	}
}

// post fills the posting lists of keys: one look at every thing, however many keys there are, and none if no thing has
// any of them.
func (ix *index[T]) post(fresh map[uint32]bool) {
	wanted := make([]bool, len(ix.keys))
	any := false
	for k := range fresh {
		wanted[k] = ix.keys[k] != nil && ix.keys[k].demands > 0 && ix.labels.keyUses[k] > 0
		any = any || wanted[k]
	}
	if !any {
		return
	}
	for id := range ix.all.all() {
		th := &ix.things.all[id]
		for _, l := range th.own {
			if int(l.key) < len(wanted) && wanted[l.key] {
				ix.keys[l.key].list(l.pair, id)
			}
		}
		for _, l := range th.labelsOfGroup() {
			if int(l.key) < len(wanted) && wanted[l.key] && get(th.own, l.key) == 0 {
				ix.keys[l.key].list(l.pair, id)
			}
		}
	}
}

func (e *keyEntry[T]) list(pair, id uint32) {
	p := e.lists[pair]
	p.add(id)
	e.lists[pair] = p
	e.things++
}

func (e *keyEntry[T]) unlist(pair, id uint32) {
	p := e.lists[pair]
	p.remove(id)
	if p.len() == 0 {
		delete(e.lists, pair)
	} else {
		e.lists[pair] = p
	}
	e.things--
}

// scan calls fn for each thing that a live selector matches.
func (ix *index[T]) scan(s *sel[T], fn func(id uint32)) {
	if s.never {
		return
	}
	cost, lists := ix.all.len(), []posting{ix.all}
	for name, r := range s.text.Restrictions() {
		if !r.Present {
			continue
		}
		e := ix.keys[ix.labels.keys[name]]
		if r.Values == nil {
			if e.things < cost {
				cost, lists = e.things, lists[:0]
				for _, p := range e.lists {
					lists = append(lists, p)
				}
			}
			continue
		}
		var some []posting
		n := 0
		for _, v := range r.Values {
			l, _ := ix.labels.find(name, v)
			p := e.lists[l.pair]
			some, n = append(some, p), n+p.len()
		}
		if n < cost {
			cost, lists = n, some
		}
	}
	var buf []label
	for _, p := range lists {
		for id := range p.all() {
			buf = ix.things.effective(buf[:0], id)
			if s.expr.match(ix.labels, buf) {
				fn(id)
			}
		}
	}
}

// entry returns what is known of a key, or nil.
func (ix *index[T]) entry(key uint32) *keyEntry[T] {
	if int(key) < len(ix.keys) {
		return ix.keys[key]
	}
	return nil
}

// cares reports whether a change of these labels can flip a selector, or moves a thing in a posting list.
func (ix *index[T]) cares(diff []labelDiff) bool {
	for _, d := range diff {
		if ix.entry(d.key) != nil {
			return true
		}
	}
	return false
}

// apply takes a change in, and visits the selectors that it concerns.
func (ix *index[T]) apply(c *change) {
	if c.was != c.is {
		if c.is {
			ix.all.add(c.id)
		} else {
			ix.all.remove(c.id)
		}
	}
	if len(ix.sels) == 0 {
		return
	}
	ix.diff = diffLabels(ix.diff[:0], c.old, c.new)
	if c.was && c.is && len(ix.diff) == 0 && !c.givesChanged {
		return
	}
	for _, d := range ix.diff {
		e := ix.entry(d.key)
		if e == nil || e.demands == 0 {
			continue
		}
		if d.old != 0 {
			e.unlist(d.old, c.id)
		}
		if d.new != 0 {
			e.list(d.new, c.id)
		}
	}
	ix.stamp++
	for _, b := range ix.candidates(c) {
		for _, p := range b.places {
			if p.sel.stamp == ix.stamp {
				continue
			}
			p.sel.stamp = ix.stamp
			was := c.was && p.sel.expr.match(ix.labels, c.old)
			is := c.is && p.sel.expr.match(ix.labels, c.new)
			if was != is || was && c.givesChanged {
				ix.visit(c, p.sel, was, is)
			}
		}
	}
}

// candidates returns buckets that hold every selector which c can concern.
func (ix *index[T]) candidates(c *change) []*bucket[T] {
	ix.found = ix.found[:0]
	n := ix.add(&ix.residual)
	for _, ls := range [2][]label{c.old, c.new} {
		for _, l := range ls {
			if e := ix.entry(l.key); e != nil {
				n += ix.add(&e.present)
				if pe := e.pairs[l.pair]; pe != nil {
					n += ix.add(&pe.primary)
				}
			}
		}
	}
	if !c.was || !c.is || c.givesChanged {
		return ix.found
	}
	byPrimary := len(ix.found)
	for _, d := range ix.diff {
		e := ix.entry(d.key)
		if e == nil {
			continue
		}
		n -= ix.add(&e.any)
		if (d.old == 0) != (d.new == 0) {
			n -= ix.add(&e.has)
		}
		for _, p := range [2]uint32{d.old, d.new} {
			if pe := e.pairs[p]; pe != nil {
				n -= ix.add(&pe.touch)
			}
		}
	}
	if n > 0 {
		return ix.found[byPrimary:]
	}
	return ix.found[:byPrimary]
}

func (ix *index[T]) add(b *bucket[T]) int {
	if len(b.places) > 0 {
		ix.found = append(ix.found, b)
	}
	return len(b.places)
}
