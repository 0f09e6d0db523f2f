package controllers

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/ipam"
)

// collector takes back addresses that nobody uses, and what is left of blocks, affinities and handles: of nodes that are
// gone, and of crashes. Blocks that a node does not need any more it gives back by itself.
type collector struct {
	w       *world
	config  *config
	alloc   *ipam.Allocator
	uses    *uses
	metrics *addressMetrics
}

func newCollector(w *world, c *config, o collectorOptions) *collector {
	return &collector{
		w: w, config: c, metrics: o.metrics, uses: &uses{w: w, store: o.store, pods: o.pods},
		alloc: ipam.New(ipam.Config{Store: cached{o.store, w}, OneByOne: o.oneByOne, Clock: o.clock, Log: o.log}),
	}
}

type collectorOptions struct {
	store    datastore.Store
	oneByOne bool // it can't write several objects as one
	pods     pods
	clock    func() time.Time // nil = time.Now
	log      *slog.Logger
	metrics  *addressMetrics
}

func (c *collector) part() part {
	return part{
		name: "addresses", step: c.step, needs: c.w.sees, kinds: []string{"KubeControllersConfiguration"},
		// A leak is looked at some times in its grace. It is not faster in small clusters, where nothing costs much.
		every: func() time.Duration {
			s := c.config.read()
			if s.grace <= 0 {
				return s.period
			}
			return max(min(s.period, s.grace/2), time.Second)
		},
	}
}

func (c *collector) step(ctx context.Context) error {
	s := c.config.read()
	var done ipam.Collected
	var err error
	if s.grace > 0 {
		confirm := &confirmer{uses: c.uses}
		done, err = c.alloc.Collect(ctx, ipam.CollectOptions{
			AuditOptions: ipam.AuditOptions{InUse: c.uses.list}, Grace: s.grace, Confirm: confirm.unused,
		})
	}
	if blocks, berr := listed[*api.IPAMBlock](c.w, "IPAMBlock"); berr == nil || errors.Is(berr, datastore.ErrUnreadable) {
		pools, _ := listed[*api.IPPool](c.w, "IPPool") // what can't be read has no name
		c.metrics.count(blocks, pools, done)
	}
	return err
}
