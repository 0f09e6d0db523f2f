//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tortie/tortie/internal/netns"
)

// Process is a process of the lab: the store, or an agent.
type Process struct {
	Name string
	Log  string // path of its output

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; valid after done
}

// start runs a program in the namespace of h (nil: the lab's own), with its output in a file.
func (l *Lab) start(name string, h *Host, args ...string) (*Process, error) {
	return l.startWith(nil, name, h, args...)
}

// startWith is start with more environment.
func (l *Lab) startWith(env []string, name string, h *Host, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(l.Dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(l.Binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is the lab's to handle
	run := p.cmd.Start
	if h != nil {
		run = func() error { return h.ns.Do(p.cmd.Start) } // a child is born into the namespace of the thread
	}
	if err := run(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, l.remember(p)
}

// remember notes the pid on disk, so that Clean finds a process whose lab died.
func (l *Lab) remember(p *Process) error {
	f, err := os.OpenFile(filepath.Join(l.Dir, "pids"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d %s\n", p.Pid(), netns.StartTime(p.Pid()))
	return errors.Join(err, f.Close())
}

// Pid of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process at once, as a crash would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Signal sends sig.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Stop asks the process to end, and kills it if it has not within ten seconds.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		p.Kill()
		return fmt.Errorf("%s did not end within 10 s of SIGTERM, and was killed\n%s", p.Name, p.Tail())
	}
}

// Tail is the end of what the process has written.
func (p *Process) Tail() string {
	b, _ := os.ReadFile(p.Log)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// await polls until ok says so, p ends, or ctx does.
func (p *Process) await(ctx context.Context, what string, ok func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%v) before it was %s:\n%s", p.Name, p.err, what, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not %s: %w\n%s", p.Name, what, err, p.Tail())
		case <-tick.C:
		}
	}
}
