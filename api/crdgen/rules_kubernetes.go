package crdgen

import (
	"github.com/tortie/tortie/api"
)

// maxPeers bounds the peers, and the ports, of a rule of a staged Kubernetes policy: Kubernetes does not, but without a
// bound there is no room for any rule in CEL.
const maxPeers = 1000

func kubernetesTypes() map[string]tweak {
	key := whole(`(?:` + subdomain + `/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?`)
	value := all(maxLength(maxLabel), pattern(optional(`[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?`)))
	return map[string]tweak{
		"LabelSelector": property("matchLabels", func(s *Schema) { value(s.AdditionalProperties) }),
		"LabelSelectorRequirement": all(required("key", "operator"),
			property("key", maxLength(maxName+1+maxLabel), pattern(key)),
			property("operator", enum("In", "NotIn", "Exists", "DoesNotExist")),
			property("values", items(value)),
			func(s *Schema) {
				s.AnyOf = []*Schema{
					{Required: []string{"values"}, Properties: map[string]*Schema{
						"operator": {Enum: []any{"In", "NotIn"}}, "values": {MinItems: count(1)}}},
					{Properties: map[string]*Schema{
						"operator": {Enum: []any{"Exists", "DoesNotExist"}}, "values": {MaxItems: count(0)}}},
				}
			}),
		"KubernetesPeer": func(s *Schema) {
			s.AnyOf = []*Schema{{Required: []string{"podSelector"}}, {Required: []string{"namespaceSelector"}}, {Required: []string{"ipBlock"}}}
			s.AllOf = []*Schema{
				{Not: &Schema{Required: []string{"ipBlock", "podSelector"}}},
				{Not: &Schema{Required: []string{"ipBlock", "namespaceSelector"}}},
			}
		},
		"KubernetesPort": all(
			property("protocol", withPorts()),
			property("port", func(s *Schema) { s.Rules = nil }, pattern(whole(portName+`|`+decimal(1, 65535)))),
			cel("endPort needs a port that is a number, and not above it", "!has(self.endPort) || has(self.port) && int(self.port) <= self.endPort")),
		"KubernetesIngressRule": all(property("from", maxItems(maxPeers)), property("ports", maxItems(maxPeers))),
		"KubernetesEgressRule":  all(property("to", maxItems(maxPeers)), property("ports", maxItems(maxPeers))),
		"KubernetesIPBlock":     all(required("cidr"), property("cidr", prefixes()), property("except", items(prefixes()))),
	}
}

// withPorts is a protocol that has ports.
func withPorts() tweak {
	return all(pattern(whole(anyOf(anyCase("TCP"), anyCase("UDP"), anyCase("SCTP"))+`|\+?0*(?:6|17|132)`)), onlyNumbers(6, 17, 132))
}

// onlyNumbers are the numbers that may be given where a number or a text may.
func onlyNumbers(numbers ...float64) tweak {
	return func(s *Schema) {
		for _, n := range numbers {
			s.AnyOf = append(s.AnyOf, &Schema{Minimum: num(n), Maximum: num(n)})
		}
	}
}

func kubernetesFields() map[string]tweak {
	return map[string]tweak{
		"StagedKubernetesNetworkPolicySpec.policyTypes": set(enum(api.Ingress, api.Egress)),
		"StagedKubernetesNetworkPolicySpec.ingress":     maxItems(api.MaxRules),
		"StagedKubernetesNetworkPolicySpec.egress":      maxItems(api.MaxRules),
	}
}
