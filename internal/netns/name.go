package netns

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// UniqueName makes a name that is unique on this machine and says which process made it: prefix-pid-start-random. The
// start time tells the process from a later one of the same pid. prefix must hold no '-'.
func UniqueName(prefix string) string {
	pid := os.Getpid()
	return fmt.Sprintf("%s-%d-%s-%08x", prefix, pid, StartTime(pid), rand.Uint32())
}

// Orphaned reports whether name was made by UniqueName with this prefix in a process that is gone. What follows a dot in
// the name does not count: a process may make several names from one.
func Orphaned(name, prefix string) bool {
	base, _, _ := strings.Cut(name, ".")
	f := strings.Split(base, "-")
	if len(f) != 4 || f[0] != prefix {
		return false
	}
	pid, err := strconv.Atoi(f[1])
	return err == nil && StartTime(pid) != f[2]
}

// StartTime gives the start time of a process in clock ticks since boot, in base 36; "" if there is no such process.
func StartTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the command in parentheses and may hold anything; the start time is the 20th after it.
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) < 20 {
		return ""
	}
	ticks, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return ""
	}
	return strconv.FormatUint(ticks, 36)
}
