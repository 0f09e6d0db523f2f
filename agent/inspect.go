package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/drivers"
)

// inspector looks for foreign rules that are in the way.
type inspector struct {
	driver drivers.Inspector // nil: this driver can't
	pump   *pump.Pump
	log    *slog.Logger

	mu    sync.Mutex
	found []drivers.ForeignProblem
	at    time.Time // of the last look; zero before the first
}

func newInspector(d drivers.Driver, p *pump.Pump, log *slog.Logger) *inspector {
	i, _ := d.(drivers.Inspector)
	return &inspector{driver: i, pump: p, log: log}
}

// run looks now and then until ctx ends.
func (i *inspector) run(ctx context.Context, every time.Duration) {
	if i.driver == nil {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if err := i.look(ctx); err != nil && ctx.Err() == nil {
			i.log.Warn("looking for foreign rules", "err", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// look looks now.
func (i *inspector) look(ctx context.Context) error {
	if i.driver == nil {
		return nil
	}
	var found []drivers.ForeignProblem
	var err error
	doErr := i.pump.Do(ctx, func(pctx context.Context) {
		pctx, cancel := context.WithTimeout(pctx, 30*time.Second)
		defer cancel()
		found, err = i.driver.Inspect(pctx)
	})
	if doErr != nil {
		return doErr
	}
	if err != nil {
		return fmt.Errorf("inspecting the host: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	known := map[drivers.ForeignProblem]bool{}
	for _, p := range i.found {
		known[p] = true
	}
	for _, p := range found {
		if !known[p] {
			i.log.Warn("something foreign is in the way", "where", p.Where, "what", p.What, "mend", p.Mend)
		}
	}
	i.found, i.at = found, time.Now()
	return nil
}

// last returns what the last look saw, and when that was.
func (i *inspector) last() ([]drivers.ForeignProblem, time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.found, i.at
}
