package api

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxUpdatePeriod = 86400 // seconds
	maxGenerateName = 253
)

// single checks the name of a kind of which there is one object.
func (c *checker) single(o Object) {
	if name := o.GetName(); name != "" && name != DefaultConfiguration {
		c.invalid(field.NewPath("metadata", "name"), name, "there is one %s, and its name is default", o.GetKind())
	}
}

func onOff(c *checker, p *field.Path, s string) { oneOf(c, p, s, "Enabled", "Disabled", "") }

func (c *checker) kubeControllers(o *KubeControllersConfiguration, p *field.Path) {
	c.single(o)
	c.severity(o.Spec.LogSeverityScreen, p.Child("logSeverityScreen"), "None", "Panic")
	onOff(c, p.Child("healthChecks"), o.Spec.HealthChecks)
	c.positive(o.Spec.EtcdV3CompactionPeriod, p.Child("etcdV3CompactionPeriod"))
	s, p := &o.Spec.Controllers, p.Child("controllers")
	for _, r := range []struct {
		name string
		c    *ReconcilingController
	}{{"policy", s.Policy}, {"workloadEndpoint", s.WorkloadEndpoint}, {"serviceAccount", s.ServiceAccount}, {"namespace", s.Namespace}} {
		if r.c != nil {
			c.positive(r.c.ReconcilerPeriod, p.Child(r.name, "reconcilerPeriod"))
		}
	}
	if s.LoadBalancer != nil {
		oneOf(c, p.Child("loadBalancer", "assignIPs"), s.LoadBalancer.AssignIPs, "AllServices", "RequestedServicesOnly", "")
	}
	if s.PolicyMigration != nil {
		onOff(c, p.Child("policyMigration", "enabled"), s.PolicyMigration.Enabled)
	}
	if s.Node != nil {
		c.nodeController(s.Node, p.Child("node"))
	}
}

func (c *checker) nodeController(n *NodeController, p *field.Path) {
	c.positive(n.ReconcilerPeriod, p.Child("reconcilerPeriod"))
	c.positive(n.LeakGracePeriod, p.Child("leakGracePeriod"))
	onOff(c, p.Child("syncLabels"), n.SyncLabels)
	if n.HostEndpoint == nil {
		return
	}
	p = p.Child("hostEndpoint")
	onOff(c, p.Child("autoCreate"), n.HostEndpoint.AutoCreate)
	onOff(c, p.Child("createDefaultHostEndpoint"), n.HostEndpoint.CreateDefaultHostEndpoint)
	names := map[string]bool{}
	for i := range n.HostEndpoint.Templates {
		t, at := &n.HostEndpoint.Templates[i], p.Child("templates").Index(i)
		c.hostEndpointTemplate(t, at)
		if names[t.GenerateName] && t.GenerateName != "" {
			c.errs = append(c.errs, field.Duplicate(at.Child("generateName"), t.GenerateName))
		}
		names[t.GenerateName] = true
	}
}

func (c *checker) hostEndpointTemplate(t *HostEndpointTemplate, p *field.Path) {
	switch name := p.Child("generateName"); {
	case t.GenerateName == "":
		c.required(name, "the names of the host endpoints end with it")
	case len(t.GenerateName) > maxGenerateName:
		c.errs = append(c.errs, field.TooLong(name, t.GenerateName, maxGenerateName))
	default:
		c.report(name, t.GenerateName, validation.IsDNS1123Subdomain(t.GenerateName))
	}
	if len(t.InterfaceCIDRs) == 0 && t.InterfacePattern == "" {
		c.required(p.Child("interfaceCIDRs"), "interfaceCIDRs or interfacePattern")
	}
	for i, s := range t.InterfaceCIDRs {
		c.cidr(s, 0, p.Child("interfaceCIDRs").Index(i))
		if slices.Contains(t.InterfaceCIDRs[:i], s) {
			c.errs = append(c.errs, field.Duplicate(p.Child("interfaceCIDRs").Index(i), s))
		}
	}
	c.regexp(t.InterfacePattern, p.Child("interfacePattern"))
	c.selector(t.NodeSelector, p.Child("nodeSelector"))
	c.labels(t.Labels, p.Child("labels"))
}

func (c *checker) clusterInformation(o *ClusterInformation, p *field.Path) {
	c.single(o)
	for _, x := range []struct{ name, value string }{
		{"clusterGUID", o.Spec.ClusterGUID}, {"calicoVersion", o.Spec.CalicoVersion}, {"variant", o.Spec.Variant},
	} {
		if strings.ContainsFunc(x.value, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			c.invalid(p.Child(x.name), x.value, "holds a blank")
		}
	}
}

func (c *checker) nodeStatus(s *CalicoNodeStatusSpec, p *field.Path) {
	if s.Node == "" {
		c.required(p.Child("node"), "the name of the node to report")
	} else {
		c.report(p.Child("node"), s.Node, validation.IsDNS1123Subdomain(s.Node))
	}
	if len(s.Classes) == 0 {
		c.required(p.Child("classes"), "what to report: Agent, BGP, Routes")
	}
	eachOneOf(c, p.Child("classes"), s.Classes, "Agent", "BGP", "Routes")
	if s.UpdatePeriodSeconds == nil {
		c.required(p.Child("updatePeriodSeconds"), "how often to report; 0 = once")
	} else {
		c.between(p.Child("updatePeriodSeconds"), int(*s.UpdatePeriodSeconds), 0, maxUpdatePeriod)
	}
}
