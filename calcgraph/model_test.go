package calcgraph

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
	"github.com/tortie/tortie/drivers"
)

// world is the content of a graph's inputs.
type world struct {
	objects map[api.Key]api.Object
	ledger  map[drivers.EndpointID]*LedgerEntry
	ifaces  []drivers.HostIface
	learned map[netip.Prefix]*drivers.Route
}

func newWorld() *world {
	return &world{
		objects: map[api.Key]api.Object{}, ledger: map[drivers.EndpointID]*LedgerEntry{},
		learned: map[netip.Prefix]*drivers.Route{},
	}
}

// model computes a State from a world the simple way: everything anew, every selector against everything. It shares no
// code with the graph beyond package api, the names of sets and the masking of prefixes.
type model struct {
	*world
	c Config
	s *drivers.State
	// partial is sets that may have members which can't be read.
	partial map[drivers.SetID]bool
}

func (w *world) state(c Config) *drivers.State {
	m := &model{w, c, drivers.NewState(), map[drivers.SetID]bool{}}
	m.settings()
	c = m.c
	m.s.Node = drivers.Node{
		Name: c.NodeName, MTU: c.MTU, WorkloadPrefixes: c.WorkloadPrefixes, FailsafeIn: c.FailsafeIn,
		FailsafeOut: c.FailsafeOut, EndpointToHost: c.EndpointToHost, ServiceNAT: c.ServiceNAT,
		CutEstablished: c.CutEstablished, VXLANPort: c.VXLANPort, AllowEncapFromWorkloads: c.AllowEncapFromWorkloads,
	}
	m.network()
	m.workloads()
	m.hosts()
	return m.s
}

func of[T api.Object](m *model) (out []T) {
	for _, o := range m.objects {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b T) int { return compareKeys(api.KeyOf(a), api.KeyOf(b)) })
	return out
}

func object[T api.Object](m *model, kind, ns, name string) (t T, ok bool) {
	o, ok := m.objects[api.Key{Kind: kind, Namespace: ns, Name: name}]
	if ok {
		t = o.(T)
	}
	return t, ok
}

// labels returns an object's labels with those that it inherits.
func (m *model) labels(o api.Object) selector.Map {
	ls := selector.Map{}
	_, global := o.(*api.GlobalNetworkSet)
	_, host := o.(*api.HostEndpoint)
	for k, v := range o.GetLabels() {
		if global || host || !strings.HasPrefix(k, "pcns.") && !strings.HasPrefix(k, "pcsa.") && k != api.LabelOrchestrator && k != api.LabelServiceAccount {
			ls[k] = v
		}
	}
	var profiles []string
	switch o := o.(type) {
	case *api.WorkloadEndpoint:
		profiles = o.Spec.Profiles
		ls[api.LabelNamespace] = o.Namespace
		if o.Spec.Orchestrator != "" {
			ls[api.LabelOrchestrator] = o.Spec.Orchestrator
		}
		if sa := o.Spec.ServiceAccountName; sa != "" && len(sa) < 63 {
			ls[api.LabelServiceAccount] = sa
		}
	case *api.HostEndpoint:
		profiles = o.Spec.Profiles
	case *api.NetworkSet:
		profiles = []string{"kns." + o.Namespace}
		ls[api.LabelNamespace] = o.Namespace
	}
	for _, name := range profiles {
		if p, ok := object[*api.Profile](m, "Profile", "", name); ok {
			for k, v := range p.Spec.LabelsToApply {
				if _, own := ls[k]; !own {
					ls[k] = v
				}
			}
		}
	}
	return ls
}

// nets returns the prefixes of an object, and its ports.
func nets(o api.Object) (ps []netip.Prefix, ports []api.EndpointPort, labelled bool) {
	var texts []string
	switch o := o.(type) {
	case *api.WorkloadEndpoint:
		texts, ports = o.Spec.IPNetworks, o.Spec.Ports
	case *api.HostEndpoint:
		texts, ports = o.Spec.ExpectedIPs, o.Spec.Ports
	case *api.NetworkSet:
		texts = o.Spec.Nets
	case *api.GlobalNetworkSet:
		texts = o.Spec.Nets
	default:
		return nil, nil, false
	}
	for _, t := range texts {
		if p, err := api.ParsePrefix(t); err == nil {
			ps = append(ps, p)
		}
	}
	return ps, ports, true
}

func (m *model) netSet(sel *selector.Selector) drivers.SetID {
	var ms []drivers.Member
	for _, o := range m.objects {
		ps, _, ok := nets(o)
		if !ok || !sel.Matches(m.labels(o)) {
			continue
		}
		if isPartial(o) {
			m.partial[drivers.SetID(sel.ID())] = true
		}
		for _, p := range ps {
			ms = append(ms, drivers.NetMember(p))
		}
	}
	return m.addSet(drivers.SetID(sel.ID()), drivers.SetNet, ms)
}

func (m *model) addSet(id drivers.SetID, kind drivers.SetKind, ms []drivers.Member) drivers.SetID {
	m.s.Sets[id] = drivers.NewSet(kind, ms...)
	return id
}

func (m *model) portSet(sel *selector.Selector, name string, proto *uint8) drivers.SetID {
	var ms []drivers.Member
	number := "0"
	if proto != nil {
		number = fmt.Sprint(*proto)
	}
	for _, o := range m.objects {
		ps, ports, ok := nets(o)
		if !ok || !sel.Matches(m.labels(o)) {
			continue
		}
		for _, port := range ports {
			if n, _ := port.Protocol.Num(); isPartial(o) && port.Name == name && (proto == nil || *proto == n) {
				m.partial[hashID("n:", sel.ID(), name, number)] = true
			}
		}
		for _, p := range ps {
			for _, port := range ports {
				n, _ := port.Protocol.Num()
				if port.Name == name && p.IsSingleIP() && (proto == nil || *proto == n) {
					ms = append(ms, drivers.PortMember(p.Addr(), n, port.Port))
				}
			}
		}
	}
	return m.addSet(hashID("n:", sel.ID(), name, number), drivers.SetPort, ms)
}

func (m *model) serviceSet(ns string, s *api.ServiceMatch, kind drivers.SetKind) drivers.SetID {
	var ms []drivers.Member
	if s.Namespace != "" {
		ns = s.Namespace
	}
	for _, sl := range of[*api.EndpointSlice](m) {
		if sl.Namespace != ns || sl.Labels["kubernetes.io/service-name"] != s.Name {
			continue
		}
		if isPartial(sl) {
			m.partial[hashID(map[drivers.SetKind]string{drivers.SetNet: "svcnoport:", drivers.SetPort: "svc:"}[kind], ns, s.Name)] = true
		}
		for _, e := range sl.Endpoints {
			for _, a := range e.Addresses {
				addr := netip.MustParseAddr(a)
				if kind == drivers.SetNet {
					ms = append(ms, drivers.AddrMember(addr))
					continue
				}
				for _, p := range sl.Ports {
					proto := uint8(6)
					if p.Protocol != nil {
						proto, _ = p.Protocol.Num()
					}
					ms = append(ms, drivers.PortMember(addr, proto, *p.Port))
				}
			}
		}
	}
	if kind == drivers.SetNet {
		return m.addSet(hashID("svcnoport:", ns, s.Name), kind, ms)
	}
	return m.addSet(hashID("svc:", ns, s.Name), kind, ms)
}

// rules reads valid rules only; what becomes of others is tested on its own.
func (m *model) rules(ns string, in bool, rules []api.Rule) (out []drivers.Rule) {
	direction := map[bool]string{true: "ingress", false: "egress"}[in]
	for i, r := range rules {
		d := drivers.Rule{Action: map[api.Action]drivers.Action{api.Allow: drivers.Allow, api.Deny: drivers.Deny, api.Pass: drivers.Pass, api.Log: drivers.Log}[r.Action]}
		if r.Protocol != nil {
			n, _ := r.Protocol.Num()
			d.Match.Proto = &n
		}
		if r.NotProtocol != nil {
			n, _ := r.NotProtocol.Num()
			d.Match.NotProto = &n
		}
		m.side(&d.Match.Src, ns, &r.Source, d.Match.Proto)
		m.side(&d.Match.Dst, ns, &r.Destination, d.Match.Proto)
		only4, only6 := onlyFamily(4, d.Match), onlyFamily(6, d.Match)
		switch {
		case only4 && only6:
			d.Match.IPVersion, d.Match.Unsupported = firstFamily(d.Match), []string{fmt.Sprintf("spec.%s[%d].notNets", direction, i)}
		case only4:
			d.Match.IPVersion = 4
		case only6:
			d.Match.IPVersion = 6
		}
		if s := r.Source.Services; s != nil && in {
			d.Match.Src.Sets = append(d.Match.Src.Sets, m.serviceSet(ns, s, drivers.SetNet))
		}
		if s := r.Destination.Services; s != nil && !in {
			d.Match.Dst.Services = append(d.Match.Dst.Services, m.serviceSet(ns, s, drivers.SetPort))
		}
		out = append(out, d)
	}
	return out
}

// onlyFamily reports whether one side of a rule excludes nets of this family and of no other.
func onlyFamily(v int, m drivers.Match) bool {
	for _, nets := range [][]netip.Prefix{m.Src.NotNets, m.Dst.NotNets} {
		n := 0
		for _, p := range nets {
			if p.Addr().Is4() == (v == 4) {
				n++
			}
		}
		if n > 0 && n == len(nets) {
			return true
		}
	}
	return false
}

func firstFamily(m drivers.Match) uint8 {
	if m.Src.NotNets[0].Addr().Is4() {
		return 4
	}
	return 6
}

func (m *model) side(out *drivers.Side, ns string, e *api.EntityRule, proto *uint8) {
	out.Nets, out.NotNets = widest(e.Nets), widest(e.NotNets)
	sel, err := api.EntitySelector(ns, e)
	if err != nil {
		panic(err)
	}
	if sel != nil {
		out.Sets = append(out.Sets, m.netSet(sel))
	}
	if e.NotSelector != "" {
		not, err := selector.Parse(e.NotSelector)
		if err != nil {
			panic(err)
		}
		out.NotSets = append(out.NotSets, m.netSet(not))
	}
	if e.NodeSelector != "" {
		out.Sets = append(out.Sets, m.nodeSet(e.NodeSelector))
	}
	if sel == nil {
		sel, _ = selector.Parse("")
	}
	ports := func(ps []api.Port) (rs []drivers.PortRange, ids []drivers.SetID) {
		if len(ps) == 0 {
			return nil, nil
		}
		var numbers [65537]bool
		for _, p := range ps {
			if p.Name != "" {
				ids = append(ids, m.portSet(sel, p.Name, proto))
				continue
			}
			for n := int(p.First); n <= int(p.Last); n++ {
				numbers[n] = true
			}
		}
		for n := range 65536 {
			if numbers[n] && (n == 0 || !numbers[n-1]) {
				rs = append(rs, drivers.PortRange{First: uint16(n)})
			}
			if numbers[n] && !numbers[n+1] {
				rs[len(rs)-1].Last = uint16(n)
			}
		}
		slices.Sort(ids)
		return rs, slices.Compact(ids)
	}
	out.Ports, out.PortSets = ports(e.Ports)
	out.NotPorts, out.NotPortSets = ports(e.NotPorts)
}

// widest returns the prefixes that lie in no other, sorted.
func widest(texts []string) (out []netip.Prefix) {
	var ms []drivers.Member
	for _, t := range texts {
		p, err := api.ParsePrefix(t)
		if err != nil {
			panic(err)
		}
		ms = append(ms, drivers.NetMember(p))
	}
	for mem := range drivers.NewSet(drivers.SetNet, ms...).All() {
		out = append(out, mem.Prefix)
	}
	return out
}

// modelPolicy is a policy with what orders it.
type modelPolicy struct {
	key                           api.Key
	subject                       *selector.Selector
	tier                          string
	tierMissing                   bool
	tierOrder, order              float64
	tierDefault                   drivers.Action
	ingress, egress               []api.Rule
	in, out                       bool
	staged, noTrack, dnat, onward bool
}

func (m *model) policies() (out []*modelPolicy) {
	for key, o := range m.objects {
		p := &modelPolicy{key: key}
		var order *float64
		var types []api.PolicyType
		np := func(s *api.NetworkPolicySpec) {
			p.tier, order, p.ingress, p.egress, types = s.Tier, s.Order, s.Ingress, s.Egress, s.Types
		}
		gnp := func(s *api.GlobalNetworkPolicySpec) {
			p.tier, order, p.ingress, p.egress, types = s.Tier, s.Order, s.Ingress, s.Egress, s.Types
			p.noTrack, p.dnat, p.onward = s.DoNotTrack, s.PreDNAT, s.ApplyOnForward
		}
		action := api.StagedAction("")
		switch o := o.(type) {
		case *api.NetworkPolicy:
			np(&o.Spec)
		case *api.StagedNetworkPolicy:
			np(&o.Spec.NetworkPolicySpec)
			p.staged, action = true, o.Spec.StagedAction
		case *api.GlobalNetworkPolicy:
			gnp(&o.Spec)
		case *api.StagedGlobalNetworkPolicy:
			gnp(&o.Spec.GlobalNetworkPolicySpec)
			p.staged, action = true, o.Spec.StagedAction
		case *api.StagedKubernetesNetworkPolicy:
			thousand := 1000.0
			order = &thousand
			p.ingress, p.egress, types = api.KubernetesRules(&o.Spec)
			p.staged, action = true, o.Spec.StagedAction
		default:
			continue
		}
		subject, err := api.SubjectSelector(o)
		if err != nil || action != "" && action != api.StagedSet {
			continue
		}
		p.subject = subject
		p.in, p.out = slices.Contains(types, api.Ingress), slices.Contains(types, api.Egress) && !p.dnat
		p.order = math.MaxFloat64
		if order != nil {
			p.order = *order
		}
		m.putInTier(p)
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *modelPolicy) int {
		missing := func(p *modelPolicy) int { return map[bool]int{true: 1}[p.tierMissing] }
		tie := func(p *modelPolicy) string { return p.key.Name + "/" + p.key.Namespace + "/" + p.key.Kind }
		return cmp.Or(cmp.Compare(missing(a), missing(b)), cmp.Compare(a.tierOrder, b.tierOrder), cmp.Compare(a.tier, b.tier),
			cmp.Compare(a.order, b.order), cmp.Compare(tie(a), tie(b)))
	})
	return out
}

func (m *model) putInTier(p *modelPolicy) {
	if p.tier == "" {
		p.tier = "default"
	}
	p.tierOrder = math.MaxFloat64
	switch p.tier {
	case "default":
		p.tierOrder = 1e6
		return
	case "kube-admin":
		p.tierOrder, p.tierDefault = 1000, drivers.Pass
		return
	case "kube-baseline":
		p.tierOrder, p.tierDefault = 1e7, drivers.Pass
		return
	}
	t, ok := object[*api.Tier](m, "Tier", "", p.tier)
	if !ok {
		p.tierMissing = true
		return
	}
	if t.Spec.Order != nil {
		p.tierOrder = *t.Spec.Order
	}
	if t.Spec.DefaultAction != nil && *t.Spec.DefaultAction == api.Pass {
		p.tierDefault = drivers.Pass
	}
}

// enforce puts the policies and profiles of an object onto its endpoint.
func (m *model) enforce(e *drivers.Endpoint, o api.Object, profiles []string, host bool) {
	ls := m.labels(o)
	var mine []*modelPolicy
	for _, p := range m.policies() {
		if p.subject.Matches(ls) {
			mine = append(mine, p)
		}
	}
	list := func(want func(*modelPolicy) bool) *drivers.TierList {
		var tl drivers.TierList
		for _, p := range mine {
			if !want(p) {
				continue
			}
			id := m.policy(p)
			if n := len(tl.Tiers); n == 0 || tl.Tiers[n-1].Name != p.tier {
				t := drivers.TierPolicies{Name: p.tier, Default: p.tierDefault, Order: p.tierOrder, Staged: true}
				if p.noTrack || p.dnat {
					t.Default = drivers.Pass
				}
				tl.Tiers = append(tl.Tiers, t)
			}
			t := &tl.Tiers[len(tl.Tiers)-1]
			t.Staged = t.Staged && p.staged
			t.Policies = append(t.Policies, id)
		}
		if len(tl.Tiers) == 0 {
			return nil
		}
		return &tl
	}
	pair := func(want func(*modelPolicy) bool) drivers.Directions {
		return drivers.Directions{
			In:  list(func(p *modelPolicy) bool { return p.in && want(p) }),
			Out: list(func(p *modelPolicy) bool { return p.out && want(p) }),
		}
	}
	e.Policy.Normal = pair(func(p *modelPolicy) bool { return !p.noTrack && !p.dnat })
	if host {
		e.Policy.Forward = pair(func(p *modelPolicy) bool { return p.onward && !p.noTrack && !p.dnat })
		e.Policy.PreDNAT = pair(func(p *modelPolicy) bool { return p.dnat })
		e.Policy.Untracked = pair(func(p *modelPolicy) bool { return p.noTrack && !p.dnat })
	}
	for _, name := range profiles {
		id := drivers.PolicyID{Kind: drivers.KindProfile, Name: name}
		if slices.Contains(e.Profiles, id) {
			continue
		}
		e.Profiles = append(e.Profiles, id)
		v := &drivers.Policy{ID: id, In: []drivers.Rule{{}}, Out: []drivers.Rule{{}}}
		if p, ok := object[*api.Profile](m, "Profile", "", name); ok {
			v.In, v.Out = m.rules("", true, p.Spec.Ingress), m.rules("", false, p.Spec.Egress)
		}
		if name == "projectcalico-default-allow" {
			v.In, v.Out = []drivers.Rule{{Action: drivers.Allow}}, []drivers.Rule{{Action: drivers.Allow}}
		}
		v.SetRuleIDs()
		m.closePartial(v)
		m.s.Policies[id] = v
	}
}

func (m *model) policy(p *modelPolicy) drivers.PolicyID {
	id := drivers.PolicyID{Kind: drivers.PolicyKind(p.key.Kind), Namespace: p.key.Namespace, Name: p.key.Name}
	if m.s.Policies[id] == nil {
		v := &drivers.Policy{ID: id, Tier: p.tier, Staged: p.staged}
		if p.in {
			v.In = m.rules(id.Namespace, true, p.ingress)
		}
		if p.out {
			v.Out = m.rules(id.Namespace, false, p.egress)
		}
		v.SetRuleIDs()
		m.closePartial(v)
		m.s.Policies[id] = v
	}
	return id
}

func (m *model) workloads() {
	for id, l := range m.ledger {
		e := &drivers.Endpoint{ID: id, Name: l.Name.Namespace + "/" + l.Name.Name, Iface: l.Iface, MAC: l.MAC, Addrs: slices.Clone(l.Addrs)}
		slices.SortFunc(e.Addrs, netip.Addr.Compare)
		e.Addrs = slices.Compact(e.Addrs)
		o, ok := object[*api.WorkloadEndpoint](m, "WorkloadEndpoint", l.Name.Namespace, l.Name.Name)
		switch {
		case !ok:
			e.Degraded = "it has no WorkloadEndpoint"
		case o.Spec.Node != m.c.NodeName:
			e.Degraded = "its WorkloadEndpoint is of another node"
		case o.Spec.ContainerID != "" && o.Spec.ContainerID != id.Sandbox:
			e.Degraded = "its WorkloadEndpoint is of another sandbox"
		case o.Spec.ContainerID == "" && string(o.UID) != l.UID:
			e.Degraded = "its WorkloadEndpoint is of another pod"
		default:
			e.Generation = uint64(o.Generation)
			if m.c.SourceSpoofing == SpoofAny || m.c.SourceSpoofing == SpoofTrusted && o.Spec.ContainerID != "" {
				e.SourcePrefixes = widest(o.Spec.AllowSpoofedSourcePrefixes)
			}
			e.Floating = m.floating(id, l, o)
			m.enforce(e, o, o.Spec.Profiles, false)
		}
		m.s.Endpoints[id] = e
	}
}

func (m *model) hosts() {
	for _, i := range m.ifaces {
		if slices.ContainsFunc(m.c.WorkloadPrefixes, func(p string) bool { return strings.HasPrefix(i.Name, p) }) {
			continue
		}
		has := func(o *api.HostEndpoint) bool {
			return slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return slices.Contains(o.Spec.ExpectedIPs, p.Addr().String()) })
		}
		ways := []func(o *api.HostEndpoint) bool{
			func(o *api.HostEndpoint) bool { return o.Spec.InterfaceName == i.Name },
			func(o *api.HostEndpoint) bool { return o.Spec.InterfaceName == "" && has(o) },
			func(o *api.HostEndpoint) bool { return o.Spec.InterfaceName == "*" && i.Name != "lo" },
		}
		var won *api.HostEndpoint
		for _, way := range ways {
			for _, o := range of[*api.HostEndpoint](m) {
				if won == nil && o.Spec.Node == m.c.NodeName && way(o) {
					won = o
				}
			}
		}
		if won == nil {
			continue
		}
		m.host(won, i.Name)
	}
	for _, o := range of[*api.HostEndpoint](m) {
		if o.Spec.Node == m.c.NodeName && o.Spec.InterfaceName == "*" && m.c.EndpointToHost == drivers.ToHostReturn {
			m.host(o, "*") // the host as such
			break
		}
	}
}

func (m *model) host(o *api.HostEndpoint, iface string) {
	e := &drivers.Endpoint{
		ID:   drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: o.Name, Interface: iface},
		Name: o.Name, Iface: iface, Generation: uint64(o.Generation),
	}
	m.enforce(e, o, o.Spec.Profiles, true)
	m.s.Endpoints[e.ID] = e
}
