//go:build e2e

package admission

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const api = "/apis/projectcalico.org/v3"

type object = map[string]any

// TestAdmission runs all on one server: to start it takes longer than the rest.
func TestAdmission(t *testing.T) {
	s := start(t)
	s.install(t)
	// The table has names of its own: nothing else is there yet.
	for _, ns := range []string{"prod", "dev"} {
		s.must(t, http.MethodPost, "/api/v1/namespaces", named(ns, nil))
	}
	s.inForce(t, "namespace-label", func() (int, answer) {
		o := calico("GlobalNetworkSet", "probe", object{})
		o["metadata"].(object)["labels"] = object{"projectcalico.org/namespace": "prod"}
		return s.do(t, admin, http.MethodPost, api+"/globalnetworksets?dryRun=All", o)
	})
	t.Run("good and bad objects", s.agreement)
	s.prepare(t)
	t.Run("tiers of policies", s.tierAccess)
	t.Run("built-in tiers", s.builtinTiers)
	t.Run("namespace label", s.namespaceLabel)
	t.Run("network sets", s.networkSets)
	t.Run("own node", s.ownNode)
	t.Run("what can't be changed", s.updates)
	t.Run("columns and fields", s.columns)
	t.Run("unknown fields", s.unknownFields)
}

func named(name string, more object) object {
	o := object{"metadata": object{"name": name}}
	for k, v := range more {
		o[k] = v
	}
	return o
}

func calico(kind, name string, spec object) object {
	return named(name, object{"apiVersion": "projectcalico.org/v3", "kind": kind, "spec": spec})
}

// inForce waits until an admission policy refuses something: the API server takes a while to notice one.
func (s *server) inForce(t *testing.T, policy string, probe func() (int, answer)) {
	t.Helper()
	s.wait(t, policy+" is in force", func() error {
		if code, a := probe(); !strings.Contains(a.message(), policy+".tortie.io") {
			return fmt.Errorf("%d %s", code, a.text)
		}
		return nil
	})
}

// prepare makes tiers, nodes and roles, and waits until the other admission policies are in force.
func (s *server) prepare(t *testing.T) {
	t.Helper()
	for name, order := range map[string]any{"security": 100, "platform": 200, "default": 1000000} {
		s.must(t, http.MethodPost, api+"/tiers", calico("Tier", name, object{"order": order, "defaultAction": "Deny"}))
	}
	for _, n := range []string{"n1", "n2"} {
		s.must(t, http.MethodPost, "/api/v1/nodes", node(n))
	}
	for _, r := range roles() {
		name := r["metadata"].(object)["name"].(string)
		s.must(t, http.MethodPost, paths["ClusterRole"], r)
		s.must(t, http.MethodPost, paths["ClusterRoleBinding"], binding(name, name))
	}
	s.must(t, http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/namespaces/prod/rolebindings", binding("editors", "tortie-policies-edit"))
	s.inForce(t, "builtin-tiers", func() (int, answer) { return s.do(t, admin, http.MethodDelete, api+"/tiers/default?dryRun=All", nil) })
	s.inForce(t, "tier-access", func() (int, answer) {
		return create("", "globalnetworkpolicies", "GlobalNetworkPolicy", "probe", "security")(t, s, user{name: "nobody", groups: []string{"writers"}})
	})
	s.inForce(t, "own-node", func() (int, answer) {
		return s.do(t, agent("n2"), http.MethodPatch, "/api/v1/nodes/n1?dryRun=All", object{"metadata": object{"annotations": object{"a": "b"}}})
	})
}

// node is one as a kubelet writes it.
func node(name string) object {
	return object{
		"metadata": object{"name": name, "labels": object{"kubernetes.io/hostname": name}, "finalizers": []string{"example.com/keep"}},
		"status": object{
			"capacity":        object{"cpu": "4", "memory": "8Gi"},
			"allocatable":     object{"cpu": "3800m", "memory": "7Gi"},
			"daemonEndpoints": object{"kubeletEndpoint": object{"Port": 10250}},
			"nodeInfo":        object{"kubeletVersion": "v1.32.0", "machineID": "m"},
			"images":          []object{{"names": []string{"example.com/a:1"}, "sizeBytes": 1000}},
		},
	}
}

func agent(node string) user {
	return user{name: "system:serviceaccount:tortie-system:tortie-agent", groups: []string{"system:serviceaccounts", "agents"}, node: node}
}

// roles are the permissions of the users of these tests, by group.
func roles() []object {
	kinds := []string{"networkpolicies", "globalnetworkpolicies", "stagednetworkpolicies", "stagedglobalnetworkpolicies"}
	var tiered []string
	for _, k := range kinds {
		tiered = append(tiered, "tier."+k)
	}
	all := []string{"*"}
	on := func(resources, names, verbs []string) object {
		r := object{"apiGroups": []string{"projectcalico.org"}, "resources": resources, "verbs": verbs}
		if names != nil {
			r["resourceNames"] = names
		}
		return r
	}
	role := func(name string, rules ...object) object { return named(name, object{"rules": rules}) }
	return []object{
		role("writers", on(kinds, nil, all)),
		role("security", on([]string{"tiers"}, []string{"security"}, []string{"get"}), on(tiered, []string{"security.*"}, all)),
		role("platform", on([]string{"tiers"}, []string{"platform"}, []string{"get"}), on(tiered, []string{"platform.*"}, all)),
		role("security-blind", on(tiered, []string{"security.*"}, all)),
		role("security-readers", on([]string{"tiers"}, []string{"security"}, []string{"get"}), on(tiered, []string{"security.*"}, []string{"get", "list", "watch"})),
		role("security-updaters", on([]string{"tiers"}, []string{"security"}, []string{"get"}), on(tiered, []string{"security.*"}, []string{"update"})),
		role("one-policy", on([]string{"tiers"}, []string{"security"}, []string{"get"}), on([]string{"tier.networkpolicies"}, []string{"security.web"}, all)),
		role("every-tier", on([]string{"tiers"}, nil, []string{"get"}), on(tiered, nil, all)),
		role("agents", object{"apiGroups": []string{""}, "resources": []string{"nodes", "nodes/status"}, "verbs": []string{"get", "patch"}}),
	}
}

// binding gives a role to the group of a name.
func binding(group, role string) object {
	return named(group, object{
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
		"subjects": []object{{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}},
	})
}

// tierCase is a request, and whether it is allowed.
type tierCase struct {
	name    string
	groups  []string
	do      func(t *testing.T, s *server, u user) (int, answer)
	refused string // part of the message; "" is allowed
}

func in(ns, kind string) string {
	if ns == "" {
		return api + "/" + kind
	}
	return api + "/namespaces/" + ns + "/" + kind
}

func create(ns, resource, kind, name, tier string) func(*testing.T, *server, user) (int, answer) {
	return func(t *testing.T, s *server, u user) (int, answer) {
		t.Helper()
		spec := object{}
		if tier != "" {
			spec["tier"] = tier
		}
		return s.do(t, u, http.MethodPost, in(ns, resource)+"?dryRun=All", calico(kind, name, spec))
	}
}

func patch(path, tier string) func(*testing.T, *server, user) (int, answer) {
	return func(t *testing.T, s *server, u user) (int, answer) {
		t.Helper()
		return s.do(t, u, http.MethodPatch, path+"?dryRun=All", object{"spec": object{"tier": tier, "order": 5}})
	}
}

func remove(path string) func(*testing.T, *server, user) (int, answer) {
	return func(t *testing.T, s *server, u user) (int, answer) {
		t.Helper()
		return s.do(t, u, http.MethodDelete, path+"?dryRun=All", nil)
	}
}

func (s *server) tierAccess(t *testing.T) {
	for _, p := range []object{calico("NetworkPolicy", "web", object{"tier": "security"}), calico("NetworkPolicy", "db", object{"tier": "security"}),
		calico("NetworkPolicy", "security.old", object{"tier": "security"}), calico("NetworkPolicy", "plain", object{})} {
		s.must(t, http.MethodPost, in("prod", "networkpolicies"), p)
	}
	s.must(t, http.MethodPost, in("", "globalnetworkpolicies"), calico("GlobalNetworkPolicy", "web", object{"tier": "security"}))
	const np, gnp = "networkpolicies", "globalnetworkpolicies"
	web := in("prod", np) + "/web"
	nobody, security := []string{"writers"}, []string{"writers", "security"}
	for _, c := range []tierCase{
		{"create in the tier", security, create("prod", np, "NetworkPolicy", "a", "security"), ""},
		{"create global", security, create("", gnp, "GlobalNetworkPolicy", "a", "security"), ""},
		{"create staged", security, create("prod", "stagednetworkpolicies", "StagedNetworkPolicy", "a", "security"), ""},
		{"create staged global", security, create("", "stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy", "a", "security"), ""},
		{"change", security, patch(web, "security"), ""},
		{"delete", security, remove(web), ""},
		{"delete global", security, remove(in("", gnp) + "/web"), ""},
		{"delete all of a namespace, of which one is another tier's", security, remove(in("prod", np)), "may not delete this policy of tier default"},
		{"create in another tier", security, create("prod", np, "NetworkPolicy", "a", "platform"), "may not create this policy in tier platform"},
		{"create in no tier", security, create("prod", np, "NetworkPolicy", "a", ""), "may not create this policy in tier default"},
		{"create in a tier that is not there", security, create("prod", np, "NetworkPolicy", "a", "other"), "may not create this policy in tier other"},
		{"without any tier", nobody, create("prod", np, "NetworkPolicy", "a", "security"), "user without any tier may not create this policy in tier security"},
		{"without any tier: global", nobody, create("", gnp, "GlobalNetworkPolicy", "a", "security"), "create on tier.globalnetworkpolicies.projectcalico.org security.* or security.a"},
		{"without any tier: staged", nobody, create("prod", "stagednetworkpolicies", "StagedNetworkPolicy", "a", "security"), "tier.stagednetworkpolicies"},
		{"without any tier: staged global", nobody, create("", "stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy", "a", "security"), "tier.stagedglobalnetworkpolicies"},
		{"without any tier: change", nobody, patch(web, "security"), "may not update this policy of tier security"},
		{"without any tier: delete", nobody, remove(web), "may not delete this policy of tier security"},
		{"without the kind itself", []string{"security"}, create("prod", np, "NetworkPolicy", "a", "security"), "cannot create resource \"networkpolicies\""},
		{"without seeing the tier", []string{"writers", "security-blind"}, create("prod", np, "NetworkPolicy", "a", "security"), "takes get on tiers security"},
		{"readers don't create", []string{"writers", "security-readers"}, create("prod", np, "NetworkPolicy", "a", "security"), "may not create"},
		{"readers don't change", []string{"writers", "security-readers"}, patch(web, "security"), "may not update"},
		{"updaters change", []string{"writers", "security-updaters"}, patch(web, "security"), ""},
		{"updaters don't create", []string{"writers", "security-updaters"}, create("prod", np, "NetworkPolicy", "a", "security"), "may not create"},
		{"updaters don't delete", []string{"writers", "security-updaters"}, remove(web), "may not delete"},
		{"one policy: change", []string{"writers", "one-policy"}, patch(web, "security"), ""},
		{"one policy: another", []string{"writers", "one-policy"}, patch(in("prod", np)+"/db", "security"), "may not update this policy of tier security"},
		{"one policy: global of that name", []string{"writers", "one-policy"}, patch(in("", gnp)+"/web", "security"), "tier.globalnetworkpolicies"},
		{"one policy: create another", []string{"writers", "one-policy"}, create("prod", np, "NetworkPolicy", "web2", "security"), "may not create"},
		{"tier in the name: all of the tier", security, patch(in("prod", np)+"/security.old", "security"), ""},
		{"tier in the name: one policy", []string{"writers", "one-policy"}, create("dev", np, "NetworkPolicy", "security.web", "security"), ""},
		{"move away, one tier only", security, patch(web, "platform"), "may not create this policy in tier platform"},
		{"move in, one tier only", []string{"writers", "platform"}, patch(web, "platform"), "may not delete this policy of tier security"},
		{"move, both tiers", []string{"writers", "security", "platform"}, patch(web, "platform"), ""},
		{"move, but for updaters", []string{"writers", "security-updaters", "platform"}, patch(web, "platform"), "may not delete this policy of tier security"},
		{"controller: namespace-controller", nil, remove(web), ""},
		{"controller: generic-garbage-collector", nil, remove(in("", gnp) + "/web"), ""},
		{"every tier", []string{"writers", "every-tier"}, patch(web, "default"), ""},
		{"editors of a namespace, default tier", []string{"editors"}, create("prod", np, "NetworkPolicy", "a", ""), ""},
		{"editors of a namespace, by name", []string{"editors"}, create("prod", np, "NetworkPolicy", "a", "default"), ""},
		{"editors of a namespace, change", []string{"editors"}, patch(in("prod", np)+"/plain", "default"), ""},
		{"editors of a namespace, delete", []string{"editors"}, remove(in("prod", np) + "/plain"), ""},
		{"editors of a namespace, another tier", []string{"editors"}, create("prod", np, "NetworkPolicy", "a", "security"), "may not create this policy in tier security"},
		{"editors of a namespace, into another tier", []string{"editors"}, patch(in("prod", np)+"/plain", "security"), "may not create this policy in tier security"},
		{"editors of a namespace, policy of another tier", []string{"editors"}, remove(web), "may not delete this policy of tier security"},
		{"editors of a namespace, another namespace", []string{"editors"}, create("dev", np, "NetworkPolicy", "a", ""), "cannot create resource \"networkpolicies\""},
		{"writers everywhere, editors of one namespace", []string{"writers", "editors"}, create("dev", np, "NetworkPolicy", "a", ""), "may not create this policy in tier default"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := user{name: c.name, groups: c.groups}
			if name, ok := strings.CutPrefix(c.name, "controller: "); ok {
				u.name = "system:serviceaccount:kube-system:" + name
			}
			code, a := c.do(t, s, u)
			expect(t, code, a, c.refused)
		})
	}
}

// expect compares an answer with part of a refusal's message; "" is what is allowed.
func expect(t *testing.T, code int, a answer, refused string) {
	t.Helper()
	switch {
	case refused == "" && code >= 300:
		t.Errorf("refused: %d %s", code, a.text)
	case refused != "" && code < 300:
		t.Errorf("allowed; want a refusal with %q", refused)
	case refused != "" && !strings.Contains(a.message(), refused):
		t.Errorf("%d %s; want %q in the message", code, a.text, refused)
	}
}

func (s *server) builtinTiers(t *testing.T) {
	for _, name := range []string{"kube-admin", "kube-baseline"} {
		order := map[string]any{"kube-admin": 1000, "kube-baseline": 10000000}[name]
		s.must(t, http.MethodPost, api+"/tiers", calico("Tier", name, object{"order": order, "defaultAction": "Pass"}))
	}
	for _, name := range []string{"default", "kube-admin", "kube-baseline"} {
		code, a := s.do(t, admin, http.MethodDelete, api+"/tiers/"+name, nil)
		expect(t, code, a, "the tier "+name+" is in every cluster")
		code, a = s.do(t, admin, http.MethodPatch, api+"/tiers/"+name, object{"spec": object{"order": 7}})
		expect(t, code, a, "the tier "+name+" has order")
		code, a = s.do(t, admin, http.MethodPatch, api+"/tiers/"+name, object{"metadata": object{"labels": object{"a": "b"}}})
		expect(t, code, a, "")
	}
	code, a := s.do(t, admin, http.MethodDelete, api+"/tiers", nil)
	expect(t, code, a, "is in every cluster")
	s.must(t, http.MethodPost, api+"/tiers", calico("Tier", "short-lived", object{}))
	code, a = s.do(t, admin, http.MethodPatch, api+"/tiers/short-lived", object{"spec": object{"order": 7}})
	expect(t, code, a, "")
	code, a = s.do(t, admin, http.MethodDelete, api+"/tiers/short-lived", nil)
	expect(t, code, a, "")
}

func (s *server) namespaceLabel(t *testing.T) {
	const refused = "is given by the namespace of an object"
	for _, c := range []struct {
		name, ns, resource, kind string
		spec                     object
		label                    any // nil is none
		refused                  string
	}{
		{"set without", "prod", "networksets", "NetworkSet", object{}, nil, ""},
		{"set of its own namespace", "prod", "networksets", "NetworkSet", object{}, "prod", ""},
		{"set of another namespace", "prod", "networksets", "NetworkSet", object{}, "dev", refused},
		{"set, empty", "prod", "networksets", "NetworkSet", object{}, "", refused},
		{"global set without", "", "globalnetworksets", "GlobalNetworkSet", object{}, nil, ""},
		{"global set", "", "globalnetworksets", "GlobalNetworkSet", object{}, "prod", refused},
		{"global set, empty", "", "globalnetworksets", "GlobalNetworkSet", object{}, "", refused},
		{"host endpoint without", "", "hostendpoints", "HostEndpoint", object{"node": "n1", "interfaceName": "*"}, nil, ""},
		{"host endpoint", "", "hostendpoints", "HostEndpoint", object{"node": "n1", "interfaceName": "*"}, "prod", refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := calico(c.kind, "probe", c.spec)
			if c.label != nil {
				o["metadata"].(object)["labels"] = object{"projectcalico.org/namespace": c.label}
			}
			code, a := s.do(t, admin, http.MethodPost, in(c.ns, c.resource)+"?dryRun=All", o)
			expect(t, code, a, c.refused)
		})
	}
	s.must(t, http.MethodPost, api+"/globalnetworksets", calico("GlobalNetworkSet", "office", object{}))
	code, a := s.do(t, admin, http.MethodPatch, api+"/globalnetworksets/office", object{"metadata": object{"labels": object{"projectcalico.org/namespace": "prod"}}})
	expect(t, code, a, refused)
}

// networkSets: one of any namespace is meant by the rules of global policies, so editors of a namespace don't write any.
func (s *server) networkSets(t *testing.T) {
	sets := in("prod", "networksets")
	s.must(t, http.MethodPost, sets, calico("NetworkSet", "partners", object{"nets": []string{"198.51.100.0/24"}}))
	wider := object{"spec": object{"nets": []string{"0.0.0.0/0"}}}
	editor := user{name: "editor", groups: []string{"editors"}}
	for _, c := range []struct {
		name    string
		u       user
		method  string
		path    string
		body    any
		refused string
	}{
		{"editors don't create", editor, http.MethodPost, sets, calico("NetworkSet", "all", object{"nets": []string{"0.0.0.0/0"}}), "cannot create resource \"networksets\""},
		{"editors don't change", editor, http.MethodPatch, sets + "/partners", wider, "cannot patch resource \"networksets\""},
		{"editors don't delete", editor, http.MethodDelete, sets + "/partners", nil, "cannot delete resource \"networksets\""},
		{"administrators create", admin, http.MethodPost, sets, calico("NetworkSet", "all", object{"nets": []string{"0.0.0.0/0"}}), ""},
		{"administrators change", admin, http.MethodPatch, sets + "/partners", wider, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, a := s.do(t, c.u, c.method, c.path+"?dryRun=All", c.body)
			expect(t, code, a, c.refused)
			if c.refused != "" && code != http.StatusForbidden {
				t.Errorf("%d %s", code, a.text)
			}
		})
	}
}

func (s *server) ownNode(t *testing.T) {
	annotate := object{"metadata": object{"annotations": object{"projectcalico.org/IPv4Address": "192.0.2.1/24"}}}
	ready := object{"status": object{"conditions": []object{{"type": "NetworkUnavailable", "status": "False"}}}}
	other := user{name: "other", groups: []string{"agents"}}
	const refused, spec, status = "writes to no other node", "nothing of its node's metadata and spec but annotations", "nothing of its node's status but"
	labels := object{"metadata": object{"labels": object{"node-restriction.kubernetes.io/zone": "a"}}}
	owners := object{"metadata": object{"ownerReferences": []object{{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "1"}}}}
	finalizers := object{"metadata": object{"finalizers": []string{"example.com/keep", "example.com/more"}}}
	said := func(field string, value any) object { return object{"status": object{field: value}} }
	for _, c := range []struct {
		name, path string
		u          user
		body       object
		refused    string
	}{
		{"own", "n1", agent("n1"), annotate, ""},
		{"own status", "n1/status", agent("n1"), ready, ""},
		{"another", "n2", agent("n1"), annotate, refused},
		{"status of another", "n2/status", agent("n1"), ready, refused},
		{"token without a node", "n1", agent(""), annotate, refused},
		{"somebody else", "n2", other, annotate, ""},
		{"own labels", "n1", agent("n1"), labels, spec},
		{"own labels, with its status", "n1/status", agent("n1"), labels, spec},
		{"own taints", "n1", agent("n1"), object{"spec": object{"taints": []object{{"key": "a", "effect": "NoExecute"}}}}, spec},
		{"own unschedulable", "n1", agent("n1"), object{"spec": object{"unschedulable": true}}, spec},
		{"own readiness", "n1/status", agent("n1"), object{"status": object{"conditions": []object{{"type": "Ready", "status": "True"}}}}, status},
		{"own address", "n1/status", agent("n1"), object{"status": object{"addresses": []object{{"type": "InternalIP", "address": "192.0.2.9"}}}}, status},
		{"own labels, none", "n1", agent("n1"), object{"metadata": object{"labels": nil}}, spec},
		{"own owners", "n1", agent("n1"), owners, spec},
		{"own owners, with its status", "n1/status", agent("n1"), owners, spec},
		{"own finalizers", "n1", agent("n1"), finalizers, spec},
		{"own finalizers, with its status", "n1/status", agent("n1"), finalizers, spec},
		{"own finalizers, none", "n1", agent("n1"), object{"metadata": object{"finalizers": nil}}, spec},
		{"own capacity", "n1/status", agent("n1"), said("capacity", object{"example.com/gpu": "8"}), status},
		{"own allocatable", "n1/status", agent("n1"), said("allocatable", object{"cpu": "4"}), status},
		{"own allocatable, none", "n1/status", agent("n1"), said("allocatable", nil), status},
		{"own kubelet's port", "n1/status", agent("n1"), said("daemonEndpoints", object{"kubeletEndpoint": object{"Port": 1}}), status},
		{"own info", "n1/status", agent("n1"), said("nodeInfo", object{"kubeletVersion": "v9"}), status},
		{"own images", "n1/status", agent("n1"), said("images", []object{{"names": []string{"example.com/a:2"}}}), status},
		{"own volumes", "n1/status", agent("n1"), said("volumesAttached", []object{{"name": "a", "devicePath": "/dev/a"}}), status},
		{"own volumes in use", "n1/status", agent("n1"), said("volumesInUse", []string{"a"}), status},
		{"own runtimes", "n1/status", agent("n1"), said("runtimeHandlers", []object{{"name": "a"}}), status},
		{"own phase", "n1/status", agent("n1"), said("phase", "Running"), status},
		{"somebody else's labels", "n2", other, labels, ""},
		{"somebody else's owners", "n2", other, owners, ""},
		{"somebody else's capacity", "n2/status", other, said("capacity", object{"example.com/gpu": "8"}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, a := s.do(t, c.u, http.MethodPatch, "/api/v1/nodes/"+c.path+"?dryRun=All", c.body)
			expect(t, code, a, c.refused)
		})
	}
}

// updates: the rules with oldSelf, of which api/crdgen has the whole table.
func (s *server) updates(t *testing.T) {
	s.must(t, http.MethodPost, api+"/ippools", calico("IPPool", "pool", object{"cidr": "10.65.0.0/16"}))
	for _, c := range []struct {
		name    string
		spec    object
		refused string
	}{
		{"range", object{"cidr": "10.66.0.0/16"}, "cidr can't be changed"},
		{"block size", object{"blockSize": 28}, "blockSize can't be changed"},
		{"block size as it is", object{"blockSize": 26}, ""},
		{"the rest", object{"disabled": true, "vxlanMode": "Always"}, ""},
		{"both encapsulations", object{"ipipMode": "Always", "vxlanMode": "Always"}, "ipipMode can't be combined with vxlanMode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, a := s.do(t, admin, http.MethodPatch, api+"/ippools/pool?dryRun=All", object{"spec": c.spec})
			expect(t, code, a, c.refused)
		})
	}
	// The status is written by itself, and nothing of the spec with it.
	code, a := s.do(t, admin, http.MethodPatch, api+"/ippools/pool/status", object{"spec": object{"disabled": true}, "status": object{"conditions": []object{}, "more": 1}})
	expect(t, code, a, "")
	if spec, _ := a.object["spec"].(object); spec["disabled"] != nil {
		t.Errorf("a write of the status has changed the spec: %v", spec)
	}
	if a.object["status"] == nil {
		t.Error("the status has not been written")
	}
}

// unknownFields: fields that a schema does not have are refused if the client asks for it, as kubectl does, and else taken
// away: docs/kubernetes-crds.md warns of that.
func (s *server) unknownFields(t *testing.T) {
	rule := func() object { return object{"action": "Allow", "source": object{"selectr": "role == 'web'"}} }
	policy := func() object { return calico("NetworkPolicy", "typo", object{"ingress": []object{rule()}, "more": 1}) }
	path := in("prod", "networkpolicies") + "?dryRun=All"
	code, a := s.do(t, admin, http.MethodPost, path+"&fieldValidation=Strict", policy())
	expect(t, code, a, `unknown field "spec.ingress[0].source.selectr"`)
	for _, query := range []string{"", "&fieldValidation=Warn", "&fieldValidation=Ignore"} {
		code, a := s.do(t, admin, http.MethodPost, path+query, policy())
		expect(t, code, a, "")
		spec, _ := a.object["spec"].(object)
		want := []any{object{"action": "Allow", "source": object{}}}
		if d := cmp.Diff(want, spec["ingress"]); d != "" || spec["more"] != nil {
			t.Errorf("%q: %s, more: %v", query, d, spec["more"])
		}
	}
}

// columns: what kubectl get shows, and what it can select by.
func (s *server) columns(t *testing.T) {
	code, a := s.do(t, admin, http.MethodGet, api+"/networkpolicies?fieldSelector=spec.tier%3Dsecurity", nil)
	expect(t, code, a, "")
	items, _ := a.object["items"].([]any)
	if len(items) != 3 {
		t.Errorf("%d policies are in tier security, want 3: %s", len(items), a.text)
	}
	if errs := errors.Join(s.discovered(t, "networkpolicies", "cnp"), s.discovered(t, "globalnetworkpolicies", "gnp")); errs != nil {
		t.Error(errs)
	}
}

func (s *server) discovered(t *testing.T, plural, short string) error {
	t.Helper()
	code, a := s.do(t, admin, http.MethodGet, api, nil)
	expect(t, code, a, "")
	list, _ := a.object["resources"].([]any)
	for _, r := range list {
		o, _ := r.(object)
		if o["name"] != plural {
			continue
		}
		names, _ := o["shortNames"].([]any)
		for _, n := range names {
			if n == short {
				return nil
			}
		}
		return fmt.Errorf("%s has the short names %v, want %s among them", plural, names, short)
	}
	return fmt.Errorf("%s is not served", plural)
}
