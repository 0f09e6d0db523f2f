package revkv

import (
	"context"
	"sync"

	"github.com/tortie/tortie/datastore"
)

// queue holds what the consumer of a watch has yet to be told. One goroutine fills it, the consumer's empties it. It
// holds each key once, at the place of its last change, so that it can't outgrow the world, however slow the consumer:
// a key that came and went before the consumer heard of it is forgotten.
type queue struct {
	mu    sync.Mutex
	wake  chan struct{} // something to tell
	space chan struct{} // it has been emptied

	slots []change // in the order of their last change; those without a key were overtaken
	index map[string]int
	told  note
	last  note // what the consumer knows
	done  bool // told.pos is reached by slots
}

// note is what a batch says beside its events.
type note struct {
	pos    Position
	inSync bool
	status datastore.Status
	seq    int // counts changes that are worth a batch without events
}

type change struct {
	Entry
	fresh bool // the consumer has never heard of the key
}

const maxBatch = 4096

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), space: make(chan struct{}, 1), index: map[string]int{}}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// op is a change as the producer sees it. Known says of a value that its key had one before.
type op struct {
	Entry
	known bool
}

// push adds changes in one step, so that those of one transaction reach the consumer together. With done all changes
// up to pos are in; until then (in the middle of a list) the consumer's position stays.
func (q *queue) push(ops []op, done *progress) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, o := range ops {
		q.push1(o)
	}
	q.done = done != nil
	if done != nil {
		q.told.pos = done.pos
		if done.tell || done.inSync && !q.told.inSync {
			q.told.seq++
		}
		q.told.inSync = q.told.inSync || done.inSync
	}
	if q.toTell() {
		signal(q.wake)
	}
}

// progress is how far the producer has come.
type progress struct {
	pos    Position
	inSync bool
	tell   bool // the consumer hears of it at once, also without changes
}

func (q *queue) push1(o op) {
	fresh := !o.known
	i, waiting := q.index[o.Key]
	if waiting {
		fresh = q.slots[i].fresh
	}
	if waiting {
		q.slots[i] = change{}
		delete(q.index, o.Key)
	}
	if o.Value != nil || !waiting || !fresh {
		q.index[o.Key] = len(q.slots)
		q.slots = append(q.slots, change{Entry: o.Entry, fresh: fresh && o.Value != nil})
	}
	if len(q.slots) > 2*len(q.index)+64 {
		q.squeeze()
	}
}

// squeeze drops the places of changes that were overtaken.
func (q *queue) squeeze() {
	live := q.slots[:0]
	for _, c := range q.slots {
		if c.Key != "" {
			q.index[c.Key] = len(live)
			live = append(live, c)
		}
	}
	clear(q.slots[len(live):])
	q.slots = live
}

// health notes the state of the connection; tell as in progress.
func (q *queue) health(s datastore.Status, tell bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told.status = s
	if tell {
		q.told.seq++
		signal(q.wake)
	}
}

func (q *queue) toTell() bool { return len(q.index) > 0 || q.told.seq != q.last.seq }

// room waits until there are few changes in the queue: a list can wait, where a stream can't.
func (q *queue) room(ctx context.Context) error {
	for {
		q.mu.Lock()
		n := len(q.index)
		q.mu.Unlock()
		if n < maxBatch {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-q.space:
		}
	}
}

// take waits for something to tell. The note has the position of what the consumer has been told in full with these
// changes: that of an earlier time if there is more.
func (q *queue) take(ctx context.Context) ([]change, note, error) {
	for {
		// Checked first, so that a consumer that never catches up ends when its context does.
		if ctx.Err() != nil {
			return nil, note{}, context.Cause(ctx)
		}
		q.mu.Lock()
		if q.toTell() {
			cs, n := q.cut()
			q.mu.Unlock()
			signal(q.space)
			return cs, n, nil
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-q.wake:
		}
	}
}

func (q *queue) cut() ([]change, note) {
	q.squeeze()
	n := min(len(q.slots), maxBatch)
	cs := make([]change, n)
	copy(cs, q.slots)
	rest := len(q.slots) - n
	if rest == 0 {
		// A burst is over: its memory goes too.
		q.slots, q.index = nil, map[string]int{}
	} else {
		copy(q.slots, q.slots[n:])
		clear(q.slots[rest:])
		q.slots = q.slots[:rest]
		clear(q.index)
		for i, c := range q.slots {
			q.index[c.Key] = i
		}
	}
	t := q.told
	if rest > 0 || !q.done {
		t.pos, t.inSync = q.last.pos, q.last.inSync
	}
	if rest > 0 {
		t.seq = q.last.seq // it is told with the rest
	}
	q.last = t
	return cs, t
}
