package agent

import (
	"log/slog"
	"runtime"
	"testing"
)

// TestTrim: memory that was needed once goes back to the host.
func TestTrim(t *testing.T) {
	const big = 256 << 20
	b := make([]byte, big)
	for i := 0; i < big; i += 4096 {
		b[i] = 1 // else the host has not given it yet
	}
	held := readMemory()
	if held.resident < big {
		t.Fatalf("%d bytes are in use, and %d resident", big, held.resident)
	}
	runtime.KeepAlive(b)
	runtime.GC() // as happens by itself within two minutes
	trimNow(slog.New(slog.DiscardHandler))
	now := readMemory()
	if now.resident > held.resident-big/2 {
		t.Errorf("resident: %d bytes before, %d after", held.resident, now.resident)
	}
	if now.wasteful() {
		t.Errorf("there is more to give back at once: %+v", now)
	}
	if (memory{resident: 300 << 20, live: 200 << 20}).wasteful() != true || (memory{resident: 240 << 20, live: 200 << 20}).wasteful() {
		t.Error("what is wasteful is not as the constants say")
	}
}
