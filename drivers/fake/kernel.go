package fake

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	"github.com/tortie/tortie/drivers"
)

// The errors of refused writes.
var (
	errForeign = errors.New("something that is not ours is in its place")
	errInUse   = errors.New("something refers to it")
)

// abortError ends an Apply: it says nothing about the object that the write was about.
type abortError struct{ err error }

func (e abortError) Error() string { return e.err.Error() }
func (e abortError) Unwrap() error { return e.err }

// write is one system call: it counts, fails where a test wants it to, and else does what the caller wants, under the
// lock. mild writes (removals and stand-ins) are not refused.
func (w *World) write(o drivers.ObjectRef, mild bool, do func() error) error {
	w.mu.Lock()
	w.writes++
	n, hook := w.writes, w.onWrite
	w.mu.Unlock()
	if hook != nil {
		hook(n, o)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n == w.failAt {
		return abortError{fmt.Errorf("write %d, of %s: %w", n, o, ErrInjected)}
	}
	if _, ok := w.foreign[o]; ok {
		return errForeign
	}
	if err := w.refused[o]; err != nil && !mild {
		return err
	}
	w.eval = nil
	return do()
}

// same reports whether two values are equal in all that counts.
func same[T any](a, b *T) bool {
	return a == b || a != nil && b != nil && reflect.DeepEqual(a, b)
}

// read returns what the World holds of one object.
func read[K comparable, V any](w *World, m func(*drivers.State) map[K]V, k K) V {
	w.mu.Lock()
	defer w.mu.Unlock()
	return m(w.held)[k]
}

// put writes v into one of the World's maps, unless it is there already.
func put[K comparable, V any](w *World, o drivers.ObjectRef, m func(*drivers.State) map[K]*V, k K, v *V, check func() error) error {
	if same(read(w, m, k), v) {
		return nil
	}
	return w.write(o, false, func() error {
		if check != nil {
			if err := check(); err != nil {
				return err
			}
		}
		m(w.held)[k] = v
		return nil
	})
}

// remove removes an object, if it is there.
func remove[K comparable, V any](w *World, o drivers.ObjectRef, m func(*drivers.State) map[K]*V, k K, inUse func() bool) error {
	if read(w, m, k) == nil {
		return nil
	}
	return w.write(o, true, func() error {
		if inUse != nil && inUse() {
			return errInUse
		}
		delete(m(w.held), k)
		return nil
	})
}

func setsOf(s *drivers.State) map[drivers.SetID]*drivers.Set                { return s.Sets }
func policiesOf(s *drivers.State) map[drivers.PolicyID]*drivers.Policy      { return s.Policies }
func endpointsOf(s *drivers.State) map[drivers.EndpointID]*drivers.Endpoint { return s.Endpoints }
func peersOf(s *drivers.State) map[string]*drivers.Peer                     { return s.Peers }

// putSet makes a set hold exactly what set does.
func (w *World) putSet(id drivers.SetID, set *drivers.Set) error {
	if has := read(w, setsOf, id); has.Equal(set) {
		return nil
	}
	return w.write(setRef(id), false, func() error {
		w.held.Sets[id] = set
		return nil
	})
}

// changeSet adds members to a set and removes others. As in a kernel, the set must be there, what is added must not be
// and what is removed must be.
func (w *World) changeSet(id drivers.SetID, added, removed []drivers.Member) error {
	if len(added)+len(removed) == 0 {
		return nil
	}
	return w.write(setRef(id), false, func() error {
		set := w.held.Sets[id]
		if set == nil {
			return fmt.Errorf("changing members: %w", fs.ErrNotExist)
		}
		for _, m := range added {
			if set.Has(m) {
				return fmt.Errorf("adding member %s: %w", m, fs.ErrExist)
			}
		}
		for _, m := range removed {
			if !set.Has(m) {
				return fmt.Errorf("removing member %s: %w", m, fs.ErrNotExist)
			}
		}
		w.held.Sets[id] = set.With(added, removed)
		return nil
	})
}

func (w *World) removeSet(id drivers.SetID) error {
	return remove(w, setRef(id), setsOf, id, func() bool {
		for _, p := range w.held.Policies {
			for used := range p.SetIDs {
				if used == id {
					return true
				}
			}
		}
		return false
	})
}

// putPolicy refuses a policy that names a set which is not there, or which is of another kind, and one with a rule that
// the driver cannot express: Lower has left it out.
func (w *World) putPolicy(id drivers.PolicyID, p *drivers.Policy, f drivers.Features) error {
	return put(w, policyRef(id), policiesOf, id, p, func() error {
		if _, losses := drivers.LowerPolicy(p, f); len(losses) > 0 {
			return fmt.Errorf("clause %s: %w", losses[0].Clause, drivers.ErrUnsupported)
		}
		for used, kind := range p.SetIDs {
			set := w.held.Sets[used]
			switch {
			case set == nil:
				return fmt.Errorf("set %s: %w", used, fs.ErrNotExist)
			case set.Kind() != kind:
				return fmt.Errorf("set %s is of kind %s", used, set.Kind())
			}
		}
		return nil
	})
}

func (w *World) removePolicy(id drivers.PolicyID) error {
	return remove(w, policyRef(id), policiesOf, id, func() bool {
		for _, e := range w.held.Endpoints {
			for used := range e.PolicyIDs {
				if used == id {
					return true
				}
			}
		}
		return false
	})
}

// putEndpoint refuses an endpoint that names a policy which is not there.
func (w *World) putEndpoint(id drivers.EndpointID, e *drivers.Endpoint) error {
	return put(w, endpointRef(id), endpointsOf, id, e, func() error {
		for used := range e.PolicyIDs {
			if w.held.Policies[used] == nil {
				return fmt.Errorf("%s: %w", used, fs.ErrNotExist)
			}
		}
		return nil
	})
}

// putStandIn puts an endpoint on a deny stand-in.
func (w *World) putStandIn(id drivers.EndpointID, e *drivers.Endpoint, reason string) error {
	standIn := e.StandIn(reason)
	if same(read(w, endpointsOf, id), standIn) {
		return nil
	}
	return w.write(endpointRef(id), true, func() error {
		w.held.Endpoints[id] = standIn
		return nil
	})
}

// putRoute refuses an encapsulation that the host has not.
func (w *World) putRoute(r *drivers.Route, f drivers.Features) error {
	return put(w, routeRef(r.Dst), routesOf, r.Dst, r, func() error {
		if r.Kind == drivers.RouteRemote && !f.HasEncap(r.Encap) {
			return fmt.Errorf("encapsulation %s: %w", r.Encap, drivers.ErrUnsupported)
		}
		return nil
	})
}

func (w *World) putNode(n drivers.Node) error {
	w.mu.Lock()
	is := same(&w.held.Node, &n)
	w.mu.Unlock()
	if is {
		return nil
	}
	return w.write(drivers.ObjectRef{Kind: drivers.ObjNode}, false, func() error {
		w.held.Node = n
		return nil
	})
}

func (w *World) putMasquerade(m drivers.Masquerade) error {
	w.mu.Lock()
	is := same(&w.held.Masquerade, &m)
	w.mu.Unlock()
	if is {
		return nil
	}
	return w.write(drivers.ObjectRef{Kind: drivers.ObjMasquerade}, false, func() error {
		w.held.Masquerade = m
		return nil
	})
}
