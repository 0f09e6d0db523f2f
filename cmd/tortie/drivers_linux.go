package main

import (
	"context"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/linux"
)

// driverTable lists the drivers of this binary; "auto" takes the first that opens.
var driverTable = []driver{
	{"nftables", "the kernel's nftables", func(ctx context.Context, o drivers.Options) (drivers.Driver, error) {
		return linux.Open(ctx, linux.Options{Options: o})
	}},
	dryRun,
}
