package revkv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tortie/tortie/datastore"
)

const (
	pageSize = 1000
	// A list that is compacted away while it is read starts again: this often before it counts as trouble.
	listTries = 3
)

// list reads all kinds as of one revision and gives what differs from what was sent to the consumer. With all it gives
// everything: in another store an equal revision says nothing.
func (w *watcher) list(ctx context.Context, all bool) error {
	for try := 1; ; try++ {
		refused, err := w.listOnce(ctx, all)
		if errors.Is(err, ErrCompacted) && try < listTries {
			continue
		}
		if err == nil && len(refused) > 0 {
			for _, err := range refused {
				return err // the next session sorts it out
			}
		}
		return err
	}
}

// refused serves a client that may not read everything: the kinds that it may read are listed from time to time.
func (w *watcher) refused(ctx context.Context, cause error) error {
	if w.status.Kinds != nil && time.Since(w.polled) < refusedList {
		return &refusedError{cause}
	}
	w.polled = time.Now()
	kinds, err := w.listOnce(ctx, false)
	if err != nil && !errors.Is(err, datastore.ErrForbidden) {
		return err
	}
	if len(kinds) == 0 {
		// Each kind by itself may be read: the role has them one by one, with gaps in which a stream is refused.
		kinds = map[string]error{}
		for _, k := range w.kinds {
			kinds[k.kind] = fmt.Errorf("watching %q to %q: %w", w.span.From, w.span.To, cause)
		}
	}
	news := w.status.Err == nil || len(kinds) != len(w.status.Kinds)
	since := w.status.Since
	if w.status.Connected {
		since = time.Now()
	}
	w.status = datastore.Status{Err: cause, Since: since, Kinds: kinds}
	w.q.health(w.status, news)
	return &refusedError{cause}
}

func (w *watcher) listOnce(ctx context.Context, all bool) (refused map[string]error, err error) {
	m := merge{old: w.sent.cursor(), all: all, whole: w.whole}
	// However far it gets, sent is what the consumer was given: the new part, then the old rest.
	defer func() {
		m.keepBefore("")
		w.sent = m.next.done()
	}()
	var now Position
	for _, k := range w.kinds {
		m.keepBefore(k.From)
		at, err := w.listKind(ctx, k.Range, now, &m)
		if errors.Is(err, datastore.ErrForbidden) {
			if refused == nil {
				refused = map[string]error{}
			}
			refused[k.kind] = err
			continue // what was sent of it stays
		}
		if err != nil {
			return nil, err
		}
		now = at
	}
	if len(refused) > 0 {
		// Not in sync, and nothing to resume from.
		return refused, nil
	}
	w.started, w.pos = true, now
	w.q.push(nil, &progress{pos: now, inSync: true})
	return nil, nil
}

// listKind reads one kind as of now, or as of the newest revision if that is zero, which it returns.
func (w *watcher) listKind(ctx context.Context, r Range, now Position, m *merge) (Position, error) {
	req := PageRequest{Range: r, At: now.Rev, Limit: pageSize}
	for {
		if err := w.q.room(ctx); err != nil {
			return now, err
		}
		p, err := w.page(ctx, req)
		if err != nil {
			return now, err
		}
		if now.Rev == 0 {
			now = p.Now
			req.At = now.Rev
		}
		m.page(p.Entries)
		if !p.More {
			m.dropBefore(r.To)
		}
		w.q.push(m.take(), nil)
		if !p.More {
			return now, nil
		}
		req.From = p.Entries[len(p.Entries)-1].Key + "\x00"
	}
}

func (w *watcher) page(ctx context.Context, req PageRequest) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return w.b.Page(ctx, req)
}

// merge walks through what was sent and what is there, both in the order of keys.
type merge struct {
	old   *revCursor
	next  revBuilder
	all   bool
	whole bool
	ops   []op
}

// keepBefore leaves keys before to as they are; "" is the end.
func (m *merge) keepBefore(to string) {
	for ; m.old.ok && (to == "" || m.old.key < to); m.old.next() {
		m.next.add(m.old.key, m.old.rev)
	}
}

// dropBefore deletes keys before to.
func (m *merge) dropBefore(to string) {
	for ; m.old.ok && m.old.key < to; m.old.next() {
		m.ops = append(m.ops, op{Entry: Entry{Key: m.old.key}, known: true})
	}
}

func (m *merge) page(es []Entry) {
	for _, e := range es {
		m.dropBefore(e.Key)
		known := m.old.ok && m.old.key == e.Key
		same := known && m.old.rev == e.Mod && !m.all
		if known {
			m.old.next()
		}
		m.next.add(e.Key, e.Mod)
		if !same {
			m.ops = append(m.ops, op{Entry: e, known: known || !m.whole})
		}
	}
}

func (m *merge) take() []op {
	ops := m.ops
	m.ops = nil
	return ops
}
