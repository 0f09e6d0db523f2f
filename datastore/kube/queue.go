package kube

import (
	"cmp"
	"context"
	"sync"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// event is what a consumer is told of a key: an object, or an endpoint that becomes one when it is told, or why it can't
// be read; nothing of that if it is gone.
type event struct {
	key      api.Key
	obj      api.Object
	end      *endpoint
	problems []api.Problem
	err      error
	known    bool // the consumer may have heard of the key
}

func (e event) gone() bool { return e.obj == nil && e.end == nil && e.err == nil }

func compareKeys(a, b api.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// queue holds what the consumer of a watch has yet to be told: each key once, at the place of its last change, so that it
// can't outgrow the world, however slow the consumer. A key that came and went before the consumer heard of it is
// forgotten.
type queue struct {
	mu    sync.Mutex
	wake  chan struct{}
	slots []event // those without a kind were overtaken
	index map[api.Key]int
	told  note
	last  note // what the consumer knows
	// early: the first snapshot is under way. It is told as a whole if it is small: nobody can do much with a part.
	early bool
}

// note is what a batch says beside its events.
type note struct {
	inSync bool
	status datastore.Status
	seq    int // counts changes that are worth a batch without events
}

const maxBatch = 4096

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), index: map[api.Key]int{}, early: true}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// push adds changes in one step: they reach the consumer together.
func (q *queue) push(events ...event) {
	if len(events) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range events {
		q.push1(e)
	}
	q.signal()
}

func (q *queue) push1(e event) {
	i, waiting := q.index[e.key]
	if waiting {
		e.known = q.slots[i].known
		q.slots[i] = event{}
		delete(q.index, e.key)
	}
	if !e.gone() || e.known {
		q.index[e.key] = len(q.slots)
		q.slots = append(q.slots, e)
	}
	if len(q.slots) > 2*len(q.index)+64 {
		q.squeeze()
	}
}

// squeeze drops the places of changes that were overtaken.
func (q *queue) squeeze() {
	live := q.slots[:0]
	for _, e := range q.slots {
		if e.key.Kind != "" {
			q.index[e.key] = len(live)
			live = append(live, e)
		}
	}
	clear(q.slots[len(live):])
	q.slots = live
}

// sync says that all is in that was there at first.
func (q *queue) sync() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told.inSync, q.early = true, false
	q.told.seq++
	q.signal()
}

// status says how the stream is; the consumer hears of it at once if that is news.
func (q *queue) status(s datastore.Status, news bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told.status = s
	if q.early && s.Connected && s.Kinds == nil {
		return // it comes with the snapshot
	}
	if news {
		q.told.seq++
		q.early = false // who knows how long the rest takes
		q.signal()
	}
}

// take waits for something to tell.
func (q *queue) take(ctx context.Context) ([]event, note, error) {
	for {
		// Checked first, so that a consumer that never catches up ends when its context does.
		if ctx.Err() != nil {
			return nil, note{}, context.Cause(ctx)
		}
		q.mu.Lock()
		if len(q.index) > 0 && (!q.early || len(q.index) >= maxBatch) || q.told.seq != q.last.seq {
			es, n := q.cut()
			q.mu.Unlock()
			return es, n, nil
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-q.wake:
		}
	}
}

func (q *queue) cut() ([]event, note) {
	q.squeeze()
	n := min(len(q.slots), maxBatch)
	es := make([]event, n)
	copy(es, q.slots)
	rest := len(q.slots) - n
	t := q.told
	if rest == 0 {
		// A burst is over: its memory goes too.
		q.slots, q.index = nil, map[api.Key]int{}
	} else {
		copy(q.slots, q.slots[n:])
		clear(q.slots[rest:])
		q.slots = q.slots[:rest]
		clear(q.index)
		for i, e := range q.slots {
			q.index[e.key] = i
		}
		t.inSync, t.seq = q.last.inSync, q.last.seq // told with the rest
	}
	q.last = t
	return es, t
}
