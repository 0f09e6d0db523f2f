package ctl

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/tortie/tortie/api"
)

// column is one column of the table of a kind.
type column struct {
	head string
	wide bool // only with -o wide
	cell func(api.Object) string
}

// col makes a column from a function of the kind's own type.
func col[T api.Object](head string, f func(T) string) column {
	return column{head: head, cell: func(o api.Object) string {
		if t, ok := o.(T); ok {
			return dash(f(t))
		}
		return "-"
	}}
}

func wide(c column) column {
	c.wide = true
	return c
}

var columns = map[string][]column{
	"Tier": {
		col("ORDER", func(t *api.Tier) string { return order(t.Spec.Order) }),
		col("DEFAULT", func(t *api.Tier) string { return str(t.Spec.DefaultAction) }),
	},
	"NetworkPolicy":       policyColumns(func(p *api.NetworkPolicy) *api.NetworkPolicySpec { return &p.Spec }),
	"StagedNetworkPolicy": policyColumns(func(p *api.StagedNetworkPolicy) *api.NetworkPolicySpec { return &p.Spec.NetworkPolicySpec }),
	"GlobalNetworkPolicy": globalColumns(func(p *api.GlobalNetworkPolicy) *api.GlobalNetworkPolicySpec { return &p.Spec }),
	"StagedGlobalNetworkPolicy": globalColumns(func(p *api.StagedGlobalNetworkPolicy) *api.GlobalNetworkPolicySpec {
		return &p.Spec.GlobalNetworkPolicySpec
	}),
	"StagedKubernetesNetworkPolicy": {col("TYPES", func(p *api.StagedKubernetesNetworkPolicy) string { return join(p.Spec.PolicyTypes) })},
	"Profile": {
		col("RULES", func(p *api.Profile) string { return rules(p.Spec.Ingress, p.Spec.Egress) }),
		col("LABELS", func(p *api.Profile) string { return labels(p.Spec.LabelsToApply) }),
	},
	"NetworkSet":       {col("NETS", func(s *api.NetworkSet) string { return few(s.Spec.Nets) })},
	"GlobalNetworkSet": {col("NETS", func(s *api.GlobalNetworkSet) string { return few(s.Spec.Nets) })},
	"HostEndpoint": {
		col("NODE", func(h *api.HostEndpoint) string { return h.Spec.Node }),
		col("INTERFACE", func(h *api.HostEndpoint) string { return h.Spec.InterfaceName }),
		col("ADDRESSES", func(h *api.HostEndpoint) string { return few(h.Spec.ExpectedIPs) }),
		wide(col("PROFILES", func(h *api.HostEndpoint) string { return few(h.Spec.Profiles) })),
	},
	"WorkloadEndpoint": {
		col("NODE", func(w *api.WorkloadEndpoint) string { return w.Spec.Node }),
		col("ADDRESSES", func(w *api.WorkloadEndpoint) string { return few(w.Spec.IPNetworks) }),
		col("INTERFACE", func(w *api.WorkloadEndpoint) string { return w.Spec.InterfaceName }),
		wide(col("PORTS", func(w *api.WorkloadEndpoint) string { return ports(w.Spec.Ports) })),
		wide(col("PROFILES", func(w *api.WorkloadEndpoint) string { return few(w.Spec.Profiles) })),
	},
	"Node": {
		col("IPV4", func(n *api.Node) string { return bgp(n).IPv4Address }),
		col("IPV6", func(n *api.Node) string { return bgp(n).IPv6Address }),
	},
	"IPPool": {
		col("CIDR", func(p *api.IPPool) string { return p.Spec.CIDR }),
		col("NAT", func(p *api.IPPool) string { return strconv.FormatBool(p.Spec.NATOutgoing) }),
		col("IPIP", func(p *api.IPPool) string { return p.Spec.IPIPMode }),
		col("VXLAN", func(p *api.IPPool) string { return p.Spec.VXLANMode }),
		col("DISABLED", func(p *api.IPPool) string { return strconv.FormatBool(p.Spec.Disabled) }),
		wide(col("BLOCK", func(p *api.IPPool) string { return "/" + strconv.Itoa(p.Spec.BlockSize) })),
		wide(col("NODES", func(p *api.IPPool) string { return p.Spec.NodeSelector })),
	},
	"BlockAffinity": {
		col("CIDR", func(b *api.BlockAffinity) string { return b.Spec.CIDR }),
		col("NODE", func(b *api.BlockAffinity) string { return b.Spec.Node }),
		col("STATE", func(b *api.BlockAffinity) string { return b.Spec.State }),
	},
	"EndpointSlice": {
		col("SERVICE", func(e *api.EndpointSlice) string { return e.Labels["kubernetes.io/service-name"] }),
		col("ADDRESSES", func(e *api.EndpointSlice) string {
			var as []string
			for _, ep := range e.Endpoints {
				as = append(as, ep.Addresses...)
			}
			return few(as)
		}),
	},
}

func policyColumns[T api.Object](spec func(T) *api.NetworkPolicySpec) []column {
	return []column{
		col("TIER", func(p T) string { return spec(p).Tier }),
		col("ORDER", func(p T) string { return order(spec(p).Order) }),
		col("TYPES", func(p T) string { return join(spec(p).Types) }),
		col("RULES", func(p T) string { return rules(spec(p).Ingress, spec(p).Egress) }),
		col("SELECTOR", func(p T) string { return spec(p).Selector }),
	}
}

func globalColumns[T api.Object](spec func(T) *api.GlobalNetworkPolicySpec) []column {
	return []column{
		col("TIER", func(p T) string { return spec(p).Tier }),
		col("ORDER", func(p T) string { return order(spec(p).Order) }),
		col("TYPES", func(p T) string { return join(spec(p).Types) }),
		col("RULES", func(p T) string { return rules(spec(p).Ingress, spec(p).Egress) }),
		col("SELECTOR", func(p T) string { return spec(p).Selector }),
		wide(col("HOSTS", func(p T) string {
			var s []string
			for name, on := range map[string]bool{"forward": spec(p).ApplyOnForward, "preDNAT": spec(p).PreDNAT, "untracked": spec(p).DoNotTrack} {
				if on {
					s = append(s, name)
				}
			}
			sort.Strings(s)
			return strings.Join(s, ",")
		})),
	}
}

// columnsOf returns the columns of a kind's table: namespace and name first, labels last.
func columnsOf(kind string, withWide bool) []column {
	var cols []column
	if k, ok := api.KindByName(kind); ok && k.Namespaced {
		cols = append(cols, column{head: "NAMESPACE", cell: func(o api.Object) string { return o.GetNamespace() }})
	}
	cols = append(cols, column{head: strings.ToUpper(kind), cell: func(o api.Object) string { return o.GetName() }})
	for _, c := range columns[kind] {
		if withWide || !c.wide {
			cols = append(cols, c)
		}
	}
	if withWide || kind == "WorkloadEndpoint" || kind == "HostEndpoint" || kind == "NetworkSet" || kind == "GlobalNetworkSet" {
		cols = append(cols, column{head: "LABELS", cell: func(o api.Object) string { return dash(labels(o.GetLabels())) }})
	}
	return cols
}

func bgp(n *api.Node) api.NodeBGPSpec {
	if n.Spec.BGP == nil {
		return api.NodeBGPSpec{}
	}
	return *n.Spec.BGP
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func order(o *float64) string {
	if o == nil {
		return "last"
	}
	return strconv.FormatFloat(*o, 'f', -1, 64)
}

func str[T ~string](s *T) string {
	if s == nil {
		return ""
	}
	return string(*s)
}

func join[T ~string](ss []T) string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = string(s)
	}
	return strings.Join(out, ",")
}

func rules(in, out []api.Rule) string { return fmt.Sprintf("%d in, %d out", len(in), len(out)) }

// few joins the first three.
func few(ss []string) string {
	if len(ss) > 3 {
		return strings.Join(ss[:3], ",") + fmt.Sprintf(" and %d more", len(ss)-3)
	}
	return strings.Join(ss, ",")
}

func labels(m map[string]string) string {
	var s []string
	for k, v := range m {
		s = append(s, k+"="+v)
	}
	sort.Strings(s)
	return strings.Join(s, ",")
}

func ports(ps []api.EndpointPort) string {
	var s []string
	for _, p := range ps {
		s = append(s, fmt.Sprintf("%s:%d/%s", p.Name, p.Port, p.Protocol))
	}
	return strings.Join(s, ",")
}
