package api

import (
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxOperations = 10 // of one rule of a BGPFilter
	maxASPath     = 10 // numbers in a prefix of an AS path
	maxPriority   = math.MaxInt32 - 1
)

var (
	logSeverities       = []string{"Trace", "Debug", "Info", "Warning", "Error", "Fatal"}
	interfaceWildcard   = regexp.MustCompile(`^[a-zA-Z0-9_.*@-]{1,15}$`)
	standardCommunities = regexp.MustCompile(`^\d+:\d+(:\d+)?$`)
)

// severity takes a log level in any case, or none.
func (c *checker) severity(s string, p *field.Path, others ...string) {
	levels := append(others, logSeverities...)
	if s != "" && !slices.ContainsFunc(levels, func(l string) bool { return strings.EqualFold(l, s) }) {
		c.errs = append(c.errs, field.NotSupported(p, s, levels))
	}
}

func (c *checker) bgpConfiguration(o *BGPConfiguration, p *field.Path) {
	s := &o.Spec
	c.severity(s.LogSeverityScreen, p.Child("logSeverityScreen"))
	oneOf(c, p.Child("serviceLoadBalancerAggregation"), s.ServiceLoadBalancerAggregation, "Enabled", "Disabled", "")
	oneOf(c, p.Child("bindMode"), s.BindMode, "None", "NodeIP", "")
	oneOf(c, p.Child("programClusterRoutes"), s.ProgramClusterRoutes, "Enabled", "Disabled", "EnabledNoEncapOnly", "")
	c.onlyDefault(o, p)
	c.meshless(s, p)
	c.serviceBlocks(s.ServiceLoadBalancerIPs, p.Child("serviceLoadBalancerIPs"))
	c.serviceBlocks(s.ServiceExternalIPs, p.Child("serviceExternalIPs"))
	c.serviceBlocks(s.ServiceClusterIPs, p.Child("serviceClusterIPs"))
	c.communities(s, p)
	c.password(s.NodeMeshPassword, p.Child("nodeMeshPassword"))
	c.positive(s.NodeMeshMaxRestartTime, p.Child("nodeMeshMaxRestartTime"))
	for i, name := range s.IgnoredInterfaces {
		if !interfaceWildcard.MatchString(name) {
			c.invalid(p.Child("ignoredInterfaces").Index(i), name, "is not the name of an interface, in which * may stand for any text")
		}
	}
	c.optionalAddress(s.LocalWorkloadPeeringIPV4, 4, p.Child("localWorkloadPeeringIPV4"))
	c.optionalAddress(s.LocalWorkloadPeeringIPV6, 6, p.Child("localWorkloadPeeringIPV6"))
}

// onlyDefault refuses for one node what only the whole cluster can agree on.
func (c *checker) onlyDefault(o *BGPConfiguration, p *field.Path) {
	if o.Name == DefaultConfiguration {
		return
	}
	if o.Spec.NodeToNodeMeshEnabled != nil {
		c.forbidden(p.Child("nodeToNodeMeshEnabled"), "only the BGPConfiguration named \"default\" says it")
	}
	if o.Spec.ASNumber != nil {
		c.forbidden(p.Child("asNumber"), "only the BGPConfiguration named \"default\" says it; a Node has one of its own in spec.bgp")
	}
}

// meshless refuses settings of a mesh that is switched off.
func (c *checker) meshless(s *BGPConfigurationSpec, p *field.Path) {
	if s.NodeToNodeMeshEnabled == nil || *s.NodeToNodeMeshEnabled {
		return
	}
	if s.NodeMeshPassword != nil {
		c.forbidden(p.Child("nodeMeshPassword"), "there is no mesh if nodeToNodeMeshEnabled is false")
	}
	if s.NodeMeshMaxRestartTime != nil {
		c.forbidden(p.Child("nodeMeshMaxRestartTime"), "there is no mesh if nodeToNodeMeshEnabled is false")
	}
}

func (c *checker) serviceBlocks(blocks []ServiceIPBlock, p *field.Path) {
	for i, b := range blocks {
		c.cidr(b.CIDR, 0, p.Index(i).Child("cidr"))
		if slices.Contains(blocks[:i], b) {
			c.errs = append(c.errs, field.Duplicate(p.Index(i), b.CIDR))
		}
	}
}

// cidr checks a prefix with a length, of an IP version if that is not 0. Bits behind the length are let be.
func (c *checker) cidr(s string, version int, p *field.Path) (prefix netip.Prefix, ok bool) {
	if s == "" {
		c.required(p, "a prefix in CIDR notation")
		return prefix, false
	}
	prefix, err := parsePrefix(s)
	switch {
	case err != nil || !strings.Contains(s, "/"):
		c.invalid(p, s, "must be a prefix in CIDR notation")
	case version != 0 && ipVersion(prefix.Addr()) != version:
		c.invalid(p, s, "must be an IPv%d prefix", version)
	default:
		return prefix, true
	}
	return prefix, false
}

func (c *checker) communities(s *BGPConfigurationSpec, p *field.Path) {
	names := map[string]bool{}
	for i, community := range s.Communities {
		at := p.Child("communities").Index(i)
		switch {
		case community.Name == "":
			c.required(at.Child("name"), "prefixAdvertisements refer to it")
		case names[community.Name]:
			c.errs = append(c.errs, field.Duplicate(at.Child("name"), community.Name))
		}
		names[community.Name] = true
		c.community(community.Value, at.Child("value"))
	}
	for i, a := range s.PrefixAdvertisements {
		at := p.Child("prefixAdvertisements").Index(i)
		c.cidr(a.CIDR, 0, at.Child("cidr"))
		for j, v := range a.Communities {
			if !names[v] {
				c.community(v, at.Child("communities").Index(j))
			}
		}
	}
}

// community: two numbers of 16 bits, or three of 32.
func (c *checker) community(s string, p *field.Path) {
	bits := 32
	parts := strings.Split(s, ":")
	if len(parts) == 2 {
		bits = 16
	}
	ok := standardCommunities.MatchString(s)
	for _, part := range parts {
		_, err := strconv.ParseUint(part, 10, bits)
		ok = ok && err == nil
	}
	if !ok {
		c.invalid(p, s, "must be a community: two numbers up to 65535, or three up to 4294967295, with colons between")
	}
}

func (c *checker) password(b *BGPPassword, p *field.Path) {
	if b == nil {
		return
	}
	ref := p.Child("secretKeyRef")
	if b.SecretKeyRef == nil {
		c.required(ref, "the Secret that holds the password")
		return
	}
	if b.SecretKeyRef.Name == "" {
		c.required(ref.Child("name"), "the name of a Secret")
	} else {
		c.report(ref.Child("name"), b.SecretKeyRef.Name, validation.IsDNS1123Subdomain(b.SecretKeyRef.Name))
	}
	if b.SecretKeyRef.Key == "" {
		c.required(ref.Child("key"), "the key in the Secret")
	} else {
		c.report(ref.Child("key"), b.SecretKeyRef.Key, validation.IsConfigMapKey(b.SecretKeyRef.Key))
	}
}

func (c *checker) positive(d *Duration, p *field.Path) {
	if d != nil && *d < 0 {
		c.invalid(p, d.String(), "may not be negative")
	}
}

func (c *checker) bgpPeer(s *BGPPeerSpec, p *field.Path) {
	if s.Node != "" {
		c.report(p.Child("node"), s.Node, validation.IsDNS1123Subdomain(s.Node))
	}
	if s.Node != "" && s.NodeSelector != "" {
		c.forbidden(p.Child("nodeSelector"), "can't be combined with node")
	}
	c.selector(s.NodeSelector, p.Child("nodeSelector"))
	c.selector(s.PeerSelector, p.Child("peerSelector"))
	c.selector(s.LocalWorkloadSelector, p.Child("localWorkloadSelector"))
	c.farEnd(s, p)
	oneOf(c, p.Child("nextHopMode"), s.NextHopMode, "Auto", "Self", "Keep", "")
	oneOf(c, p.Child("sourceAddress"), s.SourceAddress, "UseNodeIP", "None", "")
	oneOf(c, p.Child("reversePeering"), s.ReversePeering, "Auto", "Manual", "")
	if s.KeepOriginalNextHop && s.NextHopMode != "" {
		c.forbidden(p.Child("keepOriginalNextHop"), "nextHopMode has taken its place; give only that")
	}
	c.password(s.Password, p.Child("password"))
	c.positive(s.MaxRestartTime, p.Child("maxRestartTime"))
	c.positive(s.KeepaliveTime, p.Child("keepaliveTime"))
	if s.NumAllowedLocalASNumbers != nil && *s.NumAllowedLocalASNumbers < 0 {
		c.invalid(p.Child("numAllowedLocalASNumbers"), *s.NumAllowedLocalASNumbers, "may not be negative")
	}
	for i, name := range s.Filters {
		c.report(p.Child("filters").Index(i), name, validation.IsDNS1123Subdomain(name))
	}
}

// farEnd: whom to peer with is said by an address, by a selector of nodes, or by one of workloads.
func (c *checker) farEnd(s *BGPPeerSpec, p *field.Path) {
	peer, ok := c.peerIP(s.PeerIP, p.Child("peerIP"))
	switch {
	case s.LocalWorkloadSelector != "":
		if s.PeerIP != "" {
			c.forbidden(p.Child("peerIP"), "can't be combined with localWorkloadSelector")
		}
		if s.PeerSelector != "" {
			c.forbidden(p.Child("peerSelector"), "can't be combined with localWorkloadSelector")
		}
		if s.ASNumber == nil || *s.ASNumber == 0 {
			c.required(p.Child("asNumber"), "the AS number of the workloads")
		}
	case s.PeerSelector != "":
		if s.PeerIP != "" {
			c.forbidden(p.Child("peerIP"), "can't be combined with peerSelector")
		}
		if s.ASNumber != nil && *s.ASNumber != 0 {
			c.forbidden(p.Child("asNumber"), "can't be combined with peerSelector: nodes have AS numbers of their own")
		}
	case s.PeerIP == "":
		c.required(p.Child("peerIP"), "peerIP, peerSelector or localWorkloadSelector")
	}
	switch at := p.Child("reachableBy"); {
	case s.ReachableBy == "":
	case s.PeerIP == "":
		c.forbidden(at, "needs peerIP")
	case ok:
		c.address(s.ReachableBy, ipVersion(peer), at)
	}
}

// peerIP is an address, with a port behind it or without.
func (c *checker) peerIP(s string, p *field.Path) (a netip.Addr, ok bool) {
	if s == "" {
		return a, false
	}
	a, err := ParseAddr(s)
	if err != nil {
		var ap netip.AddrPort
		ap, err = netip.ParseAddrPort(s)
		a = ap.Addr()
		if err == nil && (ap.Port() == 0 || a.Zone() != "" || a.Is4In6()) {
			err = strconv.ErrRange
		}
	}
	if err != nil {
		c.invalid(p, s, "must be an address, or one with a port: 192.0.2.1:179, [2001:db8::1]:179")
	}
	return a, err == nil
}

func (c *checker) bgpFilter(s *BGPFilterSpec, p *field.Path) {
	for _, list := range s.lists() {
		for i := range *list.rules {
			c.filterRule(&(*list.rules)[i], list.version, p.Child(list.name).Index(i))
		}
	}
}

// filterList is one of the four lists of a BGPFilter.
type filterList struct {
	name    string
	version int
	rules   *[]BGPFilterRule
}

func (s *BGPFilterSpec) lists() []filterList {
	return []filterList{{"exportV4", 4, &s.ExportV4}, {"importV4", 4, &s.ImportV4}, {"exportV6", 6, &s.ExportV6}, {"importV6", 6, &s.ImportV6}}
}

func (c *checker) filterRule(r *BGPFilterRule, version int, p *field.Path) {
	oneOf(c, p.Child("action"), r.Action, "Accept", "Reject")
	oneOf(c, p.Child("source"), r.Source, "RemotePeers", "")
	oneOf(c, p.Child("peerType"), r.PeerType, "eBGP", "iBGP", "")
	c.filterPrefix(r, version, p)
	if r.Interface != "" && !interfaceWildcard.MatchString(r.Interface) {
		c.invalid(p.Child("interface"), r.Interface, "is not the name of an interface, in which * may stand for any text")
	}
	if r.Communities != nil {
		at := p.Child("communities", "values")
		if len(r.Communities.Values) != 1 {
			c.invalid(at, len(r.Communities.Values), "must hold one community")
		}
		for i, v := range r.Communities.Values {
			c.community(v, at.Index(i))
		}
	}
	c.atMost(p.Child("asPathPrefix"), len(r.ASPathPrefix), maxASPath)
	if r.Priority != nil {
		c.between(p.Child("priority"), int(*r.Priority), 1, maxPriority)
	}
	at := p.Child("operations")
	if len(r.Operations) > 0 && r.Action == "Reject" {
		c.forbidden(at, "a route that is rejected can't be changed")
	}
	c.atMost(at, len(r.Operations), maxOperations)
	for i := range r.Operations {
		c.operation(&r.Operations[i], at.Index(i))
	}
}

func (c *checker) filterPrefix(r *BGPFilterRule, version int, p *field.Path) {
	operator := p.Child("matchOperator")
	switch {
	case r.CIDR == "" && r.MatchOperator != "":
		c.required(p.Child("cidr"), "matchOperator compares with it")
	case r.CIDR != "" && r.MatchOperator == "":
		c.required(operator, "how to compare with cidr: Equal, NotEqual, In or NotIn")
	case r.MatchOperator != "":
		oneOf(c, operator, r.MatchOperator, "Equal", "NotEqual", "In", "NotIn")
	}
	if r.CIDR != "" {
		c.cidr(r.CIDR, version, p.Child("cidr"))
	}
	if r.PrefixLength == nil {
		return
	}
	at := p.Child("prefixLength")
	if r.CIDR == "" {
		c.forbidden(at, "needs cidr")
	}
	longest := 32
	if version == 6 {
		longest = 128
	}
	low, high := r.PrefixLength.Min, r.PrefixLength.Max
	if low != nil {
		c.between(at.Child("min"), int(*low), 0, longest)
	}
	if high != nil {
		c.between(at.Child("max"), int(*high), 0, longest)
	}
	if low != nil && high != nil && *low > *high {
		c.invalid(at.Child("max"), *high, "must not be less than min")
	}
}

func (c *checker) operation(o *BGPFilterOperation, p *field.Path) {
	given := 0
	if o.AddCommunity != nil {
		given++
		c.community(o.AddCommunity.Value, p.Child("addCommunity", "value"))
	}
	if o.PrependASPath != nil {
		given++
		at := p.Child("prependASPath", "prefix")
		if len(o.PrependASPath.Prefix) == 0 {
			c.required(at, "the AS numbers to prepend")
		}
		c.atMost(at, len(o.PrependASPath.Prefix), maxASPath)
	}
	if o.SetPriority != nil {
		given++
		c.between(p.Child("setPriority", "value"), int(o.SetPriority.Value), 1, maxPriority)
	}
	if given != 1 {
		c.invalid(p, given, "must hold exactly one of addCommunity, prependASPath and setPriority")
	}
}
