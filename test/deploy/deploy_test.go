// Package deploy tests deploy/tortie.yaml: that a server would take every object for what it says, and that nothing in it
// may do more than it must. That it is what the Helm chart renders is tested in test/helm; that it works, in test/e2e.
package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	kyaml "sigs.k8s.io/yaml"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/api"
)

const (
	root      = "../../"
	namespace = "tortie-system"
)

// object is what every object has.
type object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	raw               []byte
}

// read reads the objects of a file.
func read(t *testing.T, path string) (out []object) {
	t.Helper()
	f, err := os.Open(root + path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := yaml.NewDecoder(f); ; {
		var doc any
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		raw, err := yaml.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		o := object{raw: raw}
		if err := kyaml.Unmarshal(raw, &o); err != nil || o.Kind == "" || o.Name == "" {
			t.Fatalf("%s: %v: %.100s", path, err, raw)
		}
		out = append(out, o)
	}
}

// manifest is deploy/tortie.yaml by "Kind/name". Two objects with one name would be an error.
func manifest(t *testing.T) map[string]object {
	t.Helper()
	out := map[string]object{}
	for _, o := range read(t, "deploy/tortie.yaml") {
		id := o.Kind + "/" + o.Name
		if _, twice := out[id]; twice {
			t.Errorf("%s is there twice", id)
		}
		out[id] = o
	}
	return out
}

// decode reads an object as the type that it must be. An unknown field is a mistake.
func decode[T any](t *testing.T, m map[string]object, id string) (v T) {
	t.Helper()
	o, ok := m[id]
	if !ok {
		t.Fatalf("no %s", id)
	}
	if err := kyaml.UnmarshalStrict(o.raw, &v); err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return v
}

// TestObjects: everything is there, and of the versions of the API that clusters serve.
func TestObjects(t *testing.T) {
	m := manifest(t)
	var got []string
	for _, o := range parts(t) {
		delete(m, o.Kind+"/"+o.Name) // they have files of their own, with tests of their own
	}
	for id, o := range m {
		if strings.HasPrefix(o.Kind, "Cluster") != (o.Namespace == "") && o.Kind != "Namespace" || o.Namespace != "" && o.Namespace != namespace {
			t.Errorf("%s is in the namespace %q", id, o.Namespace)
		}
		got = append(got, o.APIVersion+" "+id)
	}
	slices.Sort(got)
	want := []string{
		"apps/v1 DaemonSet/tortie-agent",
		"apps/v1 Deployment/tortie-controllers",
		"rbac.authorization.k8s.io/v1 ClusterRole/tortie-agent",
		"rbac.authorization.k8s.io/v1 ClusterRole/tortie-controllers",
		"rbac.authorization.k8s.io/v1 ClusterRoleBinding/tortie-agent",
		"rbac.authorization.k8s.io/v1 ClusterRoleBinding/tortie-controllers",
		"rbac.authorization.k8s.io/v1 Role/tortie-controllers",
		"rbac.authorization.k8s.io/v1 RoleBinding/tortie-controllers",
		"v1 ConfigMap/tortie-config",
		"v1 Namespace/tortie-system",
		"v1 ServiceAccount/tortie-agent",
		"v1 ServiceAccount/tortie-controllers",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, component := range []string{"agent", "controllers"} {
		id := "/tortie-" + component
		decode[corev1.ServiceAccount](t, m, "ServiceAccount"+id)
		b := decode[rbacv1.ClusterRoleBinding](t, m, "ClusterRoleBinding"+id)
		want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "tortie-" + component, Namespace: namespace}}
		if d := cmp.Diff(want, b.Subjects); d != "" || b.RoleRef.Name != "tortie-"+component {
			t.Errorf("%s: %s", id, d)
		}
	}
}

// TestParts: what has files of its own is in the manifest as it is there, and nothing is missing.
func TestParts(t *testing.T) {
	m := manifest(t)
	var kinds []string
	for _, o := range parts(t) {
		id := o.Kind + "/" + o.Name
		if !bytes.Equal(o.raw, m[id].raw) {
			t.Errorf("%s has changed; in test/helm: go test ./... -update", id)
		}
		if plural, group, _ := strings.Cut(o.Name, "."); o.Kind == "CustomResourceDefinition" && group == "projectcalico.org" {
			kinds = append(kinds, plural)
		}
	}
	// What agents and controllers read is what there is.
	slices.Sort(kinds)
	for _, role := range []string{"ClusterRole/tortie-agent", "ClusterRole/tortie-controllers"} {
		read := allowed(decode[rbacv1.ClusterRole](t, m, role).Rules, "projectcalico.org", "watch")
		if d := cmp.Diff(kinds, read); d != "" {
			t.Errorf("%s may read: %s", role, d)
		}
	}
}

// parts are the objects that have files of their own.
func parts(t *testing.T) (out []object) {
	t.Helper()
	for _, dir := range []string{"crds", "policies"} {
		files, err := filepath.Glob(root + "deploy/" + dir + "/*.yaml")
		if err != nil || len(files) == 0 {
			t.Fatalf("deploy/%s: %v, %v", dir, files, err)
		}
		for _, f := range files {
			out = append(out, read(t, strings.TrimPrefix(f, root))...)
		}
	}
	return out
}

// allowed is the resources of a group that rules allow a verb on, sorted.
func allowed(rules []rbacv1.PolicyRule, group, verb string) (out []string) {
	for _, r := range rules {
		if slices.Contains(r.APIGroups, group) && slices.Contains(r.Verbs, verb) {
			out = append(out, r.Resources...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestWrites: all that agents and controllers may change. More is a decision, and belongs here, too.
func TestWrites(t *testing.T) {
	m := manifest(t)
	for id, want := range map[string][]string{
		"ClusterRole/tortie-agent": {
			"/nodes patch",
			"/nodes/status patch",
			"projectcalico.org/blockaffinities create delete update",
			"projectcalico.org/ipamblocks create delete update",
			"projectcalico.org/ipamhandles create delete update",
		},
		"ClusterRole/tortie-controllers": {
			"/events create update",
			"/nodes/status patch",
			"projectcalico.org/blockaffinities create delete update",
			"projectcalico.org/hostendpoints create delete update",
			"projectcalico.org/ipamblocks create delete update",
			"projectcalico.org/ipamhandles create delete update",
			"projectcalico.org/tiers create update",
			"projectcalico.org/tiers/status update",
		},
		"Role/tortie-controllers": {"coordination.k8s.io/leases create update"},
	} {
		if d := cmp.Diff(want, writes(t, id, decode[rbacv1.ClusterRole](t, m, id).Rules)); d != "" {
			t.Errorf("%s: %s", id, d)
		}
	}
}

// writes is what rules allow to change. None of them may speak of everything.
func writes(t *testing.T, id string, rules []rbacv1.PolicyRule) (out []string) {
	verbs := map[string][]string{}
	for _, r := range rules {
		if all := slices.Concat(r.APIGroups, r.Resources, r.Verbs); slices.Contains(all, "*") || len(r.NonResourceURLs) > 0 {
			t.Errorf("%s: %v", id, r)
		}
		for _, g := range r.APIGroups {
			for _, res := range r.Resources {
				for _, v := range r.Verbs {
					if !slices.Contains([]string{"get", "list", "watch"}, v) {
						verbs[g+"/"+res] = append(verbs[g+"/"+res], v)
					}
				}
				if slices.Contains([]string{"secrets", "configmaps"}, res) {
					t.Errorf("%s may see %s", id, res)
				}
			}
		}
	}
	for res, vs := range verbs {
		slices.Sort(vs)
		out = append(out, fmt.Sprint(res, " ", strings.Join(slices.Compact(vs), " ")))
	}
	slices.Sort(out)
	return out
}

// TestPods: what the pods may do to their nodes.
func TestPods(t *testing.T) {
	m := manifest(t)
	agent := decode[appsv1.DaemonSet](t, m, "DaemonSet/tortie-agent").Spec.Template
	controllers := decode[appsv1.Deployment](t, m, "Deployment/tortie-controllers").Spec.Template
	for name, pod := range map[string]corev1.PodTemplateSpec{"agent": agent, "controllers": controllers} {
		s := pod.Spec
		c := s.Containers[0]
		if len(s.Containers) != 1 || len(s.InitContainers) != 0 || s.HostPID || s.HostIPC || !s.HostNetwork {
			t.Errorf("%s: %+v", name, s)
		}
		if sc := c.SecurityContext; sc.Privileged != nil || *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem ||
			!slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.SecurityContext.SeccompProfile.Type != "RuntimeDefault" {
			t.Errorf("%s: %+v, %+v", name, sc, s.SecurityContext)
		}
		if c.LivenessProbe.HTTPGet.Path != "/livez" || c.ReadinessProbe.HTTPGet.Path != "/readyz" || c.Resources.Requests.Memory().IsZero() {
			t.Errorf("%s: %+v", name, c)
		}
		if c.Image != agent.Spec.Containers[0].Image || c.ImagePullPolicy != corev1.PullIfNotPresent {
			t.Errorf("%s: image %s, %s", name, c.Image, c.ImagePullPolicy)
		}
	}
	want := []corev1.Capability{"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}
	if got := agent.Spec.Containers[0].SecurityContext.Capabilities.Add; !slices.Equal(got, want) {
		t.Errorf("the agent's capabilities are %v, want %v", got, want)
	}
	var paths []string
	for _, v := range agent.Spec.Volumes {
		if v.HostPath != nil {
			paths = append(paths, v.HostPath.Path)
		}
	}
	if want := []string{"/run/tortie", "/var/lib/tortie", "/opt/cni/bin", "/etc/cni/net.d", "/proc/sys/net"}; !slices.Equal(paths, want) {
		t.Errorf("the agent has %v of its host, want %v", paths, want)
	}
	if agent.Spec.PriorityClassName != "system-node-critical" || !slices.Contains(agent.Spec.Tolerations, corev1.Toleration{Operator: "Exists"}) {
		t.Errorf("agents must be on every node: %+v", agent.Spec)
	}
	if sc := controllers.Spec.SecurityContext; !*sc.RunAsNonRoot || *sc.RunAsUser == 0 || len(controllers.Spec.Containers[0].SecurityContext.Capabilities.Add) > 0 {
		t.Errorf("controllers need nothing of their nodes: %+v", sc)
	}
	for _, v := range controllers.Spec.Volumes {
		if v.HostPath != nil {
			t.Errorf("controllers have %s", v.HostPath.Path)
		}
	}
}

// TestControllersGiveWay: with fewer nodes for them than replicas, an upgrade replaces the controllers that run, and their
// nodes can be drained.
func TestControllersGiveWay(t *testing.T) {
	m := manifest(t)
	d := decode[appsv1.Deployment](t, m, "Deployment/tortie-controllers").Spec
	if d.Strategy.RollingUpdate == nil {
		t.Fatalf("%+v", d.Strategy)
	}
	// A new one finds no place as long as an old one has it.
	stopped, err := intstr.GetScaledValueFromIntOrPercent(d.Strategy.RollingUpdate.MaxUnavailable, int(*d.Replicas), false)
	if err != nil || stopped != int(*d.Replicas) {
		t.Errorf("of %d replicas an upgrade stops %d at once (%v)", *d.Replicas, stopped, err)
	}
	if surge := d.Strategy.RollingUpdate.MaxSurge; surge == nil || surge.String() != "0" {
		t.Errorf("an upgrade starts %v more", surge)
	}
	for id := range m {
		if strings.HasPrefix(id, "PodDisruptionBudget/") {
			t.Errorf("%s keeps pods from being evicted", id)
		}
	}
}

// TestAgentNodes: the controllers speak of the network of those nodes that agents run on.
func TestAgentNodes(t *testing.T) {
	m := manifest(t)
	agents := decode[appsv1.DaemonSet](t, m, "DaemonSet/tortie-agent").Spec.Template.Spec
	args := decode[appsv1.Deployment](t, m, "Deployment/tortie-controllers").Spec.Template.Spec.Containers[0].Args
	i := slices.Index(args, "--agent-nodes")
	if i < 0 || i+1 == len(args) {
		t.Fatalf("no nodes in %q", args)
	}
	got, err := labels.Parse(args[i+1])
	if want := labels.SelectorFromSet(agents.NodeSelector); err != nil || got.String() != want.String() {
		t.Errorf("agents run on %s, the controllers look at %q (%v)", want, args[i+1], err)
	}
}

// TestSettings: the agent takes its settings, and looks after what is mounted for it.
func TestSettings(t *testing.T) {
	m := manifest(t)
	cm := decode[corev1.ConfigMap](t, m, "ConfigMap/tortie-config")
	c, err := config.Parse([]byte(cm.Data["agent.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	c.NodeName = "node1" // is in the environment
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	container := decode[appsv1.DaemonSet](t, m, "DaemonSet/tortie-agent").Spec.Template.Spec.Containers[0]
	probe := container.LivenessProbe.HTTPGet
	if got := fmt.Sprintf("%s:%d", probe.Host, probe.Port.IntValue()); got != c.Listen {
		t.Errorf("kubelet asks at %s, the agent listens at %s", got, c.Listen)
	}
	var mounted []string
	for _, v := range container.VolumeMounts {
		mounted = append(mounted, v.MountPath)
	}
	for _, dir := range []string{c.RunDir, c.StateDir, c.CNI.BinDir, c.CNI.ConfDir} {
		if !slices.Contains(mounted, dir) {
			t.Errorf("%s is not one of %v", dir, mounted)
		}
	}
	if c.Store.Kubernetes == nil {
		t.Error("the store is not Kubernetes'")
	}
}

// TestExamples: what docs/install-kubernetes.md applies.
func TestExamples(t *testing.T) {
	b, err := os.ReadFile(root + "examples/kubernetes/pool.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := api.Decode(b)
	if err != nil || len(objects) != 1 {
		t.Fatalf("%v, %v", objects, err)
	}
	api.Default(objects[0])
	if errs := api.Validate(objects[0]); len(errs) > 0 {
		t.Error(errs)
	}
	for _, o := range read(t, "examples/kubernetes/policy.yaml") {
		var p networkingv1.NetworkPolicy
		if err := kyaml.UnmarshalStrict(o.raw, &p); err != nil || o.Kind != "NetworkPolicy" {
			t.Errorf("%s/%s: %v", o.Kind, o.Name, err)
		}
	}
}

// TestClean: what takes Tortie off the nodes has of them what the agent had, and removes what it is told of.
func TestClean(t *testing.T) {
	m := manifest(t)
	agent := decode[appsv1.DaemonSet](t, m, "DaemonSet/tortie-agent").Spec.Template.Spec
	for _, o := range read(t, "deploy/clean.yaml") {
		if o.Namespace != "tortie-clean" && o.Name != "tortie-clean" {
			t.Errorf("%s/%s is in the namespace %q", o.Kind, o.Name, o.Namespace)
		}
		m["clean "+o.Kind+"/"+o.Name] = o
	}
	pod := decode[appsv1.DaemonSet](t, m, "clean DaemonSet/clean").Spec.Template.Spec
	host := func(vs []corev1.Volume) (paths []string) {
		for _, v := range vs {
			if v.HostPath != nil {
				paths = append(paths, v.HostPath.Path)
			}
		}
		return paths
	}
	if d := cmp.Diff(host(agent.Volumes), host(pod.Volumes)); d != "" {
		t.Error(d)
	}
	want, c := agent.Containers[0], pod.Containers[0]
	if d := cmp.Diff(want.SecurityContext, c.SecurityContext); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want.VolumeMounts, c.VolumeMounts); d != "" || c.Image != want.Image {
		t.Errorf("image %s: %s", c.Image, d)
	}
	settings := func(id string) config.Config {
		c, err := config.Parse([]byte(decode[corev1.ConfigMap](t, m, id).Data["agent.yaml"]))
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		return c
	}
	one, other := settings("ConfigMap/tortie-config"), settings("clean ConfigMap/clean")
	if d := cmp.Diff(one.CNI, other.CNI); d != "" || one.RunDir != other.RunDir || one.StateDir != other.StateDir {
		t.Errorf("%s %s %s", other.RunDir, other.StateDir, d)
	}
}
