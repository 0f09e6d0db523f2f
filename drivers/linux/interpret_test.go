package linux

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// interpreter runs packets through a Program as nf_tables would, without a kernel: hooks in the order in which a packet
// meets them, base chains by priority, and each field read from where it lies in the packet. What would read another
// field's bytes on a kernel (an IPv4 address from an IPv6 header) is an error.
type interpreter struct {
	p     *Program
	bases map[string][]*Chain // by table and hook
	sets  map[Key]*asked
}

// asked is a set's content, ready to be asked.
type asked struct {
	exact  map[string]Elem
	ranges []Elem // of an interval set, sorted
}

func newInterpreter(p *Program) *interpreter {
	x := &interpreter{p: p, bases: map[string][]*Chain{}, sets: map[Key]*asked{}}
	for _, c := range p.Chains {
		if c.Hook != nil {
			at := tableNames[c.Table] + " " + c.Hook.Hook
			x.bases[at] = append(x.bases[at], c)
		}
	}
	for _, cs := range x.bases {
		slices.SortFunc(cs, func(a, b *Chain) int { return cmp.Compare(a.Hook.Priority, b.Hook.Priority) })
	}
	for k, s := range p.Sets {
		l := &asked{exact: map[string]Elem{}}
		for e := range s.Content.All() {
			if s.Interval {
				l.ranges = append(l.ranges, e)
			} else {
				l.exact[e.Key] = e
			}
		}
		slices.SortFunc(l.ranges, func(a, b Elem) int { return cmp.Compare(a.Key, b.Key) })
		x.sets[k] = l
	}
	return x
}

func (l *asked) find(key string) (Elem, bool) {
	if l.ranges == nil {
		e, ok := l.exact[key]
		return e, ok
	}
	i, _ := slices.BinarySearchFunc(l.ranges, key, func(e Elem, k string) int { return cmp.Compare(e.Last, k) })
	if i < len(l.ranges) && l.ranges[i].Key <= key {
		return l.ranges[i], true
	}
	return Elem{}, false
}

// flight is one packet on its way.
type flight struct {
	*interpreter
	drivers.Packet
	table    Table
	iif, oif string // as the hook sees them
	mac      drivers.MAC
	dst      netip.AddrPort // as the hook sees it
	ct       uint32         // 0 = not looked up yet
	mark     uint32
	noTrack  bool
	depth    int
}

// The states of the flow table, as the kernel has them.
var ctStates = map[drivers.CTState]uint32{
	drivers.CTNew: 8, drivers.CTUntracked: stateUntracked, drivers.CTEstablished: stateEstablished, drivers.CTRelated: stateRelated,
	drivers.CTInvalid: stateInvalid,
}

// run gives the verdict on a packet; macs are those of workloads' interfaces.
func (x *interpreter) run(pk drivers.Packet, macs map[string]drivers.MAC) (allowed, noTrack bool, err error) {
	f := &flight{interpreter: x, Packet: pk, mac: pk.SrcMAC, dst: netip.AddrPortFrom(pk.Dst, pk.DstPort), mark: 0xffffffff}
	if f.mac == (drivers.MAC{}) {
		f.mac = macs[pk.From.Iface]
	}
	allowed, err = f.fly()
	return allowed, f.noTrack, err
}

func (f *flight) fly() (bool, error) {
	from, to := f.From.Iface, f.To.Iface
	fromHere, toHere := f.From.Kind == drivers.PlaceProcess, f.To.Kind == drivers.PlaceProcess
	switch {
	case f.ARP && fromHere:
		return f.arp("output", "", to)
	case f.ARP && toHere:
		return f.arp("input", from, "")
	case f.ARP:
		return false, nil // nobody forwards it
	case fromHere && toHere:
		from, to = "lo", "lo"
	}
	type stop struct{ hook, iif, oif string }
	var way []stop
	if fromHere {
		way = append(way, stop{"output", "", to}, stop{"track", "", ""}, stop{"postrouting", "", to})
	}
	if !fromHere || toHere {
		way = append(way, stop{"prerouting", from, ""}, stop{"track", "", ""})
		if toHere {
			way = append(way, stop{"input", from, ""})
		} else {
			way = append(way, stop{"forward", from, to}, stop{"postrouting", from, to})
		}
	}
	for _, s := range way {
		f.iif, f.oif = s.iif, s.oif
		if s.hook == "track" {
			f.track()
			continue
		}
		f.dst = netip.AddrPortFrom(f.Dst, f.DstPort)
		if s.hook == "prerouting" && f.OrigDst.IsValid() {
			f.dst = f.OrigDst
		}
		if pass, err := f.hook(s.hook); err != nil || !pass {
			return false, err
		}
	}
	return true, nil
}

func (f *flight) arp(hook, iif, oif string) (bool, error) {
	f.table, f.iif, f.oif = ARP, iif, oif
	return f.hook(hook)
}

func (f *flight) track() {
	f.ct = stateUntracked
	if !f.noTrack {
		f.ct = ctStates[f.CT]
	}
}

func (f *flight) hook(name string) (bool, error) {
	for _, c := range f.bases[tableNames[f.table]+" "+name] {
		switch v, err := f.chain(c); {
		case err != nil:
			return false, fmt.Errorf("%s: %w", c.Name, err)
		case v == ActDrop:
			return false, nil
		}
	}
	return true, nil
}

// chain runs a chain; ActReturn means that it came to its end.
func (f *flight) chain(c *Chain) (ActionKind, error) {
	if f.depth++; f.depth > 15 {
		return ActDrop, errors.New("too many jumps")
	}
	defer func() { f.depth-- }()
	for i := range c.Rules {
		v, done, err := f.rule(&c.Rules[i])
		if err != nil {
			return ActDrop, fmt.Errorf("%s: %w", c.Rules[i].String(), err)
		}
		if done {
			return v, nil
		}
	}
	return ActReturn, nil
}

// rule reports what a rule decides, and whether that ends its chain.
func (f *flight) rule(r *Rule) (v ActionKind, done bool, err error) {
	for i := range r.Matches {
		if ok, err := f.match(&r.Matches[i]); err != nil || !ok {
			return 0, false, err
		}
	}
	for i := range r.Actions {
		a := &r.Actions[i]
		kind, chain := a.Kind, a.Chain
		if kind == ActVMap {
			key, ok, err := f.load(a.fields())
			if err != nil {
				return 0, false, err
			}
			e, found := f.sets[Key{f.table, a.VMap}].find(key)
			if !ok || !found {
				return 0, false, nil
			}
			kind, chain = e.Kind, e.Chain
		}
		switch kind {
		case ActAccept, ActDrop, ActReturn:
			return kind, true, nil
		case ActJump, ActGoto:
			to := f.p.Chains[Key{f.table, chain}]
			if to == nil {
				return 0, false, fmt.Errorf("no chain %s", chain)
			}
			if v, err := f.chain(to); err != nil || v != ActReturn || kind == ActGoto {
				return v, true, err
			}
			return 0, false, nil // a verdict ends the rule
		case ActNoTrack:
			f.noTrack = true
		case ActSetMark:
			f.mark |= a.Mark
		case ActClearMark:
			f.mark &^= a.Mark
		}
	}
	return 0, false, nil
}

func (f *flight) match(m *Match) (bool, error) {
	v, ok, err := f.load(m.Fields)
	if err != nil || !ok {
		return false, err
	}
	switch m.Op {
	case OpEq:
		return v == m.Lo, nil
	case OpNe:
		return v != m.Lo, nil
	case OpRange:
		return m.Lo <= v && v <= m.Hi, nil
	case OpNotRange:
		return v < m.Lo || m.Hi < v, nil
	case OpIn, OpNotIn:
		l := f.sets[Key{f.table, m.Set}]
		if l == nil {
			return false, fmt.Errorf("no set %s", m.Set)
		}
		_, found := l.find(v)
		return found == (m.Op == OpIn), nil
	case OpAny:
		for i := range v {
			if v[i]&m.Lo[i] != 0 {
				return true, nil
			}
		}
		return false, nil
	case OpPrefix, OpNotPrefix:
		masked := []byte(v)
		for i, b := range netmask(m.Bits, len(v)) {
			masked[i] &= b
		}
		return (string(masked) == m.Lo) == (m.Op == OpPrefix), nil
	}
	return strings.HasPrefix(v, m.Lo), nil
}

// load reads fields into registers side by side; ok is false if the packet has no such thing: the rule ends there.
func (f *flight) load(fs []Field) (v string, ok bool, err error) {
	var b []byte
	for _, field := range fs {
		one, ok, err := f.field(field)
		if err != nil || !ok {
			return "", false, err
		}
		if len(one) != typeLen[fields[field].typ] {
			return "", false, fmt.Errorf("%s has %d bytes", fields[field].name, len(one))
		}
		b = append(b, one...)
		for len(fs) > 1 && len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return string(b), true, nil
}

var errWrongFamily = errors.New("reads a header of the other family")

func (f *flight) field(field Field) (v string, ok bool, err error) {
	v6 := f.Src.Is6()
	addrOf := func(a netip.Addr, want6 bool) (string, bool, error) {
		if v6 != want6 {
			return "", false, errWrongFamily
		}
		return string(a.AsSlice()), true, nil
	}
	transport := func(off, n int) (string, bool, error) {
		h := f.transport()
		if off+n > len(h) {
			return "", false, nil
		}
		return string(h[off : off+n]), true, nil
	}
	switch field {
	case FIIfName:
		return ifName(f.iif), true, nil
	case FOIfName:
		return ifName(f.oif), true, nil
	case FIIf:
		return native32(uint32(len(f.iif))), true, nil
	case FNFProto:
		if v6 {
			return "\x0a", true, nil
		}
		return "\x02", true, nil
	case FL4Proto:
		return string([]byte{f.Proto}), true, nil
	case FMark:
		return native32(f.mark), true, nil
	case FSrc4, FSrc6:
		return addrOf(f.Src, field == FSrc6)
	case FDst4, FDst6:
		return addrOf(f.dst.Addr(), field == FDst6)
	case FSport:
		return transport(0, 2)
	case FDport:
		return transport(2, 2)
	case FTCPFlags:
		return transport(13, 1)
	case FICMPType:
		return transport(0, 1)
	case FICMP:
		return transport(0, 2)
	case FHopLimit:
		if !v6 {
			return "", false, errWrongFamily
		}
		return string([]byte{f.HopLimit}), true, nil
	case FEtherSrc:
		return string(f.mac[:]), f.iif != "", nil
	case FARPSenderIP:
		return string(f.Src.AsSlice()), true, nil
	case FARPTargetIP:
		return string(f.Dst.AsSlice()), true, nil
	case FLocal:
		return native32(kindOfAddr(f.dst.Addr(), f.To)), true, nil
	case FSrcLocal:
		return native32(kindOfAddr(f.Src, f.From)), true, nil
	}
	return f.flow(field)
}

// kindOfAddr is what the kernel's routing says of an address: 2 = the host's own, 5 = a group, 1 = somebody's.
func kindOfAddr(a netip.Addr, at drivers.Place) uint32 {
	switch {
	case a.IsMulticast():
		return 5
	case at.Kind == drivers.PlaceProcess:
		return 2
	}
	return 1
}

// flow reads what the flow table has.
func (f *flight) flow(field Field) (v string, ok bool, err error) {
	if field == FCTState {
		return native32(f.ct), true, nil
	}
	orig := netip.AddrPortFrom(f.Dst, f.DstPort)
	if f.OrigDst.IsValid() {
		orig = f.OrigDst
	}
	if f.ct == 0 || f.ct == stateInvalid || f.ct == stateUntracked {
		return "", false, nil
	}
	switch field {
	case FOrigDst4, FOrigDst6:
		if orig.Addr().Is6() != (field == FOrigDst6) {
			return "", false, errWrongFamily
		}
		return string(orig.Addr().AsSlice()), true, nil
	case FOrigDport:
		return bytes16(orig.Port()), true, nil
	}
	return "", false, fmt.Errorf("%s is not known here", fields[field].name)
}

// transport is the beginning of what follows the IP header.
func (f *flight) transport() []byte {
	h := make([]byte, 20)
	switch f.Proto {
	case l4TCP, l4UDP, l4SCTP:
		binary.BigEndian.PutUint16(h, f.SrcPort)
		binary.BigEndian.PutUint16(h[2:], f.dst.Port())
		if f.Proto == l4TCP {
			h[13] = 2
		}
	case l4ICMP, l4ICMPv6:
		h[0], h[1] = f.ICMPType, f.ICMPCode
	}
	return h
}

// agree compares a State's program with the oracle, packet by packet.
func agree(t *testing.T, s *drivers.State, p *Program, pks []drivers.Packet) {
	t.Helper()
	x, v := newInterpreter(p), drivers.NewEvaluator(s)
	macs := map[string]drivers.MAC{}
	for _, e := range s.Endpoints {
		if e.MAC != (drivers.MAC{}) {
			macs[e.Iface] = e.MAC
		}
	}
	for _, pk := range pks {
		want := v.Evaluate(pk)
		allowed, noTrack, err := x.run(pk, macs)
		switch {
		case err != nil:
			t.Fatalf("%+v: %v\n%s", pk, err, p)
		case allowed != (want.Verdict == drivers.VerdictAllow):
			t.Fatalf("%+v: the program allows it: %v; the oracle: %+v\n%s", pk, allowed, want, p)
		case allowed && noTrack != want.NoTrack:
			t.Fatalf("%+v: the program takes it out of tracking: %v; the oracle: %+v", pk, noTrack, want)
		}
	}
}

// TestProgramAgrees: what the kernel would do with the program of a State is what the oracle says of the State.
func TestProgramAgrees(t *testing.T) {
	t.Parallel()
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		s, probes := drivertest.Random(seed)
		var pks []drivers.Packet
		for _, pr := range probes {
			pks = append(pks, pr.Packet)
		}
		p := Render(s)
		agree(t, s, &p, pks)
		p = renderMerged(s)
		agree(t, s, &p, pks)
	}
}

// mergeAll merges wherever it can be done, in the small States of tests as well.
func mergeAll() limits { return limits{groupMin: 1, groupCut: 4, policies: 1, rules: 1, members: 8} }

func renderMerged(s *drivers.State) Program {
	c := newCompiler()
	c.limits = mergeAll()
	c.update(s, nil)
	return c.prog
}

// TestInterpreterTeeth: the interpreter sees what a kernel would.
func TestInterpreterTeeth(t *testing.T) {
	t.Parallel()
	pk := drivers.Packet{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proto: l4TCP, SrcPort: 0x0801, DstPort: 80}
	for name, c := range map[string]struct {
		m    Match
		want bool
	}{
		"port":             {match(FDport, OpEq, bytes16(80)), true},
		"type is a port":   {match(FICMPType, OpEq, "\x08"), true},
		"range below":      {Match{Fields: []Field{FDport}, Op: OpRange, Lo: bytes16(81), Hi: bytes16(90)}, false},
		"not prefix":       {prefixMatch(FSrc4, prefix("10.0.0.0/31"), OpNotPrefix), false},
		"concatenated":     {in("c", FSrc4, FL4Proto, FDport), true},
		"concatenated not": {notIn("c", FSrc4, FL4Proto, FDport), false},
		"interval":         {in("i", FSrc4), true},
		"beyond interval":  {in("i", FDst4), false},
	} {
		p := &Program{Sets: map[Key]*SetObject{
			{Inet, "c"}: {Content: elems{"c": Elem{Key: concat("\x0a\x00\x00\x01", "\x06", bytes16(80))}}},
			{Inet, "i"}: {Interval: true, Content: elems{"i": Elem{Key: "\x0a\x00\x00\x00", Last: "\x0a\x00\x00\x01"}}},
		}}
		f := &flight{interpreter: newInterpreter(p), Packet: pk, dst: netip.AddrPortFrom(pk.Dst, pk.DstPort)}
		if got, err := f.match(&c.m); err != nil || got != c.want {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	f := &flight{interpreter: newInterpreter(&Program{}), Packet: pk, dst: netip.AddrPortFrom(pk.Dst, pk.DstPort)}
	if _, _, err := f.field(FDst6); !errors.Is(err, errWrongFamily) {
		t.Errorf("an IPv6 address of an IPv4 packet: %v", err)
	}
	if !bytes.Equal(f.transport()[2:4], []byte{0, 80}) {
		t.Error("the port is not where it belongs")
	}
}
