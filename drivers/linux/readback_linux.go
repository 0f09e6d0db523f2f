package linux

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// readTries bounds how often a dump is begun again because somebody changed the tables meanwhile. A change of any table in
// the namespace interrupts it, and there are programs that make several a second.
const readTries = 8

// again repeats a reading that a change interrupted. It is one dump that is repeated, and not all of them: on a busy host
// all of them would never come through in one piece.
func (r *reader) again(read func() error) error {
	for try := 1; ; try++ {
		r.last = try == readTries
		if err := read(); !errors.Is(err, errInterrupted) || r.last {
			return err
		}
	}
}

// goodEnough takes what an interrupted dump of a table's rules, or of a set's elements, has brought if it has been begun
// often enough: such a dump counts objects of that table or set only (Linux 6.18), so that a change of another one, which
// is what interrupts most, has lost none of them. A change of ours by somebody else the monitor hears, and asks for
// another look.
func (r *reader) goodEnough(err error) error {
	if r.last && errors.Is(err, errInterrupted) {
		return nil
	}
	return err
}

func (n *nft) read(want *Program) (*tables, error) {
	r := &reader{n: n, want: want, have: noTables()}
	if err := r.run(); err != nil {
		return nil, fmt.Errorf("reading our tables back: %w", err)
	}
	for t := range r.have.remake {
		maps.DeleteFunc(r.have.Chains, func(k Key, _ *Chain) bool { return k.Table == t })
		maps.DeleteFunc(r.have.Sets, func(k Key, _ *SetObject) bool { return k.Table == t })
	}
	return r.have, nil
}

func (n *nft) readSets(want *Program, have *tables, keys []Key) error {
	r := &reader{n: n, want: want, have: have}
	for _, k := range keys {
		s := *have.Sets[k]
		if err := r.again(func() error { return r.elements(&s) }); err != nil {
			return fmt.Errorf("reading set %s back: %w", k.Name, err)
		}
		if have.remake[k.Table] {
			delete(have.remake, k.Table)
			return fmt.Errorf("reading set %s back: %w", k.Name, errIntervals)
		}
	}
	return nil
}

// reader is one reading of the kernel's copy of a program.
type reader struct {
	n    *nft
	want *Program
	have *tables
	last bool // again will not begin once more
}

func (r *reader) run() error {
	for _, t := range []Table{Inet, ARP} {
		for _, step := range []func(Table) error{r.table, r.chains, r.rules, r.sets} {
			if err := r.again(func() error { return step(t) }); err != nil {
				return err
			}
			if !r.have.exist[t] {
				break
			}
		}
		if err := r.contents(t); err != nil {
			return err
		}
	}
	return nil
}

// attrMap reads a message's attributes into a map by type.
func attrMap(b []byte) map[uint16][]byte {
	m := map[uint16][]byte{}
	_ = eachAttr(b, func(typ uint16, v []byte) error {
		m[typ] = v
		return nil
	})
	return m
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func be32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func tableAttr(typ uint16) []byte {
	var b attrBuf
	b.str(typ, TableName)
	return b
}

func (r *reader) table(t Table) error {
	return r.n.s.dump(unix.NFT_MSG_GETTABLE, families[t], nil, func(family byte, b []byte) error {
		m := attrMap(b)
		if family == families[t] && text(m[unix.NFTA_TABLE_NAME]) == TableName {
			r.have.exist[t] = true
			if be32(m[unix.NFTA_TABLE_FLAGS]) != 0 { // dormant
				r.have.remake[t] = true
			}
		}
		return nil
	})
}

func (r *reader) chains(t Table) error {
	maps.DeleteFunc(r.have.Chains, func(k Key, _ *Chain) bool { return k.Table == t }) // of a reading that was interrupted
	return r.n.s.dump(unix.NFT_MSG_GETCHAIN, families[t], tableAttr(unix.NFTA_CHAIN_TABLE), func(family byte, b []byte) error {
		m := attrMap(b)
		if family != families[t] || text(m[unix.NFTA_CHAIN_TABLE]) != TableName {
			return nil
		}
		k := Key{t, text(m[unix.NFTA_CHAIN_NAME])}
		r.have.Chains[k] = &Chain{Key: k, Rules: []Rule{{Comment: "unknown"}}, Owner: nodeRef()}
		if want := r.want.Chains[k]; want != nil && !sameHook(want, m) {
			r.have.remake[t] = true
		}
		return nil
	})
}

func sameHook(want *Chain, m map[uint16][]byte) bool {
	h, isBase := m[unix.NFTA_CHAIN_HOOK]
	if want.Hook == nil || !isBase {
		return want.Hook == nil && !isBase
	}
	hm := attrMap(h)
	return be32(hm[unix.NFTA_HOOK_HOOKNUM]) == hooks[want.Table][want.Hook.Hook] &&
		int32(be32(hm[unix.NFTA_HOOK_PRIORITY])) == want.Hook.Priority &&
		text(m[unix.NFTA_CHAIN_TYPE]) == want.Hook.Type && be32(m[unix.NFTA_CHAIN_POLICY]) == 1
}

// rules puts want's own value in place of each chain whose rules in the kernel are as want has them.
func (r *reader) rules(t Table) error {
	seen := map[Key]int{}
	differs := map[Key]bool{}
	err := r.n.s.dump(unix.NFT_MSG_GETRULE, families[t], tableAttr(unix.NFTA_RULE_TABLE), func(family byte, b []byte) error {
		m := attrMap(b)
		if family != families[t] || text(m[unix.NFTA_RULE_TABLE]) != TableName {
			return nil
		}
		k := Key{t, text(m[unix.NFTA_RULE_CHAIN])}
		i := seen[k]
		seen[k]++
		want := r.want.Chains[k]
		if want == nil || differs[k] {
			return nil
		}
		if i >= len(want.Rules) || !bytes.Equal(m[unix.NFTA_RULE_USERDATA], want.Rules[i].userData()) {
			differs[k] = true
			return nil
		}
		es, err := want.Rules[i].encode(families[t])
		if err != nil {
			return err
		}
		differs[k] = !sameExprs(es, m[unix.NFTA_RULE_EXPRESSIONS])
		return nil
	})
	if err := r.goodEnough(err); err != nil {
		return err
	}
	for k := range r.have.Chains {
		want := r.want.Chains[k]
		if k.Table == t && want != nil && !differs[k] && seen[k] == len(want.Rules) {
			r.have.Chains[k] = want
		}
	}
	return nil
}

// sameExprs compares expressions as we write them with those of a dump. The kernel adds attributes of its own, at their
// default of zero, and leaves some of ours out.
func sameExprs(ours, theirs []byte) bool {
	var a, b [][]byte
	collect := func(to *[][]byte) func(uint16, []byte) error {
		return func(_ uint16, v []byte) error {
			*to = append(*to, v)
			return nil
		}
	}
	if eachAttr(ours, collect(&a)) != nil || eachAttr(theirs, collect(&b)) != nil {
		return false
	}
	return slices.EqualFunc(a, b, func(x, y []byte) bool {
		mx, my := attrMap(x), attrMap(y)
		name := text(mx[unix.NFTA_EXPR_NAME])
		return name == text(my[unix.NFTA_EXPR_NAME]) && (name == "counter" || sameAttrs(name, mx[unix.NFTA_EXPR_DATA], my[unix.NFTA_EXPR_DATA]))
	})
}

// nestedAttrs are the attributes of expressions that hold data values, and within those ("data") a verdict. A verdict holds
// no further ones: the name of its chain is compared as it is.
var nestedAttrs = map[string][]uint16{
	"cmp":       {unix.NFTA_CMP_DATA},
	"immediate": {unix.NFTA_IMMEDIATE_DATA},
	"bitwise":   {unix.NFTA_BITWISE_MASK, unix.NFTA_BITWISE_XOR},
	"range":     {unix.NFTA_RANGE_FROM_DATA, unix.NFTA_RANGE_TO_DATA},
	"data":      {unix.NFTA_DATA_VERDICT},
}

func sameAttrs(kind string, ours, theirs []byte) bool {
	a, b := attrMap(ours), attrMap(theirs)
	for typ, x := range a {
		y, there := b[typ]
		switch {
		case kind == "lookup" && typ == unix.NFTA_LOOKUP_SET_ID:
		case !there:
			if !allZero(x) {
				return false
			}
		case slices.Contains(nestedAttrs[kind], typ):
			if !sameAttrs(map[bool]string{true: "verdict", false: "data"}[kind == "data"], x, y) {
				return false
			}
		case !bytes.Equal(x, y):
			return false
		}
	}
	for typ, y := range b {
		if _, ours := a[typ]; !ours && !allZero(y) {
			return false
		}
	}
	return true
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func (r *reader) sets(t Table) error {
	maps.DeleteFunc(r.have.Sets, func(k Key, _ *SetObject) bool { return k.Table == t }) // of a reading that was interrupted
	return r.n.s.dump(unix.NFT_MSG_GETSET, families[t], tableAttr(unix.NFTA_SET_TABLE), func(family byte, b []byte) error {
		m := attrMap(b)
		if family != families[t] || text(m[unix.NFTA_SET_TABLE]) != TableName {
			return nil
		}
		k := Key{t, text(m[unix.NFTA_SET_NAME])}
		s := &SetObject{Key: k, Owner: nodeRef(), Content: elems{}, unread: true}
		r.have.Sets[k] = s
		if want := r.want.Sets[k]; want != nil {
			if !want.sameKind(m) {
				r.have.remake[t] = true
			}
			s.Types, s.Interval, s.Verdict, s.Timed, s.Owner = want.Types, want.Interval, want.Verdict, want.Timed, want.Owner
			s.Data = want.Data
			s.unread = !s.Timed // else what is in it is not the program's
		}
		return nil
	})
}

// contents reads what is in the sets that the program has.
func (r *reader) contents(t Table) error {
	for k, s := range r.have.Sets {
		if k.Table != t || !s.unread || r.want.Sets[k] == nil || r.have.remake[t] {
			continue
		}
		if err := r.again(func() error { return r.elements(s) }); err != nil {
			return err
		}
	}
	return nil
}

// kindFlags are the flags of a set that can't change.
const kindFlags = unix.NFT_SET_ANONYMOUS | unix.NFT_SET_CONSTANT | unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP |
	unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL | unix.NFT_SET_OBJECT

func (s *SetObject) sameKind(m map[uint16][]byte) bool {
	magic, length := s.keyType()
	if be32(m[unix.NFTA_SET_FLAGS])&kindFlags != s.flags() || be32(m[unix.NFTA_SET_KEY_TYPE]) != magic ||
		be32(m[unix.NFTA_SET_KEY_LEN]) != length {
		return false
	}
	for _, t := range s.Data {
		if be32(m[unix.NFTA_SET_DATA_TYPE]) != typeMagic[t] || be32(m[unix.NFTA_SET_DATA_LEN]) != uint32(typeLen[t]) {
			return false
		}
	}
	return !s.Verdict || be32(m[unix.NFTA_SET_DATA_TYPE]) == unix.NFT_DATA_VERDICT
}

// kernelElem is an element of a dump.
type kernelElem struct {
	Elem
	end bool
}

func (r *reader) elements(s *SetObject) error {
	var b attrBuf
	b.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	b.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	var es []kernelElem
	err := r.n.s.dump(unix.NFT_MSG_GETSETELEM, families[s.Table], b, func(_ byte, attrs []byte) error {
		return eachAttr(attrs, func(typ uint16, v []byte) error {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return nil
			}
			return eachAttr(v, func(_ uint16, e []byte) error {
				es = append(es, s.decode(e))
				return nil
			})
		})
	})
	if err := r.goodEnough(err); err != nil {
		return err
	}
	content := make(elems, len(es))
	if s.Interval {
		if content, err = intervals(es); err != nil {
			r.have.remake[s.Table] = true
			return nil
		}
	} else {
		for i := range es {
			content.put(es[i].Elem)
		}
	}
	s.Content, s.unread = content, false
	r.have.Sets[s.Key] = s
	want := r.want.Sets[s.Key]
	if add, del := want.Content.Diff(content); len(add)+len(del) == 0 {
		held := *want
		if e, ok := want.Content.(elems); ok {
			held.Content = maps.Clone(e)
		}
		r.have.Sets[s.Key] = &held
	}
	return nil
}

// decode reads one element. There may be a million: no maps are made of its attributes.
func (s *SetObject) decode(b []byte) kernelElem {
	e := kernelElem{end: be32(attr(b, unix.NFTA_SET_ELEM_FLAGS))&unix.NFT_SET_ELEM_INTERVAL_END != 0}
	e.Key = string(attr(attr(b, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE))
	if s.Verdict {
		v := attr(attr(b, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VERDICT)
		e.Chain = text(attr(v, unix.NFTA_VERDICT_CHAIN))
		e.Kind = verdictKind(int32(be32(attr(v, unix.NFTA_VERDICT_CODE))))
	}
	if len(s.Data) > 0 {
		e.Value = string(attr(attr(b, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE))
	}
	return e
}

// attr is the value of one attribute in b; nil if it is not there.
func attr(b []byte, typ uint16) []byte {
	var v []byte
	_ = eachAttr(b, func(t uint16, x []byte) error {
		if t == typ {
			v = x
		}
		return nil
	})
	return v
}

func verdictKind(code int32) ActionKind {
	for _, k := range []ActionKind{ActAccept, ActReturn, ActJump, ActGoto} {
		if verdictCode(k) == code {
			return k
		}
	}
	return ActDrop
}

var errIntervals = errors.New("an interval set has ends without beginnings")

// intervals joins the beginnings and ends of an interval set.
func intervals(es []kernelElem) (elems, error) {
	slices.SortFunc(es, func(a, b kernelElem) int {
		if c := cmp.Compare(a.Key, b.Key); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1 // of two that touch, the first one ends before the second begins
		}
		return 1
	})
	out := elems{}
	for i := 0; i < len(es); i++ {
		e := es[i]
		if e.end {
			return nil, errIntervals
		}
		switch {
		case i+1 == len(es):
			e.Last = strings.Repeat("\xff", len(e.Key))
		case es[i+1].end:
			e.Last = predecessor(es[i+1].Key)
			i++
		default:
			return nil, errIntervals
		}
		out.put(e.Elem)
	}
	return out, nil
}
