package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/go-logr/logr"
	"github.com/tortie/tortie/datastore"
)

// resumeToken says that a watch was in sync. Where the server was does not help: each kind has a revision of its own, and
// what was converted of it may change with another version of us.
const resumeToken = "kube.1"

// Watch implements datastore.Store. A watch that resumes reads everything again, and tells what differs from Known.
func (s *Store) Watch(ctx context.Context, o datastore.WatchOptions, fn func(datastore.Batch) error) error {
	for _, k := range o.Kinds {
		if _, ok := s.kinds[k]; !ok {
			return fmt.Errorf("watching: %w: there is no kind %q", datastore.ErrInvalid, k)
		}
	}
	if len(o.Kinds) == 0 {
		return fmt.Errorf("watching: %w: no kinds", datastore.ErrInvalid)
	}
	if o.Resume != "" && o.Resume != resumeToken {
		return fmt.Errorf("watching: %w: resume token %q", datastore.ErrInvalid, o.Resume)
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(s.ctx, func() { cancel(errClosed) })()
	known := o.Known
	if o.Resume == "" {
		known = nil
	}
	h := newHub(o.Kinds, known, s.log)
	w := &watching{s: s, h: h, ctx: logr.NewContextWithSlogLogger(inner, slog.New(quiet{s.log.Handler()})), cancel: cancel}
	w.start()
	defer func() {
		cancel(nil)
		w.wg.Wait()
	}()
	for {
		events, n, err := h.q.take(inner)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("watching: %w", err)
		}
		if err := fn(batch(events, n)); err != nil {
			return err
		}
	}
}

// watching is one Watch, while it runs.
type watching struct {
	s      *Store
	h      *hub
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func (w *watching) start() {
	w.h.reread = w.reread
	var feeds []*feed
	for _, src := range w.s.sources {
		if w.h.add(src) {
			feeds = append(feeds, &feed{s: w.s, src: src, h: w.h, t: w.h.tables[src.name]})
		}
	}
	w.wg.Go(w.check)
	for _, f := range feeds {
		w.wg.Go(func() { f.run(w.ctx) })
	}
}

// check ends the watch if somebody else answers for our kinds.
func (w *watching) check() {
	delay := w.s.pace.minBackoff
	for w.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(w.ctx, checkTimeout)
		err := w.s.foreignAPI(ctx)
		cancel()
		if err == nil {
			return
		}
		if errors.Is(err, ErrForeignAPI) {
			w.cancel(err)
			return
		}
		w.h.wait(w.ctx, jitter(delay))
		delay = min(2*delay, w.s.pace.maxBackoff)
	}
}

// reread reads a policy of Kubernetes' own again to tell it once more.
func (w *watching) reread(src *source, from string) {
	w.wg.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
		defer cancel()
		it, err := w.s.getItem(ctx, src, from)
		if err != nil {
			w.s.log.Debug("reading a policy again", "resource", src.name, "name", from, "err", err)
			return
		}
		w.h.retell(src, it)
	})
}

// batch makes what the consumer sees.
func batch(events []event, n note) datastore.Batch {
	b := datastore.Batch{InSync: n.inSync, Status: n.status}
	if n.inSync {
		b.Resume = resumeToken
	}
	for _, e := range events {
		b.Events = append(b.Events, e.tell())
	}
	return b
}

func (e event) tell() datastore.Event {
	out := datastore.Event{Key: e.key, Object: e.obj, Problem: e.err, Problems: e.problems}
	if e.end != nil {
		w, err := e.end.object()
		if err != nil {
			out.Problem = fmt.Errorf("%v: %w: %w", e.key, datastore.ErrUnreadable, err)
			return out
		}
		out.Object = w
	}
	return out
}

// quiet takes what client-go says of its doings as detail: what matters of it is in the status of the watch. It says most
// of it at verbosities above 2, which are levels below -2.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= -2 && q.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(as []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(as)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
