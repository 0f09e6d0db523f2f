package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/backoff"
)

// Config is what the controllers stand on.
type Config struct {
	// OpenStore opens the store, each time that this process begins to lead. It is called again until it succeeds.
	OpenStore func(ctx context.Context) (datastore.Store, error)
	// Kubernetes is nil if the store is not its API server: then there are the parts that need none, and this process
	// leads.
	Kubernetes *Kubernetes
	Log        *slog.Logger
	// LogLevel is the level of Log, which the KubeControllersConfiguration may change; nil = it stays.
	LogLevel *slog.LevelVar
	Registry prometheus.Registerer
}

// Kubernetes is the API server.
type Kubernetes struct {
	Core  corev1client.CoreV1Interface
	Lease Lease
	// Agents selects the nodes that agents run on, of those with Linux; nil = all.
	Agents labels.Selector
}

// Controllers are the parts, and who leads.
type Controllers struct {
	c       Config
	metrics *metrics

	mu    sync.Mutex
	reign *reign // nil while another process leads
}

// New makes controllers. Nothing runs yet.
func New(c Config) (*Controllers, error) {
	m, err := newMetrics(c.Registry)
	if err != nil {
		return nil, err
	}
	return &Controllers{c: c, metrics: m}, nil
}

// Run runs until ctx ends: it leads, or waits for that.
func (c *Controllers) Run(ctx context.Context) error {
	if c.c.Kubernetes == nil {
		c.leading(ctx)
		return nil
	}
	return c.c.Kubernetes.Lease.lead(ctx, c.c.Log, c.leading)
}

// leading does the work until ctx ends.
func (c *Controllers) leading(ctx context.Context) {
	store := c.open(ctx)
	if store == nil {
		return
	}
	defer func() {
		if err := store.Close(); err != nil {
			c.c.Log.Debug("closing the store", "err", err)
		}
	}()
	r := c.newReign(store)
	c.set(r)
	defer c.set(nil)
	c.metrics.steps.leading.Set(1)
	defer c.metrics.steps.leading.Set(0)
	r.run(ctx)
}

func (c *Controllers) set(r *reign) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reign = r
}

func (c *Controllers) now() *reign {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reign
}

// open opens the store; nil if ctx has ended before.
func (c *Controllers) open(ctx context.Context) datastore.Store {
	retry := backoff.Backoff{Min: time.Second, Max: 30 * time.Second}
	for said := ""; ; {
		s, err := c.c.OpenStore(ctx)
		if err == nil {
			return s
		}
		if err.Error() != said && ctx.Err() == nil {
			said = err.Error()
			c.c.Log.Warn("opening the store", "err", err)
		}
		if retry.Sleep(ctx) != nil {
			return nil
		}
	}
}

// Ready returns what is missing, and what is wrong though the work is done. A process that waits to lead is ready.
func (c *Controllers) Ready() (missing, problems []string) {
	r := c.now()
	if r == nil {
		return nil, nil
	}
	if err := r.world.sees(); err != nil {
		return []string{err.Error()}, nil
	}
	r.world.mu.Lock()
	for kind, err := range r.world.status.Kinds {
		missing = append(missing, fmt.Sprintf("%s: %v", kind, err))
	}
	r.world.mu.Unlock()
	for _, p := range r.runners {
		if err := p.last(); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", p.name, err))
		}
	}
	if r.events != nil {
		if n := r.events.degraded(); n > 0 {
			problems = append(problems, fmt.Sprintf("%d policies are degraded: parts of them can't be enforced as they are written (kubectl get events -A --field-selector source=%s)", n, component))
		}
	}
	return missing, problems
}

// Live returns why the process should be started again.
func (c *Controllers) Live() error {
	r := c.now()
	if r == nil {
		return nil
	}
	for _, p := range r.runners {
		if err := p.stuck(time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// reign is the time in which this process leads.
type reign struct {
	world   *world
	store   datastore.Store
	runners []*runner
	events  *events
	boots   *boots
	log     *slog.Logger
}

func (c *Controllers) newReign(s datastore.Store) *reign {
	w := newWorld()
	r := &reign{world: w, store: s, log: c.c.Log}
	conf := newConfig(w, c.c.LogLevel)
	o := collectorOptions{store: s, log: c.c.Log, metrics: c.metrics.addresses}
	parts := []part{(&hostEndpoints{w: w, config: conf, store: s}).part()}
	if k := c.c.Kubernetes; k != nil {
		o.oneByOne, o.pods = true, &podReader{k.Core}
		r.events = &events{w: w, config: conf, core: k.Core, metrics: c.metrics.steps, now: time.Now, said: map[eventKey]eventSaid{}}
		parts = append(parts, (&tiers{w: w, config: conf, store: s}).part(), r.events.part())
		r.boots = newBoots(k.Core, k.Agents, conf, func() { r.kick("boots") })
		parts = append(parts, r.boots.part())
	}
	parts = append(parts, newCollector(w, conf, o).part())
	for _, p := range parts {
		n := newRunner(p, c.c.Log, c.metrics.steps)
		w.onChange(n.kick, append(p.kinds, "")...)
		r.runners = append(r.runners, n)
	}
	return r
}

// kick asks for a step of one part. runners does not change any more when it is called.
func (r *reign) kick(name string) {
	for _, n := range r.runners {
		if n.name == name {
			n.kick()
		}
	}
}

// run follows the store, and runs the parts, until ctx ends.
func (r *reign) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, n := range r.runners {
		wg.Go(func() { n.run(ctx) })
	}
	if r.boots != nil {
		wg.Go(func() { r.boots.run(ctx) })
	}
	wg.Go(func() { r.watch(ctx) })
}

// watch follows the store. A watch survives all but its context's end; should one end all the same, it is begun anew.
func (r *reign) watch(ctx context.Context) {
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	for ctx.Err() == nil {
		err := r.store.Watch(ctx, datastore.WatchOptions{Kinds: watched}, func(b datastore.Batch) error {
			r.world.take(b)
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		r.log.Error("watching the store", "err", err)
		r.world.clear()
		if retry.Sleep(ctx) != nil {
			return
		}
	}
}
