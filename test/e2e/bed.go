package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Bed is the cluster that ./testbed makes. There is one at a time on a machine.
type Bed struct {
	Root string    // of the repository
	Out  io.Writer // what a run prints while it goes on
}

// State is the folder of all that the bed has built and runs: TORTIE_E2E_DIR, as for ./testbed.
func (b *Bed) State() string {
	if d := os.Getenv("TORTIE_E2E_DIR"); d != "" {
		return d
	}
	return "/tmp/tortie-e2e"
}

// Bin is a program that the bed has built.
func (b *Bed) Bin(name string) string { return filepath.Join(b.State(), "bin", name) }

// Cluster is how a cluster is made.
type Cluster struct {
	Proxy string `json:"proxy"`          // kube-proxy's mode: "iptables" or "nftables"
	Dual  bool   `json:"dual"`           // IPv4 and IPv6
	IPv6  bool   `json:"ipv6,omitempty"` // IPv6 only
	From  From   `json:"from,omitempty"`
}

// From is who gives pods their addresses.
type From string

// Who gives pods their addresses.
const (
	FromPools     From = ""           // Tortie, out of its pools
	FromHostLocal From = "host-local" // the plugin host-local, out of what the cluster has given each node
	FromAnother   From = "another"    // another network plugin, which makes their interfaces, too: Tortie is behind it
)

func (c Cluster) String() string { return "kube-proxy " + c.Proxy + ", " + c.Stack() }

// Stack is the families of the cluster, and where addresses come from if they are not of Tortie's pools.
func (c Cluster) Stack() string {
	s := "IPv4"
	switch {
	case c.Dual:
		s = "dual stack"
	case c.IPv6:
		s = "IPv6"
	}
	switch c.From {
	case FromHostLocal:
		s += " of host-local"
	case FromAnother:
		s += " of ptp"
	}
	return s
}

// Name is for files.
func (c Cluster) Name() string {
	s := c.Proxy
	if c.Dual {
		s += "-dual"
	}
	if c.IPv6 {
		s += "-ipv6"
	}
	if c.From != FromPools {
		s += "-" + string(c.From)
	}
	return s
}

// testbed runs ./testbed with its output going to this run's. A run that is given up lets it end by itself: it cleans up.
func (b *Bed) testbed(ctx context.Context, env []string, args ...string) error {
	cmd := b.command(ctx, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = b.Out, b.Out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("testbed %s: %w", args[0], err)
	}
	return nil
}

// Testbed runs a command of ./testbed.
func (b *Bed) Testbed(ctx context.Context, args ...string) error { return b.testbed(ctx, nil, args...) }

func (b *Bed) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.Root, "test/e2e/testbed"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second // what it has started on a machine ends with the machine
	return cmd
}

// Build builds what is missing.
func (b *Bed) Build(ctx context.Context) error { return b.testbed(ctx, nil, "build") }

// Up makes a cluster whose nodes have no network plugin, or that of a folder: see README.md.
func (b *Bed) Up(ctx context.Context, c Cluster, cni string) error {
	switch {
	case cni == "" && c.From == FromAnother:
		cni = filepath.Join(b.Root, "test/e2e/cni/routed")
	case cni == "":
		cni = "none"
	}
	args := []string{"up", "--cni", cni, "--proxy", c.Proxy}
	if c.Dual {
		args = append(args, "--dual-stack")
	}
	if c.IPv6 {
		args = append(args, "--ipv6")
	}
	return b.testbed(ctx, nil, args...)
}

// Down removes the cluster. It works for a run that is being given up, too.
func (b *Bed) Down() error { return b.testbed(context.Background(), nil, "down") }

// Nodes are the names of the nodes.
func (b *Bed) Nodes() ([]string, error) {
	names, err := os.ReadFile(filepath.Join(b.State(), "run/nodes"))
	return strings.Fields(string(names)), err
}

// Kubectl runs kubectl as the cluster's administrator, and returns what it printed.
func (b *Bed) Kubectl(ctx context.Context, args ...string) (string, error) {
	return b.output(ctx, nil, append([]string{"kubectl"}, args...)...)
}

// Apply is kubectl apply -f of an object that is no file.
func (b *Bed) Apply(ctx context.Context, yaml string) error {
	_, err := b.output(ctx, strings.NewReader(yaml), "kubectl", "apply", "-f", "-")
	return err
}

// Exec runs a command on a machine, and returns what it printed.
func (b *Bed) Exec(ctx context.Context, machine string, args ...string) (string, error) {
	return b.output(ctx, nil, slices.Concat([]string{"exec", machine}, args)...)
}

func (b *Bed) output(ctx context.Context, in io.Reader, args ...string) (string, error) {
	cmd := b.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = in, &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}
