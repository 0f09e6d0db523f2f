package api

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// effectless names a field that nothing follows from, or, with "", a whole kind.
type effectless struct {
	kind, path string // "spec.ports[].hostPort"
	reason     string
}

// The table is never written to.
var effectlessFields = []effectless{
	{"NetworkPolicy", "spec.performanceHints", "every node works out only the policies that it needs"},
	{"GlobalNetworkPolicy", "spec.performanceHints", "every node works out only the policies that it needs"},
	{"StagedNetworkPolicy", "spec.performanceHints", "every node works out only the policies that it needs"},
	{"StagedGlobalNetworkPolicy", "spec.performanceHints", "every node works out only the policies that it needs"},
	{"WorkloadEndpoint", "spec.qosControls", "rates and connections are not limited yet; chain the CNI project's bandwidth plugin"},
	{"WorkloadEndpoint", "spec.ports[].hostPort", "host ports are the portmap plugin's work"},
	{"WorkloadEndpoint", "spec.ports[].hostIP", "host ports are the portmap plugin's work"},
	{"Node", "spec.bgp.asNumber", "there is no BGP yet"},
	{"Node", "spec.bgp.routeReflectorClusterID", "there is no BGP yet"},
	{"Node", "spec.wireguard", "there is no WireGuard yet"},
	{"Node", "spec.orchRefs", "nodes are known by their names"},
	{"Node", "spec.interfaces", "a node finds its interfaces by itself"},
	{"IPPool", "spec.disableBGPExport", "there is no BGP yet"},
	{"BGPConfiguration", "", "there is no BGP yet: nodes of one network reach each other by routes that the agents make"},
	{"BGPPeer", "", "there is no BGP yet: nobody is peered with"},
	{"BGPFilter", "", "there is no BGP yet: no route is sent or taken"},
	{"KubeControllersConfiguration", "spec.etcdV3CompactionPeriod", "the store compacts by itself: tortie store --compaction"},
	{"KubeControllersConfiguration", "spec.prometheusMetricsPort", "tortie controllers --listen says where metrics are served"},
	{"KubeControllersConfiguration", "spec.debugProfilePort", "nothing serves profiles"},
	{"KubeControllersConfiguration", "spec.controllers.node.syncLabels", "nodes are read as they are"},
	{"KubeControllersConfiguration", "spec.controllers.policy", "policies of Kubernetes are read as they are"},
	{"KubeControllersConfiguration", "spec.controllers.workloadEndpoint", "pods are read as they are"},
	{"KubeControllersConfiguration", "spec.controllers.serviceAccount", "service accounts are read as they are"},
	{"KubeControllersConfiguration", "spec.controllers.namespace", "namespaces are read as they are"},
	{"KubeControllersConfiguration", "spec.controllers.loadBalancer", "services get no addresses of pools yet"},
	{"KubeControllersConfiguration", "spec.controllers.policyMigration", "tortie migrate calico gives policies the names that users know"},
	{"ClusterInformation", "", "it is kept for those who read it; Tortie looks at none of it"},
	{"CalicoNodeStatus", "", "there is no BGP yet: nobody fills in its status. See tortie status"},
}

// Warnings returns the fields of a valid object that are given but have no effect, or not the one that they ask for, with
// the reason; for a kind that has none as a whole, one Problem without a path.
func Warnings(o Object) []Problem {
	var out []Problem
	switch o := o.(type) {
	case *FelixConfiguration:
		return felixWarnings(o)
	case *IPPool:
		out = poolWarnings(o)
	}
	for _, e := range effectlessFields {
		switch {
		case e.kind != o.GetKind():
		case e.path == "":
			out = append(out, Problem{Reason: "has no effect: " + e.reason})
		default:
			given(reflect.ValueOf(o), nil, strings.Split(e.path, "."), func(p *field.Path) {
				out = append(out, Problem{p.String(), "has no effect: " + e.reason})
			})
		}
	}
	return out
}

// given calls found for each field at path below v that is not empty. A part of a path that ends in [] is a list.
func given(v reflect.Value, at *field.Path, path []string, found func(*field.Path)) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem() // of nil: no value, whose kind is Invalid
	}
	if v.Kind() != reflect.Struct {
		return
	}
	name, isList := strings.CutSuffix(path[0], "[]")
	index, ok := structFields(v.Type())[name]
	if !ok {
		return
	}
	v, at = v.FieldByIndex(index), at.Child(name)
	switch {
	case isList:
		for i := range v.Len() {
			given(v.Index(i), at.Index(i), path[1:], found)
		}
	case len(path) > 1:
		given(v, at, path[1:], found)
	case !v.IsZero():
		found(at)
	}
}

// Overlay says whether packets to the pool's addresses on other nodes are to go through tunnels, be it only beyond routers.
func (p *IPPool) Overlay() bool {
	return tunnels(p.Spec.IPIPMode) || tunnels(p.Spec.VXLANMode)
}

func tunnels(mode string) bool { return mode != "" && mode != "Never" }

func poolWarnings(p *IPPool) (out []Problem) {
	for _, f := range [][2]string{{"ipipMode", p.Spec.IPIPMode}, {"vxlanMode", p.Spec.VXLANMode}} {
		path := field.NewPath("spec", f[0]).String()
		switch {
		case f[1] == "CrossSubnet":
			out = append(out, Problem{path, "there are no tunnels yet: packets to nodes in other networks go nowhere"})
		case tunnels(f[1]):
			out = append(out, Problem{path, "there are no tunnels yet: packets to other nodes go nowhere. Never sends them through the nodes' network"})
		}
	}
	return out
}

func felixWarnings(c *FelixConfiguration) []Problem {
	var out []Problem
	spec := field.NewPath("spec")
	if _, selects := c.Spec["nodeSelector"]; !selects && felixRank(c) == someNodes && c.Name != "" {
		out = append(out, Problem{Reason: "has no effect: neither its name nor a nodeSelector says for which nodes it is"})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Spec)) {
		f, known := felixField(name)
		if known && f.Effect == Ignored && !f.asksNothing(c.Spec[name]) {
			out = append(out, Problem{spec.Child(name).String(), "has no effect: " + f.Reason})
		}
	}
	for _, pair := range [][2]string{
		{"allowVXLANPacketsFromWorkloads", "allowIPIPPacketsFromWorkloads"}, {"allowIPIPPacketsFromWorkloads", "allowVXLANPacketsFromWorkloads"},
	} {
		if said[bool](c, pair[0]) && !said[bool](c, pair[1]) {
			out = append(out, Problem{spec.Child(pair[0]).String(), "has no effect without " + pair[1] + ": workloads may send both kinds of tunnels or none"})
		}
	}
	return out
}

// asksNothing says whether a value asks for what Tortie does anyway.
func (f FelixField) asksNothing(v any) bool {
	switch v := v.(type) {
	case Duration:
		d, err := time.ParseDuration(f.same)
		return err == nil && time.Duration(v) == d
	case string:
		return v == "" || strings.EqualFold(v, f.same)
	case bool, int64:
		return fmt.Sprint(v) == f.same
	}
	x := reflect.ValueOf(v)
	return (x.Kind() == reflect.Slice || x.Kind() == reflect.Map) && x.Len() == 0
}

// CopyStatus gives to the status that from has. Both are of one kind. Whoever writes a spec that a user gave keeps the
// status that is stored: it belongs to those who report.
func CopyStatus(to, from Object) {
	dst, src := reflect.ValueOf(to).Elem(), reflect.ValueOf(DeepCopy(from)).Elem()
	if status := src.FieldByName("Status"); status.IsValid() && dst.Type() == src.Type() {
		dst.FieldByName("Status").Set(status)
	}
}
