package drivertest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// builder reads the lines of "state" and "change" sections and builds States from what they have defined so far.
type builder struct {
	state    *drivers.State // node, routes, peers and masquerade: final; the rest is made by build
	tiers    []drivers.TierPolicies
	members  map[drivers.SetID]*setDef
	policies map[string]*drivers.Policy // by reference, as written
	ends     map[drivers.EndpointID]*endDef
	open     *drivers.Policy // whose rules follow
}

type setDef struct {
	kind    drivers.SetKind
	members []drivers.Member // as contributed: covered ones too
}

// endDef is an endpoint and the references of its lists, which are resolved when everything has been read.
type endDef struct {
	ep       drivers.Endpoint
	lists    map[string][]string // "in", "forward-out", ...
	profiles []string
}

func newBuilder() *builder {
	b := &builder{
		state: drivers.NewState(), members: map[drivers.SetID]*setDef{}, policies: map[string]*drivers.Policy{},
		ends: map[drivers.EndpointID]*endDef{},
	}
	b.state.Node = baseNode()
	return b
}

// baseNode is the node of the topology, before a case says more about it.
func baseNode() drivers.Node {
	host, _ := SiteByName("host")
	return drivers.Node{Name: NodeName, Addresses: host.Addrs, WorkloadPrefixes: []string{"tort"}}
}

// define reads one line.
func (b *builder) define(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	args := strings.Fields(rest)
	if word == "in" || word == "out" {
		return b.rule(word == "in", rest)
	}
	b.open = nil
	read, ok := map[string]func([]string) error{
		"node": b.node, "tier": b.tier, "set": b.set, "policy": b.policy, "profile": b.profile, "workload": b.workload,
		"host": b.host, "route": b.route, "peer": b.peer, "masquerade": b.masquerade, "without": b.without,
	}[word]
	if !ok {
		return fmt.Errorf("%q defines nothing", word)
	}
	if len(args) == 0 && word != "node" && word != "masquerade" {
		return fmt.Errorf("%s what?", word)
	}
	return read(args)
}

// pairs calls fn for each KEY=VALUE (or KEY, with val "").
func pairs(args []string, fn func(key, val string) error) error {
	for _, a := range args {
		key, val, _ := strings.Cut(a, "=")
		if err := fn(key, val); err != nil {
			return err
		}
	}
	return nil
}

func unknown(key string) error { return fmt.Errorf("%q is not known here", key) }

func (b *builder) node(args []string) error {
	n := baseNode()
	err := pairs(args, func(key, val string) (err error) {
		switch key {
		case "to-host":
			var ok bool
			n.EndpointToHost, ok = map[string]drivers.EndpointToHost{
				"drop": drivers.ToHostDrop, "accept": drivers.ToHostAccept, "return": drivers.ToHostReturn,
			}[val]
			if !ok {
				err = unknown(val)
			}
		case "failsafe-in":
			n.FailsafeIn, err = parseFailsafes(val)
		case "failsafe-out":
			n.FailsafeOut, err = parseFailsafes(val)
		case "vxlan-port":
			n.VXLANPort, err = parsePort(val)
		case "encap-from-workloads":
			n.AllowEncapFromWorkloads = true
		case "own-services":
			n.ServiceNAT = drivers.ServiceNATOwn
		case "cut-established":
			n.CutEstablished = true
		case "mtu":
			n.MTU, err = strconv.Atoi(val)
		default:
			err = unknown(key)
		}
		return err
	})
	b.state.Node = n
	return err
}

// parseFailsafes reads "tcp:22,udp:68@10.0.0.0/8".
func parseFailsafes(s string) ([]drivers.Failsafe, error) {
	var fs []drivers.Failsafe
	for _, w := range strings.Split(s, ",") {
		pp, n, hasNet := strings.Cut(w, "@")
		p, port, _ := strings.Cut(pp, ":")
		proto, err1 := parseProto(p)
		num, err2 := parsePort(port)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		f := drivers.Failsafe{Proto: *proto, Port: num}
		if hasNet {
			var err error
			if f.Net, err = parsePrefix(n); err != nil {
				return nil, err
			}
		}
		fs = append(fs, f)
	}
	return fs, nil
}

// tierAt finds a tier, or adds it after those that are there.
func (b *builder) tierAt(name string) *drivers.TierPolicies {
	for i := range b.tiers {
		if b.tiers[i].Name == name {
			return &b.tiers[i]
		}
	}
	b.tiers = append(b.tiers, drivers.TierPolicies{Name: name, Default: drivers.Deny, Order: float64(100 * (len(b.tiers) + 1))})
	return &b.tiers[len(b.tiers)-1]
}

func (b *builder) tier(args []string) error {
	t := b.tierAt(args[0])
	return pairs(args[1:], func(key, val string) error {
		switch {
		case key == "default" && val == "pass":
			t.Default = drivers.Pass
		case key == "default" && val == "deny":
			t.Default = drivers.Deny
		default:
			return unknown(key + "=" + val)
		}
		return nil
	})
}

// set reads "s:web net MEMBER...", "n:http port MEMBER...", and in changes "s:web + MEMBER... - MEMBER...".
func (b *builder) set(args []string) error {
	id := drivers.SetID(args[0])
	def, mode := b.members[id], "+"
	for _, w := range args[1:] {
		switch w {
		case "net":
			def = &setDef{kind: drivers.SetNet}
			continue
		case "port":
			def = &setDef{kind: drivers.SetPort}
			continue
		case "+", "-":
			mode = w
			continue
		}
		if def == nil {
			return fmt.Errorf("set %s is not there; say 'net' or 'port' first", id)
		}
		m, err := parseMember(w)
		if err != nil {
			return err
		}
		if isPort := m.Port != 0; isPort != (def.kind == drivers.SetPort) {
			return fmt.Errorf("%s is not a member for this kind of set", w)
		}
		at := slices.Index(def.members, m)
		switch {
		case mode == "+":
			def.members = append(def.members, m)
		case at < 0:
			return fmt.Errorf("%s is not in the set", w)
		default:
			def.members = slices.Delete(def.members, at, at+1)
		}
	}
	if def == nil {
		return fmt.Errorf("is set %s of kind net or port?", id)
	}
	b.members[id] = def
	return nil
}

// parseMember reads what drivers.ParseMember does, with a protocol's name as well.
func parseMember(s string) (drivers.Member, error) {
	if a, rest, ok := strings.Cut(s, ","); ok {
		name, port, _ := strings.Cut(rest, ":")
		if n, ok := protoNames[name]; ok {
			s = fmt.Sprintf("%s,%d:%s", a, n, port)
		}
	}
	return drivers.ParseMember(s)
}

var policyKinds = []struct {
	prefix     string
	global, ns drivers.PolicyKind
}{
	{"", drivers.KindGlobalNetworkPolicy, drivers.KindNetworkPolicy},
	{"staged", drivers.KindStagedGlobalNetworkPolicy, drivers.KindStagedNetworkPolicy},
	{"staged-k8s", "", drivers.KindStagedKubernetesPolicy},
	{"k8s", drivers.KindClusterNetworkPolicy, drivers.KindKubernetesNetworkPolicy},
	{"profile", drivers.KindProfile, ""},
}

// parsePolicyRef reads "name", "namespace/name", or either with a prefix of policyKinds.
func parsePolicyRef(s string) (drivers.PolicyID, error) {
	prefix, name, ok := strings.Cut(s, ":")
	if !ok {
		prefix, name = "", s
	}
	ns, short, namespaced := strings.Cut(name, "/")
	for _, k := range policyKinds {
		switch {
		case k.prefix != prefix:
		case namespaced && k.ns != "":
			return drivers.PolicyID{Kind: k.ns, Namespace: ns, Name: short}, nil
		case !namespaced && k.global != "" && name != "":
			return drivers.PolicyID{Kind: k.global, Name: name}, nil
		}
	}
	return drivers.PolicyID{}, fmt.Errorf("%q is not a policy's name", s)
}

// policyRef writes what parsePolicyRef reads.
func policyRef(id drivers.PolicyID) string {
	prefix, name := "", id.Name
	if id.Namespace != "" {
		name = id.Namespace + "/" + name
	}
	for _, k := range policyKinds {
		if id.Kind == k.ns || id.Kind == k.global {
			prefix = k.prefix
		}
	}
	if prefix != "" {
		name = prefix + ":" + name
	}
	return name
}

func (b *builder) policy(args []string) error {
	id, err := parsePolicyRef(args[0])
	if err != nil {
		return err
	}
	p := &drivers.Policy{ID: id, Tier: "default", Staged: strings.HasPrefix(args[0], "staged")}
	if err := pairs(args[1:], func(key, val string) error {
		if key != "tier" {
			return unknown(key)
		}
		p.Tier = val
		return nil
	}); err != nil {
		return err
	}
	b.tierAt(p.Tier)
	b.policies[args[0]], b.open = p, p
	return nil
}

func (b *builder) profile(args []string) error {
	if len(args) > 1 {
		return unknown(args[1])
	}
	ref := "profile:" + args[0]
	p := &drivers.Policy{ID: drivers.PolicyID{Kind: drivers.KindProfile, Name: args[0]}}
	b.policies[ref], b.open = p, p
	return nil
}

func (b *builder) rule(in bool, text string) error {
	if b.open == nil {
		return errors.New("a rule follows its policy or profile")
	}
	if strings.TrimSpace(text) == "" {
		return errors.New("a rule without an action")
	}
	r, err := parseRule(text)
	if err != nil {
		return err
	}
	rules := &b.open.Out
	if in {
		rules = &b.open.In
	}
	r.ID = drivers.MakeRuleID(b.open.ID, in, len(*rules), r)
	*rules = append(*rules, r)
	return nil
}

func workloadID(name string) drivers.EndpointID {
	return drivers.EndpointID{Kind: drivers.Workload, Sandbox: "sandbox-" + name, Interface: "eth0"}
}

func hostID(iface string) drivers.EndpointID {
	return drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "host-" + iface, Interface: iface}
}

func (b *builder) workload(args []string) error {
	site, ok := SiteByName(args[0])
	if !ok || site.Place.Kind != drivers.PlaceWorkload {
		return fmt.Errorf("%q is none of a, b, c", args[0])
	}
	d := &endDef{lists: map[string][]string{}, ep: drivers.Endpoint{
		ID: workloadID(site.Name), Name: "default/" + site.Name, Iface: site.Place.Iface, MAC: site.MAC, Addrs: site.Addrs,
	}}
	b.ends[d.ep.ID] = d
	return pairs(args[1:], func(key, val string) (err error) {
		switch key {
		case "in", "out":
			d.lists[key] = strings.Split(val, ",")
		case "profiles":
			d.profiles = strings.Split(val, ",")
		case "addrs":
			d.ep.Addrs, err = parseAddrs(val)
		case "sources":
			d.ep.SourcePrefixes, err = parsePrefixes(val)
		case "floating":
			d.ep.Floating, err = parseFloating(val)
		case "mac":
			d.ep.MAC, err = parseMAC(val)
		case "degraded":
			d.ep.Degraded = val
		default:
			err = unknown(key)
		}
		return err
	})
}

// parseFloating reads "external>internal", with commas between.
func parseFloating(s string) ([]drivers.Floating, error) {
	var out []drivers.Floating
	for _, pair := range strings.Split(s, ",") {
		external, internal, _ := strings.Cut(pair, ">")
		as, err := parseAddrs(external + "," + internal)
		if err != nil {
			return nil, err
		}
		if !inAny(FloatingRange, as[0]) || as[0].Is4() != as[1].Is4() {
			return nil, fmt.Errorf("%s: want an address of the range of floating ones for one of its family", pair)
		}
		out = append(out, drivers.Floating{External: as[0], Internal: as[1]})
	}
	return out, nil
}

// parseMAC reads an Ethernet address, or "any" for the zero MAC.
func parseMAC(s string) (drivers.MAC, error) {
	var m drivers.MAC
	if s == "any" {
		return m, nil
	}
	bs := strings.Split(s, ":")
	if len(bs) != len(m) {
		return m, fmt.Errorf("%q is not a MAC", s)
	}
	for i, x := range bs {
		n, err := strconv.ParseUint(x, 16, 8)
		if err != nil {
			return m, fmt.Errorf("%q is not a MAC", s)
		}
		m[i] = byte(n)
	}
	return m, nil
}

func macText(m drivers.MAC) string {
	if m == (drivers.MAC{}) {
		return "any"
	}
	return m.String()
}

var hostLists = []string{"in", "out", "forward-in", "forward-out", "pre-dnat", "untracked-in", "untracked-out"}

func (b *builder) host(args []string) error {
	iface := args[0]
	site, ok := siteOf(drivers.Place{Iface: iface})
	if iface != drivers.AllHostIfaces && (!ok || site.Place.Kind != drivers.PlaceHostIface) {
		return fmt.Errorf("%q is not a host interface of the topology", iface)
	}
	d := &endDef{lists: map[string][]string{}, ep: drivers.Endpoint{ID: hostID(iface), Name: "host-" + iface, Iface: iface}}
	b.ends[d.ep.ID] = d
	return pairs(args[1:], func(key, val string) error {
		switch {
		case slices.Contains(hostLists, key):
			d.lists[key] = strings.Split(val, ",")
		case key == "profiles":
			d.profiles = strings.Split(val, ",")
		case key == "degraded":
			d.ep.Degraded = val
		default:
			return unknown(key)
		}
		return nil
	})
}

var encaps = map[string]drivers.Encap{
	"none": drivers.EncapNone, "ipip": drivers.EncapIPIP, "vxlan": drivers.EncapVXLAN, "wireguard": drivers.EncapWireGuard,
}

// route reads "DST local IFACE", "DST remote NEXTHOP [peer=..] [encap=..] [iface=..] [learned]", "DST blackhole".
func (b *builder) route(args []string) error {
	dst, err := parsePrefix(args[0])
	if err != nil || len(args) < 2 {
		return fmt.Errorf("want a prefix and local, remote or blackhole: %w", err)
	}
	r := &drivers.Route{Dst: dst}
	rest := args[2:]
	switch {
	case args[1] == "local" && len(rest) == 1:
		r.Kind, r.Iface, rest = drivers.RouteLocal, rest[0], nil
	case args[1] == "remote" && len(rest) > 0:
		r.Kind = drivers.RouteRemote
		if r.NextHop, err = netip.ParseAddr(rest[0]); err != nil {
			return fmt.Errorf("next hop: %w", err)
		}
		rest = rest[1:]
	case args[1] == "blackhole" && len(rest) == 0:
		r.Kind = drivers.RouteBlackhole
	default:
		return unknown(args[1])
	}
	b.state.Routes[dst] = r
	return pairs(rest, func(key, val string) error {
		var ok bool
		switch key {
		case "peer":
			r.Peer = val
		case "iface":
			r.Iface = val
		case "learned":
			r.Learned = true
		case "encap":
			if r.Encap, ok = encaps[val]; !ok {
				return unknown(val)
			}
		default:
			return unknown(key)
		}
		return nil
	})
}

// peer reads "n2 ADDR,ADDR [vtep=MAC@ADDR,ADDR] [wireguard=KEY]".
func (b *builder) peer(args []string) error {
	if len(args) < 2 {
		return errors.New("a peer has a name and addresses")
	}
	p := &drivers.Peer{Name: args[0]}
	var err error
	if p.Addrs, err = parseAddrs(args[1]); err != nil {
		return err
	}
	b.state.Peers[p.Name] = p
	return pairs(args[2:], func(key, val string) (err error) {
		switch key {
		case "wireguard":
			p.WireGuardKey = val
		case "vtep":
			m, as, _ := strings.Cut(val, "@")
			if p.VTEPMAC, err = parseMAC(m); err == nil {
				p.VTEPAddrs, err = parseAddrs(as)
			}
		default:
			err = unknown(key)
		}
		return err
	})
}

func (b *builder) masquerade(args []string) error {
	m := drivers.Masquerade{}
	err := pairs(args, func(key, val string) (err error) {
		switch key {
		case "from":
			m.From, err = parsePrefixes(val)
		case "except":
			m.Except, err = parsePrefixes(val)
		default:
			err = unknown(key)
		}
		return err
	})
	slices.SortFunc(m.From, drivers.ComparePrefixes)
	slices.SortFunc(m.Except, drivers.ComparePrefixes)
	b.state.Masquerade = m
	return err
}

// without takes things out again: "without policy web", "without workload b".
func (b *builder) without(args []string) error {
	if len(args) < 2 {
		return errors.New("a kind and names belong to it")
	}
	for _, name := range args[1:] {
		there := false
		switch args[0] {
		case "set":
			there = remove(b.members, drivers.SetID(name))
		case "policy":
			there = remove(b.policies, name)
		case "profile":
			there = remove(b.policies, "profile:"+name)
		case "workload":
			there = remove(b.ends, workloadID(name))
		case "host":
			there = remove(b.ends, hostID(name))
		case "route":
			dst, err := parsePrefix(name)
			if err != nil {
				return err
			}
			there = remove(b.state.Routes, dst)
		case "peer":
			there = remove(b.state.Peers, name)
		default:
			return unknown(args[0])
		}
		if !there {
			return fmt.Errorf("there is no %s %s", args[0], name)
		}
	}
	return nil
}

func remove[K comparable, V any](m map[K]V, k K) bool {
	_, there := m[k]
	delete(m, k)
	return there
}
