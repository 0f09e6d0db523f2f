package controllers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// watched is the kinds that the controllers follow.
var watched = []string{
	"IPAMBlock", "BlockAffinity", "IPAMHandle", "IPPool", "IPReservation", "IPAMConfiguration", "WorkloadEndpoint", "Node",
	"HostEndpoint", "KubeControllersConfiguration", "Tier",
	"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy",
}

// world is what the watch told. What it returns is shared, and not changed.
type world struct {
	mu       sync.Mutex
	objects  map[string]map[api.Key]api.Object
	unread   map[string]map[api.Key]error // objects that can't be read
	policies map[api.Key]policy
	status   datastore.Status
	inSync   bool
	kicks    map[string][]func() // by kind; "" is for changes of the watch's health
}

// policy is what matters of a policy here.
type policy struct {
	uid      types.UID
	tier     string
	problem  error         // it can't be read at all
	problems []api.Problem // parts of it can't
}

func newWorld() *world {
	return &world{objects: map[string]map[api.Key]api.Object{}, unread: map[string]map[api.Key]error{}, policies: map[api.Key]policy{},
		kicks: map[string][]func(){}}
}

// onChange has fn called after changes of kinds. fn must not block.
func (w *world) onChange(fn func(), kinds ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range kinds {
		w.kicks[k] = append(w.kicks[k], fn)
	}
}

// take takes in what the watch tells.
func (w *world) take(b datastore.Batch) {
	w.mu.Lock()
	kinds := map[string]bool{}
	for _, e := range b.Events {
		w.set(e)
		kinds[e.Key.Kind] = true
	}
	if b.InSync != w.inSync || b.Status.Connected != w.status.Connected {
		kinds[""] = true
	}
	w.inSync, w.status = w.inSync || b.InSync, b.Status
	var kicks []func()
	for k := range kinds {
		kicks = append(kicks, w.kicks[k]...)
	}
	w.mu.Unlock()
	for _, fn := range kicks {
		fn()
	}
}

func (w *world) set(e datastore.Event) {
	kind := e.Key.Kind
	delete(w.objects[kind], e.Key)
	delete(w.unread[kind], e.Key)
	delete(w.policies, e.Key)
	if tier, ok := tierOf(e); ok {
		p := policy{tier: tier, problem: e.Problem, problems: e.Problems}
		if e.Object != nil {
			p.uid = e.Object.GetUID()
		}
		var unread *datastore.UnreadableError
		if errors.As(e.Problem, &unread) {
			p.uid = types.UID(unread.UID)
		}
		if e.Object != nil || e.Problem != nil {
			w.policies[e.Key] = p
		}
		return
	}
	if e.Object != nil {
		put(w.objects, kind, e.Key, trimmed(e.Object))
	}
	if err := unread(e); err != nil {
		put(w.unread, kind, e.Key, err)
	}
}

// unread says why an object can't be read. A configuration that can be in part says something else than it did: it is one.
func unread(e datastore.Event) error {
	if e.Problem != nil || e.Key.Kind != "KubeControllersConfiguration" {
		return e.Problem
	}
	var errs []error
	for _, p := range e.Problems {
		if strings.HasPrefix(p.Path, "spec") {
			errs = append(errs, fmt.Errorf("%v: %w", e.Key, p))
		}
	}
	return errors.Join(errs...)
}

func put[T any](m map[string]map[api.Key]T, kind string, key api.Key, value T) {
	if m[kind] == nil {
		m[kind] = map[api.Key]T{}
	}
	m[kind][key] = value
}

// trimmed is what is kept of an object.
func trimmed(o api.Object) api.Object {
	e, ok := o.(*api.WorkloadEndpoint)
	if !ok {
		return o
	}
	small := &api.WorkloadEndpoint{}
	small.Namespace, small.Name, small.UID = e.Namespace, e.Name, e.UID
	small.Spec.IPNetworks = e.Spec.IPNetworks
	return small
}

// tierOf says in which tier a policy is; ok is false for other kinds.
func tierOf(e datastore.Event) (tier string, ok bool) {
	switch o := e.Object.(type) {
	case *api.NetworkPolicy:
		tier = o.Spec.Tier
	case *api.GlobalNetworkPolicy:
		tier = o.Spec.Tier
	case *api.StagedNetworkPolicy:
		tier = o.Spec.Tier
	case *api.StagedGlobalNetworkPolicy:
		tier = o.Spec.Tier
	}
	if tier == "" {
		tier = api.DefaultTier
	}
	return tier, strings.HasSuffix(e.Key.Kind, "Policy")
}

// errBlind says that what the watch told last may not be so any more.
var errBlind = errors.New("the watch does not show what is there now")

// sees returns an error that wraps errBlind unless the world is up to date.
func (w *world) sees() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.inSync:
		return fmt.Errorf("%w: the first snapshot has not come yet", errBlind)
	case !w.status.Connected:
		return fmt.Errorf("%w: %w", errBlind, cmpErr(w.status.Err, datastore.ErrUnavailable))
	}
	return nil
}

func cmpErr(err, otherwise error) error {
	if err == nil {
		return otherwise
	}
	return err
}

// list returns the objects of a kind that can be read, sorted, and as the error which can't.
func (w *world) list(kind string) ([]api.Object, error) {
	if err := w.sees(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.status.Kinds[kind]; err != nil {
		return nil, fmt.Errorf("%w: %w", errBlind, err)
	}
	out := slices.SortedFunc(maps.Values(w.objects[kind]), func(a, b api.Object) int {
		if c := strings.Compare(a.GetNamespace(), b.GetNamespace()); c != 0 {
			return c
		}
		return strings.Compare(a.GetName(), b.GetName())
	})
	var errs []error
	for _, err := range w.unread[kind] {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return out, fmt.Errorf("%w: %w", datastore.ErrUnreadable, errors.Join(errs...))
	}
	return out, nil
}

// listed is list for one type. What can't be read is an error, too.
func listed[T api.Object](w *world, kind string) ([]T, error) {
	objects, err := w.list(kind)
	out := make([]T, 0, len(objects))
	for _, o := range objects {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out, err
}

// unlisted says which of kinds can't be listed now, so that there may be more of them. One that the server does not serve has
// none, and is no error.
func (w *world) unlisted(kinds ...string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, kind := range kinds {
		if err := w.status.Kinds[kind]; err != nil {
			errs = append(errs, fmt.Errorf("%w: %w", errBlind, err))
		}
	}
	return errors.Join(errs...)
}

// allPolicies returns a copy of what there is.
func (w *world) allPolicies() map[api.Key]policy {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.policies)
}

// clear forgets everything: another watch begins.
func (w *world) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects, w.unread, w.policies = map[string]map[api.Key]api.Object{}, map[string]map[api.Key]error{}, map[api.Key]policy{}
	w.status, w.inSync = datastore.Status{}, false
}
