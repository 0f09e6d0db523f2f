package calcgraph

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tortie/tortie/api"
)

// maxServiceAccountLabel is how long the name of a service account may be to be a label of its pods.
const maxServiceAccountLabel = 63

func (g *Graph) setProfile(key api.Key, o *api.Profile) {
	var toApply map[string]string
	if o != nil {
		toApply = o.Spec.LabelsToApply
	}
	g.groups.setProfile(key.Name, toApply)
	g.policies.setProfile(key.Name, o)
}

func (g *Graph) setNetworkSet(key api.Key, o api.Object) []Problem {
	probs := problems{key: key}
	var spec thingSpec
	var from api.NetworkSetSpec
	switch o := o.(type) {
	case *api.NetworkSet:
		from, spec.labels = o.Spec, ownLabels(&probs, o.Labels)
		spec.extra = [][2]string{{api.LabelNamespace, key.Namespace}}
		spec.profiles = []string{api.NamespaceProfilePrefix + key.Namespace}
	case *api.GlobalNetworkSet:
		from, spec.labels = o.Spec, o.Labels
	default:
		g.things.remove(key)
		return nil
	}
	spec.nets, spec.partial = readNets(&probs, "spec.nets", from.Nets, from.Partial)
	g.things.set(key, spec)
	return probs.list
}

// ownLabels returns the labels that a workload or a network set may give itself. What is said of it by its namespace, its
// service account or its orchestrator is not its own to say: with a label pcns.env it would pass for one of another
// namespace.
func ownLabels(probs *problems, labels map[string]string) map[string]string {
	own := labels
	for k := range labels {
		if !api.ReservedLabel(k) {
			continue
		}
		if len(own) == len(labels) {
			own = maps.Clone(labels)
		}
		delete(own, k)
		if k != api.LabelNamespace { // which must say what is so anyway
			probs.add("metadata.labels", "label %s is not the object's own to give; it is left out", k)
		}
	}
	return own
}

// readNets reads prefixes. partial says that some can't be read, now or, as lost says, when they were decoded.
func readNets(probs *problems, field string, texts, lost []string) (nets []member, partial bool) {
	partial = len(lost) > 0
	probs.unread(lost)
	if len(texts) == 0 {
		return nil, partial
	}
	ms := make([]member, 0, len(texts))
	for i, t := range texts {
		p, err := api.ParsePrefix(t)
		if err != nil {
			probs.add(fmt.Sprintf("%s[%d]", field, i), "%v", err)
			partial = true
			continue
		}
		ms = append(ms, prefixMember(p))
	}
	return canonical(ms), partial
}

func readPorts(probs *problems, ports []api.EndpointPort) []namedPort {
	var out []namedPort
	for i, p := range ports {
		if p.Name == "" {
			continue
		}
		proto, ok := p.Protocol.Num()
		if !ok {
			probs.add(fmt.Sprintf("spec.ports[%d].protocol", i), "protocol %q is not known", p.Protocol.String())
			continue
		}
		out = append(out, namedPort{p.Name, proto, p.Port})
	}
	return out
}

func (g *Graph) setWorkload(key api.Key, o *api.WorkloadEndpoint) []Problem {
	var was thing
	id, there := g.things.find(key)
	if there {
		was = g.things.all[id]
	}
	if o == nil {
		g.things.remove(key)
		if there {
			g.routes.setForeign(id, nil)
		}
		g.moveRemote(id, was, 0, nil)
		g.endpoints.set(key, nil)
		return nil
	}
	probs := problems{key: key}
	s := &o.Spec
	spec := thingSpec{
		labels: ownLabels(&probs, o.Labels), profiles: s.Profiles, ports: readPorts(&probs, s.Ports), extra: make([][2]string, 0, 3),
	}
	spec.nets, spec.partial = readNets(&probs, "spec.ipNetworks", s.IPNetworks, s.Partial)
	spec.extra = append(spec.extra, [2]string{api.LabelNamespace, key.Namespace})
	if s.Orchestrator != "" {
		spec.extra = append(spec.extra, [2]string{api.LabelOrchestrator, s.Orchestrator})
	}
	if n := len(s.ServiceAccountName); n > 0 && n < maxServiceAccountLabel {
		spec.extra = append(spec.extra, [2]string{api.LabelServiceAccount, s.ServiceAccountName})
	}
	for i, t := range s.AllowSpoofedSourcePrefixes {
		if _, err := api.ParsePrefix(t); err != nil {
			probs.add(fmt.Sprintf("spec.allowSpoofedSourcePrefixes[%d]", i), "%v", err)
		}
	}
	id = g.things.set(key, spec)
	node := uint32(0)
	if s.Node != g.settings.base.NodeName {
		node = g.routes.names.hold(s.Node)
	}
	g.routes.setForeign(id, s.Foreign)
	g.moveRemote(id, was, node, g.things.all[id].gives.nets)
	g.things.all[id].node = node
	if node == 0 {
		g.endpoints.set(key, o)
	} else {
		g.endpoints.set(key, nil)
	}
	return probs.list
}

// moveRemote tells routes where the addresses of a workload are now. node is 0 for this one, which routes to what is
// plugged in; else it has been held.
func (g *Graph) moveRemote(id uint32, was thing, node uint32, nets []member) {
	if was.node != node || !slices.Equal(was.gives.nets, nets) {
		if was.node != 0 {
			g.routes.removeRemote(id, was.node, was.gives.nets)
		}
		if node != 0 {
			g.routes.addRemote(id, node, nets)
		}
	}
	if was.node != 0 {
		g.routes.names.drop(was.node)
	}
}

func (g *Graph) setHost(key api.Key, o *api.HostEndpoint) []Problem {
	if o == nil {
		g.things.remove(key)
		g.hosts.set(key.Name, nil)
		return nil
	}
	probs := problems{key: key}
	spec := thingSpec{labels: o.Labels, profiles: o.Spec.Profiles, ports: readPorts(&probs, o.Spec.Ports)}
	spec.nets, spec.partial = readNets(&probs, "spec.expectedIPs", o.Spec.ExpectedIPs, o.Spec.Partial)
	g.things.set(key, spec)
	if o.Spec.Node == g.settings.base.NodeName {
		g.hosts.set(key.Name, o)
	} else {
		g.hosts.set(key.Name, nil)
	}
	return probs.list
}
