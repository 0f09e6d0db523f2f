package kube

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/tortie/tortie/datastore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// watchTime is how long a watch lasts, at least, and at most twice as long: a node begins one for each kind again and again.
// A connection that is dead is noticed by its pings.
const watchTime = 30 * time.Minute

// feed keeps one source flowing into a hub. Watch-lists, pages, bookmarks and resuming are those of client-go's
// Reflector; what is done about errors is decided here.
type feed struct {
	s   *Store
	src *source
	h   *hub
	t   *table

	mu    sync.Mutex
	delay time.Duration // of the next try
	gone  int           // answers in a row that there is no such resource
	away  time.Time     // since when there is no watch, though its time was not over; zero = all is well
	anew  bool          // everything is to be read anew
	busy  time.Time     // since when all answers are that the server is busy; zero = the last one was not
}

func (s *Store) client(src *source) rest.Interface {
	if src.list != nil {
		return s.typed
	}
	return s.raw
}

// request begins a request about src's objects.
func (s *Store) request(src *source, verb, namespace string) *rest.Request {
	r := s.client(src).Verb(verb).AbsPath(src.path)
	if namespace != "" {
		r = r.Namespace(namespace)
	}
	return r.Resource(src.plural)
}

func options(o *metav1.ListOptions) (*metav1.ListOptions, runtime.ParameterCodec, schema.GroupVersion) {
	return o, metav1.ParameterCodec, schema.GroupVersion{Version: "v1"}
}

func (src *source) newList() runtime.Object {
	if src.list != nil {
		return src.list()
	}
	return &rawList{}
}

// run feeds until ctx ends.
func (f *feed) run(ctx context.Context) {
	backoff := wait.Backoff{Duration: f.s.pace.minBackoff, Factor: 2, Jitter: 1, Cap: f.s.pace.maxBackoff, Steps: 16}
	reflector := func() *cache.Reflector {
		return cache.NewReflectorWithOptions(lister{f}, nil, f, cache.ReflectorOptions{Name: "tortie " + f.src.name,
			TypeDescription: f.src.name, Backoff: &backoff, MinWatchTimeout: watchTime})
	}
	r := reflector()
	var delay time.Duration
	for ctx.Err() == nil {
		start := time.Now()
		err := r.ListAndWatchWithContext(ctx)
		if ctx.Err() != nil {
			return
		}
		if unserved(err) {
			f.absent(ctx)
			delay = 0
			continue
		}
		if f.beginsAnew() {
			r = reflector() // it remembers revisions
		}
		most := f.s.pace.maxBackoff
		if err != nil {
			f.note(err)
			if errors.Is(translate(ctx, err), datastore.ErrForbidden) {
				most = f.s.pace.refused
			}
		}
		if time.Since(start) > f.s.pace.steady {
			delay = 0
		}
		delay = min(max(2*delay, f.s.pace.minBackoff), most)
		f.h.wait(ctx, jitter(delay))
	}
}

func (f *feed) note(err error) {
	if s, news := judge(err, f.busyLong(err)); news {
		f.h.health(f.src, s)
	}
}

// busyLong takes in an answer, and says whether they have been for long that the server is busy.
func (f *feed) busyLong(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !apierrors.IsTooManyRequests(err) {
		f.busy = time.Time{}
		return false
	}
	if f.busy.IsZero() {
		f.busy = time.Now()
	}
	return time.Since(f.busy) > f.s.pace.busy
}

// do makes a request, again and again as long as there is no answer.
func (f *feed) do(ctx context.Context, call func() error) error {
	for {
		kick := f.h.kicked() // the server may come back while this call is about to fail
		err := call()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !apierrors.IsInvalid(err) { // an old server's word for a watch-list; a list that follows tells more
			f.note(err)
		}
		if err == nil || !retryable(err) {
			f.mu.Lock()
			f.delay = 0
			if err == nil {
				f.gone = 0
			}
			f.mu.Unlock()
			return err
		}
		f.mu.Lock()
		f.delay = min(max(2*f.delay, f.s.pace.minBackoff), f.s.pace.maxBackoff)
		delay := f.delay
		f.mu.Unlock()
		waitUnless(ctx, jitter(delay), kick)
	}
}

func (f *feed) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	// What there is now. Whatever a server happens to hold can be older than what was seen before a restart, and pages
	// of a revision are what there was then, whatever has come since.
	o.ResourceVersion = ""
	l := f.src.newList()
	err := f.do(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, f.s.pace.answer)
		defer cancel()
		return f.s.request(f.src, "GET", "").SpecificallyVersionedParams(options(&o)).MaxRetries(0).Do(ctx).Into(l)
	})
	if err == nil {
		f.found()
	}
	return l, err
}

func (f *feed) watch(ctx context.Context, o metav1.ListOptions) (w watch.Interface, err error) {
	if o.ResourceVersion == "" && o.SendInitialEvents == nil {
		return nil, apierrors.NewResourceExpired("the last object that was told of had no revision that could be read")
	}
	began := time.Now()
	err = f.do(ctx, func() error {
		began = time.Now()
		if err := f.goesOn(ctx, o); err != nil {
			return err
		}
		if w, err = f.s.startWatch(ctx, f.s.request(f.src, "GET", ""), o); err != nil {
			f.lost(began)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	f.found()
	if o.TimeoutSeconds != nil {
		w = &timed{Interface: w, f: f, until: began.Add(time.Duration(*o.TimeoutSeconds)*time.Second - time.Second)}
	}
	return w, nil
}

// timed is a watch that notes if it ends before its time.
type timed struct {
	watch.Interface
	f     *feed
	until time.Time
}

// Stop implements watch.Interface.
func (t *timed) Stop() {
	t.Interface.Stop()
	if now := time.Now(); now.Before(t.until) {
		t.f.lost(now)
	}
}

// startWatch starts a watch, which has to be answered soon, whenever its first event comes.
func (s *Store) startWatch(ctx context.Context, r *rest.Request, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(s.pace.answer, func() { cancel(errNoAnswer) })
	w, err := r.SpecificallyVersionedParams(options(&o)).MaxRetries(0).Watch(ctx)
	switch {
	case !late.Stop():
		err = errNoAnswer
	case err == nil && reflect.TypeOf(w) == reflect.TypeOf(watch.NewEmptyWatch()):
		err = errBroken // client-go's way to say so
	}
	if err != nil {
		cancel(err)
		if w != nil {
			w.Stop()
		}
		return nil, err
	}
	return &stoppable{w, cancel}, nil
}

// stoppable is a watch whose context ends with it.
type stoppable struct {
	watch.Interface
	cancel context.CancelCauseFunc
}

// Stop implements watch.Interface.
func (s *stoppable) Stop() {
	s.Interface.Stop()
	s.cancel(nil)
}

var (
	errBroken   = errors.New("the connection broke before there was an answer")
	errNoAnswer = errors.New("no answer")
)

// lister is what a Reflector asks.
type lister struct{ f *feed }

// List implements cache.ListerWatcher.
func (l lister) List(o metav1.ListOptions) (runtime.Object, error) {
	return l.f.list(context.Background(), o)
}

// Watch implements cache.ListerWatcher.
func (l lister) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return l.f.watch(context.Background(), o)
}

// ListWithContext implements cache.ListerWatcherWithContext.
func (l lister) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	return l.f.list(ctx, o)
}

// WatchWithContext implements cache.ListerWatcherWithContext.
func (l lister) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return l.f.watch(ctx, o)
}

// item converts an object, if the Reflector has not had it done already.
func (f *feed) item(o any) (*item, error) {
	switch o := o.(type) {
	case *item:
		return o, nil
	case runtime.Object:
		return f.src.convert(o), nil
	}
	return nil, fmt.Errorf("%s: unexpected %T", f.src.name, o)
}

// Transformer implements cache.TransformingStore: while a list streams in, only what we need of it is kept.
func (f *feed) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return f.item(o) }
}

// Add implements cache.ReflectorStore.
func (f *feed) Add(o any) error {
	it, err := f.item(o)
	if err == nil {
		f.h.put(f.t, it)
	}
	return err
}

// Update implements cache.ReflectorStore.
func (f *feed) Update(o any) error { return f.Add(o) }

// Delete implements cache.ReflectorStore.
func (f *feed) Delete(o any) error {
	m, ok := o.(metav1.Object)
	if !ok {
		return fmt.Errorf("%s: unexpected %T", f.src.name, o)
	}
	f.h.drop(f.t, srcKey(m))
	return nil
}

// Replace implements cache.ReflectorStore.
func (f *feed) Replace(os []any, _ string) error {
	items := make([]*item, len(os))
	for i, o := range os {
		it, err := f.item(o)
		if err != nil {
			return err
		}
		items[i] = it
	}
	f.h.replace(f.t, items)
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *feed) Resync() error { return nil }
