package netnstest

import (
	"os"
	"testing"

	"github.com/tortie/tortie/internal/netns"
)

// prefix begins the names of namespaces of tests.
const prefix = "tortietest"

// New makes an anonymous namespace that goes when the test ends.
func New(t testing.TB) *netns.Ns {
	t.Helper()
	NeedRoot(t)
	n, err := netns.Anonymous()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// NewNamed makes a namespace with a name, for tests that start `ip` or `nft` in it. It goes when the test ends; what
// tests that were killed have left goes first.
func NewNamed(t testing.TB) *netns.Ns {
	t.Helper()
	NeedRoot(t)
	if _, err := netns.Sweep(prefix); err != nil {
		t.Fatal(err)
	}
	n, err := netns.Create(netns.UniqueName(prefix))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Close()
		if err := netns.Delete(n.Name()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// NeedRoot fails the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root: run it with sudo")
	}
}
