package drivers

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
)

// MakeRuleID returns the id of the rule at an index of a policy's In or Out list. It depends on the policy's name, the
// direction, the index and the content of r (but not on r.ID), is the same in every process and on every node, and is
// never 0.
func MakeRuleID(policy PolicyID, in bool, index int, r Rule) RuleID {
	c := canon{}
	c.str(string(policy.Kind), policy.Namespace, policy.Name, r.Name)
	c.bool(in)
	c.num(uint64(index))
	c.num(uint64(r.Action))
	c.match(&r.Match)
	h := fnv.New64a()
	h.Write(c)
	if id := RuleID(h.Sum64()); id != 0 {
		return id
	}
	return 1
}

// SetRuleIDs gives each rule of p its id. It is for the maker of p, before p is in a State.
func (p *Policy) SetRuleIDs() {
	for i := range p.In {
		p.In[i].ID = MakeRuleID(p.ID, true, i, p.In[i])
	}
	for i := range p.Out {
		p.Out[i].ID = MakeRuleID(p.ID, false, i, p.Out[i])
	}
}

// canon is an encoding that no two different values share: each number has a fixed length, each string and list begins
// with its length, each optional value with whether it is there.
type canon []byte

func (c *canon) num(n uint64) { *c = binary.BigEndian.AppendUint64(*c, n) }

func (c *canon) bool(b bool) {
	if b {
		c.num(1)
	} else {
		c.num(0)
	}
}

func (c *canon) str(ss ...string) {
	for _, s := range ss {
		c.num(uint64(len(s)))
		*c = append(*c, s...)
	}
}

func (c *canon) opt(n *uint8) {
	c.bool(n != nil)
	if n != nil {
		c.num(uint64(*n))
	}
}

func (c *canon) icmp(i *ICMP) {
	c.bool(i != nil)
	if i != nil {
		c.num(uint64(i.Type))
		c.opt(i.Code)
	}
}

func (c *canon) match(m *Match) {
	c.num(uint64(m.IPVersion))
	c.opt(m.Proto)
	c.opt(m.NotProto)
	c.icmp(m.ICMP)
	c.icmp(m.NotICMP)
	c.side(&m.Src)
	c.side(&m.Dst)
	c.bool(m.HTTP != nil)
	if m.HTTP != nil {
		c.num(uint64(len(m.HTTP.Methods)))
		c.str(m.HTTP.Methods...)
		c.num(uint64(len(m.HTTP.Paths)))
		for _, p := range m.HTTP.Paths {
			c.str(p.Exact, p.Prefix)
		}
	}
	c.num(uint64(len(m.Unsupported)))
	c.str(m.Unsupported...)
}

func (c *canon) side(s *Side) {
	for _, nets := range [][]netip.Prefix{s.Nets, s.NotNets} {
		c.num(uint64(len(nets)))
		for _, n := range nets {
			c.str(n.String())
		}
	}
	for _, sets := range [][]SetID{s.Sets, s.NotSets, s.PortSets, s.NotPortSets, s.Services} {
		c.num(uint64(len(sets)))
		for _, id := range sets {
			c.str(string(id))
		}
	}
	for _, ports := range [][]PortRange{s.Ports, s.NotPorts} {
		c.num(uint64(len(ports)))
		for _, p := range ports {
			c.num(uint64(p.First)<<16 | uint64(p.Last))
		}
	}
}
