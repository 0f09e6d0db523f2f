//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns"
)

// Options is what Open takes.
type Options struct {
	drivers.Options

	// Netns is the path of the network namespace to program; "" is the caller's own.
	Netns string

	// Count makes each rule of a policy count the packets that it matches, for Counters. Rules are not merged then: a packet
	// meets them one after another, and a node with thousands of policies pays for that.
	Count bool

	// refuse is asked before each write; an error stands for the kernel's. For tests.
	refuse func(o drivers.ObjectRef, what string) error
	// features is what an earlier probe of this kernel found; the zero value probes. For tests: a probe waits for the
	// kernel several times.
	features drivers.Features
	// limits says what is merged; the zero value is what is worth its while. For tests.
	limits limits
}

// Driver programs nftables and routes. Apply and the methods that read or clear the kernel are called by one goroutine;
// those of attacher and inventory by any.
type Driver struct {
	*attacher
	*inventory

	opts     Options
	counting sync.Mutex // of opts.Metrics: the cutter counts, too
	log      *slog.Logger
	ns       *netns.Ns
	net      *linuxnet.Conn
	kernel   kernel
	socket   *socket
	monitor  *monitor // nil before the first Apply
	routes   *routes
	cutter   *cutter
	filters  *filters // nil = not tried yet
	features drivers.Features

	comp       *compiler
	have       *tables          // nil = unknown: read back before the next write
	unread     map[Key]struct{} // sets that are still to be compared with the kernel
	quarantine map[drivers.ObjectRef]quarantined
	writes     int
	prefixes   []string // of the last State's Node: how workload interfaces are called

	closing  sync.Once
	closeErr error
}

var (
	_ drivers.Driver     = (*Driver)(nil)
	_ drivers.Attacher   = (*Driver)(nil)
	_ drivers.Finder     = (*Driver)(nil)
	_ drivers.Inventory  = (*Driver)(nil)
	_ drivers.Inspector  = (*Driver)(nil)
	_ drivers.Cleaner    = (*Driver)(nil)
	_ drivers.Counters   = (*Driver)(nil)
	_ drivers.FlowCutter = (*Driver)(nil)
)

// Open probes the namespace and returns a Driver for it. It writes nothing that stays.
func Open(ctx context.Context, o Options) (_ *Driver, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Kick == nil {
		o.Kick = func() {}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("opening the nftables driver: %w", err)
	}
	d := &Driver{opts: o, log: o.Log.With("driver", driverName), comp: newCompiler(), quarantine: map[drivers.ObjectRef]quarantined{}, prefixes: []string{defaultPrefix}}
	if o.limits != (limits{}) {
		d.comp.limits = o.limits
	}
	if o.Count {
		d.comp.limits, d.comp.counting = noMerging(), true
	}
	defer func() {
		if err != nil {
			_ = d.Close()
		}
	}()
	if o.Netns == "" {
		d.ns, err = netns.Current()
	} else {
		d.ns, err = netns.Open(o.Netns)
	}
	if err != nil {
		return nil, err
	}
	if d.net, err = linuxnet.Open(d.ns); err != nil {
		return nil, err
	}
	s, err := dialIn(d.ns.FD())
	if err != nil {
		return nil, err
	}
	d.kernel, d.socket = &nft{s: s}, s
	d.routes = newRoutes(d.net, d.log, o.Kick, func(what string) error {
		return d.asked(nodeRef(), what)
	})
	if d.cutter, err = newCutter(d.net, d.log, d.metric); err != nil {
		return nil, err
	}
	d.attacher = newAttacher(d.net, d.log)
	d.inventory = newInventory(d.net, d.log)
	if d.features = o.features; d.features.Driver != "" {
		return d, nil
	}
	if d.features, err = probe(s); err != nil {
		return nil, err
	}
	d.flowFilters()
	return d, nil
}

// Close frees handles and leaves the dataplane as it is. A second one does nothing: the numbers of its descriptors may be
// others' by then.
func (d *Driver) Close() error {
	d.closing.Do(func() { d.closeErr = d.free() })
	return d.closeErr
}

func (d *Driver) free() error {
	var errs []error
	if d.cutter != nil {
		d.cutter.close()
	}
	if d.routes != nil {
		d.routes.close()
	}
	if d.monitor != nil {
		d.monitor.close()
	}
	if d.kernel != nil {
		errs = append(errs, d.kernel.close())
	}
	if d.net != nil {
		d.net.Close()
	}
	if d.ns != nil {
		errs = append(errs, d.ns.Close())
	}
	return errors.Join(errs...)
}

// Features reports what this kernel enforces.
func (d *Driver) Features() drivers.Features { return d.features }

// Writes is how many objects the driver has written or deleted.
func (d *Driver) Writes() int { return d.writes }

// asked counts a write, and asks whoever may refuse it.
func (d *Driver) asked(o drivers.ObjectRef, what string) error {
	d.wrote(1)
	if d.opts.refuse != nil {
		return d.opts.refuse(o, what)
	}
	return nil
}

func (d *Driver) wrote(n int) {
	d.writes += n
	d.metric("writes", float64(n))
}

func (d *Driver) metric(name string, delta float64) {
	if d.opts.Metrics != nil {
		d.counting.Lock()
		defer d.counting.Unlock()
		d.opts.Metrics(name, delta)
	}
}

// Apply makes the kernel match want.
func (d *Driver) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("applying: %w", err)
	}
	d.attacher.setMTU(want.Node.MTU)
	d.prefixes = want.Node.WorkloadPrefixes
	if d.monitor == nil {
		// Before the first reading, so that nothing moves unseen between the two.
		m, err := startMonitor(d.ns.FD(), [2]*socket{d.socket, d.cutter.s}, d.opts.Kick)
		if err != nil {
			return fmt.Errorf("applying: %w", err)
		}
		d.monitor = m
	}
	before := d.writes
	failed, err := d.applyRules(ctx, want, ch)
	if err != nil {
		d.cutter.failed()
		return fmt.Errorf("applying to nftables: %w", err)
	}
	for o, err := range d.routes.apply(ctx, want, ch) {
		if passing(err) {
			d.cutter.failed()
			return fmt.Errorf("applying to routes: %s: %w", o, err)
		}
		failed[o] = err
	}
	d.cutter.follow(want, ch, d.writes != before)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("applying: %w", err)
	}
	if len(failed) > 0 {
		return &drivers.ApplyError{Failed: failed}
	}
	return nil
}
