package linux

import (
	"net/netip"

	"github.com/tortie/tortie/drivers"
)

// floatingNames are the objects of a family.
type floatingNames struct {
	v6              bool
	to, self        string
	dst, src, begun Field
}

func floatingFamilies() []floatingNames {
	return []floatingNames{
		{false, mapFloating4, setFloatingSelf4, FDst4, FSrc4, FOrigDst4}, {true, mapFloating6, setFloatingSelf6, FDst6, FSrc6, FOrigDst6},
	}
}

// floats takes in the floating addresses of an endpoint, none if it is gone. They are put into the maps here and not by the
// endpoint's unit: in one batch an address may go from one endpoint to another.
func (c *compiler) floats(id drivers.EndpointID, now []drivers.Floating) {
	touched := map[netip.Addr]bool{}
	for _, f := range c.floating[id] {
		delete(c.floaters[f.External], id)
		touched[f.External] = true
	}
	delete(c.floating, id)
	for _, f := range now {
		if !f.External.IsValid() || f.Internal.BitLen() != f.External.BitLen() {
			continue
		}
		if c.floaters[f.External] == nil {
			c.floaters[f.External] = map[drivers.EndpointID]netip.Addr{}
		}
		c.floaters[f.External][id] = f.Internal
		c.floating[id] = append(c.floating[id], f)
		touched[f.External] = true
	}
	for a := range touched {
		c.float(a)
	}
}

// float brings the maps up to date with who has a floating address.
func (c *compiler) float(external netip.Addr) {
	var holder *drivers.EndpointID
	for id := range c.floaters[external] {
		if holder == nil || id.Compare(*holder) < 0 {
			holder = &id
		}
	}
	names := floatingFamilies()[0]
	if external.Is6() {
		names = floatingFamilies()[1]
	}
	to, self, key := Key{Inet, names.to}, Key{Inet, names.self}, string(external.AsSlice())
	if was, there := c.maps[to][key]; there {
		c.drop(to, key)
		c.drop(self, concat(was.Value, was.Value, key))
	}
	if holder == nil {
		delete(c.floaters, external)
		return
	}
	internal := string(c.floaters[external][*holder].AsSlice())
	c.put(to, Elem{Key: key, Value: internal})
	c.put(self, Elem{Key: concat(internal, internal, key)})
}

// floating makes the chains that translate. A workload that is sent its own packet back would not take it from itself.
func (b *baseBuilder) floating() {
	var in, back []Rule
	for _, f := range floatingFamilies() {
		if !b.c.has(f.to) {
			continue
		}
		addr := addrType(f.v6)
		b.shared(Inet, f.to, SetObject{Types: []Type{addr}, Data: []Type{addr}})
		b.shared(Inet, f.self, SetObject{Types: []Type{addr, addr, addr}})
		in = append(in, when([]Action{{Kind: ActDNAT, Field: f.dst, VMap: f.to}}, isFamily(f.v6)))
		back = append(back, when([]Action{{Kind: ActSNAT, Field: f.begun}}, isFamily(f.v6), Match{
			Fields: []Field{f.src, f.dst, f.begun}, Op: OpIn, Set: f.self,
		}))
	}
	if len(in) == 0 {
		return
	}
	for _, c := range []struct {
		name, hook string
		prio       int32
		rules      []Rule
	}{
		{baseFloatIn, "prerouting", prioFloatDNAT, in}, {baseFloatOut, "output", prioFloatDNAT, in},
		{baseFloatBack, "postrouting", prioFloatSNAT, back},
	} {
		b.chain(Inet, c.name, &Hook{Type: "nat", Hook: c.hook, Priority: c.prio}, c.rules...)
	}
}
