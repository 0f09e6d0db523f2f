package kube

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// hub is where the sources of one watch meet. Each is fed by a goroutine of its own; what they change together is guarded
// by mu.
type hub struct {
	q   *queue
	log *slog.Logger
	// reread has a derived policy told once more, since what is to be said about it has changed. It does not block.
	reread func(src *source, from string)

	mu      sync.Mutex
	wanted  map[string]bool // kinds
	tables  map[string]*table
	waiting int // sources that have yet to be read as a whole
	join    *joiner
	joining int // of them, those that the joiner needs
	// sweeping: a sweep comes for pods that wait for service accounts, or whose status and blocks don't agree.
	sweeping bool
	patience time.Duration // between sweeps
	claims   map[api.Key]event
	known    map[api.Key]string // what the consumer holds of an earlier watch, and has not been seen yet
	out      []event

	states map[string]state
	status datastore.Status
	kick   chan struct{} // closed when the server answers again
}

// table is what was told of one source.
type table struct {
	src    *source
	rows   map[string]row
	synced bool
}

type row struct {
	key api.Key
	rev string
	sum uint64
}

func newHub(kinds []string, known map[api.Key]string, log *slog.Logger) *hub {
	h := &hub{q: newQueue(), log: log, wanted: map[string]bool{}, tables: map[string]*table{}, join: newJoiner(),
		claims: map[api.Key]event{}, known: map[api.Key]string{}, states: map[string]state{},
		status: datastore.Status{Since: time.Now()}, kick: make(chan struct{}), patience: accountPatience}
	for _, k := range kinds {
		h.wanted[k] = true
	}
	if h.wanted["WorkloadEndpoint"] && h.wanted["Profile"] {
		h.join.spaces, h.join.accounts = map[string]bool{}, map[string]bool{}
	}
	for k, rev := range known {
		if h.wanted[k.Kind] {
			h.known[k] = rev
		}
	}
	return h
}

// accountPatience is how long, and at most twice, a pod waits for its service account. The API server makes no pod without,
// but the two come in streams of their own; and the account may be gone again.
const accountPatience = 500 * time.Millisecond

// joins says whether a source is one that the joiner needs.
func joins(name string) bool { return name == pods || name == blocks || name == pools }

// add takes a source on, if it is needed.
func (h *hub) add(src *source) bool {
	if !h.wanted[src.kind] && !(h.wanted["WorkloadEndpoint"] && joins(src.name)) {
		return false
	}
	h.tables[src.name] = &table{src: src, rows: map[string]row{}}
	h.states[src.name] = state{}
	h.waiting++
	if joins(src.name) && h.wanted["WorkloadEndpoint"] {
		h.joining++
	}
	return true
}

// put takes in one object.
func (h *hub) put(t *table, it *item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put1(t, it)
	h.flush()
}

// drop takes in that an object is gone.
func (h *hub) drop(t *table, src string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop1(t, src)
	h.flush()
}

// replace takes in all objects of a source; nothing else is there.
func (h *hub) replace(t *table, items []*item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := make(map[string]bool, len(items))
	for _, it := range items {
		seen[it.src] = true
		h.put1(t, it)
	}
	if t.src.name == pods {
		for src := range h.join.pods {
			if !seen[src] {
				h.drop1(t, src)
			}
		}
	}
	for src := range t.rows {
		if !seen[src] {
			h.drop1(t, src)
		}
	}
	if !t.synced {
		t.synced = true
		h.sync(t)
	}
	h.flush()
}

// sync notes that a source has been read as a whole.
func (h *hub) sync(t *table) {
	if joins(t.src.name) && h.joining > 0 {
		if h.joining--; h.joining == 0 {
			h.tell(h.join.all())
		}
	}
	if h.waiting--; h.waiting > 0 {
		return
	}
	h.tell(h.join.excuse(true)) // there are no others than have been read
	for k := range h.known {
		h.out = append(h.out, event{key: k, known: true})
	}
	h.known = nil
	h.flush()
	h.q.sync()
}

// flush hands over what one step has changed.
func (h *hub) flush() {
	h.q.push(h.out...)
	h.out = nil
	if h.waiting == 0 && !h.sweeping && (h.join.lacking() || h.join.aging()) {
		h.sweeping = true
		time.AfterFunc(h.patience, h.sweep)
	}
}

// sweep ends that pods wait for service accounts which don't come, and tells of addresses that nobody has given.
func (h *hub) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sweeping = false
	h.tell(h.join.excuse(false))
	h.tell(h.join.age())
	h.flush()
}

// size is how many objects of a source are held.
func (h *hub) size(t *table) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.src.name == pods {
		return len(h.join.pods)
	}
	return len(t.rows)
}

func (h *hub) put1(t *table, it *item) {
	if t.src.name == pods {
		h.tell(h.join.pod(it.src, it.pod))
		if it.err == nil { // else it is a row, which says why
			h.dropRow(t, it.src)
			return
		}
	}
	if it.none() {
		h.drop1(t, it.src)
		return
	}
	old, had := t.rows[it.src]
	// The revision alone does not say that an object is as it was: a server that has gone back gives the same ones again.
	if had && old.rev == it.rev && old.sum == it.sum {
		return
	}
	t.rows[it.src] = row{it.key, it.rev, it.sum}
	defer h.rejoin(t.src.name, it.src, it) // what depends on it comes after it
	if had && old.key != it.key {
		h.emit(t.src, event{key: old.key, known: true})
		had = false
	}
	if had && it.sum != 0 && old.sum == it.sum {
		return
	}
	h.emit(t.src, event{key: it.key, obj: it.obj, problems: it.problems, err: it.err, known: had})
}

func (h *hub) drop1(t *table, src string) {
	if t.src.name == pods {
		h.tell(h.join.pod(src, nil))
	}
	h.dropRow(t, src)
}

func (h *hub) dropRow(t *table, src string) {
	old, had := t.rows[src]
	if !had {
		return
	}
	delete(t.rows, src)
	h.rejoin(t.src.name, src, &item{})
	h.emit(t.src, event{key: old.key, known: true})
}

// rejoin has the joiner know of an object that endpoints depend on.
func (h *hub) rejoin(name, src string, it *item) {
	switch {
	case !h.wanted["WorkloadEndpoint"]:
	case name == blocks:
		h.tell(h.join.block(src, it.cidr, it.leases))
	case name == pools:
		h.tell(h.join.pool(src, it.pool))
	case name == namespaces && h.join.spaces != nil:
		h.tell(h.join.namespace(src, it.obj != nil))
	case name == serviceAccounts && h.join.accounts != nil:
		h.tell(h.join.serviceAccount(src, it.obj != nil))
	}
}

// tell passes on what the joiner says. At first it waits for all that is joined, so that no pod is told without its
// addresses only to be told again.
func (h *hub) tell(changes []joined) {
	if h.joining > 0 {
		return
	}
	for _, c := range changes {
		e := event{key: c.key, end: c.e, known: c.known}
		if c.e != nil {
			e.problems = c.e.told()
		}
		h.meet(&e)
		h.out = append(h.out, e)
	}
}

// emit passes on a change of an object of src, if its kind is wanted.
func (h *hub) emit(src *source, e event) {
	if !h.wanted[src.kind] {
		return
	}
	if _, reserved := nativeOf(e.key); reserved && !h.settle(src, &e) {
		return
	}
	if rev, ok := h.known[e.key]; ok && e.obj != nil && rev == e.obj.GetResourceVersion() && len(e.problems) == 0 {
		delete(h.known, e.key)
		return // the consumer has it
	}
	h.meet(&e)
	h.out = append(h.out, e)
}

// meet marks e as known if the consumer has the key of an earlier watch.
func (h *hub) meet(e *event) {
	if _, ok := h.known[e.key]; ok {
		e.known = true
		delete(h.known, e.key)
	}
}

// settle decides between a policy that Kubernetes' own became, and a stored one of that name: the stored one loses, and
// the other one's event says so. It reports whether there is something to tell now.
func (h *hub) settle(src *source, e *event) bool {
	native, nativeFrom := h.native(e.key)
	if !src.native {
		if e.gone() {
			delete(h.claims, e.key)
		} else {
			h.claims[e.key] = *e
		}
		if native != nil {
			h.log.Warn("a policy has the name that a policy of Kubernetes' own has here, and does not count", "policy", e.key.String())
			h.reread(native, nativeFrom)
			return false
		}
		return true
	}
	claim, claimed := h.claims[e.key]
	if !claimed {
		return true
	}
	if e.gone() {
		*e = claim
	} else {
		e.problems = append(e.problems[:len(e.problems):len(e.problems)], collision(e.key))
	}
	e.known = true
	return true
}

func collision(k api.Key) api.Problem {
	return api.Problem{Path: "metadata.name", Reason: fmt.Sprintf("a %s of projectcalico.org/v3 is called %s, as this policy of Kubernetes' "+
		"own is here: that one does not count, rename it", k.Kind, k.Name)}
}

// native finds the object of Kubernetes' own that became key.
func (h *hub) native(key api.Key) (*source, string) {
	name := policies
	if key.Kind == "GlobalNetworkPolicy" {
		name = clusterPolicies
	}
	t := h.tables[name]
	if t == nil {
		return nil, ""
	}
	from, _ := nativeOf(key)
	if r, ok := t.rows[from]; ok && r.key == key {
		return t.src, from
	}
	return nil, ""
}

// retell tells a derived policy again, if it is still the one that is held.
func (h *hub) retell(src *source, it *item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tables[src.name]
	if r, ok := t.rows[it.src]; !ok || r.rev != it.rev || it.none() {
		return // its own event comes
	}
	h.emit(src, event{key: it.key, obj: it.obj, problems: it.problems, err: it.err, known: true})
	h.flush()
}
