package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/internal/backoff"
)

const (
	// departGap is the least time between two looks for flows of workloads of other nodes that are gone.
	departGap = time.Second
	// departPatience is how long such a look waits for the dataplane to forget the addresses. Before, their flows would
	// come again.
	departPatience = 10 * time.Second
)

// departed cuts the flows of workloads of other nodes that are gone: the next owner of an address must not be taken for the
// last. On a workload's own node a detach has done so before the address was given back.
type departed struct {
	wait func(ctx context.Context, fn func(*pump.View) bool) error
	cut  func(ctx context.Context, addrs []netip.Addr) error
	log  *slog.Logger
	wake chan struct{}

	mu    sync.Mutex
	addrs map[netip.Addr]struct{}
	offer uint64 // that has them out of the State
}

func newDeparted(p *pump.Pump, log *slog.Logger) *departed {
	return &departed{wait: p.Wait, cut: p.CutFlows, log: log, wake: make(chan struct{}, 1), addrs: map[netip.Addr]struct{}{}}
}

// add takes in addresses that workloads have given up, as of an Offer. Never blocks.
func (d *departed) add(addrs []netip.Addr, offer uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range addrs {
		d.addrs[a] = struct{}{}
	}
	d.offer = max(d.offer, offer)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *departed) take() (addrs []netip.Addr, offer uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for a := range d.addrs {
		addrs = append(addrs, a)
	}
	d.addrs = map[netip.Addr]struct{}{}
	return addrs, d.offer
}

// run cuts until ctx ends.
func (d *departed) run(ctx context.Context) {
	rest := backoff.Backoff{Min: departGap, Max: time.Minute}
	for {
		select {
		case <-d.wake:
		case <-ctx.Done():
			return
		}
		addrs, offer := d.take()
		patient, cancel := context.WithTimeout(ctx, departPatience)
		_ = d.wait(patient, func(v *pump.View) bool { return v.Merged >= offer && v.Clean() }) // too late is better than never
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err := d.cut(ctx, addrs); err != nil {
			d.log.Warn("cutting flows of workloads that are gone", "addresses", len(addrs), "err", err)
			d.add(addrs, offer)
		} else {
			rest.Reset()
		}
		if rest.Sleep(ctx) != nil {
			return
		}
	}
}
