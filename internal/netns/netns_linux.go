package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where named namespaces are mounted, as `ip netns` has it.
const Dir = "/run/netns"

// Ns is an open network namespace. Its methods may be called from several goroutines; Close comes last.
type Ns struct {
	f    *os.File
	name string
}

// Open opens the namespace at path: a mount under /run/netns, /proc/PID/ns/net, /proc/self/fd/N.
func Open(path string) (*Ns, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening network namespace: %w", err)
	}
	typ, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || typ != unix.CLONE_NEWNET {
		f.Close()
		return nil, fmt.Errorf("opening network namespace: %s is not one", path)
	}
	return &Ns{f: f}, nil
}

// OpenNamed opens a named namespace.
func OpenNamed(name string) (*Ns, error) {
	n, err := Open(filepath.Join(Dir, name))
	if err != nil {
		return nil, err
	}
	n.name = name
	return n, nil
}

// Current opens the namespace of the calling thread.
func Current() (*Ns, error) {
	return Open("/proc/thread-self/ns/net")
}

// Anonymous makes a namespace that lives as long as the Ns is open, or something is inside it.
func Anonymous() (*Ns, error) {
	var n *Ns
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		var err error
		n, err = Current()
		return err
	})
	return n, err
}

// Create makes a named namespace. A name that is taken is os.ErrExist.
func Create(name string) (*Ns, error) {
	if name == "" || strings.ContainsRune(name, '/') {
		return nil, fmt.Errorf("making network namespace %q: not a name", name)
	}
	if err := shareDir(); err != nil {
		return nil, fmt.Errorf("making network namespace %q: %w", name, err)
	}
	n, err := Anonymous()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(Dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("making network namespace %q: %w", name, err)
	}
	f.Close()
	if err := unix.Mount(n.fdPath(), path, "", unix.MS_BIND, ""); err != nil {
		n.Close()
		os.Remove(path)
		return nil, fmt.Errorf("mounting network namespace %q: %w", name, err)
	}
	n.name = name
	return n, nil
}

// shareDir makes Dir a shared mount, as `ip netns` does: a namespace that is removed goes from every mount namespace.
func shareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", Dir, "", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := unix.Mount(Dir, Dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", Dir, "", unix.MS_SHARED|unix.MS_REC, "")
}

// Delete removes the name of a namespace; the namespace goes when the last descriptor and process do. A missing one is
// no error.
func Delete(name string) error {
	path := filepath.Join(Dir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	// EINVAL: not a mount point, as a Create that was killed leaves it.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting network namespace %q: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing network namespace %q: %w", name, err)
	}
	return nil
}

// Sweep deletes the namespaces that UniqueName with this prefix named in processes that are gone, and returns their names.
func Sweep(prefix string) ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	var errs []error
	for _, e := range entries {
		if !Orphaned(e.Name(), prefix) {
			continue
		}
		if err := Delete(e.Name()); err != nil {
			errs = append(errs, err)
			continue
		}
		names = append(names, e.Name())
	}
	return names, errors.Join(errs...)
}

// Name is the name that the namespace was created or opened by; "" if by none.
func (n *Ns) Name() string { return n.name }

// Path is a path by which any process of this machine can open the namespace while the Ns is open.
func (n *Ns) Path() string {
	if n.name != "" {
		return filepath.Join(Dir, n.name)
	}
	return n.fdPath()
}

func (n *Ns) fdPath() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.FD())
}

// FD is the descriptor; it is the Ns's own.
func (n *Ns) FD() int { return int(n.f.Fd()) }

// Close closes the descriptor. A named namespace stays until Delete.
func (n *Ns) Close() error { return n.f.Close() }

// Same reports whether two descriptors are of one namespace.
func (n *Ns) Same(o *Ns) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Fstat(n.FD(), &a); err != nil {
		return false, err
	}
	if err := unix.Fstat(o.FD(), &b); err != nil {
		return false, err
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}

// Do runs fn on a thread inside the namespace, and returns its error. What fn opens (sockets, files under /proc/sys/net)
// is of the namespace; goroutines that it starts are not inside. fn runs on another goroutine than the caller: it must
// not call testing's FailNow.
func (n *Ns) Do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering network namespace: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on a locked thread, which goes back to the namespace that it had. A thread that can't is never
// unlocked: it ends with its goroutine, so that no other goroutine finds itself in a strange namespace.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := errors.New("function on namespace thread did not return")
		defer func() { done <- err }()
		var was *Ns
		was, err = Current()
		if err != nil {
			runtime.UnlockOSThread()
			return
		}
		defer was.Close()
		err = errors.New("function on namespace thread did not return")
		err = fn()
		if back := unix.Setns(was.FD(), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}
