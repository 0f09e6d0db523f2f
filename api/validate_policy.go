package api

import (
	"reflect"
	"slices"
	"strings"

	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) tier(t *Tier, p *field.Path) {
	if t.Spec.DefaultAction != nil {
		oneOf(c, p.Child("defaultAction"), *t.Spec.DefaultAction, Deny, Pass)
	}
	b := builtinTierNamed(t.Name)
	if b == nil {
		return
	}
	if t.Spec.Order == nil || *t.Spec.Order != *b.Spec.Order {
		c.invalid(p.Child("order"), t.Spec.Order, "the order of tier %s is %v and can't be changed", t.Name, *b.Spec.Order)
	}
	if t.Spec.DefaultAction != nil && *t.Spec.DefaultAction != *b.Spec.DefaultAction {
		c.invalid(p.Child("defaultAction"), *t.Spec.DefaultAction, "the default action of tier %s is %s and can't be changed",
			t.Name, *b.Spec.DefaultAction)
	}
}

func (c *checker) networkPolicy(s *NetworkPolicySpec, p *field.Path) {
	c.tierName(s.Tier, p.Child("tier"))
	c.types(s.Types, p.Child("types"))
	c.selector(s.Selector, p.Child("selector"))
	c.selector(s.ServiceAccountSelector, p.Child("serviceAccountSelector"))
	eachOneOf(c, p.Child("performanceHints"), s.PerformanceHints, "AssumeNeededOnEveryNode")
	c.rules(s.Ingress, ruleContext{namespaced: true}, p.Child("ingress"))
	c.rules(s.Egress, ruleContext{namespaced: true, egress: true}, p.Child("egress"))
}

func (c *checker) globalNetworkPolicy(s *GlobalNetworkPolicySpec, p *field.Path) {
	c.tierName(s.Tier, p.Child("tier"))
	c.types(s.Types, p.Child("types"))
	c.selector(s.Selector, p.Child("selector"))
	c.selector(s.NamespaceSelector, p.Child("namespaceSelector"))
	c.selector(s.ServiceAccountSelector, p.Child("serviceAccountSelector"))
	eachOneOf(c, p.Child("performanceHints"), s.PerformanceHints, "AssumeNeededOnEveryNode")
	if s.PreDNAT && s.DoNotTrack {
		c.forbidden(p.Child("preDNAT"), "can't be combined with doNotTrack")
	}
	if (s.PreDNAT || s.DoNotTrack) && !s.ApplyOnForward {
		c.invalid(p.Child("applyOnForward"), false, "must be true with preDNAT or doNotTrack")
	}
	if s.PreDNAT && len(s.Egress) > 0 {
		c.forbidden(p.Child("egress"), "a preDNAT policy has no egress rules")
	}
	if i := slices.Index(s.Types, Egress); s.PreDNAT && i >= 0 {
		c.forbidden(p.Child("types").Index(i), "a preDNAT policy governs ingress only")
	}
	c.rules(s.Ingress, ruleContext{}, p.Child("ingress"))
	c.rules(s.Egress, ruleContext{egress: true}, p.Child("egress"))
}

func (c *checker) stagedNetworkPolicy(s *StagedNetworkPolicySpec, p *field.Path) {
	if c.stagedAction(s.StagedAction, p) {
		rest := s.NetworkPolicySpec
		rest.Tier = ""
		c.nothingElse(rest, p)
		return
	}
	c.networkPolicy(&s.NetworkPolicySpec, p)
}

func (c *checker) stagedGlobalNetworkPolicy(s *StagedGlobalNetworkPolicySpec, p *field.Path) {
	if c.stagedAction(s.StagedAction, p) {
		rest := s.GlobalNetworkPolicySpec
		rest.Tier = ""
		c.nothingElse(rest, p)
		return
	}
	c.globalNetworkPolicy(&s.GlobalNetworkPolicySpec, p)
}

func (c *checker) stagedKubernetes(s *StagedKubernetesNetworkPolicySpec, p *field.Path) {
	if c.stagedAction(s.StagedAction, p) {
		rest := *s
		rest.StagedAction = ""
		c.nothingElse(rest, p)
		return
	}
	c.types(s.PolicyTypes, p.Child("policyTypes"))
	options := metav1validation.LabelSelectorValidationOptions{}
	c.errs = append(c.errs, metav1validation.ValidateLabelSelector(&s.PodSelector, options, p.Child("podSelector"))...)
	c.atMost(p.Child("ingress"), len(s.Ingress), MaxRules)
	for i, r := range s.Ingress {
		c.kubernetesRule(r.From, "from", r.Ports, p.Child("ingress").Index(i))
	}
	c.atMost(p.Child("egress"), len(s.Egress), MaxRules)
	for i, r := range s.Egress {
		c.kubernetesRule(r.To, "to", r.Ports, p.Child("egress").Index(i))
	}
}

// stagedAction says whether it is a deletion, which needs nothing else.
func (c *checker) stagedAction(a StagedAction, p *field.Path) (deletes bool) {
	oneOf(c, p.Child("stagedAction"), a, StagedSet, StagedDelete, StagedLearn, StagedIgnore)
	return a == StagedDelete
}

// nothingElse forbids every field of spec that is set.
func (c *checker) nothingElse(spec any, p *field.Path) {
	v := reflect.ValueOf(spec)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if !v.Field(i).IsZero() {
			c.forbidden(p.Child(name), "must be empty if stagedAction is Delete")
		}
	}
}

func (c *checker) tierName(name string, p *field.Path) {
	switch {
	case name == "":
	case strings.Contains(name, "."):
		c.invalid(p, name, "the name of a tier has no dots")
	default:
		c.report(p, name, validation.IsDNS1123Subdomain(name))
	}
}

func (c *checker) types(types []PolicyType, p *field.Path) {
	eachOneOf(c, p, types, Ingress, Egress)
}

func (c *checker) kubernetesRule(peers []KubernetesPeer, peersField string, ports []KubernetesPort, p *field.Path) {
	for i := range peers {
		c.kubernetesPeer(&peers[i], p.Child(peersField).Index(i))
	}
	for i, port := range ports {
		protocol := Protocol{Name: "TCP"}
		if port.Protocol != nil {
			protocol = canonicalProtocol(*port.Protocol)
		}
		if _, err := kubernetesPort(port, protocol); err != nil {
			c.invalid(p.Child("ports").Index(i), portText(port), "%v", err)
		}
	}
}

func portText(p KubernetesPort) string {
	if p.Port == nil {
		return ""
	}
	return p.Port.String()
}

func (c *checker) kubernetesPeer(peer *KubernetesPeer, p *field.Path) {
	options := metav1validation.LabelSelectorValidationOptions{}
	if peer.PodSelector != nil {
		c.errs = append(c.errs, metav1validation.ValidateLabelSelector(peer.PodSelector, options, p.Child("podSelector"))...)
	}
	if peer.NamespaceSelector != nil {
		c.errs = append(c.errs, metav1validation.ValidateLabelSelector(peer.NamespaceSelector, options, p.Child("namespaceSelector"))...)
	}
	switch {
	case peer.IPBlock == nil && peer.PodSelector == nil && peer.NamespaceSelector == nil:
		c.required(p, "podSelector, namespaceSelector or ipBlock")
	case peer.IPBlock != nil && (peer.PodSelector != nil || peer.NamespaceSelector != nil):
		c.forbidden(p.Child("ipBlock"), "can't be combined with selectors")
	case peer.IPBlock != nil:
		c.kubernetesBlock(peer.IPBlock, p.Child("ipBlock"))
	}
}

func (c *checker) kubernetesBlock(b *KubernetesIPBlock, p *field.Path) {
	outer, err := ParsePrefix(b.CIDR)
	if err != nil {
		c.invalid(p.Child("cidr"), b.CIDR, "%v", err)
		return
	}
	for i, x := range b.Except {
		inner, err := ParsePrefix(x)
		switch {
		case err != nil:
			c.invalid(p.Child("except").Index(i), x, "%v", err)
		case inner.Bits() <= outer.Bits() || !outer.Contains(inner.Addr()):
			c.invalid(p.Child("except").Index(i), x, "must be a part of %s, and smaller", outer)
		}
	}
}
