package api

import (
	"slices"
	"strings"
)

// defaultCluster is Default for the kinds that configure routing and the cluster.
func defaultCluster(o Object) {
	switch o := o.(type) {
	case *BGPConfiguration:
		setIfEmpty(&o.Spec.LogSeverityScreen, "Info")
		canonicalWord(&o.Spec.LogSeverityScreen, logSeverities)
		setIfEmpty(&o.Spec.ServiceLoadBalancerAggregation, "Enabled")
	case *BGPFilter:
		for _, list := range o.Spec.lists() {
			for i := range *list.rules {
				if p, err := parsePrefix((*list.rules)[i].CIDR); err == nil && strings.Contains((*list.rules)[i].CIDR, "/") {
					(*list.rules)[i].CIDR = p.Masked().String()
				}
			}
		}
	case *FelixConfiguration:
		defaultFelix(o)
	case *KubeControllersConfiguration:
		setIfEmpty(&o.Spec.HealthChecks, "Enabled")
		canonicalWord(&o.Spec.LogSeverityScreen, logSeverities)
		if l := o.Spec.Controllers.LoadBalancer; l != nil {
			setIfEmpty(&l.AssignIPs, "AllServices")
		}
		if m := o.Spec.Controllers.PolicyMigration; m != nil {
			setIfEmpty(&m.Enabled, "Enabled")
		}
	}
}

// canonicalWord gives a word that may be written in any case its usual spelling.
func canonicalWord(s *string, words []string) {
	if i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, *s) }); i >= 0 {
		*s = words[i]
	}
}
