package store

import (
	"testing"
	"time"
)

// until polls for ok.
func until(t *testing.T, d time.Duration, ok func() bool) bool {
	t.Helper()
	deadline := time.After(d)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
}
