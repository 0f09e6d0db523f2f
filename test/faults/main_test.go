//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tortie/tortie/test/build"
	"github.com/tortie/tortie/test/lab"
)

// innerEnv marks the process that runs the tests: it has a mount namespace of its own, so that the small disks of the
// tests are nobody else's, and go with it.
const innerEnv = "TORTIE_FAULTS_INNER"

// tortie is the tortie that the tests run.
var tortie string

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(memberEnv) != "":
		os.Exit(runMember(os.Getenv(memberEnv)))
	case os.Geteuid() != 0:
		fmt.Fprintln(os.Stderr, "these tests make network namespaces and mounts, which only root may: run them with sudo")
		os.Exit(1)
	case os.Getenv(innerEnv) == "":
		os.Exit(inner())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tortie-faults-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		tortie = filepath.Join(dir, "tortie")
		if err := build.Programs(map[string]string{tortie: "./cmd/tortie"}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if _, err := lab.Clean(); err != nil {
			fmt.Fprintln(os.Stderr, "cleaning up after earlier labs:", err)
		}
		return m.Run()
	}())
}

// inner runs this program again, in a mount namespace of its own.
func inner() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), innerEnv+"=yes")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// newLab brings up a lab that the test takes down; logs are shown if the test fails.
func newLab(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	l, err := lab.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes {
				t.Logf("agent on %s:\n%s", n.Name, n.Agent.Tail())
			}
			if l.Store != nil {
				t.Logf("store:\n%s", l.Store.Tail())
			}
		}
		if err := l.Down(); err != nil {
			t.Errorf("taking the lab down: %v", err)
		}
	})
	return l
}

// apply applies YAML.
func apply(ctx context.Context, l *lab.Lab, yaml string) error {
	f, err := os.CreateTemp(l.Dir, "apply-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(yaml)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	_, err = l.Tortie(ctx, nil, "apply", "-f", f.Name())
	return err
}

func mustApply(t *testing.T, l *lab.Lab, yaml string) {
	t.Helper()
	if err := apply(t.Context(), l, yaml); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok returns nil.
func eventually(t *testing.T, within time.Duration, what string, ok func() error) {
	t.Helper()
	if err := poll(within, ok); err != nil {
		t.Fatalf("%s: not within %v: %v", what, within, err)
	}
}

func poll(within time.Duration, ok func() error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(within)
	for {
		err := ok()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

// pause lets a fault last: what must not happen meanwhile is seen by the probes.
func pause(d time.Duration) { <-time.After(d) }

// run runs a command and returns what it printed.
func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
