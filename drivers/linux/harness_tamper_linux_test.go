package linux

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/linuxnet"
)

// tables are the driver's tables, the family with the lower number first.
func (h *kernelHarness) tables() ([]*nftables.Table, error) {
	all, err := h.flows.nft.ListTables()
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	ours := slices.DeleteFunc(all, func(t *nftables.Table) bool { return t.Name != TableName })
	slices.SortFunc(ours, func(a, b *nftables.Table) int { return int(a.Family) - int(b.Family) })
	return ours, nil
}

// Tamper damages one object.
func (h *kernelHarness) Tamper(_ context.Context, n uint64) (string, error) {
	ways := []func(uint64) (string, error){
		h.deleteRule, h.insertAccept, h.deleteElement, h.addElement, h.deleteRoute, h.changeNeigh, h.flushChain, h.addRoute,
		h.addChain, h.deleteTable, h.appendDrop, h.deleteNeigh,
	}
	for i := range ways {
		what, err := ways[(n+uint64(i))%uint64(len(ways))](n / uint64(len(ways)))
		if err != nil || what != "" {
			return what, err
		}
	}
	return "", nil
}

func pick[T any](list []T, n uint64) (T, bool) {
	if len(list) == 0 {
		var none T
		return none, false
	}
	return list[n%uint64(len(list))], true
}

// chains are our chains, sorted by table and name.
func (h *kernelHarness) chains() ([]*nftables.Chain, error) {
	all, err := h.flows.nft.ListChains()
	if err != nil {
		return nil, err
	}
	ours := slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != TableName })
	slices.SortFunc(ours, func(a, b *nftables.Chain) int {
		return int(a.Table.Family) - int(b.Table.Family)<<8 + strings.Compare(a.Name, b.Name)
	})
	return ours, nil
}

func (h *kernelHarness) chain(n uint64) (*nftables.Chain, error) {
	cs, err := h.chains()
	if err != nil {
		return nil, err
	}
	c, _ := pick(cs, n)
	return c, nil
}

func (h *kernelHarness) deleteRule(n uint64) (string, error) {
	c, err := h.chain(n)
	if err != nil || c == nil {
		return "", err
	}
	handles, err := h.handles(c)
	if err != nil {
		return "", err
	}
	handle, ok := pick(handles, n)
	if !ok {
		return "", nil
	}
	if err := h.flows.nft.DelRule(&nftables.Rule{Table: c.Table, Chain: c, Handle: handle}); err != nil {
		return "", err
	}
	return fmt.Sprintf("a rule of chain %s is deleted", c.Name), h.flows.nft.Flush()
}

// handles are those of a chain's rules. The library cannot read every rule of ours.
func (h *kernelHarness) handles(c *nftables.Chain) ([]uint64, error) {
	d := &dump{flows: h.flows, family: uint8(c.Table.Family), name: TableName}
	rules, err := d.get(unix.NFT_MSG_GETRULE, func(ae *netlink.AttributeEncoder) { ae.String(unix.NFTA_RULE_TABLE, TableName) })
	var out []uint64
	for _, r := range rules {
		if r.str(unix.NFTA_RULE_TABLE) == TableName && r.str(unix.NFTA_RULE_CHAIN) == c.Name {
			out = append(out, r.num(unix.NFTA_RULE_HANDLE))
		}
	}
	return out, err
}

func (h *kernelHarness) insertAccept(n uint64) (string, error) {
	return h.addRule(n, "begins with an accept", expr.VerdictAccept, h.flows.nft.InsertRule)
}

func (h *kernelHarness) appendDrop(n uint64) (string, error) {
	return h.addRule(n, "ends with a drop", expr.VerdictDrop, h.flows.nft.AddRule)
}

func (h *kernelHarness) addRule(n uint64, what string, v expr.VerdictKind, add func(*nftables.Rule) *nftables.Rule) (string, error) {
	c, err := h.chain(n)
	if err != nil || c == nil {
		return "", err
	}
	add(&nftables.Rule{Table: c.Table, Chain: c, Exprs: []expr.Any{&expr.Verdict{Kind: v}}})
	return fmt.Sprintf("chain %s %s", c.Name, what), h.flows.nft.Flush()
}

func (h *kernelHarness) flushChain(n uint64) (string, error) {
	c, err := h.chain(n)
	if err != nil || c == nil {
		return "", err
	}
	h.flows.nft.FlushChain(c)
	return fmt.Sprintf("chain %s is emptied", c.Name), h.flows.nft.Flush()
}

func (h *kernelHarness) addChain(n uint64) (string, error) {
	tables, err := h.tables()
	t, ok := pick(tables, n)
	if err != nil || !ok {
		return "", err
	}
	h.flows.nft.AddChain(&nftables.Chain{Table: t, Name: "stranger"})
	return "a chain has been added", h.flows.nft.Flush()
}

func (h *kernelHarness) deleteTable(n uint64) (string, error) {
	tables, err := h.tables()
	t, ok := pick(tables, n)
	if err != nil || !ok {
		return "", err
	}
	h.flows.nft.DelTable(t)
	return fmt.Sprintf("a table is deleted (family %d)", t.Family), h.flows.nft.Flush()
}

// elements finds a set of ours with elements that are neither ranges nor verdicts of chains that would have to be there.
func (h *kernelHarness) elements(n uint64, ok func(*nftables.Set) bool) (*nftables.Set, []nftables.SetElement, error) {
	tables, err := h.tables()
	if err != nil {
		return nil, nil, err
	}
	var sets []*nftables.Set
	for _, t := range tables {
		ss, err := h.flows.nft.GetSets(t)
		if err != nil {
			return nil, nil, err
		}
		sets = append(sets, ss...)
	}
	sets = slices.DeleteFunc(sets, func(s *nftables.Set) bool { return s.Anonymous || s.Interval || !ok(s) })
	slices.SortFunc(sets, func(a, b *nftables.Set) int { return strings.Compare(a.Name, b.Name) })
	for i := range sets {
		s := sets[(n+uint64(i))%uint64(len(sets))]
		es, err := h.flows.nft.GetSetElements(s)
		if err != nil {
			return nil, nil, err
		}
		if len(es) > 0 {
			slices.SortFunc(es, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
			return s, es, nil
		}
	}
	return nil, nil, nil
}

func (h *kernelHarness) deleteElement(n uint64) (string, error) {
	s, es, err := h.elements(n, func(*nftables.Set) bool { return true })
	if err != nil || s == nil {
		return "", err
	}
	e, _ := pick(es, n)
	if err := h.flows.nft.SetDeleteElements(s, []nftables.SetElement{{Key: e.Key}}); err != nil {
		return "", err
	}
	return fmt.Sprintf("element %x of set %s is deleted", e.Key, s.Name), h.flows.nft.Flush()
}

// addElement puts a stranger into a set: an element that differs from one of its own in one bit.
func (h *kernelHarness) addElement(n uint64) (string, error) {
	s, es, err := h.elements(n, func(s *nftables.Set) bool { return !s.IsMap })
	if err != nil || s == nil {
		return "", err
	}
	e, _ := pick(es, n)
	key := bytes.Clone(e.Key)
	key[0] ^= 0x40
	if slices.ContainsFunc(es, func(e nftables.SetElement) bool { return bytes.Equal(e.Key, key) }) {
		return "", nil
	}
	if err := h.flows.nft.SetAddElements(s, []nftables.SetElement{{Key: key}}); err != nil {
		return "", err
	}
	return fmt.Sprintf("set %s has a strange element %x", s.Name, key), h.flows.nft.Flush()
}

func (h *kernelHarness) deleteRoute(n uint64) (string, error) {
	rs, err := h.node.Routes(RouteProtocol)
	r, ok := pick(rs, n)
	if err != nil || !ok {
		return "", err
	}
	return fmt.Sprintf("route %s is deleted", r.Dst), h.node.DeleteRoute(r)
}

func (h *kernelHarness) addRoute(n uint64) (string, error) {
	dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 67, byte(n), 0}), 24)
	r := linuxnet.Route{Dst: dst, Blackhole: true, Metric: int(n % 3), Protocol: RouteProtocol}
	return fmt.Sprintf("route %s has been added", r.Dst), h.node.ReplaceRoute(r)
}

// neigh finds a neighbour that the driver made.
func (h *kernelHarness) neigh(n uint64) (linuxnet.Neigh, bool, error) {
	ns, err := h.node.Neighs(0)
	if err != nil {
		return linuxnet.Neigh{}, false, err
	}
	e, ok := pick(slices.DeleteFunc(ns, func(n linuxnet.Neigh) bool { return n.Protocol != RouteProtocol }), n)
	return e, ok, nil
}

func (h *kernelHarness) changeNeigh(n uint64) (string, error) {
	e, ok, err := h.neigh(n)
	if err != nil || !ok {
		return "", err
	}
	e.MAC[5] ^= 0xff
	return fmt.Sprintf("neighbour %s has a strange MAC", e.Addr), h.node.SetNeigh(e)
}

func (h *kernelHarness) deleteNeigh(n uint64) (string, error) {
	e, ok, err := h.neigh(n)
	if err != nil || !ok {
		return "", err
	}
	return fmt.Sprintf("neighbour %s is deleted", e.Addr), h.node.DeleteNeigh(e)
}
