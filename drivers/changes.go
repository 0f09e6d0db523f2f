package drivers

import "net/netip"

// Changes says which keys may differ since the last Apply that returned nil, or, after one that returned an *ApplyError,
// since that one (see AfterApplyError). It is a hint about where to look: State is the truth. A key in Changes that is not
// in State was removed.
type Changes struct {
	Node       bool
	Masquerade bool
	Endpoints  map[EndpointID]struct{}
	Policies   map[PolicyID]struct{}
	Sets       map[SetID]*SetChange
	Routes     map[netip.Prefix]struct{}
	Peers      map[string]struct{}
}

// SetChange is the members of a set that came and went since the last Apply that took them in. A member is in at most
// one of the two. Full says that the members are not known: compare with the kernel.
type SetChange struct {
	Full           bool
	Added, Removed map[Member]struct{}
}

// NewChanges returns a Changes in which nothing has changed.
func NewChanges() *Changes {
	return &Changes{
		Endpoints: map[EndpointID]struct{}{},
		Policies:  map[PolicyID]struct{}{},
		Sets:      map[SetID]*SetChange{},
		Routes:    map[netip.Prefix]struct{}{},
		Peers:     map[string]struct{}{},
	}
}

// Empty reports whether nothing has changed.
func (c *Changes) Empty() bool {
	return !c.Node && !c.Masquerade && len(c.Endpoints) == 0 && len(c.Policies) == 0 && len(c.Sets) == 0 &&
		len(c.Routes) == 0 && len(c.Peers) == 0
}

// AfterError makes c fit for the Apply after one that returned an error: exact set deltas are no longer safe (some of
// them may be in the kernel), so each touched set becomes Full; keys stay.
func (c *Changes) AfterError() {
	for _, sc := range c.Sets {
		sc.Full, sc.Added, sc.Removed = true, nil, nil
	}
}

// AfterApplyError returns the Changes to begin with after an Apply of want, with c (nil = everything), that failed with
// err. What err does not name has been applied, so only the suspects stay: what it names, and what depends on that (a
// policy whose set failed may not be in the dataplane, though it is not to blame). Members of sets that came and went as an
// exact difference beside an object that failed are compared once more, in full.
func (c *Changes) AfterApplyError(err *ApplyError, want *State) *Changes {
	next := NewChanges()
	if c != nil {
		for id, sc := range c.Sets {
			if !sc.Full {
				next.Sets[id] = &SetChange{Full: true}
			}
		}
	}
	sets, policies := map[SetID]bool{}, map[PolicyID]bool{}
	for ref := range err.Failed {
		switch ref.Kind {
		case ObjNode:
			next.Node = true
		case ObjMasquerade:
			next.Masquerade = true
		case ObjEndpoint:
			next.Endpoints[ref.Endpoint] = struct{}{}
		case ObjPolicy:
			policies[ref.Policy] = true
		case ObjSet:
			next.Sets[ref.Set] = &SetChange{Full: true}
			sets[ref.Set] = true
		case ObjRoute:
			next.Routes[ref.Route] = struct{}{}
		case ObjPeer:
			next.Peers[ref.Peer] = struct{}{}
		}
	}
	dependents(want, sets, policies, next)
	return next
}

// dependents puts into ch the policies, those that name one of sets too, and the endpoints that name one of them all.
func dependents(want *State, sets map[SetID]bool, policies map[PolicyID]bool, ch *Changes) {
	if len(sets) > 0 {
		for id, p := range want.Policies {
			for set := range p.SetIDs {
				if sets[set] {
					policies[id] = true
					break
				}
			}
		}
	}
	for id := range policies {
		ch.Policies[id] = struct{}{}
	}
	if len(policies) == 0 {
		return
	}
	for id, e := range want.Endpoints {
		for pol := range e.PolicyIDs {
			if policies[pol] {
				ch.Endpoints[id] = struct{}{}
				break
			}
		}
	}
}

func (c *Changes) set(id SetID) *SetChange {
	sc := c.Sets[id]
	if sc == nil {
		sc = &SetChange{Added: map[Member]struct{}{}, Removed: map[Member]struct{}{}}
		c.Sets[id] = sc
	}
	return sc
}

func (sc *SetChange) add(m Member) {
	if _, ok := sc.Removed[m]; ok {
		delete(sc.Removed, m)
	} else {
		sc.Added[m] = struct{}{}
	}
}

func (sc *SetChange) remove(m Member) {
	if _, ok := sc.Added[m]; ok {
		delete(sc.Added, m)
	} else {
		sc.Removed[m] = struct{}{}
	}
}

// Update is what the graph hands to the owner of a State: the new value of each key that may have changed, nil for a key
// that is gone.
type Update struct {
	Node       *Node       // nil = unchanged
	Masquerade *Masquerade // nil = unchanged
	Endpoints  map[EndpointID]*Endpoint
	Policies   map[PolicyID]*Policy
	Sets       map[SetID]SetUpdate
	Routes     map[netip.Prefix]*Route
	Peers      map[string]*Peer
}

// SetUpdate is the new value of a set and what differs from its value in the last Update. A set that is new, or whose
// difference is not known, has Added and Removed nil and Full true. Set is nil for a set that is gone.
type SetUpdate struct {
	Set            *Set
	Full           bool
	Added, Removed []Member
}

// NewUpdate returns an empty Update.
func NewUpdate() *Update {
	return &Update{
		Endpoints: map[EndpointID]*Endpoint{},
		Policies:  map[PolicyID]*Policy{},
		Sets:      map[SetID]SetUpdate{},
		Routes:    map[netip.Prefix]*Route{},
		Peers:     map[string]*Peer{},
	}
}

// Empty reports whether u says nothing.
func (u *Update) Empty() bool {
	return u.Node == nil && u.Masquerade == nil && len(u.Endpoints) == 0 && len(u.Policies) == 0 && len(u.Sets) == 0 &&
		len(u.Routes) == 0 && len(u.Peers) == 0
}

// Merge puts u into s, and what it touched into ch (which may be nil). Several Updates may be merged before an Apply.
func (s *State) Merge(u *Update, ch *Changes) {
	if ch == nil {
		ch = NewChanges()
	}
	if u.Node != nil {
		s.Node, ch.Node = *u.Node, true
	}
	if u.Masquerade != nil {
		s.Masquerade, ch.Masquerade = *u.Masquerade, true
	}
	mergeMap(s.Endpoints, u.Endpoints, ch.Endpoints)
	mergeMap(s.Policies, u.Policies, ch.Policies)
	mergeMap(s.Routes, u.Routes, ch.Routes)
	mergeMap(s.Peers, u.Peers, ch.Peers)
	for id, su := range u.Sets {
		sc := ch.set(id)
		if su.Set == nil {
			delete(s.Sets, id)
			sc.Full, sc.Added, sc.Removed = true, nil, nil
			continue
		}
		s.Sets[id] = su.Set
		switch {
		case sc.Full:
		case su.Full:
			sc.Full, sc.Added, sc.Removed = true, nil, nil
		default:
			for _, m := range su.Removed {
				sc.remove(m)
			}
			for _, m := range su.Added {
				sc.add(m)
			}
		}
	}
}

func mergeMap[K comparable, V any](dst, src map[K]*V, touched map[K]struct{}) {
	for k, v := range src {
		if v == nil {
			delete(dst, k)
		} else {
			dst[k] = v
		}
		touched[k] = struct{}{}
	}
}
