package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/backoff"
	"github.com/tortie/tortie/ipam"
)

const (
	// tidyInterval is how often this node looks for blocks that it does not need; one that was empty at two looks is given
	// back.
	tidyInterval = time.Hour
	tidyGrace    = tidyInterval / 2
	tidyTimeout  = time.Minute
)

// addresses is this node's allocator. What pools there are it knows from the watch, so that an allocation in a block of
// this node is one request to the store.
type addresses struct {
	*ipam.Allocator
	store   linkStore
	log     *slog.Logger
	metrics *addressMetrics

	mu     sync.Mutex
	rules  map[api.Key]api.Object // pools, reservations and configuration
	unread map[api.Key]bool       // those of them that can't be read
	inSync bool
	// namespaces is the labels that pools select by.
	namespaces namespaces
	doubted    int // requests that found no address: there may be a pool that the watch has not told of yet
}

// newAddresses returns the allocator of a node; with oneByOne for a store that can't write several resources as one.
func newAddresses(node string, l *link, oneByOne bool, log *slog.Logger, reg prometheus.Registerer) (*addresses, error) {
	a := &addresses{store: linkStore{l}, log: log, rules: map[api.Key]api.Object{}, unread: map[api.Key]bool{}, namespaces: namespaces{}}
	a.Allocator = ipam.New(ipam.Config{Store: a.store, Node: node, OneByOne: oneByOne, Settings: a.Settings, Log: log})
	var err error
	a.metrics, err = newAddressMetrics(reg)
	return a, err
}

// take takes in what the watch tells.
func (a *addresses) take(b datastore.Batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inSync = a.inSync || b.InSync
	kinds := ipam.SettingKinds()
	for _, e := range b.Events {
		a.namespaces.take(e)
		if !slices.Contains(kinds, e.Key.Kind) {
			continue
		}
		delete(a.rules, e.Key)
		delete(a.unread, e.Key)
		switch {
		case e.Object != nil:
			a.rules[e.Key] = e.Object
		case e.Problem != nil:
			a.unread[e.Key] = true
		}
	}
}

// Pools returns the pools that the watch has told of if they are enough, or else those that the store has now.
func (a *addresses) Pools(ctx context.Context, enough func([]*api.IPPool) bool) ([]*api.IPPool, error) {
	if s, ok := a.watched(); ok && enough(s.Pools) {
		return s.Pools, nil
	}
	s, err := ipam.ReadSettings(ctx, a.store, a.log)
	return s.Pools, err
}

// Settings is what users say about addresses.
func (a *addresses) Settings(ctx context.Context) (ipam.Settings, error) {
	if s, ok := a.watched(); ok && len(s.Pools) > 0 {
		return s, nil
	}
	return ipam.ReadSettings(ctx, a.store, a.log)
}

// watched is what the watch has told; ok is false if that won't do.
func (a *addresses) watched() (s ipam.Settings, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.inSync || a.doubted > 0 || len(a.unread) > 0 {
		return s, false
	}
	for key, o := range a.rules {
		switch o := o.(type) {
		case *api.IPPool:
			s.Pools = append(s.Pools, o)
		case *api.IPReservation:
			s.Reservations = append(s.Reservations, o)
		case *api.IPAMConfiguration:
			if key.Name == api.IPAMConfigurationName {
				s.Config = o.Spec
			}
		}
	}
	slices.SortFunc(s.Pools, func(x, y *api.IPPool) int { return strings.Compare(x.Name, y.Name) })
	return s, true
}

// behind says whether the store has other pools than the watch has told of: that all are full may not be so any more. It
// costs one request; to look through full pools once more would cost many.
func (a *addresses) behind(ctx context.Context) bool {
	objects, _ := a.store.List(ctx, "IPPool", "") // those that can be read
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range objects {
		known := a.rules[api.KeyOf(o)]
		if known == nil || known.GetResourceVersion() != o.GetResourceVersion() {
			return true
		}
	}
	return false
}

func (a *addresses) doubt(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubted += n
}

// Assign is the allocator's, for a workload with the labels of its namespace.
func (a *addresses) Assign(ctx context.Context, r ipam.Request) (ipam.Result, error) {
	start := time.Now()
	got, err := a.assign(ctx, r)
	if errors.Is(err, ipam.ErrNoPool) || errors.Is(err, ipam.ErrFull) && a.behind(ctx) {
		a.doubt(1)
		got, err = a.assign(ctx, r)
		a.doubt(-1)
	}
	a.metrics.note("assign", start, err)
	return got, err
}

func (a *addresses) assign(ctx context.Context, r ipam.Request) (ipam.Result, error) {
	if r.Owner.Namespace != "" {
		labels, err := a.namespaceLabels(ctx, r.Owner.Namespace)
		if err != nil {
			return ipam.Result{}, err
		}
		r.NamespaceLabels = labels
	}
	return a.Allocator.Assign(ctx, r)
}

// Release is the allocator's.
func (a *addresses) Release(ctx context.Context, handle string, o ipam.ReleaseOptions) ([]netip.Addr, error) {
	start := time.Now()
	got, err := a.Allocator.Release(ctx, handle, o)
	a.metrics.note("release", start, err)
	return got, err
}

// run gives back blocks that this node does not need, until ctx ends.
func (a *addresses) run(ctx context.Context) {
	wait := backoff.Backoff{Min: tidyInterval, Max: tidyInterval}
	for wait.Sleep(ctx) == nil {
		tctx, cancel := context.WithTimeout(ctx, tidyTimeout)
		if err := a.Tidy(tctx, tidyGrace); err != nil && ctx.Err() == nil {
			a.log.Debug("giving back empty blocks", "err", err)
		}
		cancel()
	}
}

// linkStore is the store as far as it can be used now.
type linkStore struct{ l *link }

// Get reads one resource.
func (s linkStore) Get(ctx context.Context, key api.Key) (api.Object, error) {
	st, err := s.l.Store()
	if err != nil {
		return nil, err
	}
	return st.Get(ctx, key)
}

// List reads all of a kind.
func (s linkStore) List(ctx context.Context, kind, namespace string) ([]api.Object, error) {
	st, err := s.l.Store()
	if err != nil {
		return nil, err
	}
	return st.List(ctx, kind, namespace)
}

// Update writes one resource.
func (s linkStore) Update(ctx context.Context, o api.Object) (api.Object, error) {
	st, err := s.l.Store()
	if err != nil {
		return nil, err
	}
	return st.Update(ctx, o)
}

// Txn writes several, or none.
func (s linkStore) Txn(ctx context.Context, ops ...datastore.Op) error {
	st, err := s.l.Store()
	if err != nil {
		return err
	}
	return st.Txn(ctx, ops...)
}

// addressMetrics says how allocation goes.
type addressMetrics struct {
	seconds *prometheus.HistogramVec
	errs    *prometheus.CounterVec
}

func newAddressMetrics(reg prometheus.Registerer) (*addressMetrics, error) {
	m := &addressMetrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tortie_agent_addresses_seconds",
			Help: "How long it took to assign and release addresses.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"verb"}),
		errs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tortie_agent_addresses_errors_total",
			Help: "Requests for addresses that failed, by reason."}, []string{"verb", "reason"}),
	}
	for _, c := range []prometheus.Collector{m.seconds, m.errs} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics of addresses: %w", err)
		}
	}
	return m, nil
}

func (m *addressMetrics) note(verb string, start time.Time, err error) {
	m.seconds.WithLabelValues(verb).Observe(time.Since(start).Seconds())
	if err == nil {
		return
	}
	reason := "other"
	for _, c := range []struct {
		is   error
		name string
	}{
		{ipam.ErrNoPool, "no-pool"}, {ipam.ErrFull, "full"}, {ipam.ErrTaken, "taken"}, {ipam.ErrBusy, "busy"}, {datastore.ErrUnavailable, "unavailable"},
	} {
		if errors.Is(err, c.is) {
			reason = c.name
			break
		}
	}
	m.errs.WithLabelValues(verb, reason).Inc()
}
