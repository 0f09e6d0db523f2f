package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/tortie/tortie/drivers"
)

// Clean removes our tables and routes, also what an earlier process left.
func (d *Driver) Clean(ctx context.Context) error {
	have, err := d.kernel.read(&Program{})
	if err != nil {
		return fmt.Errorf("cleaning: %w", err)
	}
	var ops []op
	for _, t := range []Table{Inet, ARP} {
		if have.exist[t] {
			ops = append(ops, op{kind: opDelTable, table: t})
		}
	}
	d.have, d.comp = nil, newCompiler()
	clear(d.quarantine)
	d.cutter.follow(drivers.NewState(), nil, false)
	var errs []error
	if len(ops) > 0 {
		errs = append(errs, d.send(ops, false))
	}
	for _, err := range d.routes.apply(ctx, drivers.NewState(), nil) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cleaning: %w", err)
	}
	return nil
}
