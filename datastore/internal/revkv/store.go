package revkv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

const (
	callTimeout = 5 * time.Second
	pageTimeout = 15 * time.Second // of each part of a list

	// A call whose connection breaks is tried again, once the connection had a moment to come back.
	callTries = 3
	retryWait = 60 * time.Millisecond
)

var errClosed = fmt.Errorf("%w: it has been closed", datastore.ErrUnavailable)

// Options of a Store.
type Options struct {
	Prefix string // of keys; "" = DefaultPrefix
	Log    *slog.Logger
}

// Store is a datastore.Store on a Backend.
type Store struct {
	b      Backend
	prefix string
	kinds  map[string]api.KindInfo
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
}

// New returns a store on b, which it owns.
func New(b Backend, o Options) *Store {
	s := &Store{b: b, prefix: cmp.Or(o.Prefix, DefaultPrefix), kinds: map[string]api.KindInfo{}, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, k := range api.Kinds() {
		s.kinds[k.Kind] = k
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends watches and releases the connection.
func (s *Store) Close() error {
	s.cancel()
	return s.b.Close()
}

// bounded gives ctx an end, if it has none, and makes sure that a caller sees why it ended.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTimeout)
}

// retry calls f again when the connection broke. Whatever f does must come out the same when it is done twice.
func (s *Store) retry(ctx context.Context, f func(try int) error) error {
	for try := 1; ; try++ {
		if s.ctx.Err() != nil {
			return errClosed
		}
		err := f(try)
		if err == nil || !errors.Is(err, datastore.ErrUnavailable) || ctx.Err() != nil || try == callTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(jitter(retryWait * time.Duration(try))):
		}
	}
}

// Get implements datastore.Store.
func (s *Store) Get(ctx context.Context, key api.Key) (api.Object, error) {
	k, err := s.key(key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	es, err := s.get(ctx, k)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%v: %w", key, err)
	case es[0].Mod == 0:
		return nil, fmt.Errorf("%v: %w", key, datastore.ErrNotFound)
	}
	o, _, err := s.decode(key, es[0])
	return o, err
}

func (s *Store) get(ctx context.Context, keys ...string) (es []Entry, err error) {
	err = s.retry(ctx, func(int) error {
		es, err = s.b.Get(ctx, keys...)
		return err
	})
	return es, err
}

// List implements datastore.Store.
func (s *Store) List(ctx context.Context, kind, namespace string) ([]api.Object, error) {
	info, ok := s.kinds[kind]
	if !ok {
		return nil, fmt.Errorf("listing: %w: there is no kind %q", datastore.ErrInvalid, kind)
	}
	if !info.Namespaced && namespace != "" {
		return nil, fmt.Errorf("listing: %w: a %s has no namespace", datastore.ErrInvalid, kind)
	}
	var (
		objects []api.Object
		bad     error
		err     error
	)
	for range listTries {
		if objects, bad, err = s.list(ctx, s.kindRange(kind, namespace)); !errors.Is(err, ErrCompacted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", kind, err)
	}
	slices.SortFunc(objects, func(a, b api.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return objects, bad
}

// list reads a range as of one revision. bad names what could not be read.
func (s *Store) list(ctx context.Context, r Range) (objects []api.Object, bad, err error) {
	req := PageRequest{Range: r, Limit: pageSize}
	var problems []error
	for {
		p, err := s.listPage(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range p.Entries {
			key, ok := s.parseKey(e.Key)
			if !ok {
				continue
			}
			o, _, err := s.decode(key, e)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			objects = append(objects, o)
		}
		if !p.More {
			return objects, errors.Join(problems...), nil
		}
		if req.At == 0 {
			req.At = p.Now.Rev
		}
		req.From = p.Entries[len(p.Entries)-1].Key + "\x00"
	}
}

func (s *Store) listPage(ctx context.Context, req PageRequest) (p Page, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pageTimeout)
		defer cancel()
	}
	err = s.retry(ctx, func(int) error {
		p, err = s.b.Page(ctx, req)
		return err
	})
	return p, err
}

// Create implements datastore.Store.
func (s *Store) Create(ctx context.Context, o api.Object) (api.Object, error) {
	return s.one(ctx, datastore.Op{Verb: datastore.Create, Object: o})
}

// Update implements datastore.Store.
func (s *Store) Update(ctx context.Context, o api.Object) (api.Object, error) {
	return s.one(ctx, datastore.Op{Verb: datastore.Update, Object: o})
}

// Delete implements datastore.Store.
func (s *Store) Delete(ctx context.Context, key api.Key, revision string) error {
	_, err := s.one(ctx, datastore.Op{Verb: datastore.Delete, Key: key, Revision: revision})
	return err
}

func (s *Store) one(ctx context.Context, op datastore.Op) (api.Object, error) {
	t, err := s.newTxn([]datastore.Op{op})
	if err != nil {
		return nil, err
	}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	if op.Verb == datastore.Delete {
		return nil, nil
	}
	stored, _, err := s.decode(t.steps[0].name, Entry{Value: t.steps[0].data, Mod: t.steps[0].mod})
	return stored, err
}
