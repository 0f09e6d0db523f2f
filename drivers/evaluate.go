package drivers

import (
	"net/netip"
	"strings"
)

// Protocols that Evaluate knows by number.
const (
	protoICMP   = 1
	protoIPIP   = 4
	protoTCP    = 6
	protoUDP    = 17
	protoIPv6   = 41 // IPv6 in IPv4
	protoICMPv6 = 58
	protoSCTP   = 132
)

// defaultVXLANPort is what Node.VXLANPort 0 means.
const defaultVXLANPort = 4789

// AllHostIfaces is the Iface of a host endpoint that stands for the host as such. It is no interface's endpoint (the
// graph resolves those); only packets from workloads to the host ask it, if Node.EndpointToHost is ToHostReturn.
const AllHostIfaces = "*"

// Evaluate says what happens to p on the node that s describes, and why. It is pure, total and deterministic: what does
// not resolve is denied, with the reason in the trace. The steps, of which the first Deny ends it:
//
//	1 Unknown interface             deny, in every conntrack state
//	2 source and tunnels            anti-spoofing of workloads; encapsulated packets
//	3 link traffic                  ARP, neighbour discovery and MLD between the host and its neighbours, workloads or not: allow
//	4 untracked policy of hosts     allow: no conntrack, and no further host stage
//	5 conntrack                     invalid: deny; established, related: allow
//	6 pre-DNAT policy of hosts      on OrigDst; allow: no further host stage
//	7 by From and To                the stages of workloads and hosts, in the order that the packet meets them
//
// What an interface is (a workload's, unknown, the host's) is decided by s; p.From and p.To say which one it is. Use an
// Evaluator for many packets on one State.
func Evaluate(s *State, p Packet) Trace {
	return (&Evaluator{s: s}).Evaluate(p)
}

// Evaluator evaluates packets on one State, which must not change meanwhile. Safe for concurrent use.
type Evaluator struct {
	s       *State
	ifaces  map[string]iface          // nil = scan the endpoints
	tunnels *[EncapWireGuard + 1]bool // encapsulations that a route names; nil = scan the routes
}

// iface is the endpoints of one interface. A State has at most one endpoint for an interface; where it has more, none of
// them can be trusted, and the interface is unknown.
type iface struct {
	workload, host *Endpoint
	twice          bool
}

func (i *iface) add(e *Endpoint) {
	at := &i.host
	if e.ID.Kind == Workload {
		at = &i.workload
	}
	i.twice = i.twice || *at != nil
	*at = e
}

// NewEvaluator indexes s.
func NewEvaluator(s *State) *Evaluator {
	v := &Evaluator{s: s, ifaces: make(map[string]iface, len(s.Endpoints)), tunnels: new([EncapWireGuard + 1]bool)}
	for _, r := range s.Routes {
		if r != nil && int(r.Encap) < len(v.tunnels) {
			v.tunnels[r.Encap] = true
		}
	}
	for _, e := range s.Endpoints {
		if e != nil {
			i := v.ifaces[e.Iface]
			i.add(e)
			v.ifaces[e.Iface] = i
		}
	}
	return v
}

func (v *Evaluator) iface(name string) iface {
	if v.ifaces != nil {
		return v.ifaces[name]
	}
	var i iface
	for _, e := range v.s.Endpoints {
		if e != nil && e.Iface == name {
			i.add(e)
		}
	}
	return i
}

// uses reports whether the node has a tunnel of this kind: a route names it.
func (v *Evaluator) uses(e Encap) bool {
	if v.tunnels != nil {
		return v.tunnels[e]
	}
	for _, r := range v.s.Routes {
		if r != nil && r.Encap == e {
			return true
		}
	}
	return false
}

// Evaluate is the package's Evaluate on the Evaluator's State.
func (v *Evaluator) Evaluate(p Packet) Trace {
	w := walk{s: v.s, v: v, tracing: true}
	w.trace.Verdict = w.run(p)
	return w.trace
}

// Verdict is Evaluate without the steps: it allocates nothing.
func (v *Evaluator) Verdict(p Packet) (verdict Verdict, noTrack bool) {
	w := walk{s: v.s, v: v}
	verdict = w.run(p)
	return verdict, w.trace.NoTrack
}

// walk is one packet's way through the steps.
type walk struct {
	s        *State
	v        *Evaluator
	p        Packet
	from, to end
	hostDone bool // an untracked or pre-DNAT policy allowed it: no further host stage
	tracing  bool
	trace    Trace
}

// end is one end of the packet's way, resolved: of a workload its endpoint, of a host interface its host endpoint or nil.
type end struct {
	kind PlaceKind
	ep   *Endpoint
	why  string // of PlaceUnknown
}

func (v *Evaluator) resolve(p Place) end {
	switch p.Kind {
	case PlaceProcess:
		return end{kind: PlaceProcess}
	case PlaceWorkload, PlaceHostIface:
	default:
		return end{why: "unknown interface"}
	}
	i := v.iface(p.Iface)
	switch {
	case i.twice:
		return end{why: "more than one endpoint claims the interface"}
	case i.workload != nil:
		return end{kind: PlaceWorkload, ep: i.workload}
	case p.Kind == PlaceWorkload:
		return end{why: "no workload endpoint has this interface"}
	}
	for _, prefix := range v.s.Node.WorkloadPrefixes {
		if strings.HasPrefix(p.Iface, prefix) {
			return end{why: "named like a workload's interface, but no endpoint has it"}
		}
	}
	return end{kind: PlaceHostIface, ep: i.host}
}

// result is how a step or a stage ended.
type result uint8

const (
	next result = iota // go on with what follows
	allowed
	denied
)

func (w *walk) run(p Packet) Verdict {
	p.Src, p.Dst = plain(p.Src), plain(p.Dst)
	if p.OrigDst.IsValid() {
		p.OrigDst = netip.AddrPortFrom(plain(p.OrigDst.Addr()), p.OrigDst.Port())
	}
	w.p, w.from, w.to = p, w.v.resolve(p.From), w.v.resolve(p.To)
	r := next
	for step := 1; step <= 7 && r == next; step++ {
		r = w.step(step)
	}
	if r == denied {
		return VerdictDeny
	}
	return VerdictAllow
}

// step is one of the seven steps of Evaluate.
func (w *walk) step(n int) result {
	switch n {
	case 1:
		return w.known()
	case 2:
		if r := w.source(); r != next {
			return r
		}
		return w.tunnel()
	case 3:
		return w.link()
	case 4:
		return w.untracked()
	case 5:
		return w.conntrack()
	case 6:
		return w.preDNAT()
	}
	return w.policy()
}

// plain is a without what has no meaning in a packet: an IPv4 address in IPv6 clothes, a zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// say records a step that is no rule's, and returns r.
func (w *walk) say(r result, stage Stage, e *Endpoint, in bool, reason string) result {
	if w.tracing {
		w.trace.Steps = append(w.trace.Steps, Step{
			Stage: stage, Endpoint: nameOf(e), In: in, Index: -1, Outcome: outcomes[r], Reason: reason,
		})
	}
	return r
}

var outcomes = [...]string{next: "continue", allowed: "allow", denied: "deny"}

func nameOf(e *Endpoint) string {
	if e == nil {
		return ""
	}
	return e.Name
}

// known is step 1. A packet whose addresses make no sense is denied here, too.
func (w *walk) known() result {
	if w.from.kind == PlaceUnknown {
		return w.say(denied, StageInterface, nil, false, "from "+w.p.From.Iface+": "+w.from.why)
	}
	if w.to.kind == PlaceUnknown {
		return w.say(denied, StageInterface, nil, true, "to "+w.p.To.Iface+": "+w.to.why)
	}
	if !w.p.Src.IsValid() || !w.p.Dst.IsValid() || w.p.Src.Is4() != w.p.Dst.Is4() {
		return w.say(denied, StageInterface, nil, false, "source and destination are not addresses of one family")
	}
	if w.p.ARP && !w.p.Src.Is4() {
		return w.say(denied, StageInterface, nil, false, "ARP speaks of IPv4 addresses only")
	}
	return next
}

// source is the first half of step 2, in every conntrack state: a workload may use its MAC, its addresses, and its
// allowed source prefixes. An unspecified source, and an IPv6 link-local one, pass only for link traffic (see link): they
// are needed before a workload has an address, and to find its neighbours, and nothing else is to be had with them.
func (w *walk) source() result {
	e := w.from.ep
	if w.from.kind != PlaceWorkload {
		return next
	}
	var none MAC
	if e.MAC != none && w.p.SrcMAC != none && w.p.SrcMAC != e.MAC {
		return w.say(denied, StageSource, e, false, "the source MAC is not the workload's")
	}
	if !mayUse(e, w.p.Src) && !w.isLink() {
		return w.say(denied, StageSource, e, false, "the source address is not the workload's")
	}
	if !w.s.Node.AllowEncapFromWorkloads && w.encap() != EncapNone {
		return w.say(denied, StageSource, e, false, "workloads may not send encapsulated packets")
	}
	return next
}

func mayUse(e *Endpoint, a netip.Addr) bool {
	return hasAddr(e.Addrs, a) || inAny(e.SourcePrefixes, a)
}

func hasAddr(as []netip.Addr, a netip.Addr) bool {
	for _, x := range as {
		if x == a {
			return true
		}
	}
	return false
}

func inAny(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// encap says whether the packet is the outer packet of a tunnel: EncapIPIP for protocols 4 and 41, EncapVXLAN for UDP to
// the node's VXLAN port, else EncapNone.
func (w *walk) encap() Encap {
	port := w.s.Node.VXLANPort
	if port == 0 {
		port = defaultVXLANPort
	}
	switch {
	case w.p.ARP:
	case w.p.Proto == protoIPIP || w.p.Proto == protoIPv6:
		return EncapIPIP
	case w.p.Proto == protoUDP && w.p.DstPort == port:
		return EncapVXLAN
	}
	return EncapNone
}

// tunnel is the second half of step 2, in every conntrack state: outer tunnel packets between the host itself and its
// interfaces pass from and to the addresses of Peers, and no other. It holds for the encapsulations that the node uses
// (some route names it): what one of our tunnel devices would unpack must come from a peer. Where the node has no such
// tunnel nothing of ours unpacks the packet, the operator may run a tunnel of his own, and the host endpoint's policy
// decides as for any packet.
func (w *walk) tunnel() result {
	in := w.from.kind == PlaceHostIface && w.to.kind == PlaceProcess
	out := w.from.kind == PlaceProcess && w.to.kind == PlaceHostIface
	if !in && !out {
		return next
	}
	enc := w.encap()
	if enc == EncapNone || !w.v.uses(enc) {
		return next
	}
	remote, ep := w.p.Src, w.from.ep
	if out {
		remote, ep = w.p.Dst, w.to.ep
	}
	for _, peer := range w.s.Peers {
		if peer != nil && hasAddr(peer.Addrs, remote) {
			return w.say(allowed, StageSource, ep, in, "tunnel packet of a peer")
		}
	}
	return w.say(denied, StageSource, ep, in, "tunnel packet of no peer")
}

// link is step 3, in every conntrack state: ARP and IPv6's link traffic between the host and a workload of its own, or
// between the host and what is on the link of a host interface. It is ahead of every policy of a host endpoint, and of the
// failsafes: without it the host could not be reached at all once its neighbours have forgotten it, whatever policy allows.
//
// ARP is no IP packet and no other step is about it. A host's interfaces speak it freely; it is never forwarded; from a
// workload the sender must be an address that it may use, so that it claims no other's, or nothing at all (a probe from
// 0.0.0.0) about an address of its own.
//
// On a host interface IPv6's link traffic is just as free, routers' messages included. Redirects are not: they change
// where the host sends to, and nothing needs them. What is forwarded is nobody's link traffic and policy judges it.
func (w *walk) link() result {
	ep := w.from.ep
	if ep == nil {
		ep = w.to.ep
	}
	towards := w.to.kind == PlaceWorkload || w.from.kind == PlaceHostIface
	if w.isLink() {
		return w.say(allowed, StageLink, ep, towards, "")
	}
	if w.p.ARP {
		return w.say(denied, StageLink, ep, towards, "ARP that is not between neighbours")
	}
	return next
}

// isLink reports whether step 3 allows the packet. It is asked by the source check too.
func (w *walk) isLink() bool {
	fromWorkload := w.from.kind == PlaceWorkload && w.to.kind == PlaceProcess
	toWorkload := w.from.kind == PlaceProcess && w.to.kind == PlaceWorkload
	onHostIface := w.from.kind == PlaceHostIface && w.to.kind == PlaceProcess ||
		w.from.kind == PlaceProcess && w.to.kind == PlaceHostIface
	if w.p.ARP {
		host := w.from.kind != PlaceWorkload && w.to.kind != PlaceWorkload &&
			(w.from.kind == PlaceProcess || w.to.kind == PlaceProcess)
		return host || toWorkload || fromWorkload && mayARP(w.from.ep, w.p.Src, w.p.Dst)
	}
	if w.p.Proto != protoICMPv6 || w.p.Src.Is4() {
		return false
	}
	return (toWorkload || onHostIface) && linkTo(w.p) || fromWorkload && linkFrom(w.from.ep, w.p)
}

func mayARP(e *Endpoint, sender, target netip.Addr) bool {
	return mayUse(e, sender) || sender.IsUnspecified() && hasAddr(e.Addrs, target)
}

// linkTo reports whether p, from the host to a workload, or between the host and one of its own interfaces, is link
// traffic: neighbour discovery (133-136) that no router has forwarded, or multicast listener discovery (130-132, 143).
func linkTo(p Packet) bool {
	switch p.ICMPType {
	case 133, 134, 135, 136:
		return p.HopLimit == 255
	case 130, 131, 132, 143:
		return true
	}
	return false
}

// linkFrom is linkTo from a workload to its host, and tighter: a router's messages (router advertisement, multicast
// query) are not for a workload to send. Sources other than its own are link-local ones (they are not in Endpoint.Addrs:
// the workload makes them up) and the unspecified address, which duplicate address detection, router solicitation and
// multicast reports use before there is an address; a neighbour advertisement is never sent from it.
func linkFrom(e *Endpoint, p Packet) bool {
	if !linkTo(p) || p.ICMPType == 134 || p.ICMPType == 130 {
		return false
	}
	return mayUse(e, p.Src) || p.Src.IsLinkLocalUnicast() || p.Src.IsUnspecified() && p.ICMPType != 136
}

// untracked is step 4.
func (w *walk) untracked() result {
	switch {
	case w.from.kind == PlaceHostIface && w.from.ep != nil:
		return w.early(StageUntracked, w.from.ep, true, w.from.ep.Policy.Untracked.In, w.p)
	case w.from.kind == PlaceProcess && w.to.kind == PlaceHostIface && w.to.ep != nil:
		return w.early(StageUntracked, w.to.ep, false, w.to.ep.Policy.Untracked.Out, w.p)
	}
	return next
}

// early is a stage that comes before a packet's destination is decided, and that has neither tier defaults nor profiles.
// It never ends the packet's way with an Allow: the stages of workloads follow. Failsafes there go by port and remote
// address only, whomever the packet turns out to be for; they lead out of the stage, and later ones still judge it.
func (w *walk) early(stage Stage, e *Endpoint, in bool, l *TierList, p Packet) result {
	if l == nil || len(l.Tiers) == 0 {
		return next
	}
	if w.failsafe(p, in, stage == StageUntracked) {
		return w.say(next, StageFailsafe, e, in, "failsafe: no "+string(stage)+" policy may stop it")
	}
	r := w.degraded(stage, e, in)
	if r == next {
		r = w.tiers(stage, e, in, l, p)
	}
	if r == allowed {
		w.hostDone = true
		w.trace.NoTrack = w.trace.NoTrack || stage == StageUntracked
		return next
	}
	return r
}

// conntrack is step 5. What an untracked policy allowed is never looked up in the flow table, whatever the table holds:
// the stages of workloads judge such a packet by itself.
func (w *walk) conntrack() result {
	if w.trace.NoTrack {
		return next
	}
	switch w.p.CT {
	case CTNew, CTUntracked:
		return next
	case CTEstablished:
		return w.say(allowed, StageConntrack, nil, false, "established")
	case CTRelated:
		return w.say(allowed, StageConntrack, nil, false, "related to an established flow")
	}
	return w.say(denied, StageConntrack, nil, false, "invalid")
}

// preDNAT is step 6.
func (w *walk) preDNAT() result {
	if w.from.kind != PlaceHostIface || w.from.ep == nil || w.hostDone {
		return next
	}
	p := w.p
	if p.OrigDst.IsValid() {
		p.Dst, p.DstPort = p.OrigDst.Addr(), p.OrigDst.Port()
	}
	return w.early(StagePreDNAT, w.from.ep, true, w.from.ep.Policy.PreDNAT.In, p)
}

// policy is step 7.
func (w *walk) policy() result {
	from, to := w.from, w.to
	switch {
	case from.kind == PlaceWorkload && from.ep == to.ep:
		return w.say(allowed, StageEgress, from.ep, false, "to itself")
	case from.kind == PlaceWorkload:
		if w.egress() == denied {
			return denied
		}
		switch to.kind {
		case PlaceWorkload:
			return w.ingress()
		case PlaceProcess:
			return w.toHost()
		}
		return w.forwardOut()
	case from.kind == PlaceHostIface && to.kind == PlaceProcess:
		return w.host(from.ep, true)
	case from.kind == PlaceHostIface:
		if w.forwardIn() == denied {
			return denied
		}
		if to.kind == PlaceWorkload {
			return w.ingress()
		}
		return w.forwardOut()
	case to.kind == PlaceHostIface:
		return w.host(to.ep, false)
	case to.kind == PlaceWorkload:
		return w.say(allowed, StageIngress, to.ep, true, "from its own host")
	}
	return w.say(allowed, StageHost, nil, false, "from the host to itself")
}

func (w *walk) egress() result {
	e := w.from.ep
	return w.full(StageEgress, e, false, e.Policy.Normal.Out)
}

func (w *walk) ingress() result {
	e := w.to.ep
	return w.full(StageIngress, e, true, e.Policy.Normal.In)
}

func (w *walk) toHost() result {
	switch w.s.Node.EndpointToHost {
	case ToHostAccept:
		return w.say(allowed, StageToHost, w.from.ep, false, "accept")
	case ToHostReturn:
	default:
		return w.say(denied, StageToHost, w.from.ep, false, "drop")
	}
	w.say(next, StageToHost, w.from.ep, false, "return")
	switch all := w.v.iface(AllHostIfaces); {
	case all.twice:
		return w.say(denied, StageHost, nil, true, "more than one endpoint stands for the host as such")
	case all.host != nil:
		return w.full(StageHost, all.host, true, all.host.Policy.Normal.In)
	}
	return w.say(allowed, StageHost, nil, true, "no endpoint stands for the host as such")
}

// host is the Normal stage of a host endpoint, for what the host itself sends and receives.
func (w *walk) host(e *Endpoint, in bool) result {
	switch {
	case e == nil:
		return w.say(allowed, StageHost, nil, in, "the interface has no host endpoint")
	case w.hostDone:
		return w.say(allowed, StageHost, e, in, "allowed before")
	case w.failsafe(w.p, in, false):
		return w.say(allowed, StageFailsafe, e, in, "failsafe: no policy may stop it")
	case in:
		return w.full(StageHost, e, in, e.Policy.Normal.In)
	}
	return w.full(StageHost, e, in, e.Policy.Normal.Out)
}

func (w *walk) forwardIn() result {
	if e := w.from.ep; e != nil && !w.hostDone {
		return w.forward(e, true, e.Policy.Forward.In)
	}
	return next
}

func (w *walk) forwardOut() result {
	if e := w.to.ep; e != nil && !w.hostDone {
		return w.forward(e, false, e.Policy.Forward.Out)
	}
	return next
}

func (w *walk) forward(e *Endpoint, in bool, l *TierList) result {
	if r := w.degraded(StageForward, e, in); r == denied {
		return r
	}
	if r := w.tiers(StageForward, e, in, l, w.p); r != next {
		return r
	}
	return w.say(next, StageForward, e, in, "no forward policy decides")
}

// failsafe reports whether the packet is traffic of the host itself that no policy may stop. In the untracked stage
// (replies) there is no flow table that knows a reply, so those of the other direction's failsafes are meant as well.
func (w *walk) failsafe(p Packet, in, replies bool) bool {
	there, back, remote := w.s.Node.FailsafeIn, w.s.Node.FailsafeOut, p.Src
	if !in {
		there, back, remote = back, there, p.Dst
	}
	for _, f := range there {
		if f.covers(p.Proto, p.DstPort, remote) {
			return true
		}
	}
	for _, f := range back {
		if replies && f.covers(p.Proto, p.SrcPort, remote) {
			return true
		}
	}
	return false
}

func (f Failsafe) covers(proto uint8, port uint16, remote netip.Addr) bool {
	return f.Proto == proto && (f.Port == port || !hasPorts(proto)) && (!f.Net.IsValid() || f.Net.Contains(remote))
}
