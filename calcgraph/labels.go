package calcgraph

import (
	"cmp"
	"slices"
)

// label is a label of a thing, interned: the key, and the key with its value.
type label struct{ key, pair uint32 }

// labels gives numbers to label keys and to (key, value) pairs, and takes them back when the last holder lets go. Numbers
// start at 1.
type labels struct {
	keys     map[string]uint32
	keyRefs  []uint32 // holders of the key itself, and pairs with it
	keyNames []string
	keyUses  []uint32 // how often a thing or a group has the key
	freeKeys []uint32

	pairs     map[pairName]uint32
	pairInfo  []pairInfo
	freePairs []uint32
}

type pairName struct {
	key   uint32
	value string
}

type pairInfo struct {
	value string
	key   uint32
	refs  uint32
}

func newLabels() *labels {
	return &labels{
		keys: map[string]uint32{}, keyRefs: []uint32{0}, keyNames: []string{""}, keyUses: []uint32{0},
		pairs: map[pairName]uint32{}, pairInfo: []pairInfo{{}},
	}
}

// holdKey returns the number of a key, held once more.
func (s *labels) holdKey(name string) uint32 {
	k, ok := s.keys[name]
	if !ok {
		if n := len(s.freeKeys); n > 0 {
			k, s.freeKeys = s.freeKeys[n-1], s.freeKeys[:n-1]
			s.keyNames[k] = name
		} else {
			k = uint32(len(s.keyRefs))
			s.keyRefs, s.keyNames, s.keyUses = append(s.keyRefs, 0), append(s.keyNames, name), append(s.keyUses, 0)
		}
		s.keys[name] = k
	}
	s.keyRefs[k]++
	return k
}

func (s *labels) dropKey(k uint32) {
	if s.keyRefs[k]--; s.keyRefs[k] == 0 {
		delete(s.keys, s.keyNames[k])
		s.keyNames[k] = ""
		s.freeKeys = append(s.freeKeys, k)
	}
}

// hold returns the numbers of a label, held once more.
func (s *labels) hold(name, value string) label {
	k, ok := s.keys[name]
	if !ok {
		k = s.holdKey(name)
		defer s.dropKey(k)
	}
	p, ok := s.pairs[pairName{k, value}]
	if !ok {
		s.keyRefs[k]++
		info := pairInfo{value: value, key: k}
		if n := len(s.freePairs); n > 0 {
			p, s.freePairs = s.freePairs[n-1], s.freePairs[:n-1]
			s.pairInfo[p] = info
		} else {
			p = uint32(len(s.pairInfo))
			s.pairInfo = append(s.pairInfo, info)
		}
		s.pairs[pairName{k, value}] = p
	}
	s.pairInfo[p].refs++
	return label{k, p}
}

func (s *labels) drop(l label) {
	info := &s.pairInfo[l.pair]
	if info.refs--; info.refs > 0 {
		return
	}
	delete(s.pairs, pairName{l.key, info.value})
	*info = pairInfo{}
	s.freePairs = append(s.freePairs, l.pair)
	s.dropKey(l.key)
}

func (s *labels) value(pair uint32) string { return s.pairInfo[pair].value }

// find returns the number of a pair that somebody holds.
func (s *labels) find(key, value string) (label, bool) {
	k, ok := s.keys[key]
	if !ok {
		return label{}, false
	}
	p, ok := s.pairs[pairName{k, value}]
	return label{k, p}, ok
}

// holdAll holds the labels of m, with those of extra before them, and returns them sorted by key.
func (s *labels) holdAll(m map[string]string, extra ...[2]string) []label {
	if len(m)+len(extra) == 0 {
		return nil
	}
	ls := make([]label, 0, len(m)+len(extra))
	for _, kv := range extra {
		ls = append(ls, s.hold(kv[0], kv[1]))
	}
	for k, v := range m {
		if !slices.ContainsFunc(extra, func(kv [2]string) bool { return kv[0] == k }) {
			ls = append(ls, s.hold(k, v))
		}
	}
	slices.SortFunc(ls, func(a, b label) int { return cmp.Compare(a.key, b.key) })
	for _, l := range ls {
		s.keyUses[l.key]++
	}
	return ls
}

// dropAll lets go of what holdAll returned.
func (s *labels) dropAll(ls []label) {
	for _, l := range ls {
		s.keyUses[l.key]--
		s.drop(l)
	}
}

// get returns the pair of a key, or 0.
func get(ls []label, key uint32) uint32 {
	for _, l := range ls {
		if l.key >= key {
			if l.key == key {
				return l.pair
			}
			return 0
		}
	}
	return 0
}

// mergeLabels appends to buf the labels of own and those of inherited whose keys own has not.
func mergeLabels(buf, own, inherited []label) []label {
	for len(own) > 0 && len(inherited) > 0 {
		switch o, i := own[0], inherited[0]; {
		case o.key < i.key:
			buf, own = append(buf, o), own[1:]
		case o.key > i.key:
			buf, inherited = append(buf, i), inherited[1:]
		default:
			buf, own, inherited = append(buf, o), own[1:], inherited[1:]
		}
	}
	return append(append(buf, own...), inherited...)
}

// labelDiff is a key whose value is not what it was; 0 = absent.
type labelDiff struct{ key, old, new uint32 }

// diffLabels appends to buf the keys that differ.
func diffLabels(buf []labelDiff, old, new []label) []labelDiff {
	for len(old) > 0 && len(new) > 0 {
		switch o, n := old[0], new[0]; {
		case o.key < n.key:
			buf, old = append(buf, labelDiff{o.key, o.pair, 0}), old[1:]
		case o.key > n.key:
			buf, new = append(buf, labelDiff{n.key, 0, n.pair}), new[1:]
		default:
			if o.pair != n.pair {
				buf = append(buf, labelDiff{o.key, o.pair, n.pair})
			}
			old, new = old[1:], new[1:]
		}
	}
	for _, o := range old {
		buf = append(buf, labelDiff{o.key, o.pair, 0})
	}
	for _, n := range new {
		buf = append(buf, labelDiff{n.key, 0, n.pair})
	}
	return buf
}
