package linux

import (
	"testing"

	"github.com/tortie/tortie/drivers/drivertest"
)

// TestConformance puts the driver through the suite, on this machine's kernel and with real packets.
func TestConformance(t *testing.T) {
	drivertest.Run(t, newKernelHarness(t), drivertest.Options{})
}
