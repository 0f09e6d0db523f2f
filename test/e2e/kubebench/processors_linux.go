package kubebench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const jiffy = 10 * time.Millisecond // of the kernel's figures

// processors begins to measure who uses the processors. What it returns says so.
func (c *cluster) processors() (func() (string, error), error) {
	server, err := c.pid("hub.kube-apiserver")
	if err != nil {
		return nil, err
	}
	read := func() (v [3]time.Duration, err error) {
		for i, f := range []func() (time.Duration, error){idle, func() (time.Duration, error) { return used(server) }, func() (time.Duration, error) { return used("self") }} {
			if v[i], err = f(); err != nil {
				return v, fmt.Errorf("who uses the processors: %w", err)
			}
		}
		return v, nil
	}
	began := time.Now()
	before, err := read()
	return func() (string, error) {
		after, err := read()
		share := func(i int) string {
			return figure((after[i] - before[i]).Seconds() / time.Since(began).Seconds())
		}
		return fmt.Sprintf("Of the processors, the API server used %s, the watchers and what makes the pods %s, and %s were idle.", share(1), share(2), share(0)), err
	}, err
}

// idle is how long processors had nothing to do.
func idle() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 6 {
		return 0, fmt.Errorf("/proc/stat: %w", err)
	}
	n, err := strconv.ParseInt(f[4], 10, 64)
	return time.Duration(n) * jiffy, err
}

// used is how long processors have worked for a process.
func used(pid string) (time.Duration, error) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, err
	}
	// the name, in parentheses, may hold anything
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%s/stat: %q", pid, b)
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * jiffy, err
}
