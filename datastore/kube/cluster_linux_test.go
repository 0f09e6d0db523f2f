package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func jsonOf(format string, args ...any) []byte { return fmt.Appendf(nil, format, args...) }

// makePod makes a pod on a node, and returns its UID.
func makePod(t testing.TB, c *cluster, ns, name, node, labels string) string {
	t.Helper()
	c.must(t, http.MethodPost, "/api/v1/namespaces/"+ns+"/pods", jsonOf(`{"metadata":{"name":%q,"labels":{%s}},"spec":{"nodeName":%q,
		"containers":[{"name":"c","image":"i","ports":[{"name":"http","containerPort":80}]}]}}`, name, labels, node))
	s := c.open(t, false)
	o, err := s.Get(ctxOf(t), api.Key{Kind: "WorkloadEndpoint", Namespace: ns, Name: api.WorkloadEndpointName(node, "k8s", name, "eth0")})
	if err != nil {
		t.Fatal(err)
	}
	return string(o.GetUID())
}

// TestPods: pods of a real server get their addresses by one write of a block, and are the same by Watch, Get and List.
func TestPods(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	ctx := ctxOf(t)
	w := watchKinds(t, s, kindsOf("WorkloadEndpoint", "Profile"))
	a := makePod(t, c, "default", "db-0", "n1", `"app":"db"`)
	b := makePod(t, c, "default", "web", "n2", `"app":"web"`)
	const keyA, keyB = "WorkloadEndpoint/default/n1-k8s-db--0-eth0", "WorkloadEndpoint/default/n2-k8s-web-eth0"
	networks := func(key, want string) func() bool {
		return func() bool {
			o, ok := w.world[key].Object.(*api.WorkloadEndpoint)
			return ok && strings.Join(o.Spec.IPNetworks, " ") == want
		}
	}
	w.until("the first pod", networks(keyA, ""))
	w.until("the other", networks(keyB, ""))
	if _, err := s.Create(ctx, block(a, "", b, a)); err != nil {
		t.Fatal(err)
	}
	w.until("its addresses", networks(keyA, "10.244.0.0/32 10.244.0.3/32"))
	w.until("the other's", networks(keyB, "10.244.0.2/32"))

	if diff := cmp.Diff("db http/TCP/80 kns.default", describe(w, keyA)); diff != "" {
		t.Error(diff)
	}
	for _, key := range []string{keyA, keyB} {
		o := w.world[key].Object
		got, err := s.Get(ctx, api.KeyOf(o))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(o, got); diff != "" {
			t.Errorf("by Get: %s", diff)
		}
	}
	os, err := s.List(ctx, "WorkloadEndpoint", "default")
	if err != nil || len(os) != 2 {
		t.Fatalf("list: %v, %v", os, err)
	}
	if diff := cmp.Diff([]api.Object{w.world[keyA].Object, w.world[keyB].Object}, os); diff != "" {
		t.Errorf("by List: %s", diff)
	}

	// What the kubelet says of its address means nothing inside of a pool, and something outside.
	for i, ip := range []string{"10.244.0.9", "192.0.2.7"} {
		if i == 0 {
			if _, err := s.Create(ctx, &api.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: api.IPPoolSpec{CIDR: "10.244.0.0/16"}}); err != nil {
				t.Fatal(err)
			}
		}
		c.must(t, http.MethodPut, "/api/v1/namespaces/default/pods/web/status", jsonOf(`{"metadata":{"name":"web"},"status":{"phase":"Running","podIPs":[{"ip":%q}],"podIP":%q}}`, ip, ip))
	}
	w.until("the address outside", networks(keyB, "10.244.0.2/32 192.0.2.7/32"))
	c.must(t, http.MethodPut, "/api/v1/namespaces/default/pods/web/status", jsonOf(`{"metadata":{"name":"web"},"status":{"phase":"Succeeded"}}`))
	w.until("no address of a finished pod", networks(keyB, ""))
	c.must(t, http.MethodDelete, "/api/v1/namespaces/default/pods/web?gracePeriodSeconds=0", nil)
	w.until("no pod", func() bool { return w.world[keyB].Object == nil })
	if _, err := s.Get(ctx, api.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "n2-k8s-web-eth0"}); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("a pod that is gone: %v", err)
	}
}

func describe(w *seen, key string) string {
	o := w.world[key].Object.(*api.WorkloadEndpoint)
	p := o.Spec.Ports[0]
	return fmt.Sprintf("%s %s/%s/%d %s", o.Labels["app"], p.Name, p.Protocol, p.Port, o.Spec.Profiles[0])
}

// TestNative: what is made of Kubernetes' own objects can be read in all ways, and not be written.
func TestNative(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	ctx := ctxOf(t)
	c.must(t, http.MethodPost, "/api/v1/namespaces/default/serviceaccounts", jsonOf(`{"metadata":{"name":"robot","labels":{"x":"y"}}}`))
	c.must(t, http.MethodPost, "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", jsonOf(`{"metadata":{"name":"deny"},"spec":{"podSelector":{}}}`))
	c.must(t, http.MethodPost, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", jsonOf(`{"metadata":{"name":"svc-1","labels":{"kubernetes.io/service-name":"svc"}},
		"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}],"ports":[{"port":80}]}`))
	c.must(t, http.MethodPost, "/api/v1/nodes", jsonOf(`{"metadata":{"name":"n1"}}`))
	makePod(t, c, "default", "p", "n1", "")
	w := watchKinds(t, s, kindsOf("WorkloadEndpoint", "Profile", "NetworkPolicy", "EndpointSlice", "Node"))
	w.untilInSync()
	for _, k := range []string{"WorkloadEndpoint/default/n1-k8s-p-eth0", "Profile/kns.default", "Profile/ksa.default.robot",
		"NetworkPolicy/default/knp.default.deny", "EndpointSlice/default/svc-1", "Node/n1"} {
		o := w.world[k].Object
		if o == nil {
			t.Errorf("%s was not told: %v", k, sorted(w.world))
			continue
		}
		key := api.KeyOf(o)
		got, err := s.Get(ctx, key)
		if diff := cmp.Diff(o, got); diff != "" || err != nil {
			t.Errorf("%s by Get: %s %v", k, diff, err)
		}
		os, err := s.List(ctx, key.Kind, key.Namespace)
		if err != nil || !slices.ContainsFunc(os, func(l api.Object) bool { return cmp.Equal(l, o) }) {
			t.Errorf("%s by List: %v %v", k, os, err)
		}
		if key.Kind != "Node" {
			o.SetResourceVersion("")
			if _, err := s.Update(ctx, o); !errors.Is(err, datastore.ErrInvalid) || !strings.Contains(err.Error(), "kubectl") {
				t.Errorf("%s updated: %v", k, err)
			}
		}
		if err := s.Delete(ctx, key, ""); !errors.Is(err, datastore.ErrInvalid) || !strings.Contains(err.Error(), "kubectl") {
			t.Errorf("%s deleted: %v", k, err)
		}
	}
}

func TestNode(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	ctx := ctxOf(t)
	n := &api.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Annotations: map[string]string{"tortie.io/boot-id": "b1", "tortie.io/other": "x"}},
		Spec: api.NodeSpec{BGP: &api.NodeBGPSpec{IPv4Address: "192.0.2.1/24"}}}
	if _, err := s.Update(ctx, n); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("before the kubelet has registered it: %v", err)
	}
	if _, err := s.Create(ctx, n); !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("create: %v", err)
	}
	c.must(t, http.MethodPost, "/api/v1/nodes", jsonOf(`{"metadata":{"name":"n1","labels":{"zone":"a"},"annotations":{"foreign":"kept"}},"spec":{"podCIDR":"10.0.0.0/24","podCIDRs":["10.0.0.0/24"]}}`))
	w := watchKinds(t, s, kindsOf("Node"))
	out, err := s.Update(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	now := out.(*api.Node)
	if now.Spec.BGP == nil || now.Spec.BGP.IPv4Address != "192.0.2.1/24" || now.Labels["zone"] != "a" || now.Annotations["tortie.io/boot-id"] != "b1" {
		t.Errorf("%+v", now)
	}
	w.until("the address", func() bool {
		o, ok := w.world["Node/n1"].Object.(*api.Node)
		return ok && o.Spec.BGP != nil && o.Spec.BGP.IPv4Address == "192.0.2.1/24"
	})
	same, err := s.Update(ctx, n)
	if err != nil || same.GetResourceVersion() != now.ResourceVersion {
		t.Errorf("an update of nothing was written: %v", err)
	}
	stale := api.DeepCopy(now).(*api.Node)
	delete(n.Annotations, "tortie.io/other")
	n.Spec.BGP = nil
	if now, err = update(ctx, s, n); err != nil || now.Spec.BGP != nil && now.Spec.BGP.IPv4Address != "" || now.Annotations["tortie.io/other"] != "" {
		t.Errorf("what was taken away is still there: %+v, %v", now, err)
	}
	if _, err := s.Update(ctx, stale); !errors.Is(err, datastore.ErrConflict) {
		t.Errorf("with an old revision: %v", err)
	}
	raw := string(c.must(t, http.MethodGet, "/api/v1/nodes/n1", nil))
	if !strings.Contains(raw, `"foreign":"kept"`) {
		t.Errorf("what is another's is gone: %s", raw)
	}

	for _, bad := range []bool{true, false} {
		if err := s.SetNetworkUnavailable(ctx, "n1", bad, "Reason", "why"); err != nil {
			t.Fatal(err)
		}
		node, err := s.node(ctx, "n1")
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}[bad]
		if cs := node.Status.Conditions; len(cs) != 1 || cs[0].Type != corev1.NodeNetworkUnavailable || cs[0].Status != want || cs[0].Reason != "Reason" {
			t.Errorf("conditions %+v", cs)
		}
	}
	if err := s.SetNetworkUnavailable(ctx, "none", true, "Reason", "why"); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("of a node that is not there: %v", err)
	}
}

func update(ctx context.Context, s *Store, n *api.Node) (*api.Node, error) {
	o, err := s.Update(ctx, n)
	if err != nil {
		return nil, err
	}
	return o.(*api.Node), nil
}

// TestStatus: a status that the server keeps apart is written with the rest.
func TestStatus(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	ctx := ctxOf(t)
	ready := &api.ConditionsStatus{Conditions: []metav1.Condition{{Type: "Ready", Status: "True", Reason: "Why", LastTransitionTime: metav1.NewTime(time.Unix(1e9, 0))}}}
	o, err := s.Create(ctx, &api.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: api.IPPoolSpec{CIDR: "10.1.0.0/16"}, Status: ready})
	if err != nil {
		t.Fatal(err)
	}
	pool := o.(*api.IPPool)
	if pool.Status == nil || pool.Generation != 1 {
		t.Errorf("created: generation %d, status %+v", pool.Generation, pool.Status)
	}
	pool.Status.Conditions[0].Reason = "Another"
	pool.Spec.NATOutgoing = true
	if o, err = s.Update(ctx, pool); err != nil {
		t.Fatal(err)
	}
	stored, err := s.Get(ctx, api.KeyOf(o))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o, stored); diff != "" {
		t.Errorf("returned and stored differ: %s", diff)
	}
	if p := stored.(*api.IPPool); p.Status.Conditions[0].Reason != "Another" || !p.Spec.NATOutgoing || p.Generation != 2 {
		t.Errorf("updated: %+v", p)
	}
	// One that has no status leaves it.
	pool = stored.(*api.IPPool)
	pool.Status = nil
	if o, err = s.Update(ctx, pool); err != nil || o.(*api.IPPool).Status == nil || o.GetResourceVersion() != pool.ResourceVersion {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestFinalizer: an object that waits for its end can be read and changed, as controllers do.
func TestFinalizer(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	ctx := ctxOf(t)
	order, pass := 5.0, api.Pass
	o, err := s.Create(ctx, &api.Tier{ObjectMeta: metav1.ObjectMeta{Name: "x", Finalizers: []string{"tortie.io/test"}}, Spec: api.TierSpec{Order: &order, DefaultAction: &pass}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, api.KeyOf(o), o.GetResourceVersion()); err != nil {
		t.Fatal(err)
	}
	if o, err = s.Get(ctx, api.KeyOf(o)); err != nil || o.GetDeletionTimestamp() == nil {
		t.Fatalf("%+v, %v", o, err)
	}
	o.SetFinalizers(nil)
	if _, err := s.Update(ctx, o); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, api.KeyOf(o)); !errors.Is(err, datastore.ErrNotFound) {
		t.Errorf("it stays: %v", err)
	}
}

// TestRights: what RBAC refuses is named, and comes when it is granted.
func TestRights(t *testing.T) {
	c := take(t)
	const roles = "/apis/rbac.authorization.k8s.io/v1/"
	role := func(resources string) {
		c.must(t, http.MethodPatch, roles+"clusterroles/reader?fieldManager=test&force=true", jsonOf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole",
			"metadata":{"name":"reader"},"rules":[{"apiGroups":["projectcalico.org"],"resources":[%s],"verbs":["get","list","watch"]}]}`, resources))
	}
	role(`"tiers"`)
	c.must(t, http.MethodPatch, roles+"clusterrolebindings/reader?fieldManager=test&force=true", jsonOf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding",
		"metadata":{"name":"reader"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"reader"},"subjects":[{"kind":"User","name":"reader"}]}`))
	rc := &rest.Config{Host: c.URL(), BearerToken: "reader-token", TLSClientConfig: rest.TLSClientConfig{CAFile: c.Dir + "/ca.crt"}}
	s, err := open(rc, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := ctxOf(t)
	if err := s.checkServer(ctx); err != nil {
		t.Errorf("who may not see the APIService: %v", err)
	}
	w := watchKinds(t, s, kindsOf("Tier", "HostEndpoint"))
	w.until("the bad news", func() bool { return errors.Is(w.last.Status.Kinds["HostEndpoint"], datastore.ErrForbidden) })
	if w.last.InSync || w.last.Status.Kinds["Tier"] != nil {
		t.Errorf("in sync %v, status %+v", w.last.InSync, w.last.Status)
	}
	if _, err := s.List(ctx, "HostEndpoint", ""); !errors.Is(err, datastore.ErrForbidden) {
		t.Errorf("list: %v", err)
	}
	order := 5.0
	if _, err := s.Create(ctx, &api.Tier{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: api.TierSpec{Order: &order}}); !errors.Is(err, datastore.ErrForbidden) {
		t.Errorf("create: %v", err)
	}
	role(`"tiers","hostendpoints"`)
	w.untilInSync()
	w.until("good news", func() bool { return w.last.Status.Kinds == nil && w.last.Status.Connected })
}

// TestUnknownField: the server takes no field that the schema does not have.
func TestUnknownField(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	key := api.Key{Kind: "NetworkSet", Namespace: "default", Name: "a"}
	c.must(t, http.MethodPost, path(key), jsonOf(`{"apiVersion":"projectcalico.org/v3","kind":"NetworkSet","metadata":{"name":"a"},"spec":{"nets":["10.0.0.0/8"],"colour":"red"}}`))
	o, err := s.Get(ctxOf(t), key)
	if err != nil || len(o.(*api.NetworkSet).Spec.Partial) != 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestServerRestart: the server goes away and comes back; what changed meanwhile is told, and nothing else.
func TestServerRestart(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	ctx := ctxOf(t)
	for _, n := range []string{"a", "b"} {
		if _, err := s.Create(ctx, &api.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: n}}); err != nil {
			t.Fatal(err)
		}
	}
	w := watchKinds(t, s, kindsOf("GlobalNetworkSet", "Profile", "WorkloadEndpoint"))
	w.untilInSync()
	before := w.told()
	c.StopAPIServer()
	w.until("the bad news", func() bool { return !w.last.Status.Connected && errors.Is(w.last.Status.Err, datastore.ErrUnavailable) })
	if _, err := s.Get(ctx, api.Key{Kind: "GlobalNetworkSet", Name: "a"}); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	if err := c.StartAPIServer(); err != nil {
		t.Fatal(err)
	}
	w.until("the good news", func() bool { return w.last.Status.Connected && w.last.Status.Err == nil })
	if now := w.told(); now != before {
		t.Errorf("told %s, then %s", before, now)
	}
	if err := c.untilServed("/apis/projectcalico.org/v3/globalnetworksets"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctxOf(t), api.Key{Kind: "GlobalNetworkSet", Name: "a"}, ""); err != nil {
		t.Fatal(err)
	}
	w.until("a delete", func() bool { return w.world["GlobalNetworkSet/a"].Object == nil })
}

// TestDefinedLater: a kind that somebody installs is noticed at once, and without asking for it all the time; one that is
// taken out again is gone.
func TestDefinedLater(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	requests := count(s)
	w := watchKinds(t, s, kindsOf("GlobalNetworkPolicy"))
	w.untilInSync()
	before := requests.Load()
	c.must(t, http.MethodPost, definitions, jsonOf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":%q,
		"annotations":{"api-approved.kubernetes.io":"https://github.com/kubernetes-sigs/network-policy-api/pull/300"}},
		"spec":{"group":"policy.networking.k8s.io","scope":"Cluster","names":{"kind":"ClusterNetworkPolicy","plural":"clusternetworkpolicies"},"versions":[{"name":"v1alpha2",
		"served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`, clusterPolicies))
	defer c.call(http.MethodDelete, definitions+"/"+clusterPolicies, nil)
	const path = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"
	if err := c.untilServed(path); err != nil {
		t.Fatal(err)
	}
	c.must(t, http.MethodPost, path, jsonOf(`{"apiVersion":"policy.networking.k8s.io/v1alpha2","kind":"ClusterNetworkPolicy","metadata":{"name":"x"},
		"spec":{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"ingress":[{"action":"Deny","from":[{"namespaces":{}}]}]}}`))
	w.untilWorld("GlobalNetworkPolicy/kcnp.admin.x")
	if n := requests.Load() - before; n > 20 {
		t.Errorf("%d requests", n)
	}
	if o, err := s.Get(ctxOf(t), api.Key{Kind: "GlobalNetworkPolicy", Name: "kcnp.admin.x"}); err != nil || !cmp.Equal(o, w.world["GlobalNetworkPolicy/kcnp.admin.x"].Object) {
		t.Errorf("get: %v, %v", o, err)
	}
	c.must(t, http.MethodDelete, definitions+"/"+clusterPolicies, nil)
	w.untilWorld()
}

// count counts the requests of s from now on.
func count(s *Store) *atomic.Int64 {
	n := &atomic.Int64{}
	next := s.http.Transport
	s.http.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		n.Add(1)
		return next.RoundTrip(r)
	})
	return n
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestWire: pods come as protobuf, our own kinds as JSON.
func TestWire(t *testing.T) {
	c := take(t)
	s := c.open(t, true)
	types := map[string]string{}
	next := s.http.Transport
	s.http.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(r)
		if err == nil {
			types[r.URL.Path] = res.Header.Get("Content-Type")
		}
		return res, err
	})
	for _, kind := range []string{"Node", "Tier"} {
		if _, err := s.List(ctxOf(t), kind, ""); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"/api/v1/nodes": protobuf, "/apis/projectcalico.org/v3/tiers": "application/json"}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Error(diff)
	}
}

// TestNotThere: what can't be created for want of something says what that is.
func TestNotThere(t *testing.T) {
	s := take(t).open(t, true)
	_, err := s.Create(ctxOf(t), &api.NetworkSet{ObjectMeta: metav1.ObjectMeta{Namespace: "nowhere", Name: "a"}})
	if !errors.Is(err, datastore.ErrInvalid) || !strings.Contains(err.Error(), `namespaces "nowhere" not found`) {
		t.Errorf("in a namespace that is not there: %v", err)
	}
	f := newFake(t, netsets)
	_, err = f.open().Create(ctxOf(t), &api.NetworkSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}})
	if !errors.Is(err, datastore.ErrInvalid) || !strings.Contains(err.Error(), "CustomResourceDefinition "+netsets) {
		t.Errorf("of a kind that is not there: %v", err)
	}
	if err := s.Txn(ctxOf(t), datastore.Op{}, datastore.Op{}); !errors.Is(err, datastore.ErrInvalid) {
		t.Errorf("two writes as one: %v", err)
	}
}
