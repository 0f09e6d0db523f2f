//go:build linux

package cni

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ipamName is the IPAM plugin of these tests.
const ipamName = "testipam"

// ipam is a directory of the plugin, as a test sees it.
type ipam struct {
	t   testing.TB
	dir string
}

func newIPAM(t testing.TB) ipam { return ipam{t, t.TempDir()} }

func (i ipam) section() map[string]any {
	return map[string]any{"type": ipamName, "dir": i.dir, "subnet": "10.65.1.", "v6": "fd65::1:"}
}

func (i ipam) touch(name string) {
	i.t.Helper()
	if err := os.WriteFile(filepath.Join(i.dir, name), nil, 0o600); err != nil {
		i.t.Fatal(err)
	}
}

// held is how many addresses are held.
func (i ipam) held() int {
	i.t.Helper()
	es, err := os.ReadDir(i.dir)
	if err != nil {
		i.t.Fatal(err)
	}
	n := 0
	for _, e := range es {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			n++
		}
	}
	return n
}

// log is what the plugin was asked, and removed.
func (i ipam) log() []string {
	i.t.Helper()
	path := filepath.Join(i.dir, "log")
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil && !os.IsNotExist(err) {
		i.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}
