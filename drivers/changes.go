package drivers

import "net/netip"

// Changes says which keys may differ since the last Apply that returned nil. It is a hint about where to look: State is
// the truth. A key in Changes that is not in State was removed.
type Changes struct {
	Node       bool
	Masquerade bool
	Endpoints  map[EndpointID]struct{}
	Policies   map[PolicyID]struct{}
	Sets       map[SetID]*SetChange
	Routes     map[netip.Prefix]struct{}
	Peers      map[string]struct{}
}

// SetChange is the members of a set that came and went since the last Apply that returned nil. A member is in at most
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
