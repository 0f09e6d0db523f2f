package revkv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
	// A session that lasted this long was a good one: the next starts with a short back-off.
	steady = 5 * time.Second
	// While some kinds are refused the others are listed in this time.
	refusedList = 30 * time.Second
)

// watcher is one Watch. Its fields belong to the goroutine that reads the back end; q leads to the other.
type watcher struct {
	b     Backend
	q     *queue
	log   *slog.Logger
	kinds []kindRange // in the order of keys
	span  Range       // of all kinds: one stream keeps the order of revisions between them

	sent  revs // what the consumer has, or is about to get from q
	whole bool // sent is all that the consumer has
	// started: everything up to pos has been given to q.
	started bool
	pos     Position
	status  datastore.Status
	told    time.Time // when the consumer last heard of a position
	polled  time.Time // when it was last listed what a refused client may read
}

type kindRange struct {
	kind string
	Range
}

// Watch implements datastore.Store.
func (s *Store) Watch(ctx context.Context, o datastore.WatchOptions, fn func(datastore.Batch) error) error {
	w, err := s.newWatcher(o)
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(s.ctx, func() { cancel(errClosed) })()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(inner)
	}()
	defer func() {
		cancel(nil)
		<-done
	}()
	for {
		changes, n, err := w.q.take(inner)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("watching: %w", err)
		}
		if err := fn(s.batch(changes, n)); err != nil {
			return err
		}
	}
}

func (s *Store) newWatcher(o datastore.WatchOptions) (*watcher, error) {
	w := &watcher{b: s.b, q: newQueue(), log: s.log, status: datastore.Status{Since: time.Now()}}
	for _, k := range o.Kinds {
		if _, ok := s.kinds[k]; !ok {
			return nil, fmt.Errorf("%w: there is no kind %q", datastore.ErrInvalid, k)
		}
		w.kinds = append(w.kinds, kindRange{k, s.kindRange(k, "")})
	}
	if len(w.kinds) == 0 {
		return nil, fmt.Errorf("%w: no kinds", datastore.ErrInvalid)
	}
	slices.SortFunc(w.kinds, func(a, b kindRange) int { return cmp.Compare(a.From, b.From) })
	w.kinds = slices.Compact(w.kinds)
	w.span = Range{From: w.kinds[0].From, To: w.kinds[len(w.kinds)-1].To}
	w.whole = true
	if o.Resume == "" {
		return w, nil
	}
	pos, err := parseResume(o.Resume)
	if err != nil {
		return nil, err
	}
	w.started, w.pos, w.whole = true, pos, o.Known != nil
	w.sent = s.known(o.Known)
	return w, nil
}

// known packs what a caller holds.
func (s *Store) known(m map[api.Key]string) revs {
	es := make([]revEntry, 0, len(m))
	for k, v := range m {
		key, err := s.key(k)
		if err != nil {
			continue // never came from here
		}
		// What can't be read is no revision of ours: it differs from what is stored, and so is sent again.
		rev, err := strconv.ParseInt(v, 10, 64)
		if err != nil || rev < 0 {
			rev = 0
		}
		es = append(es, revEntry{key, rev})
	}
	slices.SortFunc(es, func(a, b revEntry) int { return cmp.Compare(a.key, b.key) })
	var b revBuilder
	for _, e := range es {
		b.add(e.key, e.rev)
	}
	return b.done()
}

const resumeVersion = "1"

// resume is a Position as a token.
func (p Position) resume() string {
	if p == (Position{}) {
		return ""
	}
	return fmt.Sprintf("%s.%x.%x.%d", resumeVersion, p.Cluster, p.Term, p.Rev)
}

func parseResume(s string) (Position, error) {
	parts := strings.Split(s, ".")
	bad := fmt.Errorf("%w: resume token %q", datastore.ErrInvalid, s)
	if len(parts) != 4 || parts[0] != resumeVersion {
		return Position{}, bad
	}
	cluster, err1 := strconv.ParseUint(parts[1], 16, 64)
	term, err2 := strconv.ParseUint(parts[2], 16, 64)
	rev, err3 := strconv.ParseInt(parts[3], 10, 64)
	if errors.Join(err1, err2, err3) != nil || rev < 0 {
		return Position{}, bad
	}
	return Position{Cluster: cluster, Term: term, Rev: rev}, nil
}

// batch makes what the consumer sees of changes.
func (s *Store) batch(changes []change, n note) datastore.Batch {
	b := datastore.Batch{InSync: n.inSync, Resume: n.pos.resume(), Status: n.status}
	for _, c := range changes {
		key, ok := s.parseKey(c.Key)
		if !ok {
			s.log.Debug("ignoring a key that is no resource", "key", c.Key)
			continue
		}
		e := datastore.Event{Key: key}
		if c.Value != nil {
			e.Object, e.Problems, e.Problem = s.decode(key, c.Entry)
		}
		b.Events = append(b.Events, e)
	}
	return b
}

// run keeps sessions going until ctx ends.
func (w *watcher) run(ctx context.Context) {
	var delay time.Duration
	for {
		start := time.Now()
		err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > steady {
			delay = 0
		}
		delay = min(max(2*delay, minBackoff), maxBackoff)
		if !errors.As(err, new(*refusedError)) {
			w.down(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(delay)):
		}
	}
}

// refusedError says that some kinds may not be read. The status has said so to the consumer.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// jitter returns between half and all of d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}

// session connects, brings the consumer up to date, and then follows until something breaks.
func (w *watcher) session(ctx context.Context) error {
	head, err := w.probe(ctx)
	if errors.Is(err, datastore.ErrForbidden) {
		return w.refused(ctx, err)
	}
	if err != nil {
		return err
	}
	w.up()
	switch {
	case !w.started:
		err = w.list(ctx, false)
	case head.Cluster != w.pos.Cluster || head.Term < w.pos.Term || head.Rev < w.pos.Rev:
		w.log.Warn("the store is another one, or went back: comparing all that it holds",
			"revision", head.Rev, "seen", w.pos.Rev)
		err = w.list(ctx, true)
	default:
		w.pos.Term = head.Term
	}
	if err != nil {
		return err
	}
	err = w.follow(ctx, head.Rev)
	if errors.Is(err, ErrCompacted) {
		w.log.Debug("the revision to resume from is gone: comparing all that the store holds", "revision", w.pos.Rev)
		if err = w.list(ctx, false); err == nil {
			err = w.follow(ctx, w.pos.Rev)
		}
	}
	return err
}

// probe asks where the store is now. It is linearizable, so that a member that lags does not look like a store that
// went back.
func (w *watcher) probe(ctx context.Context) (Position, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p, err := w.b.Page(ctx, PageRequest{Range: w.span, Limit: 1, KeysOnly: true})
	return p.Now, err
}

// up notes that the store answers.
func (w *watcher) up() {
	if w.status.Connected {
		return
	}
	bad := w.status.Err != nil
	w.status = datastore.Status{Connected: true, Since: time.Now()}
	w.q.health(w.status, bad)
}

// down notes why the stream has ended.
func (w *watcher) down(err error) {
	if !errors.Is(err, datastore.ErrUnavailable) && !errors.Is(err, datastore.ErrForbidden) {
		err = fmt.Errorf("%w: %w", datastore.ErrUnavailable, err)
	}
	news := w.status.Err == nil || errors.Is(err, datastore.ErrForbidden) != errors.Is(w.status.Err, datastore.ErrForbidden)
	since := w.status.Since
	if w.status.Connected {
		since = time.Now()
	}
	w.status = datastore.Status{Err: err, Since: since}
	w.q.health(w.status, news)
}
