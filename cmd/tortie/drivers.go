package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/fake"
)

// driver is a row of the driver table.
type driver struct {
	Name, Doc string
	Open      func(context.Context, drivers.Options) (drivers.Driver, error)
}

// dryRunName is never chosen by "auto": it enforces nothing.
const dryRunName = "dry-run"

var dryRun = driver{dryRunName, "nothing at all: holds the State in memory, to see what an agent would do",
	func(ctx context.Context, o drivers.Options) (drivers.Driver, error) {
		return fake.Open(ctx, o, fake.NewWorld())
	}}

// openDriver opens the driver of that name, or with "auto" the first that works on this host.
func openDriver(ctx context.Context, name string, o drivers.Options) (drivers.Driver, error) {
	var errs []error
	var names []string
	for _, d := range driverTable {
		names = append(names, d.Name)
		if name != d.Name && (name != "auto" || d.Name == dryRunName) {
			continue
		}
		drv, err := d.Open(ctx, o)
		if err == nil {
			return drv, nil
		}
		errs = append(errs, fmt.Errorf("driver %s: %w", d.Name, err))
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("there is no driver %q in this binary; it has auto, %s", name, strings.Join(names, ", "))
	}
	return nil, errors.Join(errs...)
}
