package drivers

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// stateVersion is the version of what EncodeState writes. It is raised when an older reader would misread it.
const stateVersion = 1

// stateJSON is a State on its way to and from JSON: lists in place of maps, and each tier list once.
type stateJSON struct {
	Version    int
	Node       Node
	Masquerade Masquerade
	Peers      []*Peer        `json:",omitempty"`
	Routes     []*Route       `json:",omitempty"`
	Sets       []setEntry     `json:",omitempty"`
	Policies   []*Policy      `json:",omitempty"`
	TierLists  [][]tierJSON   `json:",omitempty"`
	Endpoints  []endpointJSON `json:",omitempty"`
}

type setEntry struct {
	ID  SetID
	Set *Set
}

// tierJSON has Order as text: it may be an infinity, which is no number in JSON.
type tierJSON struct {
	*TierPolicies
	Order string
}

// endpointJSON has the numbers of its tier lists, counted from 1; 0 is nil.
type endpointJSON struct {
	*Endpoint
	NormalIn     int `json:",omitempty"`
	NormalOut    int `json:",omitempty"`
	ForwardIn    int `json:",omitempty"`
	ForwardOut   int `json:",omitempty"`
	PreDNATIn    int `json:",omitempty"`
	UntrackedIn  int `json:",omitempty"`
	UntrackedOut int `json:",omitempty"`
}

// lists pairs the tier lists of e with their numbers.
func (e *endpointJSON) lists() [7]struct {
	list **TierList
	n    *int
} {
	p := &e.Endpoint.Policy
	return [7]struct {
		list **TierList
		n    *int
	}{
		{&p.Normal.In, &e.NormalIn}, {&p.Normal.Out, &e.NormalOut}, {&p.Forward.In, &e.ForwardIn}, {&p.Forward.Out, &e.ForwardOut},
		{&p.PreDNAT.In, &e.PreDNATIn}, {&p.Untracked.In, &e.UntrackedIn}, {&p.Untracked.Out, &e.UntrackedOut},
	}
}

// EncodeState writes s as JSON that DecodeState reads back: equal States give equal text. It is what survives a reboot.
func EncodeState(w io.Writer, s *State) error {
	j := stateJSON{Version: stateVersion, Node: s.Node, Masquerade: s.Masquerade}
	for _, k := range slices.Sorted(maps.Keys(s.Peers)) {
		if s.Peers[k].Name != k {
			return fmt.Errorf("encoding a state: peer %q is named %q", k, s.Peers[k].Name)
		}
		j.Peers = append(j.Peers, s.Peers[k])
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Routes), ComparePrefixes) {
		if s.Routes[k].Dst != k {
			return fmt.Errorf("encoding a state: the route to %s is one to %s", k, s.Routes[k].Dst)
		}
		j.Routes = append(j.Routes, s.Routes[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.Sets)) {
		j.Sets = append(j.Sets, setEntry{k, s.Sets[k]})
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Policies), PolicyID.Compare) {
		if s.Policies[k].ID != k {
			return fmt.Errorf("encoding a state: policy %s is named %s", k, s.Policies[k].ID)
		}
		j.Policies = append(j.Policies, s.Policies[k])
	}
	numbers := map[*TierList]int{nil: 0}
	for _, k := range slices.SortedFunc(maps.Keys(s.Endpoints), EndpointID.Compare) {
		if s.Endpoints[k].ID != k {
			return fmt.Errorf("encoding a state: endpoint %v is named %v", k, s.Endpoints[k].ID)
		}
		j.addEndpoint(s.Endpoints[k], numbers)
	}
	if err := json.NewEncoder(w).Encode(j); err != nil {
		return fmt.Errorf("encoding a state: %w", err)
	}
	return nil
}

func (j *stateJSON) addEndpoint(e *Endpoint, numbers map[*TierList]int) {
	c := *e
	ej := endpointJSON{Endpoint: &c}
	for _, l := range ej.lists() {
		n, ok := numbers[*l.list]
		if !ok {
			tiers := []tierJSON{}
			for i := range (*l.list).Tiers {
				t := &(*l.list).Tiers[i]
				tiers = append(tiers, tierJSON{t, strconv.FormatFloat(t.Order, 'g', -1, 64)})
			}
			j.TierLists = append(j.TierLists, tiers)
			n = len(j.TierLists)
			numbers[*l.list] = n
		}
		*l.n = n
	}
	j.Endpoints = append(j.Endpoints, ej)
}

// DecodeState reads what EncodeState wrote, and nothing else: another version, unknown fields, names that come twice, and
// values that no State has are errors. That references resolve is left to those who follow them.
func DecodeState(r io.Reader) (*State, error) {
	d := json.NewDecoder(bufio.NewReader(r))
	d.DisallowUnknownFields()
	var j stateJSON
	if err := d.Decode(&j); err != nil {
		return nil, fmt.Errorf("decoding a state: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decoding a state: there is more behind it")
	}
	if j.Version != stateVersion {
		return nil, fmt.Errorf("decoding a state: version %d, not %d", j.Version, stateVersion)
	}
	s, err := j.state()
	if err != nil {
		return nil, fmt.Errorf("decoding a state: %w", err)
	}
	return s, nil
}

func (j *stateJSON) state() (*State, error) {
	s := NewState()
	s.Node, s.Masquerade = j.Node, j.Masquerade
	for _, p := range j.Peers {
		if p == nil || !fresh(s.Peers, p.Name) {
			return nil, fmt.Errorf("peer %+v: empty, or there twice", p)
		}
		s.Peers[p.Name] = p
	}
	for _, r := range j.Routes {
		if r == nil || !fresh(s.Routes, r.Dst) {
			return nil, fmt.Errorf("route %+v: empty, or there twice", r)
		}
		s.Routes[r.Dst] = r
	}
	for _, e := range j.Sets {
		if e.Set == nil || !fresh(s.Sets, e.ID) {
			return nil, fmt.Errorf("set %q: empty, or there twice", e.ID)
		}
		s.Sets[e.ID] = e.Set
	}
	for _, p := range j.Policies {
		if p == nil || !fresh(s.Policies, p.ID) {
			return nil, fmt.Errorf("policy %+v: empty, or there twice", p)
		}
		s.Policies[p.ID] = p
	}
	lists, err := j.tierLists()
	if err != nil {
		return nil, err
	}
	for i := range j.Endpoints {
		e := &j.Endpoints[i]
		if e.Endpoint == nil || !fresh(s.Endpoints, e.ID) {
			return nil, fmt.Errorf("endpoint %d: empty, or there twice", i)
		}
		for _, l := range e.lists() {
			if *l.n < 0 || *l.n >= len(lists) {
				return nil, fmt.Errorf("endpoint %d: no tier list %d", i, *l.n)
			}
			*l.list = lists[*l.n]
		}
		s.Endpoints[e.ID] = e.Endpoint
	}
	return s, s.valid()
}

// fresh reports whether k is a key that m has not.
func fresh[K comparable, V any](m map[K]V, k K) bool {
	_, there := m[k]
	return !there
}

// tierLists returns the lists by number; number 0 is nil.
func (j *stateJSON) tierLists() ([]*TierList, error) {
	lists := []*TierList{nil}
	for i, tiers := range j.TierLists {
		l := &TierList{}
		for _, t := range tiers {
			order, err := strconv.ParseFloat(t.Order, 64)
			if err != nil || t.TierPolicies == nil {
				return nil, fmt.Errorf("tier list %d: a tier without a name or a good order", i+1)
			}
			t.TierPolicies.Order = order
			l.Tiers = append(l.Tiers, *t.TierPolicies)
		}
		lists = append(lists, l)
	}
	return lists, nil
}
