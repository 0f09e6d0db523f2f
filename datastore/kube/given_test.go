package kube

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestReadStatusInPools: the addresses of pods in pools of each kind, as a server says it.
func TestReadStatusInPools(t *testing.T) {
	for _, c := range []struct {
		spec string // of the pool
		want []string
		ours bool // the way to it
	}{
		{`{"cidr":"10.66.0.0/16"}`, nil, true},
		{`{"cidr":"10.66.0.0/16","disabled":true}`, []string{"10.66.0.6/32"}, false},
		{`{"cidr":"10.66.0.0/16","allowedUses":["Tunnel"]}`, []string{"10.66.0.6/32"}, true},
		{`{"cidr":"10.66.0.0/16","allowedUses":["Tunnel"],"disabled":true}`, []string{"10.66.0.6/32"}, true},
		{`{"cidr":"10.67.0.0/16","disabled":true}`, []string{"10.66.0.6/32"}, true},
	} {
		f := newFake(t)
		f.put(pools, "p", "", `,"spec":`+c.spec)
		f.put(pods, "ns/a", `"uid":"u"`, `,"spec":{"nodeName":"n"},"status":{"phase":"Running","podIPs":[{"ip":"10.66.0.6"}]}`)
		os, err := f.open().List(t.Context(), "WorkloadEndpoint", "")
		if err != nil || len(os) != 1 {
			t.Fatal(os, err)
		}
		if s := os[0].(*api.WorkloadEndpoint).Spec; !slices.Equal(s.IPNetworks, c.want) || (len(s.Foreign) == 0) != c.ours {
			t.Errorf("%s: has %v, and of others %v", c.spec, s.IPNetworks, s.Foreign)
		}
	}
}

// TestStrayIsTold: an address of a pod in an enabled pool that no block holds is told of by sweeps, and no more once one does.
func TestStrayIsTold(t *testing.T) {
	const uid = "0a1b2c3d-0000-4000-8000-000000000001"
	s := newFake(t).open()
	h := newHub([]string{"WorkloadEndpoint"}, nil, s.log)
	h.patience = time.Hour // sweeps are made here
	feeds := map[string]*source{}
	for _, src := range s.sources {
		if h.add(src) {
			feeds[src.name] = src
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: uid, ResourceVersion: "1"}, Spec: corev1.PodSpec{NodeName: "n"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.66.0.6"}}}}
	pool := &rawObject{ObjectMeta: metav1.ObjectMeta{Name: "blue", ResourceVersion: "2"}, data: []byte(`{"metadata":{"name":"blue"},"spec":{"cidr":"10.66.0.0/16"}}`)}
	for name, o := range map[string]runtime.Object{pods: pod, pools: pool, blocks: nil} {
		var items []*item
		if o != nil {
			items = append(items, feeds[name].convert(o))
		}
		h.replace(h.tables[name], items)
	}
	for sweep := range 2*agedSweeps + 1 {
		if sweep > 0 {
			h.sweep()
		}
		if (len(h.q.index) == 1) != (sweep == 0 || sweep == agedSweeps) {
			t.Fatalf("sweep %d: %d events", sweep, len(h.q.index))
		}
		if len(h.q.index) == 0 {
			continue
		}
		problems := next(t, h).Problems
		if told := len(problems) == 1; told != (sweep > 0) || told && (problems[0].Path != "status.podIPs" ||
			!strings.Contains(problems[0].Reason, "10.66.0.6 of pod ns/web is in IPPool blue, and no block holds it")) {
			t.Errorf("sweep %d: problems %v", sweep, problems)
		}
	}
	if h.join.aging() {
		t.Error("sweeps go on for what has been told")
	}
	b := block("", "", "", "", "", "", uid) // 10.66.0.6
	b.Spec.CIDR = "10.66.0.0/26"
	data, err := api.Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	h.put(h.tables[blocks], feeds[blocks].convert(&rawObject{ObjectMeta: metav1.ObjectMeta{Name: b.Name, ResourceVersion: "3"}, data: data}))
	now := next(t, h)
	if o, ok := now.Object.(*api.WorkloadEndpoint); !ok || len(now.Problems) != 0 || !slices.Equal(o.Spec.IPNetworks, []string{"10.66.0.6/32"}) {
		t.Errorf("once a block has it: %+v", now)
	}
}

// next is the one event that there is now.
func next(t *testing.T, h *hub) datastore.Event {
	t.Helper()
	if len(h.q.index) != 1 {
		t.Fatalf("%d events, want one", len(h.q.index))
	}
	es, _, err := h.q.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return es[0].tell()
}

func block(owners ...string) *api.IPAMBlock {
	b := &api.IPAMBlock{ObjectMeta: metav1.ObjectMeta{Name: "10-244-0-0-26"}, Spec: api.IPAMBlockSpec{CIDR: "10.244.0.0/26", Affinity: "host:n1"}}
	for i := range 64 {
		if i < len(owners) && owners[i] != "" {
			b.Spec.Allocations = append(b.Spec.Allocations, len(b.Spec.Attributes))
			b.Spec.Attributes = append(b.Spec.Attributes, api.AllocationAttribute{HandleID: owners[i],
				Secondary: api.Owner{Namespace: "default", UID: owners[i], Node: "n1"}.Attributes("host:n1")})
			continue
		}
		b.Spec.Allocations = append(b.Spec.Allocations, api.Free)
		b.Spec.Unallocated = append(b.Spec.Unallocated, i)
	}
	return b
}
