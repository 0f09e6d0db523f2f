package crdgen

import (
	"fmt"
	"math"
	"strings"
)

const (
	maxOperations = 10
	maxASPath     = 10
	maxPriority   = math.MaxInt32 - 1
)

func severities(others ...string) tweak {
	return words(append(others, "Trace", "Debug", "Info", "Warning", "Error", "Fatal")...)
}

func clusterTypes() map[string]tweak {
	return map[string]tweak{
		"BGPPassword": required("secretKeyRef"),
		"SecretKeyRef": all(required("name", "key"), property("name", nodeName()),
			property("key", maxLength(maxName), pattern(`^[-._a-zA-Z0-9]+$`), func(s *Schema) { s.Not = &Schema{Pattern: `^\.$|^\.\.`} })),
		"Community":           all(required("name", "value"), property("name", notEmpty()), property("value", community())),
		"PrefixAdvertisement": all(required("cidr"), property("cidr", cidrs(0))),
		"ServiceIPBlock":      all(required("cidr"), property("cidr", cidrs(0))),
		"BGPFilterRule":       filterRule(),
		"BGPFilterOperation":  filterOperation(),
		"HostEndpointTemplate": all(required("generateName"),
			property("generateName", nodeName()),
			property("interfaceCIDRs", set(cidrs(0))),
			property("interfacePattern", maxLength(1024), regexps()),
			property("nodeSelector", ruleSelector()),
			property("labels", func(s *Schema) {
				all(maxLength(maxLabel), pattern(optional(`[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?`)))(s.AdditionalProperties)
			}),
			cel("needs interfaceCIDRs or interfacePattern", "%s || has(self.interfacePattern) && self.interfacePattern != ''", given("self.interfaceCIDRs"))),
		"BGPConfigurationSpec": all(
			cel("there is no mesh if nodeToNodeMeshEnabled is false",
				"!has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled || !has(self.nodeMeshPassword) && !has(self.nodeMeshMaxRestartTime)")),
		"BGPPeerSpec":          bgpPeer(),
		"CalicoNodeStatusSpec": required("node", "classes", "updatePeriodSeconds"),
		"IPAMConfigurationSpec": cel("nodes that take no blocks need strictAffinity",
			"has(self.strictAffinity) && self.strictAffinity || !has(self.autoAllocateBlocks) || self.autoAllocateBlocks"),
		"IPPoolSpec":        ipPool(),
		"BlockAffinitySpec": required("state", "node", "cidr"),
		"IPAMBlockSpec":     ipamBlock(),
		"IPAMHandleSpec":    required("handleID"),
	}
}

func clusterFields() map[string]tweak {
	noBlanks := pattern(`^[^\x00-\x20\x7f]*$`)
	return map[string]tweak{
		"KubeControllersConfigurationSpec.logSeverityScreen": severities("None", "Panic"),
		"KubeControllersConfigurationSpec.healthChecks":      all(onOff(), defaultTo("Enabled")),
		"NodeController.syncLabels":                          onOff(),
		"AutoHostEndpoints.autoCreate":                       onOff(),
		"AutoHostEndpoints.createDefaultHostEndpoint":        onOff(),
		"AutoHostEndpoints.templates":                        all(maxItems(256), keyed("generateName")),
		"LoadBalancerController.assignIPs":                   all(enum("AllServices", "RequestedServicesOnly", ""), defaultTo("AllServices")),
		"PolicyMigrationController.enabled":                  all(onOff(), defaultTo("Enabled")),
		"ClusterInformationSpec.clusterGUID":                 noBlanks,
		"ClusterInformationSpec.calicoVersion":               noBlanks,
		"ClusterInformationSpec.variant":                     noBlanks,
		"CalicoNodeStatusSpec.node":                          nodeName(),
		"CalicoNodeStatusSpec.classes":                       all(minItems(1), set(enum("Agent", "BGP", "Routes"))),
		"CalicoNodeStatusSpec.updatePeriodSeconds":           between(0, 86400),
	}
}

func bgpFields() map[string]tweak {
	out := map[string]tweak{
		"BGPConfigurationSpec.logSeverityScreen":              all(severities(), defaultTo("Info")),
		"BGPConfigurationSpec.serviceLoadBalancerAggregation": all(onOff(), defaultTo("Enabled")),
		"BGPConfigurationSpec.bindMode":                       enum("None", "NodeIP", ""),
		"BGPConfigurationSpec.programClusterRoutes":           enum("Enabled", "Disabled", "EnabledNoEncapOnly", ""),
		"BGPConfigurationSpec.serviceLoadBalancerIPs":         keyed("cidr"),
		"BGPConfigurationSpec.serviceExternalIPs":             keyed("cidr"),
		"BGPConfigurationSpec.serviceClusterIPs":              keyed("cidr"),
		"BGPConfigurationSpec.communities":                    keyed("name"),
		"BGPConfigurationSpec.ignoredInterfaces":              items(interfaceWildcard()),
		"BGPConfigurationSpec.localWorkloadPeeringIPV4":       address(4),
		"BGPConfigurationSpec.localWorkloadPeeringIPV6":       address(6),
		"BGPPeerSpec.node":                                    optionalName(),
		"BGPPeerSpec.nodeSelector":                            oneSelector(),
		"BGPPeerSpec.peerSelector":                            oneSelector(),
		"BGPPeerSpec.localWorkloadSelector":                   oneSelector(),
		"BGPPeerSpec.nextHopMode":                             enum("Auto", "Self", "Keep", ""),
		"BGPPeerSpec.sourceAddress":                           enum("UseNodeIP", "None", ""),
		"BGPPeerSpec.reversePeering":                          enum("Auto", "Manual", ""),
		"BGPPeerSpec.numAllowedLocalASNumbers":                atLeast(0),
		"BGPPeerSpec.reachableBy":                             all(maxLength(maxAddress), cel("must be an address", "self == '' || isIP(self)")),
		"BGPPeerSpec.filters":                                 items(nodeName()),
		"BGPPeerSpec.peerIP": all(maxLength(maxAddress+8), not(`^\[?[0:]*:[fF]{4}:(?:`+hextet+`:`+hextet+`|[0-9]+\.[0-9.]+)(?:\]|$)`),
			pattern(optional(ipv4+`(?::`+decimal(1, 65535)+`)?|`+ipv6()+`|\[`+anyOf(ipv6())+`\]:`+decimal(1, 65535)))),
		"CommunityMatch.values":     all(minItems(1), maxItems(1), items(community())),
		"BGPFilterRule.communities": required("values"),
		"AddCommunity.value":        community(),
		"PrependASPath.prefix":      all(minItems(1), maxItems(maxASPath)),
		"SetPriority.value":         between(1, maxPriority),
	}
	for list, version := range map[string]int{"exportV4": 4, "importV4": 4, "exportV6": 6, "importV6": 6} {
		longest := map[int]float64{4: 32, 6: 128}[version]
		out["BGPFilterSpec."+list] = items(
			property("cidr", maxLength(maxPrefix), pattern(optional(families(version, ipv4+`/`+length4, ipv6()+`/`+length6))), not(ipv4InIPv6())),
			property("prefixLength", property("min", between(0, longest)), property("max", between(0, longest))))
	}
	return out
}

func filterRule() tweak {
	return all(required("action"),
		property("action", enum("Accept", "Reject")),
		property("source", enum("RemotePeers", "")),
		property("peerType", enum("eBGP", "iBGP", "")),
		property("matchOperator", enum("Equal", "NotEqual", "In", "NotIn", "")),
		property("interface", pattern(`^[a-zA-Z0-9_.*@-]{0,15}$`)),
		property("asPathPrefix", maxItems(maxASPath)),
		property("priority", between(1, maxPriority)),
		property("operations", maxItems(maxOperations)),
		cel("cidr and matchOperator need each other", "(has(self.cidr) && self.cidr != '') == (has(self.matchOperator) && self.matchOperator != '')"),
		cel("prefixLength needs cidr", "!has(self.prefixLength) || has(self.cidr) && self.cidr != ''"),
		cel("max must not be less than min", "!has(self.prefixLength) || !has(self.prefixLength.min) || !has(self.prefixLength.max) || self.prefixLength.min <= self.prefixLength.max"),
		cel("a route that is rejected can't be changed", "self.action != 'Reject' || !(%s)", given("self.operations")))
}

func filterOperation() tweak {
	return all(
		property("addCommunity", required("value")), property("prependASPath", required("prefix")), property("setPriority", required("value")),
		cel("must hold exactly one of addCommunity, prependASPath and setPriority",
			"(has(self.addCommunity) ? 1 : 0) + (has(self.prependASPath) ? 1 : 0) + (has(self.setPriority) ? 1 : 0) == 1"))
}

// says is an expression: a text is given.
func says(field string) string { return fmt.Sprintf("has(self.%s) && self.%[1]s != ''", field) }

func bgpPeer() tweak {
	as := "has(self.asNumber) && string(self.asNumber) != '0'"
	return all(
		cel("node can't be combined with nodeSelector", "!(%s) || !(%s)", says("node"), says("nodeSelector")),
		cel("one of peerIP, peerSelector and localWorkloadSelector says whom to peer with", "[%s, %s, %s].filter(given, given).size() == 1",
			says("peerIP"), says("peerSelector"), says("localWorkloadSelector")),
		cel("workloads need an AS number", "!(%s) || %s", says("localWorkloadSelector"), as),
		cel("nodes have AS numbers of their own", "!(%s) || !(%s)", says("peerSelector"), as),
		cel("nextHopMode has taken the place of keepOriginalNextHop; give only that",
			"!(has(self.keepOriginalNextHop) && self.keepOriginalNextHop) || !(%s)", says("nextHopMode")),
		cel("reachableBy needs a peerIP of its IP version",
			"!(%s) || %s && (self.reachableBy.contains(':') == self.peerIP.matches(':.*:'))", says("reachableBy"), says("peerIP")))
}

// kindTable says what `kubectl get` shows of each kind, and what its name may be.
func kindTable() map[string]about {
	text := func(name, path string) column { return column{Name: name, Type: "string", JSONPath: ".spec." + path} }
	wide := func(c column) column {
		c.Priority = 1
		return c
	}
	order := column{Name: "Order", Type: "number", JSONPath: ".spec.order"}
	policy := []column{text("Tier", "tier"), order, wide(text("Selector", "selector")), wide(text("Types", "types"))}
	staged := append([]column{text("Action", "stagedAction")}, policy...)
	dots := named("the name of a policy has at most one dot", "self.metadata.name.matches('^(knp|ossg)\\\\.default\\\\.') || self.metadata.name.split('.').size() <= 2")
	globalDots := named("the name of a policy has at most one dot", "self.metadata.name.split('.').size() <= 2")
	single := named("there is one object of this kind, and its name is default", "self.metadata.name == 'default'")
	return map[string]about{
		"Tier":                          {[]column{order, text("Default action", "defaultAction")}, tier()},
		"NetworkPolicy":                 {policy, dots},
		"GlobalNetworkPolicy":           {policy, globalDots},
		"StagedNetworkPolicy":           {staged, dots},
		"StagedGlobalNetworkPolicy":     {staged, globalDots},
		"StagedKubernetesNetworkPolicy": {[]column{text("Action", "stagedAction")}, nil},
		"NetworkSet":                    {[]column{text("Nets", "nets")}, nil},
		"GlobalNetworkSet":              {[]column{text("Nets", "nets")}, nil},
		"HostEndpoint": {[]column{text("Node", "node"), text("Interface", "interfaceName"), text("IPs", "expectedIPs")},
			requiredSpec("node")},
		"IPPool": {[]column{text("CIDR", "cidr"), text("VXLAN", "vxlanMode"), text("IPIP", "ipipMode"),
			{Name: "NAT", Type: "boolean", JSONPath: ".spec.natOutgoing"}, {Name: "Disabled", Type: "boolean", JSONPath: ".spec.disabled"},
			wide(text("Nodes", "nodeSelector"))}, requiredSpec()},
		"BlockAffinity":     {[]column{text("CIDR", "cidr"), text("Node", "node"), text("State", "state")}, requiredSpec()},
		"IPReservation":     {[]column{text("CIDRs", "reservedCIDRs")}, nil},
		"IPAMConfiguration": {[]column{{Name: "Strict", Type: "boolean", JSONPath: ".spec.strictAffinity"}}, single},
		"IPAMBlock":         {[]column{text("CIDR", "cidr"), text("Affinity", "affinity")}, requiredSpec()},
		"IPAMHandle":        {nil, requiredSpec()},
		"BGPConfiguration":  {[]column{text("AS", "asNumber"), {Name: "Mesh", Type: "boolean", JSONPath: ".spec.nodeToNodeMeshEnabled"}}, bgpDefault()},
		"BGPPeer":           {[]column{text("Peer", "peerIP"), text("AS", "asNumber"), text("Node", "node"), wide(text("Nodes", "nodeSelector"))}, requiredSpec()},
		"BGPFilter":         {nil, nil},
		"FelixConfiguration": {nil, all(
			cel("the name says already which nodes it is for", "!has(self.spec) || !has(self.spec.nodeSelector) || self.metadata.name != 'default' && !self.metadata.name.startsWith('node.')"),
			metadata())},
		"KubeControllersConfiguration": {nil, single},
		"ClusterInformation": {[]column{text("Type", "clusterType"), text("Version", "calicoVersion")}, all(single,
			cel("clusterGUID can't be changed", "!has(oldSelf.spec) || !has(oldSelf.spec.clusterGUID) || oldSelf.spec.clusterGUID == '' || "+
				"has(self.spec) && has(self.spec.clusterGUID) && self.spec.clusterGUID == oldSelf.spec.clusterGUID"))},
		"CalicoNodeStatus": {[]column{text("Node", "node"), text("Classes", "classes")}, requiredSpec()},
	}
}

// named checks the name of an object.
func named(message, rule string) tweak {
	return all(metadata(), func(s *Schema) { s.Rules = append(s.Rules, Rule{Rule: rule, Message: message}) })
}

// metadata bounds the name, for CEL to know how much it has to look at. All else about it the API server checks by itself.
func metadata() tweak {
	return func(s *Schema) {
		s.Properties["metadata"].Properties = map[string]*Schema{
			"name":         {Type: "string", MaxLength: count(maxName)},
			"generateName": {Type: "string", MaxLength: count(maxName)},
		}
	}
}

// requiredSpec is for kinds whose objects can't do without, also if they are nothing but metadata.
func requiredSpec(fields ...string) tweak {
	return all(required("spec"), property("spec", func(s *Schema) {
		s.Default = nil
		s.Required = append(s.Required, fields...)
	}))
}

func tier() tweak {
	builtin := func(name, order, action string) tweak {
		return cel(fmt.Sprintf("the tier %s has order %s and default action %s", name, order, action),
			"self.metadata.name != '%s' || !has(self.spec) || (!has(self.spec.order) || self.spec.order == %s.0) && "+
				"(!has(self.spec.defaultAction) || self.spec.defaultAction == '%s')", name, order, action)
	}
	return all(
		named("the name of a tier has no dots", "!self.metadata.name.contains('.')"),
		builtin("kube-admin", "1000", "Pass"), builtin("default", "1000000", "Deny"), builtin("kube-baseline", "10000000", "Pass"))
}

func bgpDefault() tweak {
	var rules []tweak
	for _, f := range strings.Fields("nodeToNodeMeshEnabled asNumber") {
		rules = append(rules, cel(fmt.Sprintf("only the BGPConfiguration named default says %s", f),
			"self.metadata.name == 'default' || !has(self.spec) || !has(self.spec.%s)", f))
	}
	return all(append(rules, metadata())...)
}
