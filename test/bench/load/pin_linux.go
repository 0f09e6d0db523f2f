package load

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Clients and servers that are measured have a core each, where there are two: else it depends on where the scheduler puts
// them for how long, and figures come in two heaps.
const (
	clientCPU = 0
	serverCPU = 1
)

// pin locks the goroutine to its thread and the thread to a core. Where that can't be, it does without.
func pin(cpu int) {
	runtime.LockOSThread()
	if runtime.NumCPU() < 2 {
		return
	}
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.SchedSetaffinity(0, &set)
}

// unpin undoes pin.
func unpin() {
	var set unix.CPUSet
	for i := range runtime.NumCPU() {
		set.Set(i)
	}
	_ = unix.SchedSetaffinity(0, &set)
	runtime.UnlockOSThread()
}
