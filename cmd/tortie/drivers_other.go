//go:build !linux

package main

// driverTable lists the drivers of this binary; "auto" takes the first that opens.
var driverTable = []driver{dryRun}
