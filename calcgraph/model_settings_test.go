package calcgraph

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
	"github.com/tortie/tortie/drivers"
)

// settings lays FelixConfigurations, of valid values only, over the model's Config.
func (m *model) settings() {
	node, _ := object[*api.Node](m, "Node", "", m.c.NodeName)
	var self, some, all []*api.FelixConfiguration
	for _, f := range of[*api.FelixConfiguration](m) {
		switch text, _ := f.Spec["nodeSelector"].(string); {
		case f.Name == "node."+m.c.NodeName:
			self = append(self, f)
		case f.Name == "default":
			all = append(all, f)
		case strings.HasPrefix(f.Name, "node.") || text == "":
		default:
			sel, err := selector.Parse(text)
			if err != nil {
				panic(err)
			}
			labels := selector.Map{}
			if node != nil {
				labels = node.Labels
			}
			if sel.Matches(labels) {
				some = append(some, f)
			}
		}
	}
	slices.SortFunc(some, func(a, b *api.FelixConfiguration) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	if len(some) > 1 {
		some = some[:1]
	}
	say := func(name string, then func(any)) {
		if m.c.Fixed[name] != "" {
			return
		}
		for _, f := range slices.Concat(self, some, all) {
			if v, ok := f.Spec[name]; ok {
				then(v)
				return
			}
		}
	}
	ports := func(v any) []drivers.Failsafe {
		out := []drivers.Failsafe{}
		for _, p := range v.([]api.ProtoPort) {
			n, _ := api.Protocol{Name: cmp.Or(p.Protocol, "TCP")}.Num()
			f := drivers.Failsafe{Proto: n, Port: p.Port}
			if p.Net != "" {
				f.Net, _ = api.ParsePrefix(p.Net)
			}
			out = append(out, f)
		}
		return out
	}
	say("defaultEndpointToHostAction", func(v any) {
		m.c.EndpointToHost = map[any]drivers.EndpointToHost{"Accept": drivers.ToHostAccept, "Return": drivers.ToHostReturn, "Drop": drivers.ToHostDrop}[v]
	})
	say("failsafeInboundHostPorts", func(v any) { m.c.FailsafeIn = ports(v) })
	say("failsafeOutboundHostPorts", func(v any) { m.c.FailsafeOut = ports(v) })
	say("workloadSourceSpoofing", func(v any) { m.c.SourceSpoofing = map[any]SourceSpoofing{"Any": SpoofAny, "Disabled": SpoofNone}[v] })
	say("floatingIPs", func(v any) { m.c.FloatingIPs = v == "Enabled" })
	say("vxlanPort", func(v any) { m.c.VXLANPort = uint16(v.(int64)) })
	say("interfacePrefix", func(v any) {
		m.c.WorkloadPrefixes = slices.Clone(m.c.WorkloadPrefixes)
	prefixes:
		for _, p := range strings.Split(v.(string), ",") {
			for _, i := range m.ifaces {
				for _, a := range i.Addrs {
					if strings.HasPrefix(i.Name, p) && !a.Addr().IsLinkLocalUnicast() {
						continue prefixes // the host's own interface
					}
				}
			}
			m.c.WorkloadPrefixes = append(m.c.WorkloadPrefixes, p)
		}
	})
	var vxlan, ipip, said bool
	say("allowVXLANPacketsFromWorkloads", func(v any) { vxlan, said = v.(bool), true })
	say("allowIPIPPacketsFromWorkloads", func(v any) { ipip, said = v.(bool), true })
	if said {
		m.c.AllowEncapFromWorkloads = vxlan && ipip
	}
}

func (g gen) felix() api.Object {
	o := &api.FelixConfiguration{ObjectMeta: g.meta("", "default", "node.me", "node.n2", "f0", "f1"), Spec: api.FelixConfigurationSpec{}}
	o.CreationTimestamp.Time = o.CreationTimestamp.AddDate(g.IntN(3), 0, 0)
	if strings.HasPrefix(o.Name, "f") && g.chance(80) {
		o.Spec["nodeSelector"] = g.atom("a", "b")
	}
	for name, value := range map[string]func() any{
		"defaultEndpointToHostAction": func() any { return pick(g, "Drop", "Accept", "Return") },
		"failsafeInboundHostPorts": func() any {
			return pick(g, []api.ProtoPort{}, []api.ProtoPort{{Protocol: "UDP", Port: 68}, {Port: 22, Net: "192.0.2.0/24"}})
		},
		"failsafeOutboundHostPorts":      func() any { return []api.ProtoPort{{Protocol: "SCTP", Port: uint16(1 + g.IntN(2))}} },
		"interfacePrefix":                func() any { return pick(g, "cali", "eth1,cali", "eth") },
		"vxlanPort":                      func() any { return int64(4789 + g.IntN(2)) },
		"workloadSourceSpoofing":         func() any { return pick(g, "Disabled", "Any") },
		"floatingIPs":                    func() any { return pick(g, "Disabled", "Enabled", "Enabled") },
		"allowVXLANPacketsFromWorkloads": func() any { return g.chance(70) },
		"allowIPIPPacketsFromWorkloads":  func() any { return g.chance(70) },
		"iptablesRefreshInterval":        func() any { return api.Duration(g.IntN(100)) },
	} {
		if g.chance(30) {
			o.Spec[name] = value()
		}
	}
	return o
}
