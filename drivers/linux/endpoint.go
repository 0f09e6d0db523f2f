package linux

import (
	"net/netip"
	"regexp"

	"github.com/tortie/tortie/drivers"
)

// claim resolves an interface to its endpoint: of two workloads, or two host endpoints, none can be trusted, and a
// workload's comes before a host's.
func (i *iface) claim() (workload, host *drivers.Endpoint, twice bool) {
	if i == nil {
		return nil, nil, false
	}
	for _, e := range i.endpoints {
		at := &host
		if e.ID.Kind == drivers.Workload {
			at = &workload
		}
		twice = twice || *at != nil
		*at = e
	}
	return workload, host, twice
}

func (c *compiler) buildIface(u *unit, name string) {
	i := c.ifaces[name]
	workload, host, twice := i.claim()
	for id := range i.endpoints {
		delete(c.failed, drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id})
	}
	u.face = ""
	if name == drivers.AllHostIfaces {
		c.mark(c.base)
		return
	}
	if len(i.endpoints) > 0 && (name == "" || len(name) > 15) {
		for id := range i.endpoints {
			c.failed[drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id}] = errIfName
		}
		return
	}
	switch {
	case twice:
		u.entry(Key{Inet, setUnknown}, Elem{Key: ifName(name)})
		u.entry(Key{ARP, setUnknown}, Elem{Key: ifName(name)})
	case workload != nil && (c.poison[refOf(workload)] != nil || c.hold[refOf(workload)]):
		u.entry(Key{Inet, setUnknown}, Elem{Key: ifName(name)})
		u.entry(Key{ARP, setUnknown}, Elem{Key: ifName(name)})
	case workload != nil:
		c.buildWorkload(u, c.effective(workload))
	case host != nil:
		c.buildHost(u, c.effective(host))
	}
}

func refOf(e *drivers.Endpoint) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: e.ID}
}

func (c *compiler) buildWorkload(u *unit, e *drivers.Endpoint) {
	name := ifName(e.Iface)
	for _, t := range []Table{Inet, ARP} {
		u.entry(Key{t, setWorkloads}, Elem{Key: name})
	}
	u.entry(Key{Inet, setHairpin}, Elem{Key: concat(name, name)})
	c.sources(u, e)
	c.arpSources(u, e)
	degraded := e.Degraded != ""
	if l := e.Policy.Normal.Out; degraded || l != nil && len(l.Tiers) > 0 {
		c.stage(u, mapEgress, listSpec{stage: mapEgress, list: l, in: false, style: stylePlain, degraded: degraded}, name)
	}
	if l := e.Policy.Normal.In; degraded || l != nil && len(l.Tiers) > 0 {
		c.stage(u, mapIngress, listSpec{stage: mapIngress, list: l, in: true, style: stylePlain, degraded: degraded}, name)
	}
	c.profiles(u, mapEgressProfiles, e.Profiles, false, name)
	c.profiles(u, mapIngressProfiles, e.Profiles, true, name)
}

func (c *compiler) buildHost(u *unit, e *drivers.Endpoint) {
	name := ifName(e.Iface)
	degraded := e.Degraded != ""
	p := &e.Policy
	for _, f := range []struct {
		m    string
		list *drivers.TierList
		in   bool
	}{{mapFwdIn, p.Forward.In, true}, {mapFwdOut, p.Forward.Out, false}} {
		if degraded || f.list != nil && len(f.list.Tiers) > 0 {
			c.stage(u, f.m, listSpec{stage: f.m, list: f.list, in: f.in, style: stylePlain, degraded: degraded}, name)
		}
	}
	c.stage(u, mapHostIn, listSpec{
		stage: mapHostIn, list: p.Normal.In, in: true, style: stylePlain, degraded: degraded, safe: allowFailsafes,
	}, name)
	c.stage(u, mapHostOut, listSpec{
		stage: mapHostOut, list: p.Normal.Out, in: false, style: stylePlain, degraded: degraded, safe: allowFailsafes,
	}, name)
	c.profiles(u, mapHostInProfiles, e.Profiles, true, name)
	c.profiles(u, mapHostOutProfiles, e.Profiles, false, name)
	c.earlyStages(u, e, degraded, name)
}

// earlyStages are those that have no list of their own unless one is given, not even of a degraded endpoint.
func (c *compiler) earlyStages(u *unit, e *drivers.Endpoint, degraded bool, name string) {
	p := &e.Policy
	if l := p.Untracked.In; l != nil && len(l.Tiers) > 0 {
		c.stage(u, mapUntrackedIn, listSpec{
			stage: mapUntrackedIn, list: l, in: true, style: styleUntracked, early: true, degraded: degraded, safe: leaveBothWays,
		}, name)
	}
	if l := p.Untracked.Out; l != nil && len(l.Tiers) > 0 {
		c.stage(u, mapUntrackedOut, listSpec{
			stage: mapUntrackedOut, list: l, in: false, style: styleUntracked, early: true, degraded: degraded, safe: leaveBothWays,
		}, name)
	}
	if l := p.PreDNAT.In; l != nil && len(l.Tiers) > 0 {
		plain := c.needList(u, listSpec{
			stage: mapPreDNATPlain, list: l, in: true, style: stylePlain, early: true, degraded: degraded, safe: leaveFailsafes,
		})
		orig := c.needList(u, listSpec{
			stage: mapPreDNAT, list: l, in: true, style: styleOrig, early: true, degraded: degraded, safe: leaveOrigDNAT,
		})
		u.entry(Key{Inet, mapPreDNAT}, Elem{Key: name, Kind: ActJump, Chain: orig})
		u.entry(Key{Inet, mapPreDNATPlain}, Elem{Key: name, Kind: ActJump, Chain: plain})
	}
}

// stage puts an interface's tier list into a stage's map.
func (c *compiler) stage(u *unit, m string, s listSpec, name string) {
	u.entry(Key{Inet, m}, Elem{Key: name, Kind: ActJump, Chain: c.needList(u, s)})
}

func (c *compiler) profiles(u *unit, m string, ids []drivers.PolicyID, in bool, name string) {
	u.entry(Key{Inet, m}, Elem{Key: name, Kind: ActJump, Chain: c.needProfiles(u, ids, in)})
}

var plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`)

// ifaceChain names an interface's own chain, readably where its name is one that nft can write.
func ifaceChain(prefix, iface string) string {
	if plainName.MatchString(iface) {
		return prefix + iface
	}
	return prefix + "x-" + hashName(iface)
}

// sources is the chain that packets from the workload go through first: what has its MAC and one of its addresses goes
// on, all else is dropped. Every accepting rule has every condition, so that what can't be loaded is dropped as well.
func (c *compiler) sources(u *unit, e *drivers.Endpoint) {
	mac := macMatch(e.MAC)
	ch := &Chain{Key: Key{Inet, ifaceChain("source-", e.Iface)}, Owner: refOf(e)}
	add := func(to string, v6 bool, ms ...Match) {
		all := append([]Match{isFamily(v6)}, mac...)
		ch.Rules = append(ch.Rules, Rule{Matches: append(all, ms...), Actions: []Action{{Kind: ActGoto, Chain: to}}})
	}
	for _, p := range ownPrefixes(e) {
		f := FSrc4
		if p.Addr().Is6() {
			f = FSrc6
		}
		var ms []Match
		if p.Bits() > 0 {
			ms = append(ms, prefixMatch(f, p, OpPrefix))
		}
		add(chainSourceOK, p.Addr().Is6(), ms...)
	}
	add(chainSourceLink, true, isProto(l4ICMPv6), prefixMatch(FSrc6, linkLocal, OpPrefix))
	add(chainSourceUnspec, true, isProto(l4ICMPv6), match(FSrc6, OpEq, string(make([]byte, 16))))
	ch.Rules = append(ch.Rules, Rule{Actions: does(ActDrop), Comment: shorten("not an address of " + e.Name)})
	c.chain(u, ch)
	u.entry(Key{Inet, mapSource}, Elem{Key: ifName(e.Iface), Kind: ActGoto, Chain: ch.Name})
}

var linkLocal = netip.MustParsePrefix("fe80::/10")

func macMatch(m drivers.MAC) []Match {
	if m == (drivers.MAC{}) {
		return nil
	}
	return []Match{match(FEtherSrc, OpEq, string(m[:]))}
}

// ownPrefixes is what a workload may send from.
func ownPrefixes(e *drivers.Endpoint) []netip.Prefix {
	var ps []netip.Prefix
	for _, a := range e.Addrs {
		if a.IsValid() {
			ps = append(ps, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for _, p := range e.SourcePrefixes {
		if p.IsValid() {
			ps = append(ps, p.Masked())
		}
	}
	return ps
}

// arpSources is sources for ARP: the sender is an address that it may use, or nothing at all in a question about an
// address of its own.
func (c *compiler) arpSources(u *unit, e *drivers.Endpoint) {
	ch := &Chain{Key: Key{ARP, ifaceChain("source-", e.Iface)}, Owner: refOf(e)}
	accept := func(ms ...Match) {
		all := append([]Match{}, macMatch(e.MAC)...)
		ch.Rules = append(ch.Rules, Rule{Matches: append(all, ms...), Actions: does(ActAccept)})
	}
	for _, p := range ownPrefixes(e) {
		switch {
		case !p.Addr().Is4():
		case p.Bits() == 0:
			accept()
		default:
			accept(prefixMatch(FARPSenderIP, p, OpPrefix))
		}
	}
	for _, a := range e.Addrs {
		if a.Is4() {
			accept(match(FARPSenderIP, OpEq, "\x00\x00\x00\x00"), match(FARPTargetIP, OpEq, string(a.AsSlice())))
		}
	}
	ch.Rules = append(ch.Rules, Rule{Actions: does(ActDrop), Comment: shorten("not an address of " + e.Name)})
	c.chain(u, ch)
	u.entry(Key{ARP, mapARPSource}, Elem{Key: ifName(e.Iface), Kind: ActGoto, Chain: ch.Name})
}
