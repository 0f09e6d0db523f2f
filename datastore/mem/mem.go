// Package mem is a datastore in memory, for tests: an ordered key-value store with revisions that does what etcd does,
// under the code that makes resources and watches of it, and with faults on demand.
package mem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/internal/revkv"
)

// Store is a datastore.Store in memory.
type Store struct {
	*revkv.Store
	c *client
}

// New returns an empty store.
func New() *Store { return NewWithLog(slog.New(slog.DiscardHandler)) }

// NewWithLog returns an empty store that logs what its watches meet.
func NewWithLog(log *slog.Logger) *Store {
	return open(&data{now: revkv.Position{Cluster: rand.Uint64(), Term: 2, Rev: 1}, changed: make(chan struct{})}, log)
}

func open(d *data, log *slog.Logger) *Store {
	c := &client{data: d}
	return &Store{Store: revkv.New(c, revkv.Options{Log: log}), c: c}
}

// Client returns another client of the same resources, with faults and an end of its own.
func (s *Store) Client() *Store { return open(s.c.data, slog.New(slog.DiscardHandler)) }

// data is the key-value store. changed is closed and replaced when anything changes, also of a client.
type data struct {
	mu      sync.Mutex
	now     revkv.Position
	entries []revkv.Entry // in the order of keys
	history []revision    // all since floor
	floor   int64         // revisions up to it are compacted
	life    int           // streams of an earlier one end
	changed chan struct{}
}

// client is a connection. Its faults are guarded by the mutex of data.
type client struct {
	*data
	err       error // of every call
	countdown int   // calls until err counts
	uses      int   // calls that err is good for; negative: all
	lose      int   // answers to commits that are lost, though they were done
	stalled   chan struct{}
	life      int
}

// revision is the changes of one transaction.
type revision struct {
	rev     int64
	entries []revkv.Entry
}

func (d *data) notify() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// enter begins a call: it waits while the store is stalled, and fails if it is to fail. Without an error data is locked.
func (c *client) enter(ctx context.Context) error {
	for {
		c.mu.Lock()
		stalled := c.stalled
		if stalled == nil {
			break
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return unavailable(ctx)
		case <-stalled:
		}
	}
	if ctx.Err() != nil {
		c.mu.Unlock()
		return unavailable(ctx)
	}
	if err := c.fault(); err != nil {
		c.mu.Unlock()
		return err
	}
	return nil
}

func unavailable(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", datastore.ErrUnavailable, ctx.Err())
}

func (c *client) fault() error {
	if c.err == nil || c.uses == 0 {
		return nil
	}
	if c.countdown > 0 {
		c.countdown--
		return nil
	}
	if c.uses > 0 {
		c.uses--
	}
	return c.err
}

func (d *data) find(key string) (int, bool) {
	return slices.BinarySearchFunc(d.entries, key, func(e revkv.Entry, k string) int { return strings.Compare(e.Key, k) })
}

func (d *data) get(keys []string) []revkv.Entry {
	out := make([]revkv.Entry, len(keys))
	for i, k := range keys {
		out[i].Key = k
		if at, ok := d.find(k); ok {
			out[i] = d.entries[at]
		}
	}
	return out
}

// Get implements revkv.Backend.
func (c *client) Get(ctx context.Context, keys ...string) ([]revkv.Entry, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	return c.get(keys), nil
}

// Page implements revkv.Backend.
func (c *client) Page(ctx context.Context, r revkv.PageRequest) (revkv.Page, error) {
	if err := c.enter(ctx); err != nil {
		return revkv.Page{}, err
	}
	defer c.mu.Unlock()
	at := r.At
	switch {
	case at == 0:
		at = c.now.Rev
	case at < c.floor:
		return revkv.Page{}, revkv.ErrCompacted
	case at > c.now.Rev:
		return revkv.Page{}, fmt.Errorf("%w: revision %d is in the future", datastore.ErrUnavailable, at)
	}
	p := revkv.Page{Now: c.now}
	for _, e := range c.asOf(at) {
		if e.Key < r.From || e.Key >= r.To {
			continue
		}
		if r.Limit > 0 && len(p.Entries) == r.Limit {
			p.More = true
			break
		}
		if r.KeysOnly {
			e.Value = nil
		}
		p.Entries = append(p.Entries, e)
	}
	return p, nil
}

// asOf returns the entries of an older revision, by undoing what came after.
func (d *data) asOf(at int64) []revkv.Entry {
	if at == d.now.Rev {
		return d.entries
	}
	m := map[string]revkv.Entry{}
	for _, e := range d.entries {
		m[e.Key] = e
	}
	// A key that changed later had the value of its last change up to then. History has that: it begins with all that
	// there was at the floor.
	for _, r := range d.history {
		if r.rev > at {
			for _, e := range r.entries {
				delete(m, e.Key)
			}
		}
	}
	for _, r := range d.history {
		if r.rev > at {
			break
		}
		for _, e := range r.entries {
			if e.Value == nil {
				delete(m, e.Key)
				continue
			}
			m[e.Key] = e
		}
	}
	out := make([]revkv.Entry, 0, len(m))
	for _, e := range m {
		out = append(out, e)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out
}

// Commit implements revkv.Backend.
func (c *client) Commit(ctx context.Context, guards []revkv.Guard, writes []revkv.Write) (revkv.Result, error) {
	if err := c.enter(ctx); err != nil {
		return revkv.Result{}, err
	}
	defer c.mu.Unlock()
	keys := make([]string, len(guards))
	for i, g := range guards {
		keys[i] = g.Key
	}
	current := c.get(keys)
	for i, g := range guards {
		if current[i].Mod != g.Mod {
			return revkv.Result{Current: current}, nil
		}
	}
	c.write(writes)
	if c.lose > 0 {
		c.lose--
		return revkv.Result{}, fmt.Errorf("%w: the answer was lost", datastore.ErrUnavailable)
	}
	return revkv.Result{OK: true, Rev: c.now.Rev}, nil
}

// write makes a revision; data is locked.
func (d *data) write(writes []revkv.Write) {
	r := revision{rev: d.now.Rev + 1}
	for _, w := range writes {
		at, ok := d.find(w.Key)
		e := revkv.Entry{Key: w.Key, Value: w.Value, Mod: r.rev}
		switch {
		case w.Value == nil && !ok:
			continue
		case w.Value == nil:
			d.entries = slices.Delete(d.entries, at, at+1)
		case ok:
			d.entries[at] = e
		default:
			d.entries = slices.Insert(d.entries, at, e)
		}
		r.entries = append(r.entries, e)
	}
	if len(r.entries) == 0 {
		return
	}
	d.now.Rev = r.rev
	d.history = append(d.history, r)
	d.notify()
}

// Close implements revkv.Backend.
func (c *client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.uses, c.countdown = fmt.Errorf("%w: it has been closed", datastore.ErrUnavailable), -1, 0
	c.life++
	c.notify()
	return nil
}

// Follow implements revkv.Backend.
func (c *client) Follow(ctx context.Context, r revkv.Range, from int64) (revkv.Stream, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	if from <= c.floor {
		return nil, revkv.ErrCompacted
	}
	return &stream{c: c, ctx: ctx, r: r, next: from, life: c.life, dataLife: c.data.life, pinged: make(chan struct{}, 1)}, nil
}

type stream struct {
	c              *client
	ctx            context.Context
	r              revkv.Range
	next           int64
	life, dataLife int
	pinged         chan struct{}
}

// Ping implements revkv.Stream.
func (s *stream) Ping() error {
	select {
	case s.pinged <- struct{}{}:
	default:
	}
	return s.ctx.Err()
}

// Recv implements revkv.Stream.
func (s *stream) Recv() (revkv.Changes, error) {
	pinged := false
	for {
		if err := s.ctx.Err(); err != nil {
			return revkv.Changes{}, unavailable(s.ctx)
		}
		s.c.mu.Lock()
		c, ok, err := s.ready(pinged)
		changed, stalled := s.c.changed, s.c.stalled
		s.c.mu.Unlock()
		if stalled != nil {
			select {
			case <-s.ctx.Done():
			case <-stalled:
			}
			continue
		}
		if err != nil || ok {
			return c, err
		}
		select {
		case <-s.ctx.Done():
		case <-changed:
		case <-s.pinged:
			pinged = true
		}
	}
}

// ready returns what there is to say, if anything; data is locked.
func (s *stream) ready(pinged bool) (revkv.Changes, bool, error) {
	d := s.c.data
	switch {
	case s.c.stalled != nil:
		return revkv.Changes{}, false, nil
	case s.life != s.c.life || s.dataLife != d.life:
		return revkv.Changes{}, false, fmt.Errorf("%w: the stream was cut", datastore.ErrUnavailable)
	case s.next <= d.floor && s.next <= d.now.Rev:
		return revkv.Changes{}, false, revkv.ErrCompacted
	}
	c := revkv.Changes{Rev: d.now.Rev}
	first := sort.Search(len(d.history), func(i int) bool { return d.history[i].rev >= s.next })
	for _, r := range d.history[first:] {
		for _, e := range r.entries {
			if e.Key >= s.r.From && e.Key < s.r.To {
				c.Entries = append(c.Entries, e)
			}
		}
	}
	s.next = max(s.next, d.now.Rev+1)
	return c, pinged || len(c.Entries) > 0, nil
}

// SetRaw stores a value as it is, for tests of what can't be read.
func (s *Store) SetRaw(key api.Key, value []byte) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.write([]revkv.Write{{Key: revkv.DefaultPrefix + key.Kind + "/" + key.Namespace + "/" + key.Name, Value: value}})
}
