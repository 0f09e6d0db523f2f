package calico

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// kind is one kind of Calico's, and what becomes of it.
type kind struct {
	resource, from, to string
	skip               string // why none of them is brought along
	decides            bool   // about traffic
}

// kinds is in the order in which they are written; see do.go. The table is never written to.
var kinds = []kind{
	{resource: "ipamblocks", from: "IPAMBlock", to: "IPAMBlock"},
	{resource: "blockaffinities", from: "BlockAffinity", to: "BlockAffinity"},
	{resource: "ipamhandles", from: "IPAMHandle", to: "IPAMHandle"},
	{resource: "ipamconfigs", from: "IPAMConfig", to: "IPAMConfiguration"},
	{resource: "ipreservations", from: "IPReservation", to: "IPReservation", decides: true},
	{resource: "tiers", from: "Tier", to: "Tier", decides: true},
	{resource: "globalnetworksets", from: "GlobalNetworkSet", to: "GlobalNetworkSet", decides: true},
	{resource: "networksets", from: "NetworkSet", to: "NetworkSet", decides: true},
	{resource: "globalnetworkpolicies", from: "GlobalNetworkPolicy", to: "GlobalNetworkPolicy", decides: true},
	{resource: "networkpolicies", from: "NetworkPolicy", to: "NetworkPolicy", decides: true},
	{resource: "stagedglobalnetworkpolicies", from: "StagedGlobalNetworkPolicy", to: "StagedGlobalNetworkPolicy"},
	{resource: "stagednetworkpolicies", from: "StagedNetworkPolicy", to: "StagedNetworkPolicy"},
	{resource: "stagedkubernetesnetworkpolicies", from: "StagedKubernetesNetworkPolicy", to: "StagedKubernetesNetworkPolicy"},
	{resource: "hostendpoints", from: "HostEndpoint", to: "HostEndpoint", decides: true},
	{resource: "felixconfigurations", from: "FelixConfiguration", to: "FelixConfiguration", decides: true},
	{resource: "bgpconfigurations", from: "BGPConfiguration", to: "BGPConfiguration"},
	{resource: "bgpfilters", from: "BGPFilter", to: "BGPFilter"},
	{resource: "bgppeers", from: "BGPPeer", to: "BGPPeer"},
	{resource: "kubecontrollersconfigurations", from: "KubeControllersConfiguration", to: "KubeControllersConfiguration"},
	{resource: "caliconodestatuses", from: "CalicoNodeStatus", skip: "it asks Calico's own agents how they are"},
	{resource: "clusterinformations", from: "ClusterInformation", skip: "it says what Calico is, and whether it is locked"},
	{resource: "ippools", from: "IPPool", to: "IPPool", decides: true},
}

// Action is what is done about an object.
type Action string

const (
	Create   Action = "create"
	Update   Action = "update"    // addresses that a block here does not know yet are added to it
	Same     Action = "unchanged" // it is here already
	Keep     Action = "keep"      // another one of that name is here, and stays
	Skip     Action = "skip"      // it is not brought along
	Conflict Action = "conflict"  // an address is somebody else's here: nothing is done before that is resolved
)

// Step is what is done about one object.
type Step struct {
	Action Action     `json:"action"`
	Kind   string     `json:"kind"`
	From   string     `json:"from,omitempty"`   // its name at Calico, with its namespace, if it is not that of To
	To     *api.Key   `json:"to,omitempty"`     // nil for what is not brought along
	Why    []string   `json:"why,omitempty"`    // of Skip, Keep and Conflict; and what of it stays behind
	Loss   bool       `json:"loss,omitempty"`   // what Calico did about traffic because of it, nobody would do any more
	Object api.Object `json:"object,omitempty"` // as it is written
}

// Plan is all steps, in their order.
type Plan struct {
	// Locked says that Calico's agents have been told not to write any more.
	Locked bool   `json:"locked"`
	Steps  []Step `json:"steps"`
}

// Options says more about a plan.
type Options struct {
	// Kubernetes says that the store is the API server that the pods are in too: elsewhere their addresses mean nothing.
	Kubernetes bool
	// Overwrite replaces objects that are here and differ. Not blocks.
	Overwrite bool
}

// Count returns how many steps have one of the actions.
func (p *Plan) Count(actions ...Action) int {
	n := 0
	for _, s := range p.Steps {
		if slices.Contains(actions, s.Action) {
			n++
		}
	}
	return n
}

// Losses are the steps after which something about traffic is not as it was.
func (p *Plan) Losses() []Step {
	return slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return !s.Loss })
}

// Make reads both sides and says what is to be done.
func Make(ctx context.Context, from Source, to datastore.Store, o Options) (*Plan, error) {
	p := &Plan{}
	var err error
	if p.Locked, err = locked(ctx, from); err != nil {
		return nil, err
	}
	taken := map[api.Key]string{}
	for _, k := range kinds {
		objects, err := read(ctx, from, k)
		if err != nil {
			return nil, err
		}
		var steps []Step
		switch {
		case k.skip != "":
			steps = skipped(k, objects, k.skip)
		case isAddresses(k) && !o.Kubernetes:
			steps = skipped(k, objects, "addresses of pods: the store is not the API server of their cluster (--store kubernetes)")
		case k.to == "IPAMBlock":
			steps, err = planBlocks(ctx, from, to, objects)
		case k.to == "BlockAffinity":
			steps = skipped(k, objects, "affinities are made of the blocks that are brought along")
		case k.to == "IPAMHandle":
			steps = skipped(k, objects, "handles are found in the blocks; those of borrowed addresses are made anew")
		default:
			steps, err = planObjects(ctx, to, k, objects, taken, o.Overwrite)
		}
		if err != nil {
			return nil, err
		}
		p.Steps = append(p.Steps, steps...)
	}
	return p, nil
}

func isAddresses(k kind) bool {
	return k.to == "IPAMBlock" || k.to == "BlockAffinity" || k.to == "IPAMHandle"
}

// locked says whether Calico's agents write no addresses: its data is marked as not ready, or there is no Calico.
func locked(ctx context.Context, from Source) (bool, error) {
	objects, err := from.List(ctx, "clusterinformations")
	if err != nil {
		return false, fmt.Errorf("reading Calico's clusterinformations: %w", err)
	}
	for _, data := range objects {
		var o struct {
			Metadata struct{ Name string }
			Spec     struct{ DatastoreReady *bool }
		}
		if err := json.Unmarshal(data, &o); err != nil {
			return false, fmt.Errorf("reading Calico's ClusterInformation: %w", err)
		}
		if o.Metadata.Name == api.DefaultConfiguration {
			return o.Spec.DatastoreReady != nil && !*o.Spec.DatastoreReady, nil
		}
	}
	return false, nil
}

func read(ctx context.Context, from Source, k kind) ([]*object, error) {
	list, err := from.List(ctx, k.resource)
	if err != nil {
		return nil, fmt.Errorf("reading Calico's %s: %w", k.resource, err)
	}
	out := make([]*object, 0, len(list))
	for _, data := range list {
		o := &object{}
		if err := json.Unmarshal(data, o); err != nil {
			return nil, fmt.Errorf("reading Calico's %s: %w", k.resource, err)
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *object) int {
		return cmp.Or(strings.Compare(a.Metadata.Namespace, b.Metadata.Namespace), strings.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	return out, nil
}

func (o *object) name() string {
	if o.Metadata.Namespace != "" {
		return o.Metadata.Namespace + "/" + o.Metadata.Name
	}
	return o.Metadata.Name
}

func skipped(k kind, objects []*object, why string) []Step {
	var out []Step
	for _, o := range objects {
		out = append(out, Step{Action: Skip, Kind: k.from, From: o.name(), Why: []string{why}})
	}
	return out
}

// planObjects plans one kind of which each object is by itself.
func planObjects(ctx context.Context, to datastore.Store, k kind, objects []*object, taken map[api.Key]string, overwrite bool) ([]Step, error) {
	var out []Step
	// Those that keep their names come first: one whose name loses its tier must not push another one out.
	slices.SortStableFunc(objects, func(a, b *object) int {
		return cmp.Compare(renamed(k, a), renamed(k, b))
	})
	for _, old := range objects {
		s := Step{Action: Skip, Kind: k.from, From: old.name()}
		o, changes, err := convert(k, old)
		switch {
		case err != nil:
			s.Why, s.Loss = []string{err.Error()}, k.decides
			out = append(out, s)
			continue
		case strings.HasPrefix(o.GetName(), "knp.default.") && k.to == "NetworkPolicy":
			s.Why = []string{"it is made of a Kubernetes NetworkPolicy, which is read as it is"}
			out = append(out, s)
			continue
		}
		key := api.KeyOf(o)
		if taken[key] != "" { // of two policies, which are both in force
			changes = append(changes, fmt.Sprintf("it keeps the name that Calico has stored: %s is another one", key.Name))
			o.SetName(old.Metadata.Name)
			key = api.KeyOf(o)
		}
		taken[key] = old.name()
		s.To, s.Object = &key, o
		if err := s.compare(ctx, to, overwrite); err != nil {
			return nil, err
		}
		switch s.Action {
		case Keep:
			s.Loss = k.decides
		case Create, Update:
			pool, ok := o.(*api.IPPool)
			s.Loss = ok && pool.Overlay()
			s.Why = append(s.Why, changes...)
		}
		for _, w := range api.Warnings(o) {
			s.Why = append(s.Why, strings.TrimPrefix(w.Error(), ": "))
		}
		out = append(out, s)
	}
	return out, nil
}

func renamed(k kind, o *object) int {
	if policyName(k.to, o.Metadata.Name, o.Spec) != o.Metadata.Name {
		return 1
	}
	return 0
}

// compare looks at what is here.
func (s *Step) compare(ctx context.Context, to datastore.Store, overwrite bool) error {
	for _, t := range api.BuiltinTiers() {
		if s.To.Kind == "Tier" && s.To.Name == t.Name {
			s.Action, s.Object, s.Why = Same, nil, []string{"it is built in"}
			return nil
		}
	}
	have, err := to.Get(ctx, *s.To)
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		s.Action = Create
	case errors.Is(err, datastore.ErrUnreadable):
		s.Action, s.Object, s.Why = Keep, nil, []string{"what is here under that name can't be read"}
	case err != nil:
		return err
	case alike(have, s.Object):
		s.Action, s.Object = Same, nil
	case overwrite:
		s.Action = Update
		s.Object.SetResourceVersion(have.GetResourceVersion())
		api.CopyStatus(s.Object, have)
	default:
		s.Action, s.Object, s.Why = Keep, nil, []string{"it is here already, and differs; --overwrite replaces it"}
	}
	return nil
}

// alike compares what users write.
func alike(have, want api.Object) bool {
	api.Default(have)
	want = api.DeepCopy(want)
	for k := range want.GetLabels() {
		if have.GetLabels()[k] != want.GetLabels()[k] {
			return false
		}
	}
	// Specs are compared as JSON: nil and empty are one, and only the spec is in it.
	return reflect.DeepEqual(specOf(have), specOf(want))
}

func specOf(o api.Object) any {
	data, err := api.Encode(o)
	if err != nil {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil
	}
	return m["spec"]
}
