package linux

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tortie/tortie/drivers/drivertest"
)

// TestConformance puts the driver through the suite, on this machine's kernel and with real packets. It is done in parts,
// each in a world of its own, because most of the time the kernel makes a transaction wait: every case in one of them, all
// the random pairs together, and a walk through States in each, all from different seeds.
func TestConformance(t *testing.T) {
	const parts = 3
	cases, err := drivertest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(drivertest.SeedVariable); text != "" {
		if seed, err = strconv.ParseUint(text, 0, 64); err != nil {
			t.Fatalf("%s: %v", drivertest.SeedVariable, err)
		}
	}
	for part := range parts {
		// The seeds that follow one another within a part are not those of the next one.
		o := drivertest.Options{Random: 3000 / parts, Walks: 1, Seed: seed + uint64(part)<<32}
		for i := part; i < len(cases); i += parts {
			o.Cases = append(o.Cases, cases[i])
		}
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			drivertest.Run(t, newKernelHarness(t), o)
		})
	}
}
