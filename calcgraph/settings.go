package calcgraph

import (
	"maps"
	"reflect"
	"slices"

	"github.com/tortie/tortie/api"
)

// settings lays the FelixConfigurations that concern this node over its Config.
type settings struct {
	base    Config
	objects map[string]*api.FelixConfiguration
	labels  map[string]string // of the Node resource
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
	if reflect.DeepEqual(*s.said, said) {
		return false
	}
	s.said, s.now = &said, s.base.with(&said)
	return true
}

func felixKey(name string) api.Key { return api.Key{Kind: "FelixConfiguration", Name: name} }
