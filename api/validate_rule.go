package api

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ruleContext is where a rule stands.
type ruleContext struct {
	namespaced bool // in a policy of a namespace
	egress     bool
}

func (c *checker) rules(rules []Rule, ctx ruleContext, p *field.Path) {
	c.atMost(p, len(rules), MaxRules)
	for i := range rules {
		c.rule(&rules[i], ctx, p.Index(i))
	}
}

func (c *checker) rule(r *Rule, ctx ruleContext, p *field.Path) {
	oneOf(c, p.Child("action"), r.Action, Allow, Deny, Log, Pass)
	if r.IPVersion != nil && *r.IPVersion != 4 && *r.IPVersion != 6 {
		c.invalid(p.Child("ipVersion"), *r.IPVersion, "must be 4 or 6")
	}
	c.protocol(r.Protocol, r.IPVersion, p.Child("protocol"))
	c.protocol(r.NotProtocol, r.IPVersion, p.Child("notProtocol"))
	c.icmp(r.ICMP, r, p.Child("icmp"))
	c.icmp(r.NotICMP, r, p.Child("notICMP"))
	c.entity(&r.Source, r, p.Child("source"))
	c.entity(&r.Destination, r, p.Child("destination"))
	c.families(r, p)
	c.services(r, ctx, p)
	c.http(r, ctx, p.Child("http"))
	if r.Metadata != nil {
		for _, k := range slices.Sorted(maps.Keys(r.Metadata.Annotations)) {
			c.report(p.Child("metadata", "annotations").Key(k), k, validation.IsQualifiedName(strings.ToLower(k)))
		}
	}
}

// protocol also checks that ICMP is not asked for in the wrong IP version.
func (c *checker) protocol(proto *Protocol, version *int, p *field.Path) {
	if proto == nil {
		return
	}
	n, ok := proto.Num()
	switch {
	case !ok:
		c.invalid(p, proto.String(), "must be TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255")
	case version == nil:
	case n == protocolICMP && *version != 4:
		c.invalid(p, proto.String(), "ICMP needs ipVersion 4")
	case n == protocolICMPv6 && *version != 6:
		c.invalid(p, proto.String(), "ICMPv6 needs ipVersion 6")
	}
}

const (
	protocolICMP    = 1
	protocolTCP     = 6
	protocolUDP     = 17
	protocolICMPv6  = 58
	protocolSCTP    = 132
	protocolUnknown = 0
)

// number returns protocolUnknown if there is none.
func (p *Protocol) number() uint8 {
	if p == nil {
		return protocolUnknown
	}
	n, _ := p.Num()
	return n
}

func (c *checker) icmp(f *ICMPFields, r *Rule, p *field.Path) {
	if f == nil {
		return
	}
	if n := r.Protocol.number(); n != protocolICMP && n != protocolICMPv6 {
		c.forbidden(p, "needs protocol ICMP or ICMPv6")
	}
	if f.Type == nil {
		c.required(p.Child("type"), "a match of ICMP needs a type")
	} else {
		c.between(p.Child("type"), *f.Type, 0, 254)
	}
	if f.Code != nil {
		c.between(p.Child("code"), *f.Code, 0, 255)
	}
}

func (c *checker) entity(e *EntityRule, r *Rule, p *field.Path) {
	c.atMost(p.Child("nets"), len(e.Nets), MaxNets)
	c.prefixes(e.Nets, p.Child("nets"))
	c.atMost(p.Child("notNets"), len(e.NotNets), MaxNets)
	c.prefixes(e.NotNets, p.Child("notNets"))
	for i, s := range e.NotNets {
		if n, err := ParsePrefix(s); err == nil && n.Bits() == 0 {
			c.invalid(p.Child("notNets").Index(i), s, "excludes every address, so that the rule matches nothing")
		}
	}
	c.selector(e.Selector, p.Child("selector"))
	c.selector(e.NotSelector, p.Child("notSelector"))
	c.ruleNamespaces(e.NamespaceSelector, p.Child("namespaceSelector"))
	c.ports(e.Ports, r.Protocol, p.Child("ports"))
	c.ports(e.NotPorts, r.Protocol, p.Child("notPorts"))
	if e.ServiceAccounts != nil {
		c.selector(e.ServiceAccounts.Selector, p.Child("serviceAccounts", "selector"))
		for i, name := range e.ServiceAccounts.Names {
			c.report(p.Child("serviceAccounts", "names").Index(i), name, validation.IsDNS1123Subdomain(name))
		}
	}
}

// ports: only these protocols have ports. Named ports bring their protocol along, so a rule with nothing but names may
// do without.
func (c *checker) ports(ports []Port, proto *Protocol, p *field.Path) {
	c.atMost(p, len(ports), MaxPorts)
	for i, port := range ports {
		at := p.Index(i)
		switch n := proto.number(); {
		case proto == nil && port.Name == "":
			c.forbidden(at, "a port number needs protocol TCP, UDP or SCTP")
		case proto != nil && n != protocolTCP && n != protocolUDP && n != protocolSCTP:
			c.forbidden(at, "protocol %s has no ports to match; only TCP, UDP and SCTP have", proto)
		}
		c.port(port, at)
	}
}

func (c *checker) port(port Port, p *field.Path) {
	if port.Name != "" {
		if port.First != 0 || port.Last != 0 {
			c.invalid(p, port.String(), "has both a name and a number")
		}
		if err := checkPortName(port.Name); err != nil {
			c.invalid(p, port.Name, "%v", err)
		}
		return
	}
	if port.First == 0 {
		c.invalid(p, port.String(), "must be between 1 and 65535")
	}
	if port.First > port.Last {
		c.invalid(p, port.String(), "range ends before it begins")
	}
}

// families reports prefixes whose IP version is not that of the rule's ipVersion, or else of its first prefix.
func (c *checker) families(r *Rule, p *field.Path) {
	version, because := 0, "the rule's ipVersion"
	if r.IPVersion != nil {
		version = *r.IPVersion
	}
	check := func(nets []string, p *field.Path) {
		for i, s := range nets {
			n, err := ParsePrefix(s)
			if err != nil {
				continue
			}
			switch v := ipVersion(n.Addr()); {
			case version == 0:
				version, because = v, "other prefixes of the rule"
			case v != version:
				c.invalid(p.Index(i), s, "is IPv%d, in contrast to %s; write two rules", v, because)
			}
		}
	}
	check(r.Source.Nets, p.Child("source", "nets"))
	check(r.Source.NotNets, p.Child("source", "notNets"))
	check(r.Destination.Nets, p.Child("destination", "nets"))
	check(r.Destination.NotNets, p.Child("destination", "notNets"))
}

func ipVersion(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// services: a rule names services at its far end only, and then nothing else that says who that is.
func (c *checker) services(r *Rule, ctx ruleContext, p *field.Path) {
	near, far := &r.Destination, &r.Source
	nearPath, farPath := p.Child("destination"), p.Child("source")
	if ctx.egress {
		near, far = far, near
		nearPath, farPath = farPath, nearPath
	}
	if near.Services != nil {
		c.forbidden(nearPath.Child("services"), "only source.services of ingress and destination.services of egress rules have a meaning")
	}
	m := far.Services
	if m == nil {
		return
	}
	at := farPath.Child("services")
	switch {
	case m.Name == "":
		c.required(at.Child("name"), "the name of a service")
	default:
		c.report(at.Child("name"), m.Name, validation.IsDNS1123Label(m.Name))
	}
	switch {
	case m.Namespace != "":
		c.report(at.Child("namespace"), m.Namespace, validation.IsDNS1123Label(m.Namespace))
	case !ctx.namespaced:
		c.required(at.Child("namespace"), "a rule outside of a namespace has to name the service's namespace")
	}
	c.notBesideServices(far, ctx, farPath)
}

func (c *checker) notBesideServices(e *EntityRule, ctx ruleContext, p *field.Path) {
	for _, x := range []struct {
		name string
		set  bool
	}{
		{"nets", len(e.Nets) > 0},
		{"notNets", len(e.NotNets) > 0},
		{"selector", e.Selector != ""},
		{"notSelector", e.NotSelector != ""},
		{"namespaceSelector", e.NamespaceSelector != ""},
		{"serviceAccounts", e.ServiceAccounts != nil},
		{"ports", ctx.egress && len(e.Ports) > 0}, // the service says which ports
		{"notPorts", ctx.egress && len(e.NotPorts) > 0},
	} {
		if x.set {
			c.forbidden(p.Child(x.name), "can't be combined with services")
		}
	}
}

func (c *checker) http(r *Rule, ctx ruleContext, p *field.Path) {
	h := r.HTTP
	if h == nil {
		return
	}
	switch {
	case ctx.egress:
		c.forbidden(p, "only ingress rules match HTTP")
	case r.Action != Allow:
		c.forbidden(p, "only Allow rules match HTTP")
	case r.Protocol != nil && r.Protocol.number() != protocolTCP:
		c.forbidden(p, "needs protocol TCP, or none")
	}
	c.atMost(p.Child("methods"), len(h.Methods), MaxHTTPMatches)
	for i, m := range h.Methods {
		switch {
		case m == "":
			c.required(p.Child("methods").Index(i), "a method like GET")
		case slices.Contains(h.Methods[:i], m):
			c.errs = append(c.errs, field.Duplicate(p.Child("methods").Index(i), m))
		}
	}
	c.atMost(p.Child("paths"), len(h.Paths), MaxHTTPMatches)
	for i, path := range h.Paths {
		at := p.Child("paths").Index(i)
		switch {
		case (path.Exact == "") == (path.Prefix == ""):
			c.invalid(at, path.Exact, "needs exact or prefix, and not both")
		case path.Exact != "":
			c.httpPath(path.Exact, at.Child("exact"))
		default:
			c.httpPath(path.Prefix, at.Child("prefix"))
		}
	}
}

func (c *checker) httpPath(s string, p *field.Path) {
	switch {
	case utf8.RuneCountInString(s) > MaxHTTPPath:
		c.errs = append(c.errs, field.TooLong(p, "", MaxHTTPPath))
	case strings.ContainsAny(s, "?#"):
		c.invalid(p, s, "holds ? or #; only the path itself is matched")
	}
}
