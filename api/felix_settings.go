package api

import (
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/api/selector"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// DefaultConfiguration is the name of the FelixConfiguration or BGPConfiguration that is for all nodes.
	DefaultConfiguration = "default"
	nodePrefix           = "node."
	minResync            = time.Second
)

// NodeSettings is what FelixConfigurations say to the agent of a node. The zero value of a field says nothing: the
// agent's own configuration holds.
type NodeSettings struct {
	EndpointToHost          string     // Drop, Accept or Return
	FailsafeIn, FailsafeOut []Failsafe // empty, but not nil: none at all
	WorkloadPrefixes        []string   // beside Tortie's own
	AllowEncapFromWorkloads *bool
	SourceSpoofing          string // Disabled or Any
	FloatingIPs             string // Enabled or Disabled
	VXLANPort               uint16
	ResyncInterval          *time.Duration // 0 = never
	LogLevel                *slog.Level
}

// FelixFor lays the FelixConfigurations that concern a node over one another (see FelixLayers). Settings that are not
// valid do not count: the one below shows.
func FelixFor(node string, labels map[string]string, all []*FelixConfiguration) *FelixConfiguration {
	out := &FelixConfiguration{Spec: FelixConfigurationSpec{}}
	out.Name = nodePrefix + node
	for _, c := range FelixLayers(node, labels, all) {
		for name := range c.Spec {
			if _, said := out.Spec[name]; !said && name != "nodeSelector" && validSetting(c, name) {
				out.Spec[name] = c.Spec[name]
			}
		}
	}
	return out
}

// FelixLayers returns those FelixConfigurations that count on a node, the strongest first: what is said for the node
// itself, then what is said for nodes with its labels, then "default". Of several that select the node only the oldest
// counts, so that one which somebody makes by mistake does no harm.
func FelixLayers(node string, labels map[string]string, all []*FelixConfiguration) []*FelixConfiguration {
	var layers []*FelixConfiguration
	for _, c := range all {
		if felixConcerns(c, node, labels) {
			layers = append(layers, c)
		}
	}
	slices.SortFunc(layers, compareFelix)
	selecting := 0
	return slices.DeleteFunc(layers, func(c *FelixConfiguration) bool {
		if felixRank(c) == someNodes {
			selecting++
		}
		return felixRank(c) == someNodes && selecting > 1
	})
}

func felixConcerns(c *FelixConfiguration, node string, labels map[string]string) bool {
	if felixRank(c) != someNodes {
		return c.Name == DefaultConfiguration || c.Name == nodePrefix+node
	}
	s, ok := c.Spec["nodeSelector"].(string)
	if !ok || !validSetting(c, "nodeSelector") {
		return false
	}
	parsed, err := selector.Parse(s)
	return err == nil && parsed.Matches(selector.Map(labels))
}

// Which nodes a FelixConfiguration is for, by its name. Lower wins.
const (
	oneNode = iota
	someNodes
	allNodes
)

func felixRank(c *FelixConfiguration) int {
	switch {
	case strings.HasPrefix(c.Name, nodePrefix):
		return oneNode
	case c.Name == DefaultConfiguration:
		return allNodes
	}
	return someNodes
}

func compareFelix(a, b *FelixConfiguration) int {
	switch {
	case felixRank(a) != felixRank(b):
		return felixRank(a) - felixRank(b)
	case !a.CreationTimestamp.Equal(&b.CreationTimestamp):
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	}
	return strings.Compare(a.Name, b.Name)
}

func validSetting(c *FelixConfiguration, name string) bool {
	check := &checker{}
	check.felixSetting(name, c.Spec[name], field.NewPath("spec"))
	return len(check.errs) == 0
}

// FelixErrors returns the settings of c that are not valid, or that Tortie refuses: they do not count.
func FelixErrors(c *FelixConfiguration) []Problem {
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(c.Spec)) {
		check := &checker{}
		check.felixSetting(name, c.Spec[name], field.NewPath("spec"))
		for _, e := range check.errs {
			problems = append(problems, Problem{clip(e.Field), clip(e.ErrorBody())})
		}
	}
	return problems
}

// FelixSettings returns what a FelixConfiguration says to an agent, and each setting of it that has no effect, with the
// reason. A setting that is not valid is one of those.
func FelixSettings(c *FelixConfiguration) (NodeSettings, []Problem) {
	valid := &FelixConfiguration{Spec: FelixConfigurationSpec{}}
	for name, v := range c.Spec {
		if validSetting(c, name) {
			valid.Spec[name] = v
		}
	}
	defaultFelix(valid)
	s := NodeSettings{
		EndpointToHost: said[string](valid, "defaultEndpointToHostAction"),
		FailsafeIn:     failsafes(valid, "failsafeInboundHostPorts"),
		FailsafeOut:    failsafes(valid, "failsafeOutboundHostPorts"),
		FloatingIPs:    said[string](valid, "floatingIPs"),
		SourceSpoofing: said[string](valid, "workloadSourceSpoofing"),
		VXLANPort:      uint16(said[int64](valid, "vxlanPort")),
		ResyncInterval: resync(valid),
		LogLevel:       logLevel(said[string](valid, "logSeverityScreen")),
	}
	if prefixes := said[string](valid, "interfacePrefix"); prefixes != "" {
		s.WorkloadPrefixes = strings.Split(prefixes, ",")
	}
	s.AllowEncapFromWorkloads = allowEncap(valid)
	return s, append(FelixErrors(c), Warnings(valid)...)
}

// said returns the zero value if nothing is said.
func said[T any](c *FelixConfiguration, name string) T {
	v, _ := c.Spec[name].(T)
	return v
}

func failsafes(c *FelixConfiguration, name string) []Failsafe {
	ports, ok := c.Spec[name].([]ProtoPort)
	if !ok {
		return nil
	}
	out := make([]Failsafe, 0, len(ports))
	for _, p := range ports {
		out = append(out, p.failsafe())
	}
	return out
}

// allowEncap: Tortie lets workloads send both kinds of tunnels or none. What allows only one of them allows none.
func allowEncap(c *FelixConfiguration) *bool {
	vxlan, ok1 := c.Spec["allowVXLANPacketsFromWorkloads"].(bool)
	ipip, ok2 := c.Spec["allowIPIPPacketsFromWorkloads"].(bool)
	if !ok1 && !ok2 {
		return nil
	}
	both := vxlan && ipip
	return &both
}

// resync: one round compares all that Felix refreshes one by one. It never takes place if all that is said is 0.
func resync(c *FelixConfiguration) *time.Duration {
	var shortest *time.Duration
	for _, name := range []string{"routeRefreshInterval", "nftablesRefreshInterval", "iptablesRefreshInterval", "ipsetsRefreshInterval"} {
		d, ok := c.Spec[name].(Duration)
		if !ok {
			continue
		}
		interval := time.Duration(d)
		if interval > 0 {
			interval = max(interval, minResync)
		}
		if shortest == nil || *shortest == 0 || interval > 0 && interval < *shortest {
			shortest = &interval
		}
	}
	return shortest
}

func logLevel(severity string) *slog.Level {
	level, ok := map[string]slog.Level{"Trace": slog.LevelDebug, "Debug": slog.LevelDebug, "Info": slog.LevelInfo, "Warning": slog.LevelWarn,
		"Error": slog.LevelError, "Fatal": slog.LevelError}[severity]
	if !ok {
		return nil
	}
	return &level
}

func defaultFelix(c *FelixConfiguration) {
	for name, v := range c.Spec {
		if f, ok := felixField(name); ok && f.typ.canon != nil {
			c.Spec[name] = f.typ.canon(v)
		}
	}
}

func (c *checker) felix(o *FelixConfiguration, p *field.Path) {
	for _, name := range slices.Sorted(maps.Keys(o.Spec)) {
		c.felixSetting(name, o.Spec[name], p)
	}
	if _, selects := o.Spec["nodeSelector"]; selects && felixRank(o) != someNodes {
		c.forbidden(p.Child("nodeSelector"), "the name %s says already which nodes it is for", o.Name)
	}
	_, one := o.Spec["routeTableRange"]
	if _, many := o.Spec["routeTableRanges"]; one && many {
		c.forbidden(p.Child("routeTableRange"), "routeTableRanges has taken its place; give only that")
	}
}

func (c *checker) felixSetting(name string, v any, spec *field.Path) {
	p := spec.Child(name)
	f, ok := felixField(name)
	switch {
	case !ok:
		c.forbidden(p, "is not a setting%s", didYouMean(name, felixIndex))
		return
	case f.typ.goType != reflect.TypeOf(v):
		c.invalid(p, fmt.Sprint(v), "must be %s", f.Values)
		return
	case f.typ.check != nil:
		before := len(c.errs)
		f.typ.check(c, p, v)
		if len(c.errs) > before {
			return
		}
	}
	if f.Effect == Refused && !f.asksNothing(v) {
		c.forbidden(p, "%s", f.Reason)
	}
}
