package linux

import (
	"net/netip"

	"github.com/tortie/tortie/drivers"
)

// flowTuple is one direction of a flow as the flow table keeps it.
type flowTuple struct {
	src, dst     netip.Addr
	sport, dport uint16
}

// flow is an entry of the flow table. Where nothing is translated reply is orig the other way round.
type flow struct {
	orig, reply        flowTuple
	proto              uint8
	icmpType, icmpCode uint8
	zone               uint16
}

// packet is the first packet of the flow as policy saw it: after DNAT (the one that answers is the backend) and before
// source NAT.
func (f *flow) packet() drivers.Packet {
	p := drivers.Packet{
		Src: f.orig.src, Dst: f.reply.src, Proto: f.proto, SrcPort: f.orig.sport, DstPort: f.reply.sport,
		ICMPType: f.icmpType, ICMPCode: f.icmpCode,
	}
	if f.orig.dst != f.reply.src || f.orig.dport != f.reply.sport {
		p.OrigDst = netip.AddrPortFrom(f.orig.dst, f.orig.dport)
	}
	return p
}

// lookup asks the kernel by which interface an address is reached: iface is "" for one of the host's own. ok is false if
// there is no saying.
type lookup func(a netip.Addr) (iface string, ok bool)

// judge says which flows a State denies. It knows no interface from the flow table, only addresses: those of local
// workloads are in the State, and about others the kernel's routes decide.
type judge struct {
	state    *drivers.State
	ev       *drivers.Evaluator
	own      map[netip.Addr]bool   // the host's addresses
	workload map[netip.Addr]string // address of one local workload -> its interface; "" = of several
	sources  []netip.Prefix        // what workloads may use beside their addresses
	hosts    map[string]bool       // interfaces with a host endpoint
	lookup   lookup
	places   map[netip.Addr]place
}

// place is where an address is.
type place struct {
	drivers.Place
	endpoint bool // some endpoint of this node has its interface
	known    bool
	presumed bool // to be asked for before anything is denied
}

func newJudge(s *drivers.State, own []netip.Addr, l lookup) *judge {
	j := &judge{
		state: s, ev: drivers.NewEvaluator(s), own: map[netip.Addr]bool{}, workload: map[netip.Addr]string{},
		hosts: map[string]bool{}, lookup: l, places: map[netip.Addr]place{},
	}
	for _, a := range own {
		j.own[a.Unmap().WithZone("")] = true
	}
	for _, e := range s.Endpoints {
		if e.ID.Kind == drivers.HostInterface {
			if e.Iface != drivers.AllHostIfaces {
				j.hosts[e.Iface] = true
			}
			continue
		}
		for _, a := range e.Addrs {
			if was, ok := j.workload[a]; ok && was != e.Iface {
				j.workload[a] = ""
			} else {
				j.workload[a] = e.Iface
			}
		}
		j.sources = append(j.sources, e.SourcePrefixes...)
	}
	return j
}

// denied reports whether the State would not let the flow begin. What does not concern an endpoint of this node is not
// denied, and neither is what cannot be told.
func (j *judge) denied(f *flow) bool {
	if f.zone != 0 { // somebody else's world, where addresses may mean something else
		return false
	}
	p := f.packet()
	for {
		from, to := j.at(p.Src), j.at(p.Dst)
		if !from.known || !to.known || !from.endpoint && !to.endpoint {
			return false
		}
		p.From, p.To = from.Place, to.Place
		if v, _ := j.ev.Verdict(p); v != drivers.VerdictDeny {
			return false
		}
		switch {
		case from.presumed:
			j.places[p.Src] = j.ask(p.Src)
		case to.presumed:
			j.places[p.Dst] = j.ask(p.Dst)
		default:
			return true
		}
	}
}

// at says where an address is.
func (j *judge) at(a netip.Addr) place {
	p, ok := j.places[a]
	if !ok {
		p = j.find(a)
		j.places[a] = p
	}
	return p
}

func (j *judge) find(a netip.Addr) place {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return place{}
	}
	if j.own[a] || a.IsLoopback() {
		return place{Place: drivers.Place{Kind: drivers.PlaceProcess}, known: true}
	}
	if iface := j.workload[a]; iface != "" {
		return workloadAt(iface)
	}
	r := j.state.Route(a)
	switch {
	case r != nil && r.Kind == drivers.RouteLocal:
		return workloadAt(r.Iface)
	case r != nil && r.Kind == drivers.RouteBlackhole:
		return place{}
	case len(j.hosts) == 0 && !j.mayBeSource(a):
		// Whichever host interface it is, no policy is about it. It saves a look-up for each peer of a flow.
		return place{Place: drivers.Place{Kind: drivers.PlaceHostIface}, known: true, presumed: true}
	}
	return j.ask(a)
}

// ask has the kernel's routes say where an address is.
func (j *judge) ask(a netip.Addr) place {
	iface, ok := j.lookup(a)
	if !ok {
		return place{}
	}
	if iface == "" {
		return place{Place: drivers.Place{Kind: drivers.PlaceProcess}, known: true}
	}
	for _, e := range j.state.Endpoints {
		if e.ID.Kind == drivers.Workload && e.Iface == iface {
			return workloadAt(iface)
		}
	}
	return place{Place: drivers.Place{Kind: drivers.PlaceHostIface, Iface: iface}, endpoint: j.hosts[iface], known: true}
}

func (j *judge) mayBeSource(a netip.Addr) bool {
	for _, p := range j.sources {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func workloadAt(iface string) place {
	return place{Place: drivers.Place{Kind: drivers.PlaceWorkload, Iface: iface}, endpoint: true, known: true}
}
