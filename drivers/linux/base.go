package linux

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// The way of a packet, and what each base chain decides (E: the step of drivers.Evaluate):
//
//	raw-prerouting   what was cut: drop. From unknown interfaces: drop (E1). Workloads: MAC and source (E2). Link traffic (E3)
//	                 passes the rest. Untracked In (E4)
//	raw-output       what was cut: drop. Link traffic (E3). Untracked Out (E4)
//	forward-from     invalid, established (E5). Pre-DNAT (E6). Egress, or Forward In (E7)
//	forward-to       ingress, or Forward Out (E7)
//	input-from       link traffic of workloads (E3). Egress of workloads (E7)
//	input-to         tunnels (E2). Link traffic (E3). Pre-DNAT (E6). Endpoint-to-host, or Normal In (E7)
//	floating-*       floating addresses of workloads become their own, before E6 and E7
//	postrouting      to unknown interfaces: drop (E1). What the host sends: tunnels (E2), link traffic (E3), Normal Out (E7)
//
// Two things that look out of order are not. An untracked policy skips the later host stages of what it allowed, and a
// pre-DNAT policy too: those stages ask its list again, in its own hook's terms (of an untracked packet nothing has been
// translated; of a tracked one the flow knows the destination before DNAT), instead of trusting a mark. And pre-DNAT
// lists are asked after DNAT, when it is known whether the packet is for the host.

// flags says what base chains look at beyond Node, Peers and Masquerade: which maps have anything in them.
func (c *compiler) flags() string {
	s := ""
	for _, m := range optionalMaps {
		s += fmt.Sprint(len(c.maps[Key{Inet, m}]) > 0, " ")
	}
	return s + fmt.Sprint(len(c.maps[Key{Inet, setUnknown}]) > 0)
}

var optionalMaps = []string{
	mapFwdIn, mapFwdOut, mapHostIn, mapHostOut, mapUntrackedIn, mapUntrackedOut, mapPreDNAT, mapEgress, mapIngress,
	mapFloating4, mapFloating6,
}

// baseBuilder collects what buildBase makes.
type baseBuilder struct {
	c *compiler
	u *unit
}

func (c *compiler) has(m string) bool { return len(c.maps[Key{Inet, m}]) > 0 }

func (c *compiler) buildBase(u *unit) {
	b := &baseBuilder{c: c, u: u}
	b.sharedSets()
	b.rawIn()
	b.rawOut()
	b.forward()
	b.input()
	b.post()
	b.masquerade()
	b.floating()
	b.arp()
}

func nodeRef() drivers.ObjectRef { return drivers.ObjectRef{Kind: drivers.ObjNode} }

func (b *baseBuilder) chain(t Table, name string, h *Hook, rules ...Rule) {
	b.c.chain(b.u, &Chain{Key: Key{t, name}, Hook: h, Rules: rules, Owner: nodeRef()})
}

func (b *baseBuilder) fixed(t Table, name string, types []Type, es ...Elem) {
	content := elems{}
	for _, e := range es {
		content.put(e)
	}
	b.c.set(b.u, &SetObject{Key: Key{t, name}, Types: types, Content: content, Owner: nodeRef()})
}

// shared makes the object of a map or set that units put elements in.
func (b *baseBuilder) shared(t Table, name string, o SetObject) {
	o.Key, o.Owner = Key{t, name}, nodeRef()
	if b.c.maps[o.Key] == nil {
		b.c.maps[o.Key] = elems{}
	}
	o.Content = b.c.maps[o.Key]
	b.c.set(b.u, &o)
}

func byteElems(bs ...byte) []Elem {
	var es []Elem
	for _, x := range bs {
		es = append(es, Elem{Key: string([]byte{x})})
	}
	return es
}

func (b *baseBuilder) sharedSets() {
	name := []Type{TIfName}
	b.fixed(Inet, setPorts, []Type{TProto}, byteElems(l4TCP, l4UDP, l4SCTP)...)
	b.fixed(Inet, setLink1, []Type{TByte}, byteElems(133, 135, 136)...)
	b.fixed(Inet, setLink2, []Type{TByte}, byteElems(131, 132, 143)...)
	b.fixed(Inet, setHostLink1, []Type{TByte}, byteElems(133, 134, 135, 136)...)
	b.fixed(Inet, setHostLink2, []Type{TByte}, byteElems(130, 131, 132, 143)...)
	b.shared(Inet, setWorkloads, SetObject{Types: name})
	b.shared(Inet, setUnknown, SetObject{Types: name})
	b.shared(Inet, setHairpin, SetObject{Types: []Type{TIfName, TIfName}})
	b.shared(Inet, mapSource, SetObject{Types: name, Verdict: true})
	b.shared(ARP, setWorkloads, SetObject{Types: name})
	b.shared(ARP, setUnknown, SetObject{Types: name})
	b.shared(ARP, mapARPSource, SetObject{Types: name, Verdict: true})
	b.peers()
	b.failsafeSet(setFailsafeIn, b.c.st.Node.FailsafeIn)
	b.failsafeSet(setFailsafeOut, b.c.st.Node.FailsafeOut)
}

func (b *baseBuilder) peers() {
	var v4, v6 []Elem
	for _, p := range b.c.st.Peers {
		for _, a := range p.Addrs {
			switch {
			case a.Is4():
				v4 = append(v4, Elem{Key: string(a.AsSlice())})
			case a.Is6():
				v6 = append(v6, Elem{Key: string(a.AsSlice())})
			}
		}
	}
	b.fixed(Inet, setPeers4, []Type{TAddr4}, v4...)
	b.fixed(Inet, setPeers6, []Type{TAddr6}, v6...)
}

// failsafeSet holds the failsafes that have a port and no prefix; the others are rules.
func (b *baseBuilder) failsafeSet(name string, fs []drivers.Failsafe) {
	var es []Elem
	for _, f := range fs {
		if hasPorts(f.Proto) && !f.Net.IsValid() {
			es = append(es, Elem{Key: concat(string([]byte{f.Proto}), bytes16(f.Port))})
		}
	}
	b.fixed(Inet, name, []Type{TProto, TPort}, es...)
}

// failsafeRules begin the chain of a list of a host endpoint.
func (c *compiler) failsafeRules(u *unit, s listSpec) []Rule {
	if s.safe == noFailsafes {
		return nil
	}
	n := &c.st.Node
	there, back, thereSet, backSet := n.FailsafeIn, n.FailsafeOut, setFailsafeIn, setFailsafeOut
	if !s.in {
		there, back, thereSet, backSet = back, there, backSet, thereSet
	}
	act, port := does(ActReturn), FDport
	if s.safe == allowFailsafes {
		act = does(ActAccept)
	}
	if s.safe == leaveOrigDNAT {
		port = FOrigDport
	}
	rules := failsafeMatches(there, thereSet, port, s.in, act)
	if s.safe == leaveBothWays {
		rules = append(rules, failsafeMatches(back, backSet, FSport, s.in, act)...)
	}
	return rules
}

func failsafeMatches(fs []drivers.Failsafe, set string, port Field, in bool, act []Action) []Rule {
	rules := []Rule{{Matches: []Match{{Fields: []Field{FL4Proto, port}, Op: OpIn, Set: set}}, Actions: act, Comment: "failsafe"}}
	for _, f := range fs {
		if hasPorts(f.Proto) && !f.Net.IsValid() {
			continue
		}
		var ms []Match
		if f.Net.IsValid() {
			ms = append(ms, isFamily(f.Net.Addr().Is6()))
		}
		ms = append(ms, isProto(f.Proto))
		if hasPorts(f.Proto) {
			ms = append(ms, match(port, OpEq, bytes16(f.Port)))
		}
		if f.Net.IsValid() && f.Net.Bits() > 0 {
			ms = append(ms, prefixMatch(remote(in, f.Net.Addr().Is6()), f.Net, OpPrefix))
		}
		rules = append(rules, Rule{Matches: ms, Actions: act, Comment: "failsafe"})
	}
	return rules
}

func remote(in, v6 bool) Field {
	switch {
	case in && v6:
		return FSrc6
	case in:
		return FSrc4
	case v6:
		return FDst6
	}
	return FDst4
}

func when(act []Action, ms ...Match) Rule { return Rule{Matches: ms, Actions: act} }

func hook(name string, prio int32) *Hook { return &Hook{Type: "filter", Hook: name, Priority: prio} }

const (
	stateInvalid     = 1
	stateEstablished = 2
	stateRelated     = 4
	stateUntracked   = 64
)

func ctIs(bits uint32) Match { return match(FCTState, OpAny, native32(bits)) }

// prefixDrops drops what has to do with interfaces that are named like a workload's.
func (b *baseBuilder) prefixDrops(f Field, ms ...Match) []Rule {
	var rules []Rule
	for _, p := range b.c.st.Node.WorkloadPrefixes {
		if len(p) > 15 {
			continue // no interface is called so
		}
		first := match(f, OpHasName, p)
		if p == "" {
			first = match(f, OpNe, ifName("lo"))
		}
		rules = append(rules, Rule{Matches: append([]Match{first}, ms...), Actions: does(ActDrop), Comment: "unknown workload interface"})
	}
	return rules
}

// dispatch looks an interface up in a stage's map, and jumps to the chain of its list; without an entry it does nothing.
func (b *baseBuilder) dispatch(f Field, m string, ms ...Match) Rule {
	b.shared(Inet, m, SetObject{Types: []Type{TIfName}, Verdict: true})
	return Rule{Matches: ms, Actions: []Action{{Kind: ActVMap, Field: f, VMap: m}}}
}

// vxlan matches UDP to the node's VXLAN port.
func (b *baseBuilder) vxlan() []Match {
	port := b.c.st.Node.VXLANPort
	if port == 0 {
		port = 4789
	}
	return []Match{isProto(l4UDP), match(FDport, OpEq, bytes16(port))}
}

// tunnels are the matches of the outer packets of the tunnels that this node has.
func (b *baseBuilder) tunnels() [][]Match {
	var ts [][]Match
	if b.c.tunnels[drivers.EncapIPIP] > 0 {
		ts = append(ts, []Match{isProto(l4IPIP)}, []Match{isProto(l4IPv6)})
	}
	if b.c.tunnels[drivers.EncapVXLAN] > 0 {
		ts = append(ts, b.vxlan())
	}
	return ts
}

func (b *baseBuilder) rawIn() {
	rules := append(b.severed(), Rule{Actions: []Action{{Kind: ActVMap, Field: FIIfName, VMap: mapSource}}})
	rules = append(rules, b.prefixDrops(FIIfName)...)
	if b.c.has(setUnknown) {
		rules = append(rules, when(does(ActDrop), in(setUnknown, FIIfName)))
	}
	if b.c.has(mapUntrackedIn) {
		for _, t := range b.tunnels() {
			rules = append(rules, when(does(ActAccept), append(t, match(FLocal, OpEq, native32(2)))...))
		}
		rules = append(rules, b.hostLink(match(FLocal, OpEq, native32(2)))...)
		rules = append(rules, b.hostLink(prefixMatch(FDst6, netip.MustParsePrefix("ff00::/8"), OpPrefix))...)
		rules = append(rules, b.dispatch(FIIfName, mapUntrackedIn))
	}
	b.chain(Inet, baseRawIn, hook("prerouting", prioRaw), rules...)

	var ok []Rule
	if !b.c.st.Node.AllowEncapFromWorkloads {
		ok = []Rule{
			{Matches: []Match{isProto(l4IPIP)}, Actions: does(ActDrop), Comment: "encapsulated by a workload"},
			{Matches: []Match{isProto(l4IPv6)}, Actions: does(ActDrop), Comment: "encapsulated by a workload"},
		}
	}
	b.chain(Inet, chainSourceOK, nil, append(ok, Rule{Actions: does(ActAccept)})...)
	link := b.link()
	drop := Rule{Actions: does(ActDrop)}
	b.chain(Inet, chainSourceLink, nil, append(link, drop)...)
	noAdvert := when(does(ActDrop), match(FICMPType, OpEq, "\x88"))
	b.chain(Inet, chainSourceUnspec, nil, append(append([]Rule{noAdvert}, link...), drop)...)
}

// link accepts what workloads send to find neighbours and routers, and to say which groups they listen to.
func (b *baseBuilder) link(ms ...Match) []Rule { return linkRules(setLink1, setLink2, ms) }

// hostLink accepts link traffic between the host and its own interfaces, and what the host sends to workloads. What is for
// the host is told from what it forwards by the hook, or by ms where the hook comes before routing: it goes to an address
// of the host, or to a group (what a multicast router makes of that is judged again as it is forwarded).
func (b *baseBuilder) hostLink(ms ...Match) []Rule { return linkRules(setHostLink1, setHostLink2, ms) }

func linkRules(neighbours, listeners string, ms []Match) []Rule {
	icmp := []Match{isFamily(true), isProto(l4ICMPv6)}
	return []Rule{
		when(does(ActAccept), slices.Concat(icmp, []Match{in(neighbours, FICMPType), match(FHopLimit, OpEq, "\xff")}, ms)...),
		when(does(ActAccept), slices.Concat(icmp, []Match{in(listeners, FICMPType)}, ms)...),
	}
}

func (b *baseBuilder) rawOut() {
	rules := b.severed()
	if b.c.has(mapUntrackedOut) {
		for _, t := range b.tunnels() {
			rules = append(rules, when(does(ActAccept), t...))
		}
		rules = append(rules, b.hostLink()...)
		rules = append(rules, b.dispatch(FOIfName, mapUntrackedOut))
	}
	if len(rules) == 0 {
		return
	}
	b.chain(Inet, baseRawOut, hook("output", prioRaw), rules...)
}

// severed drops what remains of TCP connections that were cut: packets that don't open a new one. They are in no flow, and
// in the direction of the answers policy may allow them: the connection would go on as if it had been opened from there.
func (b *baseBuilder) severed() []Rule {
	if !b.c.st.Node.CutEstablished {
		return nil
	}
	const syn = "\x02"
	b.chain(Inet, chainSevered, nil, when(does(ActReturn), match(FTCPFlags, OpAny, syn)), Rule{Actions: does(ActDrop)})
	jump := []Action{{Kind: ActJump, Chain: chainSevered}}
	var rules []Rule
	for _, v6 := range []bool{false, true} {
		name, src, dst := setSevered4, FSrc4, FDst4
		if v6 {
			name, src, dst = setSevered6, FSrc6, FDst6
		}
		b.c.set(b.u, &SetObject{Key: Key{Inet, name}, Types: severedTypes(v6), Timed: true, Content: elems{}, Owner: nodeRef()})
		rules = append(rules, when(jump, isFamily(v6), isProto(l4TCP), in(name, src, dst, FSport, FDport)))
	}
	return rules
}

func severedTypes(v6 bool) []Type { return []Type{addrType(v6), addrType(v6), TPort, TPort} }

// encapDrop is for packets from workloads once DNAT has been done.
func (b *baseBuilder) encapDrop() []Rule {
	if b.c.st.Node.AllowEncapFromWorkloads {
		return nil
	}
	r := when(does(ActDrop), append(b.vxlan(), in(setWorkloads, FIIfName))...)
	r.Comment = "encapsulated by a workload"
	return []Rule{r}
}

// known accepts what belongs to a flow that was allowed.
func known() Rule { return when(does(ActAccept), ctIs(stateEstablished|stateRelated)) }

func hairpin() Rule { return when(does(ActAccept), in(setHairpin, FIIfName, FOIfName)) }

// allowedEarly ends the base chain for what an untracked policy of where it came from has allowed, and judges it by the
// pre-DNAT policy, which ends it as well if it allows.
func (b *baseBuilder) allowedEarly() []Rule {
	var rules []Rule
	if b.c.has(mapUntrackedIn) {
		rules = append(rules, b.dispatch(FIIfName, mapUntrackedIn, ctIs(stateUntracked)))
	}
	if b.c.has(mapPreDNAT) {
		rules = append(rules,
			b.dispatch(FIIfName, mapPreDNATPlain, ctIs(stateUntracked)),
			b.dispatch(FIIfName, mapPreDNAT, match(FCTState, OpNe, native32(stateUntracked))))
	}
	return rules
}

func (b *baseBuilder) forward() {
	from := append(b.encapDrop(), known(), when(does(ActDrop), ctIs(stateInvalid)), hairpin())
	if b.c.has(mapEgress) {
		from = append(from, b.dispatch(FIIfName, mapEgress))
	}
	from = append(from, b.dispatch(FIIfName, mapEgressProfiles),
		when(does(ActDrop), in(setWorkloads, FIIfName)))
	from = append(from, b.allowedEarly()...)
	if b.c.has(mapFwdIn) {
		from = append(from, b.dispatch(FIIfName, mapFwdIn))
	}
	b.chain(Inet, baseFwdFrom, hook("forward", prioFrom), from...)

	to := []Rule{known(), hairpin()}
	if b.c.has(mapIngress) {
		to = append(to, b.dispatch(FOIfName, mapIngress))
	}
	to = append(to, b.dispatch(FOIfName, mapIngressProfiles), when(does(ActDrop), in(setWorkloads, FOIfName)))
	if b.c.has(mapFwdOut) {
		to = append(to, b.allowedEarly()...)
		to = append(to, b.dispatch(FOIfName, mapFwdOut))
	}
	b.chain(Inet, baseFwdTo, hook("forward", prioTo), to...)
}

func (b *baseBuilder) input() {
	fromWorkload := in(setWorkloads, FIIfName)
	link := b.link(fromWorkload)
	from := append(link[:len(link):len(link)], b.encapDrop()...)
	from = append(from, known(), when(does(ActDrop), ctIs(stateInvalid), fromWorkload))
	if b.c.has(mapEgress) {
		from = append(from, b.dispatch(FIIfName, mapEgress))
	}
	from = append(from, b.dispatch(FIIfName, mapEgressProfiles), when(does(ActDrop), fromWorkload))
	b.chain(Inet, baseInFrom, hook("input", prioFrom), from...)

	to := append(link[:len(link):len(link)], b.tunnelRules(chainTunnelIn, FIIfName)...)
	to = append(to, b.hostLink(notIn(setWorkloads, FIIfName))...)
	to = append(to, known(), when(does(ActDrop), ctIs(stateInvalid)))
	to = append(to, b.toHost(fromWorkload))
	to = append(to, b.allowedEarly()...)
	if b.c.has(mapHostIn) {
		to = append(to, b.dispatch(FIIfName, mapHostIn), b.dispatch(FIIfName, mapHostInProfiles))
	}
	b.chain(Inet, baseInTo, hook("input", prioTo), to...)
	b.tunnelChain(chainTunnelIn, true)
}

// toHost is what becomes of packets from a workload to its own host, after the egress policy.
func (b *baseBuilder) toHost(fromWorkload Match) Rule {
	switch b.c.st.Node.EndpointToHost {
	case drivers.ToHostAccept:
		return when(does(ActAccept), fromWorkload)
	case drivers.ToHostReturn:
	default:
		return when(does(ActDrop), fromWorkload)
	}
	_, host, twice := b.c.ifaces[drivers.AllHostIfaces].claim()
	host = b.c.effective(host)
	rules := []Rule{{Actions: does(ActAccept)}}
	switch {
	case twice:
		rules = []Rule{{Actions: does(ActDrop)}}
	case host != nil:
		list := b.c.needList(b.u, listSpec{
			stage: chainHostAll, list: host.Policy.Normal.In, in: true, style: stylePlain,
			degraded: host.Degraded != "",
		})
		profiles := b.c.needProfiles(b.u, host.Profiles, true)
		rules = []Rule{{Actions: []Action{jump(list)}}, {Actions: []Action{{Kind: ActGoto, Chain: profiles}}}}
	}
	b.chain(Inet, chainHostAll, nil, rules...)
	return when([]Action{{Kind: ActGoto, Chain: chainHostAll}}, fromWorkload)
}

// notOwn holds for packets whose source is not an address of the host.
func notOwn() Match { return match(FSrcLocal, OpNe, native32(2)) }

// tunnelRules send the outer packets of our tunnels, between the host and its interfaces, to a chain that knows peers.
func (b *baseBuilder) tunnelRules(chain string, f Field) []Rule {
	var rules []Rule
	for _, t := range b.tunnels() {
		ms := append(t, match(f, OpNe, ifName("lo")), notIn(setWorkloads, f))
		rules = append(rules, when([]Action{{Kind: ActGoto, Chain: chain}}, ms...))
	}
	return rules
}

func (b *baseBuilder) tunnelChain(name string, inward bool) {
	if len(b.tunnels()) == 0 {
		return
	}
	var forwarded []Rule
	if !inward {
		forwarded = append(forwarded, when(does(ActAccept), match(FIIf, OpNe, native32(0)), notOwn()))
	}
	b.chain(Inet, name, nil, append(forwarded,
		when(does(ActAccept), isFamily(false), in(setPeers4, remote(inward, false))),
		when(does(ActAccept), isFamily(true), in(setPeers6, remote(inward, true))),
		Rule{Actions: does(ActDrop), Comment: "tunnel packet of no peer"})...)
}

// post is asked about every packet that leaves. Which interface the host's own packets leave by is known only here: DNAT
// in the output hook may have routed them anew, and that hook keeps the interface from before.
//
// The host's own packets come in by no interface. But the kernel leaves the tunnel's device on the outer packet that it
// makes, and its own device on its neighbour discovery: a packet with an interface is forwarded only if its source is not
// the host's. Neighbour discovery that has been forwarded has a lower hop limit, so what looks like it here is the host's;
// listener discovery that has been forwarded was judged where that is done, and is not here either way.
func (b *baseBuilder) post() {
	rules := b.prefixDrops(FOIfName, notIn(setWorkloads, FOIfName))
	if b.c.has(setUnknown) {
		rules = append(rules, when(does(ActDrop), in(setUnknown, FOIfName)))
	}
	through := match(FIIf, OpNe, native32(0))
	rules = append(rules, b.tunnelRules(chainTunnelOut, FOIfName)...)
	rules = append(rules, when(does(ActAccept), through, ctIs(stateEstablished|stateRelated)))
	rules = append(rules, b.hostLink()...)
	rules = append(rules, when(does(ActAccept), through, notOwn()), known(), when(does(ActDrop), ctIs(stateInvalid)), when(does(ActAccept), in(setWorkloads, FOIfName)))
	if b.c.has(mapUntrackedOut) {
		rules = append(rules, b.dispatch(FOIfName, mapUntrackedOut, ctIs(stateUntracked)))
	}
	if b.c.has(mapHostOut) {
		rules = append(rules, b.dispatch(FOIfName, mapHostOut), b.dispatch(FOIfName, mapHostOutProfiles))
	}
	b.chain(Inet, basePost, hook("postrouting", prioPost), rules...)
	b.tunnelChain(chainTunnelOut, false)
}

func (b *baseBuilder) masquerade() {
	m := &b.c.st.Masquerade
	var rules []Rule
	for _, v6 := range []bool{false, true} {
		fromName, exceptName, src, dst := setMasqFrom4, setMasqExcept4, FSrc4, FDst4
		if v6 {
			fromName, exceptName, src, dst = setMasqFrom6, setMasqExcept6, FSrc6, FDst6
		}
		if !b.prefixes(fromName, m.From, v6) {
			continue
		}
		ms := []Match{isFamily(v6), match(FIIf, OpNe, native32(0)), in(fromName, src)}
		if b.prefixes(exceptName, m.Except, v6) {
			ms = append(ms, notIn(exceptName, dst))
		}
		rules = append(rules, when(does(ActMasquerade), append(ms, notIn(setWorkloads, FOIfName))...))
	}
	if len(rules) > 0 {
		b.c.chain(b.u, &Chain{
			Key: Key{Inet, baseNAT}, Hook: &Hook{Type: "nat", Hook: "postrouting", Priority: prioSourceNAT}, Rules: rules,
			Owner: drivers.ObjectRef{Kind: drivers.ObjMasquerade},
		})
	}
}

// prefixes makes the set of one family of ps, if there is any.
func (b *baseBuilder) prefixes(name string, ps []netip.Prefix, v6 bool) bool {
	var ms []drivers.Member
	for _, p := range ps {
		if p.IsValid() && p.Addr().Is6() == v6 {
			ms = append(ms, drivers.NetMember(p))
		}
	}
	if len(ms) == 0 {
		return false
	}
	b.c.set(b.u, &SetObject{
		Key: Key{Inet, name}, Types: []Type{addrType(v6)}, Interval: true, Owner: drivers.ObjectRef{Kind: drivers.ObjMasquerade},
		Content: members{set: drivers.NewSet(drivers.SetNet, ms...), v6: v6, interval: true},
	})
	return true
}

func (b *baseBuilder) arp() {
	rules := []Rule{{Actions: []Action{{Kind: ActVMap, Field: FIIfName, VMap: mapARPSource}}}}
	rules = append(rules, b.prefixDrops(FIIfName)...)
	rules = append(rules, when(does(ActDrop), in(setUnknown, FIIfName)))
	b.chain(ARP, baseARPIn, hook("input", prioARP), rules...)
	rules = b.prefixDrops(FOIfName, notIn(setWorkloads, FOIfName))
	rules = append(rules, when(does(ActDrop), in(setUnknown, FOIfName)))
	b.chain(ARP, baseARPOut, hook("output", prioARP), rules...)
}
