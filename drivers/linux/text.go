package linux

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// String writes the program in a syntax like nft's, in a fixed order.
func (p Program) String() string {
	var b strings.Builder
	for _, t := range []Table{Inet, ARP} {
		fmt.Fprintf(&b, "table %s {\n", tableNames[t])
		for _, k := range keysOf(p.Sets, t) {
			p.Sets[k].write(&b)
		}
		for _, k := range keysOf(p.Chains, t) {
			p.Chains[k].write(&b)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// Size is the number of rules.
func (p Program) Size() int {
	n := 0
	for _, c := range p.Chains {
		n += len(c.Rules)
	}
	return n
}

func keysOf[V any](m map[Key]V, t Table) []Key {
	var ks []Key
	for k := range m {
		if k.Table == t {
			ks = append(ks, k)
		}
	}
	slices.SortFunc(ks, compareKeys)
	return ks
}

func (s *SetObject) write(b *strings.Builder) {
	kind := "set"
	if s.Verdict || len(s.Data) > 0 {
		kind = "map"
	}
	var types []string
	for _, t := range s.Types {
		types = append(types, typeNames[t])
	}
	fmt.Fprintf(b, "\t%s %s { type %s", kind, s.Name, strings.Join(types, " . "))
	if s.Verdict {
		b.WriteString(" : verdict")
	}
	for _, t := range s.Data {
		b.WriteString(" : " + typeNames[t])
	}
	if s.Interval {
		b.WriteString("; flags interval")
	}
	if s.Timed {
		b.WriteString("; flags timeout")
	}
	if s.Comment != "" {
		fmt.Fprintf(b, "; comment %q", s.Comment)
	}
	b.WriteString("; elements = {")
	var es []Elem
	for e := range s.Content.All() {
		es = append(es, e)
	}
	slices.SortFunc(es, func(x, y Elem) int { return strings.Compare(x.Key, y.Key) })
	for i, e := range es {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte(' ')
		b.WriteString(s.key(e))
		if s.Verdict {
			fmt.Fprintf(b, " : %s", (&Action{Kind: e.Kind, Chain: e.Chain}).String())
		}
		for _, t := range s.Data {
			b.WriteString(" : " + value(t, e.Value))
		}
	}
	b.WriteString(" } }\n")
}

var typeNames = map[Type]string{
	TIfName: "ifname", TAddr4: "ipv4_addr", TAddr6: "ipv6_addr", TProto: "inet_proto", TPort: "inet_service",
	TEther: "ether_addr", TByte: "byte", TInt32: "integer", TWord: "word",
}

func (s *SetObject) key(e Elem) string {
	if s.Interval {
		first, last := value(s.Types[0], e.Key), value(s.Types[0], e.Last)
		if first == last {
			return first
		}
		return first + "-" + last
	}
	var vs []string
	key := e.Key
	for _, t := range s.Types {
		vs = append(vs, value(t, key[:typeLen[t]]))
		key = key[min(4*parts(t), len(key)):]
	}
	return strings.Join(vs, " . ")
}

// parts is how many four-byte parts a type takes in a concatenation, and in registers.
func parts(t Type) int { return (typeLen[t] + 3) / 4 }

func value(t Type, v string) string {
	switch t {
	case TIfName:
		return strconv.Quote(strings.TrimRight(v, "\x00"))
	case TAddr4, TAddr6:
		a, _ := netip.AddrFromSlice([]byte(v))
		return a.String()
	case TEther:
		return net.HardwareAddr(v).String()
	case TProto, TByte:
		return strconv.Itoa(int(v[0]))
	case TPort:
		return strconv.Itoa(int(binary.BigEndian.Uint16([]byte(v))))
	case TInt32:
		return fmt.Sprintf("%#x", binary.NativeEndian.Uint32([]byte(v)))
	}
	return fmt.Sprintf("%x", v)
}

func (c *Chain) write(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {", c.Name)
	if c.Comment != "" {
		fmt.Fprintf(b, " # %s", c.Comment)
	}
	b.WriteByte('\n')
	if h := c.Hook; h != nil {
		fmt.Fprintf(b, "\t\ttype %s hook %s priority %d; policy accept;\n", h.Type, h.Hook, h.Priority)
	}
	for i := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", c.Rules[i].String())
	}
	b.WriteString("\t}\n")
}

// String writes the rule in one line.
func (r *Rule) String() string {
	var w []string
	for i := range r.Matches {
		w = append(w, r.Matches[i].String())
	}
	for i := range r.Actions {
		w = append(w, r.Actions[i].String())
	}
	if r.Comment != "" {
		w = append(w, "comment "+strconv.Quote(r.Comment))
	}
	return strings.Join(w, " ")
}

// String writes the match.
func (m *Match) String() string {
	n := fieldNames(m.Fields)
	t := fields[m.Fields[0]].typ
	switch m.Op {
	case OpEq:
		return n + " " + value(t, m.Lo)
	case OpNe:
		return n + " != " + value(t, m.Lo)
	case OpRange:
		return n + " " + value(t, m.Lo) + "-" + value(t, m.Hi)
	case OpNotRange:
		return n + " != " + value(t, m.Lo) + "-" + value(t, m.Hi)
	case OpIn:
		return n + " @" + m.Set
	case OpNotIn:
		return n + " != @" + m.Set
	case OpAny:
		return n + " any " + value(t, m.Lo)
	case OpPrefix:
		return fmt.Sprintf("%s %s/%d", n, value(t, m.Lo), m.Bits)
	case OpNotPrefix:
		return fmt.Sprintf("%s != %s/%d", n, value(t, m.Lo), m.Bits)
	}
	return n + " " + strconv.Quote(m.Lo+"*")
}

func fieldNames(fs []Field) string {
	var names []string
	for _, f := range fs {
		names = append(names, fields[f].name)
	}
	return strings.Join(names, " . ")
}

// String writes the action.
func (a *Action) String() string {
	switch a.Kind {
	case ActAccept:
		return "accept"
	case ActDrop:
		return "drop"
	case ActReturn:
		return "return"
	case ActJump:
		return "jump " + a.Chain
	case ActGoto:
		return "goto " + a.Chain
	case ActNoTrack:
		return "notrack"
	case ActSetMark:
		return fmt.Sprintf("meta mark set mark or %#x", a.Mark)
	case ActClearMark:
		return fmt.Sprintf("meta mark set mark and not %#x", a.Mark)
	case ActLog:
		return "log prefix " + strconv.Quote(a.Prefix)
	case ActMasquerade:
		return "masquerade"
	case ActDNAT:
		return "dnat to " + fieldNames(a.fields()) + " map @" + a.VMap
	case ActSNAT:
		return "snat to " + fieldNames(a.fields())
	case ActCount:
		return "counter"
	}
	return fieldNames(a.fields()) + " vmap @" + a.VMap
}

func (c *Chain) equal(o *Chain) bool {
	if c.Key != o.Key || c.Comment != o.Comment || (c.Hook == nil) != (o.Hook == nil) || c.Hook != nil && *c.Hook != *o.Hook {
		return false
	}
	return slices.EqualFunc(c.Rules, o.Rules, func(a, b Rule) bool { return a.equal(&b) })
}

func (r *Rule) equal(o *Rule) bool {
	return r.Comment == o.Comment && slices.Equal(r.Actions, o.Actions) && slices.EqualFunc(r.Matches, o.Matches, func(a, b Match) bool {
		return a.Op == b.Op && a.Lo == b.Lo && a.Hi == b.Hi && a.Bits == b.Bits && a.Set == b.Set && slices.Equal(a.Fields, b.Fields)
	})
}
