package ipam

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tortie/tortie/datastore"
)

const (
	// maxBatch is how many requests share a write.
	maxBatch = 64
	// companyPatience is how long a release waits, at most, for those that have been announced.
	companyPatience = 250 * time.Millisecond
)

// queue lets requests that come while others are worked on be worked on together. There is no goroutine: one of those
// who wait does the work for all, the leader, and then hands over to the next.
//
// Requests for addresses come together by themselves, but each release comes after a link was removed, which is done one by
// one: they would be written one by one, too. So they are announced, and while only releases wait they wait for those.
type queue struct {
	mu      sync.Mutex
	busy    bool // somebody leads, or has been told to
	waiting []*ticket
	coming  int           // that were announced
	patient time.Duration // how long a release waits for those, at most
	news    chan struct{} // for a leader who waits for company; made by the first
}

// Coming is a release that has been announced.
type Coming struct {
	q    *queue
	over bool
}

// announce says that a patient request comes soon, or not, if it is cancelled.
func (q *queue) announce() *Coming {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.coming++
	return &Coming{q: q}
}

// Cancel ends the announcement: no release comes of it any more. One that has come, or that is nil, is no matter.
func (c *Coming) Cancel() {
	if c == nil {
		return
	}
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.end()
}

// end is Cancel for who has the lock.
func (c *Coming) end() {
	if c != nil && !c.over {
		c.over = true
		c.q.coming--
		c.q.stir()
	}
}

// stir has a leader who waits for company look again.
func (q *queue) stir() {
	select {
	case q.news <- struct{}{}: // never, while nobody has waited yet
	default:
	}
}

// gather waits until there is something to do at once, or nothing more is announced, or it has been long enough. The
// caller leads, and holds the lock.
func (q *queue) gather(ctx context.Context) {
	if !q.lonely() {
		return
	}
	if q.news == nil {
		q.news = make(chan struct{}, 1)
	}
	enough := time.NewTimer(q.patient - time.Since(q.waiting[0].since))
	defer enough.Stop()
	for done := false; !done && q.lonely(); {
		q.mu.Unlock()
		select {
		case <-q.news:
		case <-enough.C:
			done = true
		case <-ctx.Done():
			done = true
		}
		q.mu.Lock()
	}
}

// lonely says that it is worth to wait for more.
func (q *queue) lonely() bool {
	return q.coming > 0 && len(q.waiting) < maxBatch && !slices.ContainsFunc(q.waiting, func(t *ticket) bool { return !t.patient })
}

// ticket is a place in the queue.
type ticket struct {
	job     job
	lead    bool
	wake    chan struct{}
	err     error
	patient bool // it may wait for company
	since   time.Time

	again int // how often it had to wait for somebody else
}

// job is what is asked for.
type job interface {
	// plan puts the job's changes into d, all of them or, with an error, none. It may be called again with another draft.
	plan(ctx context.Context, d *draft) error
	// labels says whether the plan depends on the node's labels.
	labels() bool
	// extra is what is to be written together with the plan.
	extra() []datastore.Op
	// outcome is what the job comes to once the plan is written.
	outcome() error
}

// do gets j done: work is called for it, by this caller or another, with ctx or a context that lives as long.
func (q *queue) do(ctx context.Context, j job, work func(context.Context, []*ticket)) error {
	t := &ticket{job: j, wake: make(chan struct{}, 1), since: time.Now()}
	q.mu.Lock()
	if r, ok := j.(*release); ok && r.addrs == nil {
		t.patient = true
		r.coming.end()
	}
	q.waiting = append(q.waiting, t)
	q.stir()
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
	q.gather(ctx)
	n := min(len(q.waiting), maxBatch)
	batch := append([]*ticket(nil), q.waiting[:n]...)
	q.waiting = append([]*ticket(nil), q.waiting[n:]...)
	q.mu.Unlock()

	// The others' requests don't end with ours. Each call of the store has an end of its own.
	if len(batch) > 1 {
		ctx = context.WithoutCancel(ctx)
	}
	done := false
	defer func() { q.handOver(t, batch, done) }()
	work(ctx, batch)
	done = true
	return t.err
}

// handOver answers the others of a batch, and has the next one lead, also if the work has ended in a panic: callers may
// survive that.
func (q *queue) handOver(leader *ticket, batch []*ticket, done bool) {
	if !done {
		fail(batch, errBroken)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, other := range batch {
		if other != leader {
			other.wake <- struct{}{}
		}
	}
	q.busy = len(q.waiting) > 0
	if q.busy {
		q.waiting[0].lead = true
		q.waiting[0].wake <- struct{}{}
	}
}

// errBroken says that nobody knows what came of a request.
var errBroken = errors.New("a mistake ended the work that it shared with another request")

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
