package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/ipam"
)

// bench is a cluster in memory: what pods there are it says itself, all else is in the store.
type bench struct {
	t       *testing.T
	store   *mem.Store
	now     time.Time
	w       *world
	metrics *metrics
	nodes   map[string]*ipam.Allocator
	pods    map[string]*pod // by namespace/name
	podsErr error           // of reads past the cache
	told    map[api.Key]string
	col     *collector
}

type pod struct {
	namespace, name, node string
	uid                   types.UID
	finished              bool
	handle                string // of the sandbox that it runs in
	held                  []ipam.Held
}

func newBench(t *testing.T, objects ...string) *bench {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: mem.New(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), w: newWorld(), metrics: m,
		nodes: map[string]*ipam.Allocator{}, pods: map[string]*pod{}, told: map[api.Key]string{}}
	for _, o := range objects {
		b.create(o)
	}
	return b
}

func (b *bench) create(text string) api.Object {
	b.t.Helper()
	objects, err := api.Decode([]byte(text))
	if err != nil {
		b.t.Fatal(err)
	}
	api.Default(objects[0])
	o, err := b.store.Create(b.t.Context(), objects[0])
	if err != nil {
		b.t.Fatal(err)
	}
	return o
}

func poolYAML(name, cidr, more string) string {
	return fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: %s}, spec: {cidr: %q%s}}", name, cidr, more)
}

func nodeYAML(name, more string) string {
	return fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: %s, labels: {zone: a}}, spec: {bgp: {ipv4Address: 192.0.2.1/24}%s}}", name, more)
}

// tier reads a tier.
func (b *bench) tier(name string) *api.Tier {
	b.t.Helper()
	o, err := b.store.Get(b.t.Context(), api.Key{Kind: "Tier", Name: name})
	if err != nil {
		b.t.Fatal(err)
	}
	return o.(*api.Tier)
}

func (b *bench) clock() time.Time { return b.now }

// node returns the allocator of a node.
func (b *bench) node(name string) *ipam.Allocator {
	if b.nodes[name] == nil {
		b.nodes[name] = ipam.New(ipam.Config{Store: b.store.Client(), Node: name, OneByOne: true, Clock: b.clock})
	}
	return b.nodes[name]
}

// sandbox starts p in a new sandbox.
func (b *bench) sandbox(p *pod, id string) {
	b.t.Helper()
	p.handle = ipam.HandleOf(id, "eth0")
	r, err := b.node(p.node).Assign(b.t.Context(), ipam.Request{Handle: p.handle, V4: true,
		Owner: api.Owner{Namespace: p.namespace, Pod: p.name, UID: string(p.uid)}})
	if err != nil {
		b.t.Fatal(err)
	}
	p.held = r.Addrs
}

// lives implements pods, as the API server would.
func (b *bench) lives(_ context.Context, o api.Owner) (bool, error) {
	if b.podsErr != nil {
		return false, b.podsErr
	}
	if strings.Contains(o.Pod, "/") {
		return false, fmt.Errorf("nobody can ask for pod %q", o.Pod)
	}
	p := b.pods[o.Namespace+"/"+o.Pod]
	return p != nil && !p.finished && string(p.uid) == o.UID, nil
}

// collector makes one, as a process that has just begun to lead has it.
func (b *bench) collector(s datastore.Store, p pods) *collector {
	return newCollector(b.w, newConfig(b.w, nil), collectorOptions{store: s, oneByOne: p != nil, pods: p, clock: b.clock,
		log: slog.New(slog.DiscardHandler), metrics: b.metrics.addresses})
}

// see tells the world what there is now of some kinds; none = all. WorkloadEndpoints are made of pods and of the blocks
// that the world knows of, as the store over Kubernetes makes them.
func (b *bench) see(kinds ...string) {
	b.t.Helper()
	if len(kinds) == 0 {
		kinds = watched
	}
	for _, kind := range kinds {
		objects, err := b.store.List(b.t.Context(), kind, "")
		if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
			b.t.Fatal(err)
		}
		if kind == "WorkloadEndpoint" {
			objects = append(objects, b.endpoints()...)
		}
		b.tell(kind, objects)
	}
}

func (b *bench) tell(kind string, objects []api.Object) {
	batch := datastore.Batch{InSync: true, Status: datastore.Status{Connected: true}}
	there := map[api.Key]bool{}
	for _, o := range objects {
		there[api.KeyOf(o)] = true
		b.told[api.KeyOf(o)] = kind
		batch.Events = append(batch.Events, datastore.Event{Key: api.KeyOf(o), Object: o})
	}
	for key, k := range b.told {
		if k == kind && !there[key] {
			delete(b.told, key)
			batch.Events = append(batch.Events, datastore.Event{Key: key})
		}
	}
	b.w.take(batch)
}

func (b *bench) endpoints() []api.Object {
	blocks, err := listed[*api.IPAMBlock](b.w, "IPAMBlock")
	if err != nil {
		blocks = nil
	}
	var out []api.Object
	for _, p := range b.pods {
		e := &api.WorkloadEndpoint{}
		e.Namespace, e.Name, e.UID = p.namespace, api.WorkloadEndpointName(p.node, "k8s", p.name, "eth0"), p.uid
		for _, bl := range blocks {
			for a, o := range bl.Owners() {
				if o.UID == string(p.uid) && !p.finished {
					e.Spec.IPNetworks = append(e.Spec.IPNetworks, a.String()+"/32")
				}
			}
		}
		out = append(out, e)
	}
	return out
}

// owners is who has which address, by what the store says.
func (b *bench) owners() map[netip.Addr]api.Owner {
	b.t.Helper()
	out := map[netip.Addr]api.Owner{}
	for _, bl := range stored[*api.IPAMBlock](b, "IPAMBlock") {
		for a, o := range bl.Owners() {
			out[a] = o
		}
	}
	return out
}

// stored is what the store has of a kind, and can be read.
func stored[T api.Object](b *bench, kind string) []T {
	b.t.Helper()
	objects, err := b.store.List(b.t.Context(), kind, "")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		b.t.Fatal(err)
	}
	var out []T
	for _, o := range objects {
		out = append(out, o.(T))
	}
	return out
}

// intact checks that every pod that runs has its addresses.
func (b *bench) intact() bool {
	b.t.Helper()
	all := b.owners()
	for _, p := range b.pods {
		for _, h := range p.held {
			if o := all[h.Addr]; !p.finished && o.UID != string(p.uid) {
				b.t.Errorf("%s of pod %s/%s (%s) on %s is %+v's", h.Addr, p.namespace, p.name, p.uid, p.node, o)
				return false
			}
		}
	}
	return true
}
