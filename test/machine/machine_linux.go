package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns"
)

// Options of a machine.
type Options struct {
	Name string // host name
	// Netns is the network namespace of the machine's processes; nil = one of its own. It is not closed.
	Netns *netns.Ns
	// Empty are directories that are empty on this machine: some that the real one has, others below those.
	Empty []string
	// Own are directories that the machine has a copy of: what it writes there is seen by nobody else.
	Own []string
	// Binds are files and directories (the keys) that are others (the values) on this machine, in the same places.
	Binds map[string]string
}

// Machine is a running machine. Its methods may be called from several goroutines; Close comes last.
type Machine struct {
	init *exec.Cmd
	hold io.Closer // keeps the first process
	ns   []namespace
}

type namespace struct {
	f    *os.File
	flag int
}

// setUp runs as the machine's first process. It says "up", and goes on as long as somebody holds its standard input.
const setUp = `set -e
mount --make-rslave /
mount -t proc -o nosuid,nodev,noexec proc /proc
hostname "$1"
%sip link set lo up
echo up
exec cat`

// New starts a machine.
func New(o Options) (_ *Machine, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("pretend machines are made of namespaces, which only root may make: run this with sudo")
	}
	if err := places(o); err != nil {
		return nil, fmt.Errorf("setting up machine %s: %w", o.Name, err)
	}
	cmd := exec.Command("sh", "-c", fmt.Sprintf(setUp, mounts(o)), "sh", o.Name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	start := cmd.Start
	if o.Netns != nil {
		start = func() error { return o.Netns.Do(cmd.Start) }
	} else {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("starting machine %s: %w", o.Name, err)
	}
	m := &Machine{init: cmd, hold: hold}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		_ = cmd.Wait() // says what is in stderr
		return nil, fmt.Errorf("setting up machine %s: %w: %s", o.Name, err, strings.TrimSpace(stderr.String()))
	}
	return m, m.openNamespaces()
}

// places checks that there is a place for each mount, as nothing is to be made on the real machine.
func places(o Options) error {
	var errs []error
	for _, p := range slices.Concat(o.Empty, o.Own, slices.Collect(maps.Keys(o.Binds))) {
		inEmpty := slices.ContainsFunc(slices.Concat(o.Empty, o.Own), func(e string) bool { return strings.HasPrefix(p, e+"/") })
		if _, err := os.Stat(p); err != nil && !inEmpty {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mounts are the commands that make o's directories. Parents come before what is in them.
func mounts(o Options) string {
	var b strings.Builder
	for _, dir := range slices.Sorted(slices.Values(o.Empty)) {
		fmt.Fprintf(&b, "mkdir -p %[1]q\nmount -t tmpfs -o mode=755 tmpfs %[1]q\n", dir)
	}
	for _, dir := range o.Own {
		fmt.Fprintf(&b, "mount -t tmpfs tmpfs /mnt\nmkdir /mnt/upper /mnt/work\n"+
			"mount -t overlay -o lowerdir=%[1]s,upperdir=/mnt/upper,workdir=/mnt/work overlay %[1]q\numount -l /mnt\n", dir)
	}
	for where, what := range o.Binds {
		fmt.Fprintf(&b, "mkdir -p %q\n[ -d %[2]q ] && mkdir -p %[3]q || touch %[3]q\nmount --bind %[2]q %[3]q\n", filepath.Dir(where), what, where)
	}
	return b.String()
}

// openNamespaces opens what a process must enter to be on the machine; the mounts last, as paths mean others after that.
func (m *Machine) openNamespaces() error {
	for _, n := range []struct {
		name string
		flag int
	}{{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", m.Pid(), n.name))
		if err != nil {
			return err
		}
		m.ns = append(m.ns, namespace{f, n.flag})
	}
	return nil
}

// Pid is that of the machine's first process.
func (m *Machine) Pid() int { return m.init.Process.Pid }

// Path is where the real machine finds a path of this one.
func (m *Machine) Path(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", m.Pid()), path)
}

// Process is a process that was started on a machine. The machine waits for it: nobody else may.
type Process struct {
	*os.Process
	done chan struct{} // closed when it has ended
	err  error         // how; valid after done
}

// Wait waits until the process has ended, and says how. It may be called again.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Start starts a command on the machine. Its program is looked up on the real one, its directory must be said.
func (m *Machine) Start(cmd *exec.Cmd) (*Process, error) {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: a thread that has been elsewhere ends with its goroutine
		started <- m.enter(cmd.Start)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p := &Process{Process: cmd.Process, done: make(chan struct{})}
	// The kernel keeps a namespace of processes until each of them has been waited for.
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run starts a command on the machine, and waits for its end.
func (m *Machine) Run(cmd *exec.Cmd) error {
	p, err := m.Start(cmd)
	if err != nil {
		return err
	}
	return p.Wait()
}

// enter runs fn on the calling thread, on the machine.
func (m *Machine) enter(fn func() error) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // threads share the root directory, which setns changes
		return fmt.Errorf("entering a machine: %w", err)
	}
	for _, n := range m.ns {
		if err := unix.Setns(int(n.f.Fd()), n.flag); err != nil {
			return fmt.Errorf("entering a machine: %w", err)
		}
	}
	return fn()
}

// Close ends all processes of the machine, and with them its mounts.
func (m *Machine) Close() {
	for _, n := range m.ns {
		n.f.Close()
	}
	m.hold.Close()
	_ = m.init.Process.Kill()
	_ = m.init.Wait()
}
