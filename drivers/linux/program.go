package linux

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// Program is what our tables hold: rules as data, without a kernel. Its objects are immutable once they are in it.
type Program struct {
	Chains map[Key]*Chain
	Sets   map[Key]*SetObject
}

// Key names a chain, or a set, of one of our tables.
type Key struct {
	Table Table
	Name  string
}

// Table is one of our tables, by family.
type Table uint8

const (
	Inet Table = iota // IPv4 and IPv6 together
	ARP
)

var tableNames = map[Table]string{Inet: "inet " + TableName, ARP: "arp " + TableName}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Name, b.Name))
}

// Chain is a list of rules; Hook is nil for a chain that is only jumped to.
type Chain struct {
	Key
	Hook    *Hook
	Rules   []Rule
	Comment string
	Owner   drivers.ObjectRef // the object of the State that it is made from
}

// Hook attaches a base chain.
type Hook struct {
	Type     string // filter or nat
	Hook     string // prerouting, input, forward, output, postrouting
	Priority int32
}

// Rule is a list of matches, then what is done.
type Rule struct {
	Matches []Match
	Actions []Action
	Comment string // names the rule for people; kept in the kernel's copy

	// Owner is the object of the State that the rule is made from; nil = the chain's. It is no part of the rule's value.
	Owner *drivers.ObjectRef
}

// Field is something of a packet that can be loaded and compared.
type Field uint8

const (
	FIIfName Field = iota
	FOIfName
	FIIf // index; 0 = the packet was made here
	FNFProto
	FL4Proto
	FMark
	FSrc4
	FDst4
	FSrc6
	FDst6
	FSport
	FDport
	FTCPFlags
	FICMPType
	FICMP     // type and code
	FHopLimit // of IPv6
	FEtherSrc
	FCTState
	FOrigDst4 // of the flow, before DNAT
	FOrigDst6
	FOrigDport
	FARPSenderIP
	FARPTargetIP
	FLocal    // of the destination: 2 = the host's own address
	FSrcLocal // the same of the source
)

// Type is the type of a field, and of a part of a set's key.
type Type uint8

const (
	TIfName Type = iota
	TAddr4
	TAddr6
	TProto
	TPort
	TEther
	TByte
	TInt32
	TWord // two bytes
)

var typeLen = map[Type]int{
	TIfName: 16, TAddr4: 4, TAddr6: 16, TProto: 1, TPort: 2, TEther: 6, TByte: 1, TInt32: 4, TWord: 2,
}

type fieldInfo struct {
	name string
	typ  Type
}

var fields = map[Field]fieldInfo{
	FIIfName: {"iifname", TIfName}, FOIfName: {"oifname", TIfName}, FIIf: {"iif", TInt32},
	FNFProto: {"meta nfproto", TByte}, FL4Proto: {"meta l4proto", TProto}, FMark: {"meta mark", TInt32},
	FSrc4: {"ip saddr", TAddr4}, FDst4: {"ip daddr", TAddr4}, FSrc6: {"ip6 saddr", TAddr6}, FDst6: {"ip6 daddr", TAddr6},
	FSport: {"th sport", TPort}, FDport: {"th dport", TPort}, FTCPFlags: {"tcp flags", TByte},
	FICMPType: {"icmp type", TByte}, FICMP: {"icmp type . code", TWord},
	FHopLimit: {"ip6 hoplimit", TByte}, FEtherSrc: {"ether saddr", TEther}, FCTState: {"ct state", TInt32},
	FOrigDst4: {"ct original ip daddr", TAddr4}, FOrigDst6: {"ct original ip6 daddr", TAddr6},
	FOrigDport:   {"ct original proto-dst", TPort},
	FARPSenderIP: {"arp saddr ip", TAddr4}, FARPTargetIP: {"arp daddr ip", TAddr4}, FLocal: {"fib daddr type", TInt32},
	FSrcLocal: {"fib saddr type", TInt32},
}

// Op is how a field, or several side by side, is compared.
type Op uint8

const (
	OpEq Op = iota
	OpNe
	OpRange // Lo to Hi, both included
	OpNotRange
	OpIn // a member of Set
	OpNotIn
	OpAny    // has any of the bits of Lo
	OpPrefix // begins with the Bits first bits of Lo
	OpNotPrefix
	OpHasName // an interface's name begins with Lo
)

// Match is one comparison. Fields has more than one entry only with OpIn and OpNotIn: a concatenated key.
type Match struct {
	Fields []Field
	Op     Op
	Lo, Hi string // bytes, in network order (marks and states in host order)
	Bits   int
	Set    string
}

// ActionKind is what an Action does.
type ActionKind uint8

const (
	ActAccept ActionKind = iota
	ActDrop
	ActReturn
	ActJump
	ActGoto
	ActNoTrack
	ActSetMark   // sets the bits of Mark
	ActClearMark // clears the bits of Mark
	ActLog
	ActMasquerade
	ActDNAT // looks Field up in VMap, a map of addresses, and sends the packet there
	ActSNAT // makes Field the source
	ActVMap // looks Field up in VMap and does what it finds
	ActCount
)

// Action is one thing that a rule does.
type Action struct {
	Kind   ActionKind
	Chain  string // of jump and goto
	Mark   uint32
	Prefix string // of log
	Field  Field
	More   string // further fields of a concatenated key, a byte each: an Action can be compared
	VMap   string
}

// fields are what is looked up in a verdict map.
func (a *Action) fields() []Field {
	fs := []Field{a.Field}
	for i := range len(a.More) {
		fs = append(fs, Field(a.More[i]))
	}
	return fs
}

// SetObject is a named set or map.
type SetObject struct {
	Key
	Types    []Type // of the key's parts
	Interval bool
	Verdict  bool   // elements carry a verdict
	Data     []Type // of what else elements carry: one, or none
	Timed    bool   // the elements are not the program's but the cutter's, and time out
	Comment  string
	Content  Content
	Owner    drivers.ObjectRef

	unread bool // read back without its elements, because it was not wanted then
}

// sameShape reports whether o can hold the content of s without being made anew.
func (s *SetObject) sameShape(o *SetObject) bool {
	return s.Interval == o.Interval && s.Verdict == o.Verdict && s.Timed == o.Timed && slices.Equal(s.Types, o.Types) && slices.Equal(s.Data, o.Data)
}

// Elem is an element of a set. Key is what the kernel holds as its key; in interval sets Key is the first address and
// Last the last one.
type Elem struct {
	Key, Last string
	Kind      ActionKind
	Chain     string // of verdict maps
	Value     string // of maps of other data

	// Owner is the object of the State to blame if the kernel does not take the element; nil = the set's.
	Owner *drivers.ObjectRef
}

// Content is the elements of a set.
type Content interface {
	Len() int
	All() iter.Seq[Elem]
	// Diff is what must be added to old, and removed from it, to make this content.
	Diff(old Content) (add, del []Elem)
}

// elems is a content that is spelled out: by key.
type elems map[string]Elem

func (e elems) Len() int { return len(e) }

func (e elems) All() iter.Seq[Elem] {
	return func(yield func(Elem) bool) {
		for _, k := range sortedKeys(e) {
			if !yield(e[k]) {
				return
			}
		}
	}
}

func (e elems) put(x Elem) { e[x.Key] = x }

func (e elems) Diff(old Content) (add, del []Elem) { return diffContent(e, old) }

// diffContent compares any two contents. An element whose value changed is removed and added.
func diffContent(want, old Content) (add, del []Elem) {
	have, ok := old.(elems)
	if !ok {
		have = elems{}
		if old != nil {
			for x := range old.All() {
				have.put(x)
			}
		}
	}
	seen := 0
	for x := range want.All() {
		h, ok := have[x.Key]
		switch {
		case !ok:
			add = append(add, x)
		case h != x:
			add, del = append(add, x), append(del, h)
			seen++
		default:
			seen++
		}
	}
	if seen == len(have) {
		return add, del
	}
	wanted := make(map[string]struct{}, want.Len())
	for x := range want.All() {
		wanted[x.Key] = struct{}{}
	}
	for k, h := range have {
		if _, ok := wanted[k]; !ok {
			del = append(del, h)
		}
	}
	slices.SortFunc(del, func(a, b Elem) int { return cmp.Compare(a.Key, b.Key) })
	return add, del
}

// members is the members of one family of a model set.
type members struct {
	set      *drivers.Set
	v6       bool
	interval bool
}

func (m members) Len() int {
	if m.v6 {
		return m.set.Len6()
	}
	return m.set.Len4()
}

func (m members) elem(x drivers.Member) Elem {
	if m.set.Kind() == drivers.SetPort {
		return portElem(x)
	}
	return netElem(x, m.interval)
}

func (m members) All() iter.Seq[Elem] {
	return func(yield func(Elem) bool) {
		for x := range m.set.All() {
			if x.Prefix.Addr().Is6() != m.v6 {
				if m.v6 {
					continue
				}
				return
			}
			if !yield(m.elem(x)) {
				return
			}
		}
	}
}

func (m members) Diff(old Content) (add, del []Elem) {
	o, ok := old.(members)
	if !ok || o.interval != m.interval || o.v6 != m.v6 || o.set.Kind() != m.set.Kind() {
		return diffContent(m, old)
	}
	for x := range m.set.All() {
		if x.Prefix.Addr().Is6() == m.v6 && !o.set.Has(x) {
			add = append(add, m.elem(x))
		}
	}
	for x := range o.set.All() {
		if x.Prefix.Addr().Is6() == m.v6 && !m.set.Has(x) {
			del = append(del, m.elem(x))
		}
	}
	return add, del
}

// delta turns the members that a Changes names into elements of this family.
func (m members) delta(ms map[drivers.Member]struct{}) []Elem {
	var es []Elem
	for x := range ms {
		if x.Prefix.Addr().Is6() == m.v6 {
			es = append(es, m.elem(x))
		}
	}
	slices.SortFunc(es, func(a, b Elem) int { return cmp.Compare(a.Key, b.Key) })
	return es
}

func netElem(m drivers.Member, interval bool) Elem {
	e := Elem{Key: string(m.Prefix.Addr().AsSlice())}
	if interval {
		e.Last = string(lastAddr(m.Prefix).AsSlice())
	}
	return e
}

func portElem(m drivers.Member) Elem {
	b := m.Prefix.Addr().AsSlice()
	b = append(b, m.Proto, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, m.Port)
	return Elem{Key: string(append(b, 0, 0))}
}

// ifName is an interface's name as the kernel compares it.
func ifName(s string) string {
	b := make([]byte, 16)
	copy(b[:15], s)
	return string(b)
}

// concat joins the parts of a concatenated key: each is padded to 4 bytes.
func concat(parts ...string) string {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return string(b)
}

// hash64 and hashName name things by content.
func hash64(parts ...string) [8]byte {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return [8]byte(h.Sum(nil))
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
