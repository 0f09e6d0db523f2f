package crdgen

import (
	"fmt"
	"maps"
	"reflect"
	"strings"

	"github.com/tortie/tortie/api"
)

// The tables are never written to. A type of package api is known by its name, a field by its type and its JSON name.
var (
	types  = merged(policyTypes(), kubernetesTypes(), clusterTypes(), valueTypes())
	fields = merged(policyFields(), kubernetesFields(), clusterFields(), bgpFields(), ipamFields())
	kinds  = kindTable()
)

func merged(tables ...map[string]tweak) map[string]tweak {
	out := map[string]tweak{}
	for _, t := range tables {
		maps.Copy(out, t)
	}
	return out
}

// about is what is said of a whole kind.
type about struct {
	columns []column
	object  tweak // of the object with its metadata
}

func valueTypes() map[string]tweak {
	port := decimal(1, 65535)
	return map[string]tweak{
		"Port": all(between(1, 65535), maxLength(128), pattern(whole(portName+`|`+port+`(?::`+port+`)?`)),
			cel("the range ends before it begins",
				"type(self) == int || [self.split(':')].all(p, size(p) == 1 || int(p[0]) <= int(p[1]))")),
		"Protocol": all(between(1, 255), maxLength(16),
			pattern(whole(anyOf(anyCase("TCP"), anyCase("UDP"), anyCase("ICMP"), anyCase("ICMPv6"), anyCase("SCTP"), anyCase("UDPLite"))+
				`|\+?`+decimal(1, 255)))),
		"ASNumber": all(between(0, 4294967295), pattern(whole(decimal(0, 4294967295)+`|`+decimal(0, 65535)+`\.`+decimal(0, 65535)))),
		"Duration": notNegative(),
		"ProtoPort": all(required("port"), property("port", atLeast(1)), property("net", prefixOrNothing()),
			property("protocol", pattern(optional(anyOf(anyCase("TCP"), anyCase("UDP"), anyCase("SCTP")))))),
		"HealthTimeout": all(required("name", "timeout"), property("name", notEmpty())),
		"RouteTableRange": all(required("min", "max"), property("min", atLeast(1)),
			cel("max must not be less than min", "self.min <= self.max")),
		"EndpointPort": endpointPort(),
	}
}

func prefixOrNothing() tweak {
	return all(maxLength(maxPrefix), pattern(optional(ipv4+`(?:/`+length4+`)?|`+ipv6()+`(?:/`+length6+`)?`)), not(ipv4InIPv6()))
}

func endpointPort() tweak {
	return all(required("protocol", "port"),
		property("port", atLeast(1)),
		property("name", maxLength(128), pattern(optional(portName))),
		property("protocol", withPorts()),
		property("hostIP", maxLength(maxAddress), pattern(optional(ipv4+`|`+ipv6())), not(ipv4InIPv6())),
		cel("a port that is not only published has a name", "has(self.name) && self.name != '' || has(self.hostPort) && self.hostPort != 0"))
}

var protocolNumbers = map[string]int{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}

// isProtocol is an expression: what is a protocol, as a name or a number, and it is one of those.
func isProtocol(what string, names ...string) string {
	var forms []string
	for _, n := range names {
		forms = append(forms, n, fmt.Sprintf(`\+?0*%d`, protocolNumbers[n]))
	}
	return fmt.Sprintf(`string(%s).matches(%s)`, what, literal(`^(?i:`+strings.Join(forms, "|")+`)$`))
}

// given is an expression: the list of an entity is there and not empty.
func given(list string) string { return fmt.Sprintf("has(%s) && size(%[1]s) > 0", list) }

func policyTypes() map[string]tweak {
	return map[string]tweak{
		"HostEndpointSpec": cel("needs interfaceName, * for all, or expectedIPs",
			"has(self.interfaceName) && self.interfaceName != '' || %s", given("self.expectedIPs")),
		"Rule":         rule(),
		"EntityRule":   entity(),
		"ServiceMatch": all(required("name"), property("name", label()), property("namespace", optionalLabel())),
		"HTTPPath": all(property("exact", maxLength(api.MaxHTTPPath), pattern(`^[^?#]*$`)), property("prefix", maxLength(api.MaxHTTPPath), pattern(`^[^?#]*$`)),
			cel("needs exact or prefix, and not both", "(has(self.exact) && self.exact != '') != (has(self.prefix) && self.prefix != '')")),
		"StagedAction":                      all(enum(api.StagedSet, api.StagedDelete, api.StagedLearn, api.StagedIgnore), defaultTo(api.StagedSet)),
		"StagedNetworkPolicySpec":           deletesNothing(reflect.TypeFor[api.NetworkPolicySpec]()),
		"StagedGlobalNetworkPolicySpec":     deletesNothing(reflect.TypeFor[api.GlobalNetworkPolicySpec]()),
		"StagedKubernetesNetworkPolicySpec": deletesNothing(reflect.TypeFor[api.StagedKubernetesNetworkPolicySpec]()),
		"GlobalNetworkPolicySpec": all(
			cel("preDNAT can't be combined with doNotTrack", "!(has(self.preDNAT) && self.preDNAT && has(self.doNotTrack) && self.doNotTrack)"),
			cel("applyOnForward must be true with preDNAT or doNotTrack",
				"!(has(self.preDNAT) && self.preDNAT || has(self.doNotTrack) && self.doNotTrack) || has(self.applyOnForward) && self.applyOnForward"),
			cel("a preDNAT policy governs ingress only",
				"!(has(self.preDNAT) && self.preDNAT) || !(has(self.egress) && size(self.egress) > 0) && !(has(self.types) && 'Egress' in self.types)")),
	}
}

func rule() tweak {
	const named = `[a-zA-Z]`
	names := &Schema{Items: &Schema{Pattern: named}}
	end := &Schema{Properties: map[string]*Schema{"ports": names, "notPorts": names}}
	nets := []string{"self.source.nets", "self.source.notNets", "self.destination.nets", "self.destination.notNets"}
	return all(required("action"),
		func(s *Schema) {
			// A rule whose ports are not all names needs a protocol. CEL's limits leave no room to read them.
			s.AnyOf = []*Schema{{Required: []string{"protocol"}}, {Properties: map[string]*Schema{"source": end, "destination": end}}}
		},
		cel("a port number needs protocol TCP, UDP or SCTP", "has(self.protocol) || %s",
			everyEnd("(!has(%[1]s.ports) || %[1]s.ports.all(p, type(p) == string)) && (!has(%[1]s.notPorts) || %[1]s.notPorts.all(p, type(p) == string))")),
		cel("only protocols TCP, UDP and SCTP have ports", "!has(self.protocol) || %s || %s", isProtocol("self.protocol", "tcp", "udp", "sctp"),
			everyEnd("!("+given("%[1]s.ports")+") && !("+given("%[1]s.notPorts")+")")),
		cel("a match of ICMP needs protocol ICMP or ICMPv6", "!has(self.icmp) && !has(self.notICMP) || has(self.protocol) && %s",
			isProtocol("self.protocol", "icmp", "icmpv6")),
		rightVersion("protocol"), rightVersion("notProtocol"),
		cel("prefixes must be of the rule's ipVersion", "!has(self.ipVersion) || %s", allOfFirst(nets, "(%s[0].contains(':') == (self.ipVersion == 6))")),
		cel("the prefixes of a rule must be of one IP version; write two rules", "%s", sameFamily(nets)),
		cel("only Allow rules of protocol TCP, or none, match HTTP",
			"!has(self.http) || self.action == 'Allow' && (!has(self.protocol) || %s)", isProtocol("self.protocol", "tcp")))
}

// everyEnd says something of source and destination, where they are given.
func everyEnd(format string) string {
	var parts []string
	for _, end := range []string{"self.source", "self.destination"} {
		parts = append(parts, fmt.Sprintf("(!has(%s) || %s)", end, fmt.Sprintf(format, end)))
	}
	return "(" + strings.Join(parts, " && ") + ")"
}

// rightVersion: ICMP is of IPv4, ICMPv6 of IPv6.
func rightVersion(field string) tweak {
	return all(
		cel("ICMP needs ipVersion 4", "!has(self.ipVersion) || !has(self.%s) || self.ipVersion == 4 || !%s", field, isProtocol("self."+field, "icmp")),
		cel("ICMPv6 needs ipVersion 6", "!has(self.ipVersion) || !has(self.%s) || self.ipVersion == 6 || !%s", field, isProtocol("self."+field, "icmpv6")))
}

func parent(path string) string { return path[:strings.LastIndex(path, ".")] }

// allOfFirst says something of each list that is not empty. Of their items a schema of the list makes sure that they are of
// one family, so that the first stands for all.
func allOfFirst(lists []string, format string) string {
	var parts []string
	for _, l := range lists {
		parts = append(parts, fmt.Sprintf("(!has(%s) || !(%s) || %s)", parent(l), given(l), fmt.Sprintf(format, l)))
	}
	return strings.Join(parts, " && ")
}

func sameFamily(lists []string) string {
	var four, six []string
	for _, l := range lists {
		first := fmt.Sprintf("has(%s) && %s && ", parent(l), given(l))
		six = append(six, first+l+"[0].contains(':')")
		four = append(four, first+"!"+l+"[0].contains(':')")
	}
	return "!(" + strings.Join(six, " || ") + ") || !(" + strings.Join(four, " || ") + ")"
}

func entity() tweak {
	oneFamily := func(s *Schema) {
		s.AnyOf = []*Schema{{Items: &Schema{Pattern: `^[^:]*$`}}, {Items: &Schema{Pattern: `:`}}}
	}
	ports := maxItems(api.MaxPorts)
	return all(
		property("nets", maxItems(api.MaxNets), items(prefixes()), oneFamily),
		property("notNets", maxItems(api.MaxNets), items(prefixes()), oneFamily, items(notEverything())),
		property("selector", ruleSelector()), property("notSelector", ruleSelector()), property("namespaceSelector", ruleNamespaces()),
		property("ports", ports), property("notPorts", ports),
		property("serviceAccounts", property("selector", ruleSelector()), property("names", items(nodeName()))),
		cel("services can't be combined with anything else that says who is there",
			"!has(self.services) || !(%s) && !(%s) && !(has(self.selector) && self.selector != '') && !(has(self.notSelector) && self.notSelector != '') && "+
				"!(has(self.namespaceSelector) && self.namespaceSelector != '') && !has(self.serviceAccounts)",
			given("self.nets"), given("self.notNets")))
}

// notEverything refuses prefixes of all addresses, beside those that were refused already.
func notEverything() tweak {
	return func(s *Schema) { s.Not = &Schema{Pattern: s.Not.Pattern + `|/0$`} }
}

// rulesOf are the rules of one direction.
func rulesOf(egress, namespaced bool) tweak {
	near, far := "destination", "source"
	if egress {
		near, far = far, near
	}
	t := []tweak{maxItems(api.MaxRules), items(cel(
		"only source.services of ingress and destination.services of egress rules have a meaning",
		"!has(self.%s) || !has(self.%[1]s.services)", near))}
	if egress {
		t = append(t, items(cel("only ingress rules match HTTP", "!has(self.http)"),
			cel("the service says which ports: ports and notPorts can't be combined with it",
				"!has(self.destination) || !has(self.destination.services) || !(%s) && !(%s)", given("self.destination.ports"), given("self.destination.notPorts"))))
	}
	if !namespaced {
		t = append(t, items(property(far, property("services", required("namespace"), property("namespace", label())))))
	}
	return all(t...)
}

func policyFields() map[string]tweak {
	out := map[string]tweak{
		"TierSpec.defaultAction":         enum(api.Deny, api.Pass),
		"Rule.action":                    enum(api.Allow, api.Deny, api.Log, api.Pass),
		"Rule.ipVersion":                 enum(4, 6),
		"Rule.icmp":                      required("type"),
		"Rule.notICMP":                   required("type"),
		"ICMPFields.type":                between(0, 254),
		"ICMPFields.code":                between(0, 255),
		"HTTPMatch.methods":              all(maxItems(api.MaxHTTPMatches), set(notEmpty())),
		"HTTPMatch.paths":                maxItems(api.MaxHTTPMatches),
		"NetworkSetSpec.nets":            items(prefixes()),
		"HostEndpointSpec.node":          nodeName(),
		"HostEndpointSpec.interfaceName": interfaceName(`\*`),
		"HostEndpointSpec.expectedIPs":   items(addresses()),
		"HostEndpointSpec.profiles":      set(nodeName()),
	}
	for spec, namespaced := range map[string]bool{"NetworkPolicySpec": true, "GlobalNetworkPolicySpec": false} {
		out[spec+".tier"] = all(maxLength(maxName), pattern(optional(dnsLabel)), defaultTo(api.DefaultTier))
		out[spec+".types"] = set(enum(api.Ingress, api.Egress))
		out[spec+".performanceHints"] = set(enum("AssumeNeededOnEveryNode"))
		out[spec+".selector"] = oneSelector()
		out[spec+".serviceAccountSelector"] = oneSelector()
		out[spec+".ingress"] = rulesOf(false, namespaced)
		out[spec+".egress"] = rulesOf(true, namespaced)
	}
	out["GlobalNetworkPolicySpec.namespaceSelector"] = oneSelector()
	return out
}

// deletesNothing: a staged policy that deletes its namesake says nothing else than that, and the tier.
func deletesNothing(spec reflect.Type) tweak {
	var parts []string
	for i := range spec.NumField() {
		f := spec.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		at := "self." + name
		switch {
		case name == "tier" || name == "stagedAction":
		case f.Type.Kind() == reflect.String:
			parts = append(parts, fmt.Sprintf("!(has(%s) && %[1]s != '')", at))
		case f.Type.Kind() == reflect.Bool:
			parts = append(parts, fmt.Sprintf("!(has(%s) && %[1]s)", at))
		case f.Type.Kind() == reflect.Struct:
			parts = append(parts, fmt.Sprintf("!(has(%s) && (has(%[1]s.matchLabels) || has(%[1]s.matchExpressions)))", at))
		default:
			parts = append(parts, fmt.Sprintf("!has(%s)", at))
		}
	}
	return cel("only tier may be given if stagedAction is Delete", "self.stagedAction != 'Delete' || %s", strings.Join(parts, " && "))
}
