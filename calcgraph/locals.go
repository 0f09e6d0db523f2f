package calcgraph

import (
	"encoding/binary"

	"github.com/tortie/tortie/drivers"
)

// local is a thing that is an endpoint of this node.
type local struct {
	id       uint32
	host     bool
	users    int  // attachments or interfaces that stand on it
	gone     bool // the thing is no longer
	marked   bool
	subjects bitset // subject selectors that match it
	policy   drivers.EndpointPolicy
}

// locals holds this node's endpoints, and gives them their tier lists.
type locals struct {
	things *things
	index  *index[selPolicies]
	lists  *lists
	all    map[*local]struct{}
	dirty  []*local // their lists may be others
	// old holds lists that nobody has any more; they live to the end of flush, so that one who wants an equal list gets
	// the same.
	old []drivers.EndpointPolicy
}

func newLocals(t *things, ix *index[selPolicies]) *locals {
	return &locals{things: t, index: ix, lists: newLists(), all: map[*local]struct{}{}}
}

// adopt makes a thing an endpoint of this node, once more.
func (ls *locals) adopt(id uint32, host bool) *local {
	th := &ls.things.all[id]
	if th.local == nil {
		l := &local{id: id, host: host}
		th.local = l
		ls.all[l] = struct{}{}
		ls.index.apply(&change{id: id, is: true, new: ls.things.effective(nil, id)})
		ls.mark(l)
	}
	th.local.users++
	return th.local
}

// disown undoes adopt.
func (ls *locals) disown(l *local) {
	if l.users--; l.users > 0 || l.gone {
		return
	}
	ls.index.apply(&change{id: l.id, was: true, old: ls.things.effective(nil, l.id)})
	ls.things.all[l.id].local = nil
	ls.drop(l)
}

func (ls *locals) drop(l *local) {
	l.gone = true
	delete(ls.all, l)
	ls.old = append(ls.old, l.policy)
	l.policy = drivers.EndpointPolicy{}
}

// moved takes in a change of a thing that is local.
func (ls *locals) moved(c *change, l *local) {
	ls.index.apply(&change{id: c.id, was: c.was, is: c.is, old: c.old, new: c.new})
	if !c.is {
		ls.drop(l)
	}
}

func (ls *locals) mark(l *local) {
	if !l.marked {
		l.marked = true
		ls.dirty = append(ls.dirty, l)
	}
}

func (ls *locals) markAll() {
	for l := range ls.all {
		ls.mark(l)
	}
}

// flush gives endpoints their tier lists, from the active policies in order. Endpoints that the same selectors match get
// theirs together. changed is told of each that is different.
func (ls *locals) flush(ranked []*policy, changed func(*local)) {
	type class struct {
		subjects string
		host     bool
	}
	done := map[class]drivers.EndpointPolicy{}
	for _, l := range ls.dirty {
		l.marked = false
		if l.gone {
			continue
		}
		c := class{l.subjects.key(), l.host}
		want, ok := done[c]
		if !ok {
			want = ls.lists.build(ls.matching(l, ranked), l.host)
			done[c] = want
		} else {
			ls.lists.holdAll(want)
		}
		ls.old = append(ls.old, l.policy)
		if want != l.policy {
			l.policy = want
			changed(l)
		}
	}
	clear(ls.dirty)
	ls.dirty = ls.dirty[:0]
	for _, ep := range ls.old {
		ls.lists.releaseAll(ep)
	}
	ls.old = nil
}

// matching returns the active policies that select l, in order.
func (ls *locals) matching(l *local, ranked []*policy) []*policy {
	var out []*policy
	for _, p := range ranked {
		if l.subjects.has(p.subject.id) {
			out = append(out, p)
		}
	}
	return out
}

// bitset is a set of small numbers.
type bitset []uint64

func (b *bitset) set(n uint32) {
	for int(n/64) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b *bitset) clear(n uint32) {
	if int(n/64) < len(*b) {
		(*b)[n/64] &^= 1 << (n % 64)
	}
}

func (b bitset) has(n uint32) bool { return int(n/64) < len(b) && b[n/64]&(1<<(n%64)) != 0 }

// key is the same for equal sets.
func (b bitset) key() string {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	var out []byte
	for _, w := range b {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	return string(out)
}
