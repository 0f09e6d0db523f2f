package fake

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/tortie/tortie/drivers"
)

// ErrInjected is wrapped by the errors of writes that FailWrite made fail.
var ErrInjected = errors.New("injected failure")

// World plays the kernel of one host. Its methods are safe for concurrent use; drivers are opened over it one after
// another, and what they leave behind stays.
type World struct {
	mu       sync.Mutex
	features drivers.Features
	held     *drivers.State // what is ours
	eval     *drivers.Evaluator
	foreign  map[drivers.ObjectRef]string
	counts   map[drivers.RuleID]drivers.Count

	writes  int
	failAt  int // the number of the write that fails; 0 = none
	refused map[drivers.ObjectRef]error
	onWrite func(n int, o drivers.ObjectRef)

	host  []drivers.HostIface
	links map[string]drivers.Attachment // by name of the host's side
	moved chan struct{}                 // closed when interfaces have changed
	cut   []netip.Addr
	kicks map[*Driver]func()
}

// NewWorld returns an empty World whose drivers have every feature but Atomic: a packet may meet an Apply half done.
func NewWorld() *World {
	f := drivers.AllFeatures("fake")
	f.Atomic = false
	return &World{
		features: f,
		held:     drivers.NewState(),
		foreign:  map[drivers.ObjectRef]string{},
		counts:   map[drivers.RuleID]drivers.Count{},
		refused:  map[drivers.ObjectRef]error{},
		links:    map[string]drivers.Attachment{},
		moved:    make(chan struct{}),
		kicks:    map[*Driver]func(){},
	}
}

// SetFeatures says what drivers opened from now on can enforce.
func (w *World) SetFeatures(f drivers.Features) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.features = f
}

// State returns a copy of what the World holds of ours. Endpoints on deny stand-ins are Degraded.
func (w *World) State() *drivers.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held.Clone()
}

// Dump prints everything that the World holds: what is ours, attached workloads, and what is foreign.
func (w *World) Dump() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	b.WriteString(w.held.String())
	for _, name := range slices.Sorted(maps.Keys(w.links)) {
		l := w.links[name]
		fmt.Fprintf(&b, "link %s %s %s %s %v mtu %d\n", name, l.ID.Sandbox, l.ID.Interface, l.MAC, l.Addrs, l.MTU)
	}
	var lines []string
	for o, content := range w.foreign {
		lines = append(lines, fmt.Sprintf("foreign %s: %s\n", o, content))
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, ""))
	return b.String()
}

// Evaluate sends a packet through the World, and counts it for the rules that it meets.
func (w *World) Evaluate(p drivers.Packet) drivers.Trace {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.eval == nil {
		w.eval = drivers.NewEvaluator(w.held)
	}
	t := w.eval.Evaluate(p)
	for _, s := range t.Steps {
		if s.Rule != 0 && !s.Staged {
			c := w.counts[s.Rule]
			c.Packets++
			w.counts[s.Rule] = c
		}
	}
	return t
}

// Edit meddles with what is ours behind the driver's back, as another program would: fn may change the maps, and put in
// other values. References are not checked.
func (w *World) Edit(fn func(s *drivers.State)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(w.held)
	w.eval = nil
}

// Reboot forgets everything that a kernel forgets: what is ours, and the workloads' interfaces.
func (w *World) Reboot() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held, w.eval = drivers.NewState(), nil
	w.links = map[string]drivers.Attachment{}
	w.counts = map[drivers.RuleID]drivers.Count{}
	w.cut = nil
	w.announce()
}

// Kick makes the World tell the drivers open over it that something moved under them.
func (w *World) Kick() {
	w.mu.Lock()
	kicks := slices.Collect(maps.Values(w.kicks))
	w.mu.Unlock()
	for _, kick := range kicks {
		kick()
	}
}

// AddForeign puts in a thing that is not ours, in the place that o names: a write of ours to that place is refused.
func (w *World) AddForeign(o drivers.ObjectRef, content string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foreign[o] = content
}

// Foreign returns what is not ours.
func (w *World) Foreign() map[drivers.ObjectRef]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.foreign)
}

// Writes is how many writes there have been, failed ones included.
func (w *World) Writes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}

// FailWrite makes the n-th write from now fail, and with it the whole Apply: n is 1 for the next one, 0 for none.
func (w *World) FailWrite(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failAt = 0
	if n > 0 {
		w.failAt = w.writes + n
	}
}

// Refuse makes every write of o fail with err, until Accept. Removing o, and putting an endpoint on a deny stand-in, are
// not refused.
func (w *World) Refuse(o drivers.ObjectRef, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused[o] = err
}

// Accept ends Refuse.
func (w *World) Accept(o drivers.ObjectRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.refused, o)
}

// OnWrite calls fn before each write, with its number and what it is about; nil for none. fn may meddle with the World.
func (w *World) OnWrite(fn func(n int, o drivers.ObjectRef)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onWrite = fn
}

// SetHost says which interfaces the host has, beside those of workloads.
func (w *World) SetHost(ifaces []drivers.HostIface) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.host = slices.Clone(ifaces)
	w.announce()
}

// Links returns the workloads that are plugged in, by name of the host's side.
func (w *World) Links() map[string]drivers.Attachment {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.links)
}

// Cut returns the addresses whose flows were cut, in order.
func (w *World) Cut() []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.cut)
}

// announce tells watchers that interfaces have changed. The caller holds the lock.
func (w *World) announce() {
	close(w.moved)
	w.moved = make(chan struct{})
}
