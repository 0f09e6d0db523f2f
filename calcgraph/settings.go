package calcgraph

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// settings lays the FelixConfigurations that concern this node over its Config.
type settings struct {
	base    Config
	objects map[string]*api.FelixConfiguration
	labels  map[string]string // of the Node resource
	ifaces  []drivers.HostIface
	stale   bool

	said *api.NodeSettings // what they say; another pointer if it is something else
	now  Config
	bad  []Problem
}

func newSettings(c Config) *settings {
	return &settings{base: c, objects: map[string]*api.FelixConfiguration{}, said: &api.NodeSettings{}, now: c.with(&api.NodeSettings{})}
}

// set takes in a FelixConfiguration; nil if it is gone.
func (s *settings) set(name string, o *api.FelixConfiguration) {
	if o == nil {
		delete(s.objects, name)
	} else {
		s.objects[name] = o
	}
	s.stale = true
}

// setNode takes in this node's Node resource; nil if it is gone.
func (s *settings) setNode(o *api.Node) {
	var labels map[string]string
	if o != nil {
		labels = o.Labels
	}
	if !maps.Equal(s.labels, labels) {
		s.labels, s.stale = labels, true
	}
}

// setHost takes in the interfaces of the host.
func (s *settings) setHost(ifaces []drivers.HostIface) {
	s.ifaces = ifaces
	s.stale = s.stale || len(s.objects) > 0
}

// resolve brings said and now up to date, and reports whether now is different.
func (s *settings) resolve() bool {
	if !s.stale {
		return false
	}
	s.stale, s.bad = false, nil
	all := slices.Collect(maps.Values(s.objects))
	layers := api.FelixLayers(s.base.NodeName, s.labels, all)
	for _, c := range layers {
		for _, p := range api.FelixErrors(c) {
			s.bad = append(s.bad, Problem{Key: felixKey(c.Name), Field: p.Path, Reason: "does not count: " + p.Reason})
		}
	}
	felix := api.FelixFor(s.base.NodeName, s.labels, all)
	for name, where := range s.base.Fixed {
		if _, said := felix.Spec[name]; !said {
			continue
		}
		delete(felix.Spec, name)
		for _, c := range layers {
			if _, said := c.Spec[name]; said {
				s.bad = append(s.bad, Problem{Key: felixKey(c.Name), Field: "spec." + name,
					Reason: "does not count on node " + s.base.NodeName + ": " + where + " in the agent's own configuration comes first"})
			}
		}
	}
	said, _ := api.FelixSettings(felix) // what has no effect by itself was said when it was written
	said.WorkloadPrefixes = slices.DeleteFunc(said.WorkloadPrefixes, func(p string) bool {
		return s.cutsOff(p, layers)
	})
	if reflect.DeepEqual(*s.said, said) {
		return false
	}
	s.said, s.now = &said, s.base.with(&said)
	return true
}

// cutsOff reports whether an interface by which others may reach this node begins with prefix: were it taken for a
// workload's, nothing could reach the node any more, not even the next change of the setting. The host's side of a
// workload's interface has no address but a link-local one.
func (s *settings) cutsOff(prefix string, layers []*api.FelixConfiguration) bool {
	own := func(p netip.Prefix) bool { return !p.Addr().IsLinkLocalUnicast() }
	for _, i := range s.ifaces {
		if !strings.HasPrefix(i.Name, prefix) || !slices.ContainsFunc(i.Addrs, own) {
			continue
		}
		for _, c := range layers {
			if _, said := c.Spec["interfacePrefix"]; said {
				s.bad = append(s.bad, Problem{Key: felixKey(c.Name), Field: "spec.interfacePrefix",
					Reason: fmt.Sprintf("%q does not count on node %s: so begins %s, which has an address of the host", prefix, s.base.NodeName, i.Name)})
			}
		}
		return true
	}
	return false
}

func felixKey(name string) api.Key { return api.Key{Kind: "FelixConfiguration", Name: name} }
