package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/agent/feed"
	"github.com/tortie/tortie/agent/health"
	"github.com/tortie/tortie/agent/install"
	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/agent/lock"
	"github.com/tortie/tortie/agent/persist"
	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/agent/socket"
	"github.com/tortie/tortie/agent/status"
	"github.com/tortie/tortie/agent/workload"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// Deps is what an agent stands on. Only cmd knows concrete drivers and stores.
type Deps struct {
	Config  config.Config
	Version string
	Log     *slog.Logger
	// LogLevel is the level of Log, which FelixConfigurations may change; nil = it stays.
	LogLevel *slog.LevelVar
	// Registry is where metrics are registered, and /metrics reads them.
	Registry *prometheus.Registry
	// OpenDriver opens the driver that Config.Driver names.
	OpenDriver func(ctx context.Context, o drivers.Options) (drivers.Driver, error)
	// OpenStore opens the store that Config.Store names. It is called again until it succeeds.
	OpenStore func(ctx context.Context) (datastore.Store, error)
	// Notify tells the service manager; nil is systemd's way.
	Notify func(state string)
}

// agent is a running agent.
type agent struct {
	d       Deps
	cfg     config.Config
	log     *slog.Logger
	started time.Time
	bootID  string
	start   persist.Start

	driver    drivers.Driver
	ledger    *ledger.Ledger
	pump      *pump.Pump
	tracker   *status.Tracker
	feed      *feed.Feed
	departed  *departed
	saver     *persist.Saver
	link      *link
	addresses *addresses
	pods      *pods // nil = the store is not Kubernetes
	workloads *workload.Workloads
	keeper    *workload.Keeper // nil = the store is not Kubernetes
	registrar *registrar
	installer *install.Installer
	inspector *inspector
	metrics   metrics

	applied chan struct{} // the boot is to be marked
}

// Run is an agent from its start to the end of ctx. The dataplane stays as it is.
func Run(ctx context.Context, d Deps) (err error) {
	if err := d.Config.Validate(); err != nil {
		return fmt.Errorf("the configuration: %w", err)
	}
	for dir, mode := range map[string]os.FileMode{d.Config.StateDir: 0o700, d.Config.RunDir: 0o755} {
		if err := durable.MakeDir(dir, mode); err != nil {
			return fmt.Errorf("making a directory of the agent: %w", err)
		}
	}
	l, err := lock.Acquire(filepath.Join(d.Config.RunDir, "agent.lock"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	a := &agent{d: d, cfg: d.Config, log: d.Log, started: time.Now(), applied: make(chan struct{}, 1)}
	if a.bootID, err = persist.BootID(a.cfg.BootIDFile); err != nil {
		a.log.Warn("the boot of this host has no id: a file in runDir tells boots apart", "err", err)
	}
	if a.ledger, err = ledger.Open(filepath.Join(a.cfg.StateDir, "ledger"), durable.Writer{}); err != nil {
		return err
	}
	for _, b := range a.ledger.Bad() {
		what := "a ledger entry is damaged: its workload is closed until it is attached again"
		if b.Unread {
			what = "a ledger entry could not be read: its workload is closed until it is attached again, or the agent can read it when it starts"
		}
		a.log.Error(what, "file", b.File, "err", b.Err)
	}
	if err := agentapi.SweepNotes(a.notesDir()); err != nil {
		a.log.Error("removing unfinished notes", "err", err)
	}
	var kick atomic.Pointer[pump.Pump]
	a.driver, err = d.OpenDriver(ctx, drivers.Options{Log: a.log, Clock: time.Now, Kick: func() {
		if p := kick.Load(); p != nil {
			p.Kick()
		} // before there is a pump there has been no Apply, and the first looks at everything
	}})
	if err != nil {
		return fmt.Errorf("opening the driver: %w", err)
	}
	defer func() { err = errors.Join(err, a.driver.Close()) }()
	if err := a.build(ctx); err != nil {
		return err
	}
	kick.Store(a.pump)
	defer func() { err = errors.Join(err, a.link.close()) }()
	return a.run(ctx)
}

// build makes the parts. Nothing runs yet.
func (a *agent) build(ctx context.Context) error {
	var err error
	if a.metrics, err = newMetrics(a.d.Registry); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	a.start = persist.Begin(persist.BeginOptions{Path: a.statePath(), Marker: a.markerPath(), BootID: a.bootID, Node: a.cfg.Node(),
		Bare: a.bare(ctx)})
	a.log.Info("starting", "version", a.d.Version, "node", a.cfg.NodeName, "driver", a.driver.Features().Driver, "why", a.start.Why)
	if a.start.Problem != nil {
		a.log.Error("reading the State of before", "err", a.start.Problem)
	}
	a.pump = pump.New(pump.Options{
		Driver: a.driver, Log: a.log, ApplyTimeout: time.Duration(a.cfg.ApplyTimeout), Resync: time.Duration(a.cfg.ResyncInterval),
		Boot: a.start.State, Applied: a.onApplied, Metrics: a.metrics.pump,
	})
	a.tracker = status.New(a.pump)
	a.saver = persist.NewSaver(persist.SaverOptions{
		Path: a.statePath(), Header: persist.Header{Node: a.cfg.NodeName, BootID: a.bootID}, Delay: time.Duration(a.cfg.PersistDelay),
		Snapshot: a.snapshot, Log: a.log,
	})
	inputs := []feed.Input{feed.Store, feed.Ledger}
	if _, ok := a.driver.(drivers.Inventory); ok {
		inputs = append(inputs, feed.Host)
	}
	a.departed = newDeparted(a.pump, a.log)
	a.feed = feed.New(feed.Options{Graph: calcgraph.New(a.cfg.Graph()), Pump: a.pump, Inputs: inputs, Node: a.cfg.NodeName,
		Settings: a.settings, Departed: a.departed.add, Metrics: a.metrics.feed})
	a.link = newLink(a.d.OpenStore, a.log)
	if a.addresses, err = newAddresses(a.cfg.NodeName, a.link, a.cfg.Store.Kubernetes != nil, a.log, a.d.Registry); err != nil {
		return err
	}
	a.buildFront()
	a.inspector = newInspector(a.driver, a.pump, a.log)
	if err := a.gauges(); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}

// buildFront makes the parts that ask others: those that speak with the runtime, and of this node to the store.
func (a *agent) buildFront() {
	attacher, _ := a.driver.(drivers.Attacher)
	o := workload.Options{
		Node: a.cfg.NodeName, Prefix: a.cfg.InterfacePrefix, BootID: a.bootID, Ledger: a.ledger, Before: a.start.Workloads, NotesDir: a.notesDir(),
		Attacher: attacher, Graph: a.feed, Addresses: a.addresses,
		Plane: plane{a.tracker, a.pump}, Store: a.link.Store, Ready: a.attachWaitsFor, Log: a.log,
		Metrics: a.metrics.attach,
	}
	a.registrar = &registrar{name: a.cfg.NodeName, fixed: a.cfg.NodeAddresses, store: a.link.Store, find: defaultRouteAddresses,
		prefix: prefixOf, info: a.nodeInfo, log: a.log, kick: make(chan struct{}, 1)}
	ready := func() bool { return len(a.missing()) == 0 }
	if a.cfg.Store.Kubernetes != nil {
		a.pods = newPods(a.feed)
		o.Pods, o.NoIPAM, o.FloatingIPs = a.pods, a.cfg.CNI.IPAddrsNoIPAM, a.cfg.CNI.FloatingIPs
		a.registrar.kube = &kubeNode{bootID: a.bootID, ready: ready, log: a.log}
	}
	a.workloads = workload.New(o)
	if a.pods != nil {
		a.keeper = workload.NewKeeper(a.workloads)
	}
	cni := a.cfg.CNI
	a.installer = install.New(install.Options{
		Source: cni.Source, BinDir: cni.BinDir, ConfDir: cni.ConfDir, ConfName: cni.ConfName, Ready: ready, PodCIDRs: a.registrar.podCIDRs,
		Conf: install.Conf{Network: cni.Network, Socket: a.cfg.SocketPath(), NotesDir: a.notesDir(), IPAM: cni.IPAM, ChainTo: cni.ChainTo}, Log: a.log,
	})
}

// bare reports whether the dataplane certainly holds nothing of ours.
func (a *agent) bare(ctx context.Context) bool {
	p, ok := a.driver.(drivers.Presence)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(a.cfg.ApplyTimeout))
	defer cancel()
	there, err := p.Present(ctx)
	if err != nil {
		a.log.Error("looking whether the dataplane is as an earlier agent has left it", "err", err)
		return false
	}
	return !there
}

// plane is the dataplane as workloads wait for it.
type plane struct {
	*status.Tracker
	*pump.Pump
}

// Renew has the dataplane compared with what it should be, all of it, and waits until that is done.
func (p plane) Renew(ctx context.Context) error {
	asked := time.Now()
	p.Kick()
	return p.Wait(ctx, func(v *pump.View) bool {
		var partly *drivers.ApplyError
		whole := v.Last.Err == nil || errors.As(v.Last.Err, &partly)
		return whole && v.Last.At.Add(-v.Last.Duration).After(asked)
	})
}

func (a *agent) statePath() string  { return filepath.Join(a.cfg.StateDir, "state") }
func (a *agent) notesDir() string   { return filepath.Join(a.cfg.StateDir, "notes") }
func (a *agent) markerPath() string { return filepath.Join(a.cfg.RunDir, "boot") }

// onApplied is called by the pump's goroutine.
func (a *agent) onApplied(r pump.Result) {
	var partly *drivers.ApplyError
	if r.Err != nil && !errors.As(r.Err, &partly) {
		return
	}
	select {
	case a.applied <- struct{}{}:
	default:
	}
	if r.InSync {
		a.saver.Touch()
	}
}

// snapshot returns the State as it is now.
func (a *agent) snapshot() (s *drivers.State) {
	a.pump.Read(func(v *pump.View) { s = v.Wanted.Clone() })
	return s
}

// markBoot notes after the first Apply that the dataplane is this boot's.
func (a *agent) markBoot(ctx context.Context) {
	select {
	case <-a.applied:
	case <-ctx.Done():
		return
	}
	if err := persist.MarkBoot(durable.Writer{}, a.markerPath(), a.bootID); err != nil {
		a.log.Error("marking this boot", "err", err)
	}
}

// run runs the parts until ctx ends or one of them fails. Those that serve others outlive those that ask them.
func (a *agent) run(ctx context.Context) error {
	front := newGroup(ctx)                       // asks
	back := newGroup(context.WithoutCancel(ctx)) // is asked
	defer back.wait()
	defer back.cancel()

	srv, err := socket.Listen(socket.Options{Path: a.cfg.SocketPath(), Group: a.cfg.SocketGroup, Handler: handler{a}, Log: a.log,
		Metrics: a.metrics.socket})
	if err != nil {
		return err
	}
	for _, fn := range []func(context.Context){a.pump.Run, a.feed.Run, a.saver.Run, a.markBoot} {
		back.run(fn)
	}
	for _, fn := range []func(context.Context){a.workloads.Run, a.registrar.run, a.addresses.run, a.watchHost, a.departed.run,
		a.installer.Run} {
		front.run(fn)
	}
	if a.keeper != nil {
		front.run(a.keeper.Run)
	}
	front.run(func(ctx context.Context) { trim(ctx, a.log) })
	if a.cfg.InspectInterval > 0 {
		front.run(func(ctx context.Context) { a.inspector.run(ctx, time.Duration(a.cfg.InspectInterval)) })
	}
	front.fallible(a.watchStore)
	front.fallible(srv.Serve)
	if a.cfg.Listen != "" {
		h, err := health.Listen(health.Options{Addr: a.cfg.Listen, Live: a.live, Ready: a.readiness, Gatherer: a.d.Registry, Log: a.log})
		if err != nil {
			front.fail(err)
		} else {
			front.fallible(h.Serve)
		}
	}
	front.run(a.notify)
	err = front.wait()
	a.log.Info("stopping: the dataplane stays as it is")
	return err
}

// group is goroutines that end together.
type group struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	err    error
}

func newGroup(ctx context.Context) *group {
	g := &group{}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

func (g *group) run(fn func(context.Context)) { g.wg.Go(func() { fn(g.ctx) }) }

// fallible runs fn; its error ends the group.
func (g *group) fallible(fn func(context.Context) error) {
	g.wg.Go(func() {
		if err := fn(g.ctx); err != nil {
			g.fail(err)
		}
	})
}

func (g *group) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
	g.cancel()
}

func (g *group) wait() error {
	g.wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cancel()
	return g.err
}

// features is what the driver enforces, as JSON.
func (a *agent) features() json.RawMessage {
	b, err := json.Marshal(a.driver.Features())
	if err != nil {
		return json.RawMessage("null") // plain values: it can't happen
	}
	return b
}
