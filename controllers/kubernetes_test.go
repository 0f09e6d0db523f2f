package controllers

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func unreadable(kind, name string) datastore.Batch {
	return datastore.Batch{InSync: true, Status: datastore.Status{Connected: true},
		Events: []datastore.Event{{Key: api.Key{Kind: kind, Name: name}, Problem: errors.New("it is garbage")}}}
}

func policyYAML(name, tier string) string {
	return "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: " + name + "}, spec: {tier: " + tier + ", selector: all()}}"
}

func TestTiers(t *testing.T) {
	b := newBench(t, "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: kube-admin, finalizers: [tortie.io/policies]}, spec: {order: 1000, defaultAction: Pass}}",
		"{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: ops}, spec: {order: 5}}", policyYAML("allow-dns", "ops"))
	tr := &tiers{w: b.w, config: newConfig(b.w, nil), store: b.store}
	step := func() {
		t.Helper()
		b.see()
		if err := tr.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	step()
	step()
	var names []string
	for _, o := range stored[*api.Tier](b, "Tier") {
		names = append(names, o.Name)
		if got := slices.Contains(o.Finalizers, tierFinalizer); got != (o.Name == "ops") {
			t.Errorf("finalizers of %s: %v", o.Name, o.Finalizers)
		}
	}
	if diff := cmp.Diff([]string{"default", "kube-admin", "kube-baseline", "ops"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// Somebody deletes it: it says what it waits for, once.
	o, at := b.tier("ops"), metav1.Now()
	o.DeletionTimestamp = &at
	deleting := func() {
		t.Helper()
		o.ResourceVersion, o.Status, o.Finalizers = b.tier("ops").ResourceVersion, b.tier("ops").Status, b.tier("ops").Finalizers
		b.tell("Tier", []api.Object{o})
		if err := tr.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	deleting()
	first := b.tier("ops")
	if first.Status == nil || !strings.Contains(first.Status.Conditions[0].Message, "GlobalNetworkPolicy/allow-dns") || len(first.Finalizers) != 1 {
		t.Errorf("a tier with a policy that is deleted: %+v %v", first.Status, first.Finalizers)
	}
	deleting()
	if b.tier("ops").ResourceVersion != first.ResourceVersion {
		t.Error("it says so again and again")
	}
	b.tell("GlobalNetworkPolicy", nil)
	deleting()
	if f := b.tier("ops").Finalizers; len(f) != 0 {
		t.Errorf("an empty tier that is deleted keeps %v", f)
	}
}

// TestTiersBlind keeps a tier that is to go while there may be policies in it that can't be listed.
func TestTiersBlind(t *testing.T) {
	b := newBench(t, "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: ops, finalizers: [tortie.io/policies]}, spec: {order: 5}}")
	tr := &tiers{w: b.w, config: newConfig(b.w, nil), store: b.store}
	at := metav1.Now()
	step := func(kinds map[string]error) error {
		b.see()
		o := b.tier("ops")
		o.DeletionTimestamp = &at
		b.w.take(datastore.Batch{InSync: true, Status: datastore.Status{Connected: true, Kinds: kinds},
			Events: []datastore.Event{{Key: api.KeyOf(o), Object: o}}})
		return tr.step(t.Context())
	}
	for _, kind := range []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"} {
		err := step(map[string]error{kind: datastore.ErrForbidden})
		if !errors.Is(err, datastore.ErrForbidden) || !strings.Contains(err.Error(), "tier ops") {
			t.Errorf("%s can't be listed: %v", kind, err)
		}
		if o := b.tier("ops"); len(o.Finalizers) != 1 || o.Status == nil || !strings.Contains(o.Status.Conditions[0].Message, "not all kinds") {
			t.Fatalf("%s can't be listed: %v %+v", kind, o.Finalizers, o.Status)
		}
	}
	if err := step(map[string]error{"WorkloadEndpoint": datastore.ErrForbidden}); err != nil || len(b.tier("ops").Finalizers) != 0 {
		t.Errorf("all policies can be listed: %v %v", err, b.tier("ops").Finalizers)
	}
}

func TestEvents(t *testing.T) {
	client := fake.NewClientset()
	b := newBench(t)
	b.see()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	newEvents := func() *events {
		return &events{w: b.w, config: newConfig(b.w, nil), core: client.CoreV1(), metrics: b.metrics.steps,
			now: func() time.Time { return now }, said: map[eventKey]eventSaid{}}
	}
	tell := func(problems ...datastore.Event) {
		b.w.take(datastore.Batch{InSync: true, Status: datastore.Status{Connected: true}, Events: problems})
	}
	knp := &api.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "knp.default.web", UID: "u1"}}
	kcnp := &api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "kcnp.admin.all", UID: "u2"}}
	fine := &api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "fine", UID: "u3"}}
	tell(
		datastore.Event{Key: api.KeyOf(knp), Object: knp, Problems: []api.Problem{{Path: "spec.ingress[0].ports[0].endPort", Reason: "is below port"}}},
		datastore.Event{Key: api.KeyOf(kcnp), Object: kcnp, Problems: []api.Problem{{Path: "spec.egress[1].to[0]", Reason: "domainNames are not known"}}},
		datastore.Event{Key: api.KeyOf(fine), Object: fine},
		datastore.Event{Key: api.Key{Kind: "StagedNetworkPolicy", Namespace: "prod", Name: "x"}, Problem: &datastore.UnreadableError{UID: "u4", Err: errors.New("spec.selector: it ends too early")}},
	)
	e := newEvents()
	step := func() {
		t.Helper()
		if err := e.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	seen := func() []string {
		t.Helper()
		list, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, o := range list.Items {
			r := o.InvolvedObject
			out = append(out, strings.Join([]string{o.Namespace, r.APIVersion, r.Kind, r.Namespace, r.Name, string(r.UID), o.Reason, o.Message}, "|")+strings.Repeat("+", int(o.Count)))
		}
		return out
	}
	step()
	want := []string{
		"default|policy.networking.k8s.io/v1alpha2|ClusterNetworkPolicy||all|u2|PolicyPartlyUnsupported|parts of it can't be enforced as they are written; they allow nothing, and may deny more than they say: spec.egress[1].to[0]: domainNames are not known+",
		"prod|networking.k8s.io/v1|NetworkPolicy|prod|web|u1|PolicyPartlyUnsupported|parts of it can't be enforced as they are written; they allow nothing, and may deny more than they say: spec.ingress[0].ports[0].endPort: is below port+",
		"prod|projectcalico.org/v3|StagedNetworkPolicy|prod|x|u4|PolicyUnreadable|it has no effect: spec.selector: it ends too early+",
	}
	if diff := cmp.Diff(want, seen()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if e.degraded() != 3 {
		t.Errorf("%d degraded", e.degraded())
	}

	// Neither another look nor another leader says it again.
	client.ClearActions()
	step()
	if n := len(client.Actions()); n != 0 {
		t.Errorf("%d requests with nothing new", n)
	}
	e = newEvents()
	step()
	if diff := cmp.Diff(want, seen()); diff != "" {
		t.Errorf("another leader (-want +got):\n%s", diff)
	}
	// While it lasts it is said before API servers forget, and another problem at once.
	now = now.Add(eventAgain)
	tell(datastore.Event{Key: api.KeyOf(kcnp), Object: kcnp}, datastore.Event{Key: api.Key{Kind: "StagedNetworkPolicy", Namespace: "prod", Name: "x"}},
		datastore.Event{Key: api.KeyOf(knp), Object: knp, Problems: []api.Problem{{Path: "spec", Reason: "is another"}}})
	step()
	want[1] = "prod|networking.k8s.io/v1|NetworkPolicy|prod|web|u1|PolicyPartlyUnsupported|parts of it can't be enforced as they are written; they allow nothing, and may deny more than they say: spec: is another++"
	if diff := cmp.Diff(want, seen()); diff != "" {
		t.Errorf("later (-want +got):\n%s", diff)
	}
}

func bootedNode(booted, confirmed, os string, status corev1.ConditionStatus, reason string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u1", Labels: map[string]string{"plugin": "tortie"}}}
	n.Status.NodeInfo.BootID, n.Status.NodeInfo.OperatingSystem = booted, os
	if confirmed != "" {
		n.Annotations = map[string]string{bootAnnotation: confirmed, "big": strings.Repeat("x", 100)}
	}
	if status != "" {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue},
			{Type: corev1.NodeNetworkUnavailable, Status: status, Reason: reason}}
	}
	return n
}

func TestBoots(t *testing.T) {
	for _, tc := range []struct {
		name                   string
		agents                 string // "" = everywhere
		booted, confirmed, os  string
		status                 corev1.ConditionStatus
		reason                 string
		wantStatus, wantReason string
	}{
		{"a new node", "", "b1", "", "linux", "", "", "True", reasonRebooted},
		{"rebooted", "", "b2", "b1", "linux", "False", "TortieIsUp", "True", reasonRebooted},
		{"rebooted, and the agent has said so", "", "b2", "b1", "linux", "True", "TortieIsStarting", "True", "TortieIsStarting"},
		{"up", "", "b1", "b1", "linux", "False", "TortieIsUp", "False", "TortieIsUp"},
		{"up, and overruled by an old look", "", "b1", "b1", "linux", "True", reasonRebooted, "False", reasonUp},
		{"up, and the agent says no", "", "b1", "b1", "linux", "True", "TortieIsStarting", "True", "TortieIsStarting"},
		{"windows", "", "b1", "", "windows", "", "", "", ""},
		{"no kubelet", "", "", "", "linux", "", "", "", ""},
		{"one that agents run on", "plugin=tortie", "b1", "", "linux", "", "", "True", reasonRebooted},
		{"another plugin's", "plugin=other", "b1", "", "linux", "", "", "", ""},
		{"another plugin's, which says yes", "plugin=other", "b1", "", "linux", "False", "OtherIsUp", "False", "OtherIsUp"},
		{"another plugin's, which says no", "plugin=other", "b1", "", "linux", "True", "OtherIsStarting", "True", "OtherIsStarting"},
		{"another plugin's, with what these controllers said", "plugin=other", "b1", "", "linux", "True", reasonRebooted, "False", reasonElsewhere},
		{"another plugin's, with what the agent said", "plugin=other", "b2", "b1", "linux", "True", "TortieIsStarting", "False", reasonElsewhere},
		{"another plugin's, and agents were there before its boot", "plugin=other", "b2", "b1", "linux", "False", "TortieIsUp", "False", "TortieIsUp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client := fake.NewClientset(bootedNode(tc.booted, tc.confirmed, tc.os, tc.status, tc.reason))
			var kicks atomic.Int32
			b := runBoots(t, client, tc.agents, func() { kicks.Add(1) })
			for range 2 {
				if err := b.step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if c := networkOf(t, client); string(c.Status) != tc.wantStatus || c.Reason != tc.wantReason {
				t.Errorf("%s %s, want %s %s", c.Status, c.Reason, tc.wantStatus, tc.wantReason)
			}
			if judged := tc.status != corev1.ConditionStatus(tc.wantStatus) || tc.reason != tc.wantReason; judged != (kicks.Load() > 0) {
				t.Errorf("%d kicks", kicks.Load())
			}
		})
	}
}

// runBoots follows the nodes until the test ends; agents as those who start the controllers say it.
func runBoots(t *testing.T, client *fake.Clientset, agents string, changed func()) *boots {
	t.Helper()
	var selector labels.Selector
	if agents != "" {
		var err error
		if selector, err = labels.Parse(agents); err != nil {
			t.Fatal(err)
		}
	}
	b := newBoots(fakeNodes{client.CoreV1()}, selector, newConfig(newWorld(), nil), changed)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	until(t, "the node", b.synced)
	return b
}

// networkOf is n1's condition NetworkUnavailable.
func networkOf(t *testing.T, client *fake.Clientset) (c corev1.NodeCondition) {
	t.Helper()
	n, err := client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range n.Status.Conditions {
		if x.Type == corev1.NodeNetworkUnavailable {
			c = x
		}
	}
	return c
}

// TestBootsFollowLabels: a node is looked at anew when agents begin or end to run on it.
func TestBootsFollowLabels(t *testing.T) {
	client := fake.NewClientset(bootedNode("b1", "", "linux", "", ""))
	kicked := make(chan struct{}, 1)
	b := runBoots(t, client, "plugin=tortie,kubernetes.io/os=linux", func() {
		select {
		case kicked <- struct{}{}:
		default:
		}
	})
	for _, tc := range []struct {
		labels             string
		wantStatus, reason string
	}{
		{`{"kubernetes.io/os": "linux"}`, "True", reasonRebooted},
		{`{"plugin": "other"}`, "False", reasonElsewhere},
		{`{"plugin": "tortie"}`, "True", reasonRebooted},
		{`{"plugin": null}`, "False", reasonElsewhere},
	} {
		patch := []byte(`{"metadata": {"labels": ` + tc.labels + `}}`)
		if _, err := client.CoreV1().Nodes().Patch(t.Context(), "n1", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-kicked:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no step is asked for", tc.labels)
		}
		until(t, tc.labels, func() bool {
			if err := b.step(t.Context()); err != nil {
				t.Fatal(err)
			}
			c := networkOf(t, client)
			return string(c.Status) == tc.wantStatus && c.Reason == tc.reason
		})
	}
}

// fakeNodes says that the fake server ends no list within a watch.
type fakeNodes struct{ corev1client.NodesGetter }

func (fakeNodes) IsWatchListSemanticsUnSupported() bool { return true }

func TestLivingPods(t *testing.T) {
	static := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "static", UID: "api", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "file"}}, Spec: corev1.PodSpec{NodeName: "n1"}}
	web := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "web", UID: "u1"}, Spec: corev1.PodSpec{NodeName: "n1"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	job := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "job", UID: "u2"}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
	going := web.DeepCopy()
	going.Name, going.UID, going.DeletionTimestamp, going.Finalizers = "going", "u3", &metav1.Time{Time: time.Now()}, []string{"x"}
	client := fake.NewClientset(static, web, job, going)
	r := &podReader{client.CoreV1()}
	for _, tc := range []struct {
		owner api.Owner
		want  bool
	}{
		{api.Owner{Namespace: "prod", Pod: "web", UID: "u1"}, true},
		{api.Owner{Namespace: "prod", Pod: "web", UID: "u0"}, false},
		{api.Owner{Namespace: "prod", Pod: "web", Node: "n1"}, true}, // by name, where there is no UID
		{api.Owner{Namespace: "prod", Pod: "web", Node: "n2"}, false},
		{api.Owner{Namespace: "prod", Pod: "job", UID: "u2"}, false},
		{api.Owner{Namespace: "prod", Pod: "going", UID: "u3"}, true},
		{api.Owner{Namespace: "prod", Pod: "none", UID: "u4"}, false},
		{api.Owner{Namespace: "kube-system", Pod: "static", UID: "file"}, true},
	} {
		if got, err := r.lives(t.Context(), tc.owner); err != nil || got != tc.want {
			t.Errorf("%+v: %v, %v", tc.owner, got, err)
		}
	}
	for _, o := range []api.Owner{{Namespace: "prod", Pod: "a/b"}, {Namespace: "prod", Pod: ".."}, {Namespace: "%", Pod: "web"}, {Pod: "web"}} {
		if lives, err := r.lives(t.Context(), o); lives || err == nil || errors.Is(err, datastore.ErrUnavailable) {
			t.Errorf("nobody can ask for %+v: %v, %v", o, lives, err)
		}
	}
	for _, tc := range []struct {
		err  error
		away bool
	}{
		{errors.New("connection refused"), true},
		{kerrors.NewServiceUnavailable("it starts"), true},
		{kerrors.NewTooManyRequests("later", 1), true},
		{kerrors.NewForbidden(corev1.Resource("pods"), "web", errors.New("no role")), false},
		{kerrors.NewInternalError(errors.New("it can't be decrypted")), false},
	} {
		client.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, tc.err })
		_, err := r.lives(t.Context(), api.Owner{Namespace: "prod", Pod: "web", UID: "u0"})
		if !errors.Is(err, tc.err) || errors.Is(err, datastore.ErrUnavailable) != tc.away {
			t.Errorf("the server says %v: %v", tc.err, err)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// TestLease has two processes: one leads at a time, and the other one goes on when the first ends or can't renew.
func TestLease(t *testing.T) {
	client := fake.NewClientset()
	var leaders atomic.Int32
	var cut atomic.Bool
	client.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) { return cut.Load(), nil, errAway })
	type process struct {
		stop    context.CancelFunc
		leading atomic.Bool
		done    chan struct{}
	}
	start := func(id string) *process {
		p := &process{done: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		p.stop = cancel
		l := &Lease{Client: client.CoordinationV1(), Namespace: "tortie-system", Identity: id, duration: 3 * time.Second, deadline: time.Second, every: 50 * time.Millisecond}
		go func() {
			defer close(p.done)
			err := l.lead(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) {
				if leaders.Add(1) > 1 {
					t.Error("two lead at once")
				}
				p.leading.Store(true)
				<-ctx.Done()
				p.leading.Store(false)
				leaders.Add(-1)
			})
			if err != nil {
				t.Error(err)
			}
		}()
		return p
	}
	a := start("a")
	until(t, "a to lead", a.leading.Load)
	b := start("b")
	a.stop()
	<-a.done
	until(t, "b to lead", b.leading.Load)
	cut.Store(true)
	until(t, "b to notice that it can't renew", func() bool { return !b.leading.Load() })
	cut.Store(false)
	until(t, "b to lead again", b.leading.Load)
	b.stop()
	<-b.done
	if leaders.Load() != 0 {
		t.Error("somebody still leads")
	}
}
