package linux

import (
	"testing"

	"github.com/tortie/tortie/drivers/drivertest"
)

// TestConformance puts the driver through the suite, on this machine's kernel and with real packets. One walk through
// States instead of three, each time from another seed: the kernel makes each of a thousand transactions wait.
func TestConformance(t *testing.T) {
	drivertest.Run(t, newKernelHarness(t), drivertest.Options{Walks: 1})
}
