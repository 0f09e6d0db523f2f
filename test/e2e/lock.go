package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tortie/tortie/agent/lock"
)

// Lock keeps others from using the bed's folder, until the returned function is called or the program ends.
func (b *Bed) Lock() (unlock func() error, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("this needs root, to make namespaces and control groups: sudo make e2e")
	}
	if err := os.MkdirAll(b.State(), 0o755); err != nil {
		return nil, err
	}
	l, err := lock.Acquire(filepath.Join(b.State(), "lock"))
	if errors.Is(err, lock.ErrHeld) {
		who := strings.TrimPrefix(err.Error(), lock.ErrHeld.Error()+": ")
		return nil, fmt.Errorf("another run goes on (%s): wait for it, or give this one a folder of its own: TORTIE_E2E_DIR=/tmp/another", who)
	}
	if err != nil {
		return nil, err
	}
	return l.Close, nil
}

// Runs reports whether a cluster is there.
func (b *Bed) Runs() bool {
	_, err := os.Stat(filepath.Join(b.State(), "run/args"))
	return err == nil
}
