// Package lock keeps a second agent from starting on a node.
package lock

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ErrHeld says that another process holds the lock.
var ErrHeld = errors.New("another agent runs on this node")

// Lock is held until Close, or until the process ends, however it ends.
type Lock struct{ f *os.File }

// Acquire takes the lock at path, or says who has it.
func Acquire(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	// Who may read a file may lock it, and keep the agent from starting: earlier releases made this one for all to read.
	if err := f.Chmod(0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("closing the lock to others: %w", err), f.Close())
	}
	held, err := tryLock(f)
	switch {
	case err != nil:
		err = fmt.Errorf("locking %s: %w", path, err)
	case held:
		err = fmt.Errorf("%w: %s holds %s", ErrHeld, holder(path), path)
	default:
		err = writePID(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Lock{f: f}, nil
}

// writePID says who has the lock, for people.
func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	return nil
}

func holder(path string) string {
	b, err := os.ReadFile(path)
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return "process " + pid
	}
	return "a process"
}

// Close gives the lock back. The file stays: removing it would let two agents lock two files of one name.
func (l *Lock) Close() error { return l.f.Close() }
