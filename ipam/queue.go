package ipam

import (
	"context"
	"sync"

	"github.com/tortie/tortie/datastore"
)

// maxBatch is how many requests share a write.
const maxBatch = 64

// queue lets requests that come while others are worked on be worked on together. There is no goroutine: one of those
// who wait does the work for all, the leader, and then hands over to the next.
type queue struct {
	mu      sync.Mutex
	busy    bool // somebody leads, or has been told to
	waiting []*ticket
}

// ticket is a place in the queue.
type ticket struct {
	job  job
	lead bool
	wake chan struct{}
	err  error

	again int // how often it had to wait for somebody else
}

// job is what is asked for.
type job interface {
	// plan puts the job's changes into d, all of them or, with an error, none. It may be called again with another draft.
	plan(ctx context.Context, d *draft) error
	// extra is what is to be written together with the plan.
	extra() []datastore.Op
	// outcome is what the job comes to once the plan is written.
	outcome() error
}

// do gets j done: work is called for it, by this caller or another, with ctx or a context that lives as long.
func (q *queue) do(ctx context.Context, j job, work func(context.Context, []*ticket)) error {
	t := &ticket{job: j, wake: make(chan struct{}, 1)}
	q.mu.Lock()
	q.waiting = append(q.waiting, t)
	if q.busy {
		q.mu.Unlock()
		select {
		case <-t.wake:
		case <-ctx.Done():
			if q.leave(t) {
				return context.Cause(ctx)
			}
			<-t.wake // it is being worked on, or it is our turn
		}
		q.mu.Lock()
		if !t.lead {
			q.mu.Unlock()
			return t.err
		}
	}
	q.busy = true
	n := min(len(q.waiting), maxBatch)
	batch := append([]*ticket(nil), q.waiting[:n]...)
	q.waiting = append([]*ticket(nil), q.waiting[n:]...)
	q.mu.Unlock()

	// The others' requests don't end with ours. Each call of the store has an end of its own.
	if len(batch) > 1 {
		ctx = context.WithoutCancel(ctx)
	}
	work(ctx, batch)

	q.mu.Lock()
	defer q.mu.Unlock()
	for _, other := range batch {
		if other != t {
			other.wake <- struct{}{}
		}
	}
	q.busy = len(q.waiting) > 0
	if q.busy {
		q.waiting[0].lead = true
		q.waiting[0].wake <- struct{}{}
	}
	return t.err
}

// leave takes t out of the queue, unless it is too late for that.
func (q *queue) leave(t *ticket) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, w := range q.waiting {
		if w == t && !t.lead {
			q.waiting = append(q.waiting[:i:i], q.waiting[i+1:]...)
			return true
		}
	}
	return false
}
