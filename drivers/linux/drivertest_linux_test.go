package linux

import (
	"fmt"
	"testing"

	"github.com/tortie/tortie/drivers/drivertest"
)

// TestConformance puts the driver through the suite, on this machine's kernel and with real packets. It is done in parts,
// each in a world of its own, because most of the time the kernel makes a transaction wait. One of them merges rules
// wherever it can be done, which a State of the suite is too small for otherwise.
func TestConformance(t *testing.T) {
	const parts = 3
	for part := range parts {
		o, err := drivertest.Options{}.Share(part, parts)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			h := newKernelHarness(t)
			if part == 1 {
				h.limits = mergeAll()
			}
			drivertest.Run(t, h, o)
		})
	}
}
