package store

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestNoNetwork: nothing of a store on a socket can be reached over the network.
func TestNoNetwork(t *testing.T) {
	before := listening(t)
	start(t, config(shortDir(t), &output{}))
	for port := range listening(t) {
		if !before[port] {
			// Other processes of this machine may have opened it: then it is not ours.
			if ours(t, port) {
				t.Errorf("listening on port %s", port)
			}
		}
	}
}

// listening is the inodes of TCP sockets that listen.
func listening(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, f := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(b), "\n") {
			if fs := strings.Fields(line); len(fs) > 9 && fs[3] == "0A" {
				out[fs[9]] = true
			}
		}
	}
	return out
}

// ours says whether this process has the socket of an inode open.
func ours(t *testing.T, inode string) bool {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if l, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && l == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}
