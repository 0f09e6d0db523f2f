package kubebench

import (
	"time"

	"github.com/tortie/tortie/test/e2e/kubebench/timing"
)

// now is the machine's monotonic clock in nanoseconds, the same for all processes and in all namespaces.
func now() int64 { return timing.Now() }

// monotonic is when the wall clock showed t, by the monotonic one. It is true as long as nobody sets the wall clock.
func monotonic(t time.Time) int64 { return t.UnixNano() - (time.Now().UnixNano() - now()) }

func millis(ns int64) float64 { return float64(ns) / 1e6 }
