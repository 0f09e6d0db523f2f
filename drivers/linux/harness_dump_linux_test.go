package linux

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers/drivertest"
)

// Dump is what the kernel says of our tables, and our routes and neighbours. Objects and elements are sorted, rules stay
// in their order. It is read without the driver's code, and not by nft either: a thousand dumps would take a minute.
// Foreign are the tables and routes of the world's other programs, without the translations that probes ask for.
func (h *kernelHarness) Dump(context.Context) (drivertest.Dump, error) {
	out := drivertest.Dump{Writes: h.Writes()}
	var err error
	if out.Ours, err = h.dumpTables(TableName); err != nil {
		return out, err
	}
	if out.Foreign, err = h.dumpTables(foreignTable, foreignMaps...); err != nil {
		return out, err
	}
	rs, err := h.node.Routes(0)
	if err != nil {
		return out, err
	}
	var ours, foreign []string
	for _, r := range rs {
		if r.Protocol == RouteProtocol {
			ours = append(ours, fmt.Sprintf("route %+v", r))
		} else {
			foreign = append(foreign, fmt.Sprintf("route %+v", r))
		}
	}
	ns, err := h.node.Neighs(0)
	if err != nil {
		return out, err
	}
	for _, n := range ns {
		if n.Protocol == RouteProtocol {
			ours = append(ours, fmt.Sprintf("neighbour %v", n))
		}
	}
	slices.Sort(ours)
	slices.Sort(foreign)
	out.Ours += strings.Join(ours, "\n")
	out.Foreign += strings.Join(foreign, "\n")
	return out, nil
}

// dumpTables dumps the tables of a name in the families that the driver uses, but for some sets.
func (h *kernelHarness) dumpTables(name string, but ...string) (string, error) {
	var sb strings.Builder
	for _, fam := range []uint8{unix.NFPROTO_INET, unix.NFPROTO_ARP} {
		d := &dump{flows: h.flows, family: fam, name: name, but: but}
		objects, err := d.table()
		if err != nil {
			return "", fmt.Errorf("dumping family %d: %w", fam, err)
		}
		for _, o := range objects {
			sb.WriteString(o + "\n")
		}
	}
	return sb.String(), nil
}

// dump reads a table of one family.
type dump struct {
	flows  *flowTable
	family uint8
	name   string
	but    []string // sets to leave out
}

// attrs are the attributes of one object, by type.
type attrs map[uint16][]byte

func parseAttrs(b []byte) attrs {
	a := attrs{}
	as, _ := netlink.UnmarshalAttributes(b)
	for _, x := range as {
		a[x.Type&^(netlink.Nested|netlink.NetByteOrder)] = x.Data
	}
	return a
}

func (a attrs) str(typ uint16) string { return string(bytes.TrimRight(a[typ], "\x00")) }

func (a attrs) num(typ uint16) uint64 {
	switch b := a[typ]; len(b) {
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	case 8:
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// get dumps the objects of a type; the attributes narrow what is dumped.
func (d *dump) get(typ uint16, fill func(*netlink.AttributeEncoder)) ([]attrs, error) {
	ae := netlink.NewAttributeEncoder()
	if fill != nil {
		fill(ae)
	}
	b, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	msgs, err := d.flows.ct.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{d.family, unix.NFNETLINK_V0, 0, 0}, b...),
	})
	if err != nil {
		return nil, err
	}
	var out []attrs
	for _, m := range msgs {
		if len(m.Data) >= 4 && m.Data[0] == d.family {
			out = append(out, parseAttrs(m.Data[4:]))
		}
	}
	return out, nil
}

// table gives every object of the table, one to a line.
func (d *dump) table() ([]string, error) {
	tables, err := d.get(unix.NFT_MSG_GETTABLE, nil)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(tables, func(a attrs) bool { return a.str(unix.NFTA_TABLE_NAME) == d.name }) {
		return nil, nil
	}
	sets, err := d.sets()
	if err != nil {
		return nil, err
	}
	chains, err := d.chains()
	if err != nil {
		return nil, err
	}
	return slices.Concat([]string{fmt.Sprintf("table %d", d.family)}, sets, chains), nil
}

func (d *dump) sets() ([]string, error) {
	all, err := d.get(unix.NFT_MSG_GETSET, func(ae *netlink.AttributeEncoder) { ae.String(unix.NFTA_SET_TABLE, d.name) })
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range all {
		if s.str(unix.NFTA_SET_TABLE) != d.name {
			continue
		}
		name := s.str(unix.NFTA_SET_NAME)
		if slices.Contains(d.but, name) {
			continue
		}
		elems, err := d.elements(name)
		if err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("set %s flags %d type %d len %d data %d len %d policy %d desc %x\n  %s", name,
			s.num(unix.NFTA_SET_FLAGS), s.num(unix.NFTA_SET_KEY_TYPE), s.num(unix.NFTA_SET_KEY_LEN), s.num(unix.NFTA_SET_DATA_TYPE),
			s.num(unix.NFTA_SET_DATA_LEN), s.num(unix.NFTA_SET_POLICY), s[unix.NFTA_SET_DESC], strings.Join(elems, "\n  ")))
	}
	slices.Sort(out)
	return out, nil
}

func (d *dump) elements(set string) ([]string, error) {
	lists, err := d.get(unix.NFT_MSG_GETSETELEM, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, d.name)
		ae.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	})
	if err != nil {
		return nil, fmt.Errorf("elements of %s: %w", set, err)
	}
	var out []string
	for _, l := range lists {
		elems, err := netlink.UnmarshalAttributes(l[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			a := parseAttrs(e.Data)
			const keyEnd = 10 // NFTA_SET_ELEM_KEY_END
			out = append(out, fmt.Sprintf("%x - %x: %x flags %d", a[unix.NFTA_SET_ELEM_KEY], a[keyEnd], a[unix.NFTA_SET_ELEM_DATA], a.num(unix.NFTA_SET_ELEM_FLAGS)))
		}
	}
	slices.Sort(out)
	return out, nil
}

func (d *dump) chains() ([]string, error) {
	rules, err := d.get(unix.NFT_MSG_GETRULE, func(ae *netlink.AttributeEncoder) { ae.String(unix.NFTA_RULE_TABLE, d.name) })
	if err != nil {
		return nil, err
	}
	of := map[string][]string{}
	for _, r := range rules {
		if r.str(unix.NFTA_RULE_TABLE) == d.name {
			name := r.str(unix.NFTA_RULE_CHAIN)
			of[name] = append(of[name], expressions(r[unix.NFTA_RULE_EXPRESSIONS])+fmt.Sprintf(" %q", r[unix.NFTA_RULE_USERDATA]))
		}
	}
	all, err := d.get(unix.NFT_MSG_GETCHAIN, nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range all {
		if c.str(unix.NFTA_CHAIN_TABLE) != d.name {
			continue
		}
		name := c.str(unix.NFTA_CHAIN_NAME)
		out = append(out, fmt.Sprintf("chain %s hook %x policy %d type %s\n  %s", name, c[unix.NFTA_CHAIN_HOOK],
			c.num(unix.NFTA_CHAIN_POLICY), c.str(unix.NFTA_CHAIN_TYPE), strings.Join(of[name], "\n  ")))
	}
	slices.Sort(out)
	return out, nil
}

// expressions gives the expressions of a rule, without what they have counted.
func expressions(b []byte) string {
	list, _ := netlink.UnmarshalAttributes(b)
	var out []string
	for _, e := range list {
		a := parseAttrs(e.Data)
		name := a.str(unix.NFTA_EXPR_NAME)
		if name == "counter" || name == "last" {
			out = append(out, name)
			continue
		}
		out = append(out, fmt.Sprintf("%s %x", name, a[unix.NFTA_EXPR_DATA]))
	}
	return strings.Join(out, "; ")
}
