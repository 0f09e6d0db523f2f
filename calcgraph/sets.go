package calcgraph

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"

	"github.com/tortie/tortie/api/selector"
	"github.com/tortie/tortie/drivers"
)

// sets holds the sets that the rules of active policies refer to, and no others: a set dies with its last rule.
type sets struct {
	index    *index[selSets] // of things
	nodes    *index[selSets]
	services *services
	byID     map[drivers.SetID]*set
	fresh    []*set // to be filled
	idle     []*set // lost their last rule, unless one came since
	touched  []*set
	turned   []*set // have come to be partial, or are no longer
}

// selSets is the sets that draw on a selector.
type selSets struct{ sets []*set }

func newSets(l *labels, t, nodes *things, sv *services) *sets {
	s := &sets{index: newIndex[selSets](l, t), nodes: newIndex[selSets](l, nodes), services: sv, byID: map[drivers.SetID]*set{}}
	s.index.visit, s.nodes.visit = s.visit, s.visit
	sv.touch, sv.turn = s.touch, s.turn
	return s
}

// hashID is a set's id made from what it is a set of.
func hashID(kind string, parts ...string) drivers.SetID {
	h := sha256.New224()
	for _, p := range parts {
		h.Write(append([]byte(p), 0))
	}
	return drivers.SetID(kind + base64.RawURLEncoding.EncodeToString(h.Sum(nil)))
}

// addresses holds the set of the addresses of what sel selects.
func (s *sets) addresses(text *selector.Selector) *set {
	return s.ofSelector(drivers.SetID(text.ID()), set{kind: drivers.SetNet}, s.index, text)
}

// ofNodes holds the set of the addresses of the nodes that sel selects.
func (s *sets) ofNodes(text *selector.Selector) *set {
	return s.ofSelector(hashID("nodes:", text.ID()), set{kind: drivers.SetNet}, s.nodes, text)
}

// namedPorts holds the set of (address, protocol, port) of what exposes a port of this name, and sel selects.
func (s *sets) namedPorts(text *selector.Selector, name string, proto uint8) *set {
	id := hashID("n:", text.ID(), name, strconv.Itoa(int(proto)))
	return s.ofSelector(id, set{kind: drivers.SetPort, portName: name, proto: proto}, s.index, text)
}

// ofSelector holds the set of what text selects in an index; what says which part of it.
func (s *sets) ofSelector(id drivers.SetID, what set, in *index[selSets], text *selector.Selector) *set {
	st := s.byID[id]
	if st == nil {
		st = &set{id: id, kind: what.kind, portName: what.portName, proto: what.proto, sel: in.hold(text), of: in}
		s.created(st)
	}
	st.refs++
	return st
}

// ofService holds the set of a service's endpoints: of kind SetPort with their ports, of kind SetNet without.
func (s *sets) ofService(namespace, name string, kind drivers.SetKind) *set {
	prefix := "svc:"
	if kind == drivers.SetNet {
		prefix = "svcnoport:"
	}
	id := hashID(prefix, namespace, name)
	st := s.byID[id]
	if st == nil {
		st = &set{id: id, kind: kind, service: s.services.get(namespace, name)}
		s.created(st)
	}
	st.refs++
	return st
}

func (s *sets) created(st *set) {
	s.byID[st.id] = st
	s.fresh = append(s.fresh, st)
}

// again holds the set that st is, or was before its last rule let go of it.
func (s *sets) again(st *set) *set {
	if st.service != nil {
		return s.ofService(st.service.name.namespace, st.service.name.name, st.kind)
	}
	return s.ofSelector(st.id, set{kind: st.kind, portName: st.portName, proto: st.proto}, st.of, st.sel.text)
}

// release lets go of sets.
func (s *sets) release(held []*set) {
	for _, st := range held {
		if st.refs--; st.refs == 0 {
			s.idle = append(s.idle, st)
		}
	}
}

func (s *sets) touch(st *set) {
	if !st.queued {
		st.queued = true
		s.touched = append(s.touched, st)
	}
}

// visit brings the change of a thing to the sets of a selector that it is, or was, selected by.
func (s *sets) visit(c *change, sl *sel[selSets], was, is bool) {
	for _, st := range sl.data.sets {
		before, after := c.oldGives, c.newGives
		if was && is && (st.kind == drivers.SetNet || before.ports == after.ports) {
			before.nets, after.nets = c.lost, c.gained
		}
		if was {
			st.give(before.nets, before.ports, -1)
			s.doubt(st, c.oldGives, -1)
		}
		if is {
			st.give(after.nets, after.ports, +1)
			s.doubt(st, c.newGives, +1)
		}
		s.touch(st)
	}
}

// doubt counts a contributor that can't be read in full, or with d = -1 no longer.
func (s *sets) doubt(st *set, g gives, d int) {
	if g.partial && st.takes(g.ports) {
		s.turn(st, d)
	}
}

func (s *sets) turn(st *set, d int) {
	was := st.partial > 0
	if st.partial += d; was != (st.partial > 0) {
		s.turned = append(s.turned, st)
	}
}

// flush removes the sets that no rule refers to, fills the new ones, and reports what is different.
func (s *sets) flush(u *drivers.Update) {
	for _, st := range s.idle {
		if st.refs == 0 && s.byID[st.id] == st {
			s.drop(st, u)
		}
	}
	s.idle = nil
	s.fill()
	for _, st := range s.touched {
		st.queued = false
		if s.byID[st.id] != st {
			continue
		}
		if su, ok := st.flush(); ok {
			u.Sets[st.id] = su
		}
	}
	clear(s.touched)
	s.touched = s.touched[:0]
}

func (s *sets) drop(st *set, u *drivers.Update) {
	delete(s.byID, st.id)
	if st.emitted {
		u.Sets[st.id] = drivers.SetUpdate{}
	}
	// What is left says where the members came from.
	st.emitted, st.log, st.cur, st.many, st.covered, st.partial = false, nil, nil, nil, sorted[member]{}, 0
	if st.service != nil {
		s.services.letGo(st.service, st)
		return
	}
	if i := slices.Index(st.sel.data.sets, st); i >= 0 {
		st.sel.data.sets = slices.Delete(st.sel.data.sets, i, i+1)
	}
	if st.sel.refs--; st.sel.refs == 0 {
		st.of.forget(st.sel)
	}
}

// fill gives new sets their members, and has them hear of changes from now on.
func (s *sets) fill() {
	var sels []*sel[selSets]
	ofSel := map[*sel[selSets]][]*set{}
	asleep := map[*index[selSets]][]*sel[selSets]{}
	for _, st := range s.fresh {
		if s.byID[st.id] != st {
			continue
		}
		s.touch(st)
		if st.service != nil {
			s.services.fill(st)
			continue
		}
		if ofSel[st.sel] == nil {
			sels = append(sels, st.sel)
			if !st.sel.live {
				asleep[st.of] = append(asleep[st.of], st.sel)
			}
		}
		ofSel[st.sel] = append(ofSel[st.sel], st)
	}
	s.fresh = nil
	for ix, sls := range asleep {
		ix.insert(sls)
	}
	for _, sl := range sels {
		fresh := ofSel[sl]
		ix := fresh[0].of
		ix.scan(sl, func(id uint32) {
			g := &ix.things.all[id].gives
			for _, st := range fresh {
				st.give(g.nets, g.ports, +1)
				s.doubt(st, *g, +1)
			}
		})
		sl.data.sets = append(sl.data.sets, fresh...)
	}
}
