package linux

import (
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Registers: the first data register has 16 four-byte parts. The kernel calls a part that begins a 16-byte register by
// that one's number, and tells it so in dumps: use the same numbers, so that dumps compare equal.
func register(part int) uint32 {
	if part%4 == 0 {
		return uint32(unix.NFT_REG_1 + part/4)
	}
	return uint32(unix.NFT_REG32_00 + part)
}

// raw is an expression that the library cannot write: its name and its attributes.
type raw struct {
	name  string
	attrs attrBuf
}

// ctOriginal loads what a flow's first packet had. The library gives the keys of one family no direction.
func ctOriginal(key, reg uint32) raw {
	var b attrBuf
	b.u32(unix.NFTA_CT_DREG, reg)
	b.u32(unix.NFTA_CT_KEY, key)
	b.bytes(unix.NFTA_CT_DIRECTION, []byte{0})
	return raw{"ct", b}
}

// load is how a field gets into a register: an expr.Any, or a raw.
func load(f Field, reg uint32) any {
	meta := func(k expr.MetaKey) any { return &expr.Meta{Key: k, Register: reg} }
	network := func(off, n uint32) any {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: n}
	}
	transport := func(off, n uint32) any {
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: off, Len: n}
	}
	switch f {
	case FIIfName:
		return meta(expr.MetaKeyIIFNAME)
	case FOIfName:
		return meta(expr.MetaKeyOIFNAME)
	case FIIf:
		return meta(expr.MetaKeyIIF)
	case FNFProto:
		return meta(expr.MetaKeyNFPROTO)
	case FL4Proto:
		return meta(expr.MetaKeyL4PROTO)
	case FMark:
		return meta(expr.MetaKeyMARK)
	case FSrc4:
		return network(12, 4)
	case FDst4:
		return network(16, 4)
	case FSrc6:
		return network(8, 16)
	case FDst6:
		return network(24, 16)
	case FHopLimit:
		return network(7, 1)
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
	case FEtherSrc:
		return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}
	case FCTState:
		return &expr.Ct{Register: reg, Key: expr.CtKeySTATE}
	case FOrigDst4:
		return ctOriginal(unix.NFT_CT_DST_IP, reg)
	case FOrigDst6:
		return ctOriginal(unix.NFT_CT_DST_IP6, reg)
	case FOrigDport:
		return ctOriginal(unix.NFT_CT_PROTO_DST, reg)
	case FARPSenderIP:
		return network(14, 4)
	case FARPTargetIP:
		return network(24, 4)
	case FLocal:
		return &expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true}
	case FSrcLocal:
		return &expr.Fib{Register: reg, ResultADDRTYPE: true, FlagSADDR: true}
	}
	return nil
}

// loadAll loads fields side by side.
func loadAll(fs []Field) []any {
	var es []any
	part := 0
	for _, f := range fs {
		es = append(es, load(f, register(part)))
		part += parts(fields[f].typ)
	}
	return es
}

func (m *Match) exprs() []any {
	es := loadAll(m.Fields)
	const reg = unix.NFT_REG_1
	cmp := func(op expr.CmpOp, v string) { es = append(es, &expr.Cmp{Op: op, Register: reg, Data: []byte(v)}) }
	mask := func(b []byte) {
		es = append(es, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(b)), Mask: b, Xor: make([]byte, len(b))})
	}
	switch m.Op {
	case OpEq, OpHasName:
		cmp(expr.CmpOpEq, m.Lo)
	case OpNe:
		cmp(expr.CmpOpNeq, m.Lo)
	case OpRange, OpNotRange:
		op := expr.CmpOpEq
		if m.Op == OpNotRange {
			op = expr.CmpOpNeq
		}
		es = append(es, &expr.Range{Op: op, Register: reg, FromData: []byte(m.Lo), ToData: []byte(m.Hi)})
	case OpIn, OpNotIn:
		es = append(es, &expr.Lookup{SourceRegister: reg, SetName: m.Set, Invert: m.Op == OpNotIn})
	case OpAny:
		mask([]byte(m.Lo))
		cmp(expr.CmpOpNeq, string(make([]byte, len(m.Lo))))
	case OpPrefix, OpNotPrefix:
		op := expr.CmpOpEq
		if m.Op == OpNotPrefix {
			op = expr.CmpOpNeq
		}
		if m.Bits < 8*len(m.Lo) {
			mask(netmask(m.Bits, len(m.Lo)))
		}
		cmp(op, m.Lo)
	}
	return es
}

func (a *Action) exprs() []any {
	verdict := func(k expr.VerdictKind) []any { return []any{&expr.Verdict{Kind: k, Chain: a.Chain}} }
	setMark := func(mask, xor uint32) []any {
		return []any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
			&expr.Bitwise{
				SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
				Mask: native.AppendUint32(nil, mask), Xor: native.AppendUint32(nil, xor),
			},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1, SourceRegister: true},
		}
	}
	switch a.Kind {
	case ActAccept:
		return verdict(expr.VerdictAccept)
	case ActDrop:
		return verdict(expr.VerdictDrop)
	case ActReturn:
		return verdict(expr.VerdictReturn)
	case ActJump:
		return verdict(expr.VerdictJump)
	case ActGoto:
		return verdict(expr.VerdictGoto)
	case ActNoTrack:
		return []any{&expr.Notrack{}}
	case ActSetMark:
		return setMark(^a.Mark, a.Mark)
	case ActClearMark:
		return setMark(^a.Mark, 0)
	case ActLog:
		return []any{&expr.Log{
			Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_LEVEL, Data: []byte(a.Prefix), Level: expr.LogLevelInfo,
		}}
	case ActMasquerade:
		return []any{&expr.Masq{}}
	case ActCount:
		return []any{&expr.Counter{}}
	case ActDNAT:
		return append(loadAll(a.fields()),
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: a.VMap, DestRegister: unix.NFT_REG_1, IsDestRegSet: true},
			nat(unix.NFT_NAT_DNAT, a.Field))
	case ActSNAT:
		return append(loadAll(a.fields()), nat(unix.NFT_NAT_SNAT, a.Field))
	case ActVMap:
		return append(loadAll(a.fields()),
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: a.VMap, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true})
	}
	return nil
}

// nat translates to the address in the first register, of the family of f. It says what the kernel tells of it, so that
// dumps compare equal: that address is the first and the last of a range.
func nat(kind uint32, f Field) raw {
	const mapIPs = 1 // NF_NAT_RANGE_MAP_IPS
	family := uint32(unix.NFPROTO_IPV4)
	if fields[f].typ == TAddr6 {
		family = unix.NFPROTO_IPV6
	}
	var b attrBuf
	b.u32(unix.NFTA_NAT_TYPE, kind)
	b.u32(unix.NFTA_NAT_FAMILY, family)
	b.u32(unix.NFTA_NAT_REG_ADDR_MIN, unix.NFT_REG_1)
	b.u32(unix.NFTA_NAT_REG_ADDR_MAX, unix.NFT_REG_1)
	b.u32(unix.NFTA_NAT_FLAGS, mapIPs)
	return raw{"nat", b}
}

// encode gives the rule's expressions, as the attribute NFTA_RULE_EXPRESSIONS holds them.
func (r *Rule) encode(family byte) ([]byte, error) {
	var b attrBuf
	add := func(es []any) error {
		for _, e := range es {
			switch e := e.(type) {
			case raw:
				at := b.nest(unix.NFTA_LIST_ELEM)
				b.str(unix.NFTA_EXPR_NAME, e.name)
				b.bytes(unix.NFTA_EXPR_DATA|nested, e.attrs)
				b.end(at)
			case expr.Any:
				data, err := expr.Marshal(family, e)
				if err != nil {
					return fmt.Errorf("rule %q: %w", r.Comment, err)
				}
				b.bytes(unix.NFTA_LIST_ELEM|nested, data)
			default:
				return fmt.Errorf("rule %q: a field or an action that has no expression", r.Comment)
			}
		}
		return nil
	}
	for i := range r.Matches {
		if err := add(r.Matches[i].exprs()); err != nil {
			return nil, err
		}
	}
	for i := range r.Actions {
		if err := add(r.Actions[i].exprs()); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// userData is what the kernel keeps beside the rule and never looks at: the comment, as nft writes it.
func (r *Rule) userData() []byte {
	if r.Comment == "" {
		return nil
	}
	return userdata.AppendString(nil, userdata.TypeComment, r.Comment)
}

var families = map[Table]byte{Inet: unix.NFPROTO_INET, ARP: unix.NFPROTO_ARP}

var hooks = map[Table]map[string]uint32{
	Inet: {
		"prerouting": unix.NF_INET_PRE_ROUTING, "input": unix.NF_INET_LOCAL_IN, "forward": unix.NF_INET_FORWARD,
		"output": unix.NF_INET_LOCAL_OUT, "postrouting": unix.NF_INET_POST_ROUTING,
	},
	ARP: {"input": 0, "output": 1},
}

// nft's numbers of data types: the kernel keeps them for whoever lists the tables.
var typeMagic = map[Type]uint32{
	TIfName: 41, TAddr4: 7, TAddr6: 8, TProto: 12, TPort: 13, TEther: 9, TByte: 14, TInt32: 19, TWord: 4,
}

func (s *SetObject) keyType() (magic, length uint32) {
	for _, t := range s.Types {
		magic = magic<<6 | typeMagic[t]
		length += uint32(4 * parts(t))
	}
	if len(s.Types) == 1 {
		length = uint32(typeLen[s.Types[0]])
	}
	return magic, length
}

func (s *SetObject) flags() uint32 {
	var f uint32
	if s.Interval {
		f |= unix.NFT_SET_INTERVAL
	}
	if s.Verdict || len(s.Data) > 0 {
		f |= unix.NFT_SET_MAP
	}
	if s.Timed {
		f |= unix.NFT_SET_TIMEOUT
	}
	return f
}

func (s *SetObject) create() []byte {
	var b attrBuf
	b.str(unix.NFTA_SET_TABLE, TableName)
	b.str(unix.NFTA_SET_NAME, s.Name)
	b.u32(unix.NFTA_SET_FLAGS, s.flags())
	magic, length := s.keyType()
	b.u32(unix.NFTA_SET_KEY_TYPE, magic)
	b.u32(unix.NFTA_SET_KEY_LEN, length)
	b.u32(unix.NFTA_SET_ID, 1)
	if s.Verdict {
		b.u32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		b.u32(unix.NFTA_SET_DATA_LEN, 0)
	}
	for _, t := range s.Data {
		b.u32(unix.NFTA_SET_DATA_TYPE, typeMagic[t])
		b.u32(unix.NFTA_SET_DATA_LEN, uint32(typeLen[t]))
	}
	if s.Timed {
		at := b.nest(unix.NFTA_SET_DESC)
		b.u32(unix.NFTA_SET_DESC_SIZE, maxTimed)
		b.end(at)
	}
	byteOrder := uint32(2) // as nft numbers them: network order
	if s.Types[0] == TIfName {
		byteOrder = 1 // the host's: nft shows the name
	}
	ud := userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, byteOrder)
	if s.Comment != "" {
		ud = userdata.AppendString(ud, userdata.NFTNL_UDATA_SET_COMMENT, s.Comment)
	}
	b.bytes(unix.NFTA_SET_USERDATA, ud)
	return b
}

// maxTimed bounds a set that is not filled by a State.
const maxTimed = 1 << 16

// elemBatch is how many bytes of elements go into one message: their attribute has a length of 16 bits.
const elemBatch = 48 << 10

// elements encodes es in as many messages' attributes as it takes.
func (s *SetObject) elements(es []Elem) [][]byte {
	var msgs [][]byte
	for len(es) > 0 {
		var b attrBuf
		b.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		b.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		at := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		start := len(b)
		for len(es) > 0 && len(b)-start < elemBatch {
			s.element(&b, es[0], es[0].Key, false)
			if s.Interval {
				if end, ok := successor(es[0].Last); ok {
					s.element(&b, Elem{}, end, true)
				}
			}
			es = es[1:]
		}
		b.end(at)
		msgs = append(msgs, b)
	}
	return msgs
}

func (s *SetObject) element(b *attrBuf, e Elem, key string, end bool) {
	at := b.nest(unix.NFTA_LIST_ELEM)
	if end {
		b.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	k := b.nest(unix.NFTA_SET_ELEM_KEY)
	b.data(unix.NFTA_DATA_VALUE, key)
	b.end(k)
	if s.Verdict && !end {
		d := b.nest(unix.NFTA_SET_ELEM_DATA)
		v := b.nest(unix.NFTA_DATA_VERDICT)
		b.u32(unix.NFTA_VERDICT_CODE, uint32(verdictCode(e.Kind)))
		if e.Chain != "" {
			b.str(unix.NFTA_VERDICT_CHAIN, e.Chain)
		}
		b.end(v)
		b.end(d)
	}
	if len(s.Data) > 0 && !end {
		d := b.nest(unix.NFTA_SET_ELEM_DATA)
		b.data(unix.NFTA_DATA_VALUE, e.Value)
		b.end(d)
	}
	b.end(at)
}

func verdictCode(k ActionKind) int32 {
	switch k {
	case ActAccept:
		return 1 // NF_ACCEPT
	case ActReturn:
		return unix.NFT_RETURN
	case ActJump:
		return unix.NFT_JUMP
	case ActGoto:
		return unix.NFT_GOTO
	}
	return 0 // NF_DROP
}

// successor is the key after k; none after the last one.
func successor(k string) (string, bool) {
	b := []byte(k)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

// predecessor is the key before k, which is not the first one.
func predecessor(k string) string {
	b := []byte(k)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return string(b)
}

// chainUserData is NFTA_CHAIN_USERDATA, which package unix lacks.
const chainUserData = 12

func (c *Chain) create() []byte {
	var b attrBuf
	b.str(unix.NFTA_CHAIN_TABLE, TableName)
	b.str(unix.NFTA_CHAIN_NAME, c.Name)
	if h := c.Hook; h != nil {
		at := b.nest(unix.NFTA_CHAIN_HOOK)
		b.u32(unix.NFTA_HOOK_HOOKNUM, hooks[c.Table][h.Hook])
		b.u32(unix.NFTA_HOOK_PRIORITY, uint32(h.Priority))
		b.end(at)
		b.u32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		b.str(unix.NFTA_CHAIN_TYPE, h.Type)
	}
	if c.Comment != "" {
		b.bytes(chainUserData, userdata.AppendString(nil, userdata.TypeComment, c.Comment))
	}
	return b
}

func (c *Chain) name() attrBuf {
	var b attrBuf
	b.str(unix.NFTA_CHAIN_TABLE, TableName)
	b.str(unix.NFTA_CHAIN_NAME, c.Name)
	return b
}

func (c *Chain) addRule(r *Rule) ([]byte, error) {
	es, err := r.encode(families[c.Table])
	if err != nil {
		return nil, err
	}
	var b attrBuf
	b.str(unix.NFTA_RULE_TABLE, TableName)
	b.str(unix.NFTA_RULE_CHAIN, c.Name)
	b.bytes(unix.NFTA_RULE_EXPRESSIONS|nested, es)
	if ud := r.userData(); ud != nil {
		b.bytes(unix.NFTA_RULE_USERDATA, ud)
	}
	return b, nil
}
