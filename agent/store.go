package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/backoff"
)

// link is the connection to the store: opened in the background, watched, and its health.
type link struct {
	open func(context.Context) (datastore.Store, error)
	log  *slog.Logger

	mu     sync.Mutex
	store  datastore.Store // nil = not opened yet
	status datastore.Status
	told   bool // that the first try has failed
}

func newLink(open func(context.Context) (datastore.Store, error), log *slog.Logger) *link {
	return &link{open: open, log: log,
		status: datastore.Status{Err: fmt.Errorf("%w: the agent is still connecting", datastore.ErrUnavailable), Since: time.Now()}}
}

// Store returns the store, or why it can't be used now.
func (l *link) Store() (datastore.Store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil || !l.status.Connected {
		err := l.status.Err
		if err == nil {
			err = datastore.ErrUnavailable
		}
		return nil, err
	}
	return l.store, nil
}

// Status is the health of the watch.
func (l *link) Status() datastore.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// note takes in a status of the watch, and reports whether the store has just come (back).
func (l *link) note(s datastore.Status) (back bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.status
	l.status = s
	switch {
	case s.Connected && !was.Connected:
		l.log.Info("the store answers")
	case !s.Connected && was.Connected:
		l.log.Warn("the store is away: traffic and policy stay as they are", "err", s.Err)
	case !s.Connected && s.Err != nil && !l.told:
		l.told = true
		l.log.Warn("the store can't be reached, trying on", "err", s.Err)
	}
	for kind, err := range s.Kinds {
		if was.Kinds[kind] == nil {
			l.log.Warn("a kind can't be read", "kind", kind, "err", err)
		}
	}
	return s.Connected && !was.Connected
}

// watch opens the store, however long that takes, and hands over what it has to say of kinds until ctx ends.
func (l *link) watch(ctx context.Context, kinds []string, fn func(datastore.Batch, bool) error) error {
	s, err := l.connect(ctx)
	if err != nil {
		return nil // ctx has ended
	}
	err = s.Watch(ctx, datastore.WatchOptions{Kinds: kinds}, func(b datastore.Batch) error { return fn(b, l.note(b.Status)) })
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watching the store: %w", err)
}

func (l *link) connect(ctx context.Context) (datastore.Store, error) {
	retry := backoff.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	for {
		s, err := l.open(ctx)
		if err == nil {
			l.mu.Lock()
			l.store = s
			l.mu.Unlock()
			return s, nil
		}
		l.mu.Lock()
		if l.status.Err == nil || l.status.Err.Error() != err.Error() {
			l.log.Warn("opening the store", "err", err)
		}
		if !errors.Is(err, datastore.ErrForbidden) && !errors.Is(err, datastore.ErrUnavailable) {
			err = fmt.Errorf("%w: %w", datastore.ErrUnavailable, err)
		}
		l.status.Err = err
		l.mu.Unlock()
		if err := retry.Sleep(ctx); err != nil {
			return nil, err
		}
	}
}

// close closes the store, if it was opened.
func (l *link) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store == nil {
		return nil
	}
	return l.store.Close()
}
