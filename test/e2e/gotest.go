package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// runGoTest runs a suite that is a Go test.
func (b *Bed) runGoTest(ctx context.Context, s Suite, _ Cluster, o Options) ([]Spec, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.build(ctx, b); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(o.Dir, "log.txt"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := append([]string{"-test.v", "-test.timeout=2h"}, s.Args...)
	if o.Focus != "" {
		args = append(args, "-test.run", o.Focus)
	}
	cmd := s.command(ctx, b, args)
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, log, &progress{out: b.Out})
	cmd.Stderr = cmd.Stdout
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	specs := parseGoTest(out.String())
	var exit *exec.ExitError
	if runErr != nil && (!errors.As(runErr, &exit) || count(specs, Failed) == 0) {
		return specs, fmt.Errorf("%s: %w (log in %s)", s.Program, runErr, o.Dir)
	}
	return specs, nil
}

// build builds the program of a suite that is a package of this module.
func (s Suite) build(ctx context.Context, b *Bed) error {
	if s.Package == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "e2e", "-o", b.Bin(s.Program), s.Package)
	cmd.Dir = b.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", s.Package, err, out)
	}
	return nil
}

// command is the test's: on the hub, or in the host's own namespaces if it is one of ours, which stop and start machines.
func (s Suite) command(ctx context.Context, b *Bed, args []string) *exec.Cmd {
	if s.Package != "" {
		cmd := exec.CommandContext(ctx, b.Bin(s.Program), args...)
		cmd.Dir = filepath.Join(b.Root, s.Package)
		return cmd
	}
	inside := []string{"exec", "hub", "env", "KUBECONFIG=" + filepath.Join(b.State(), "run/kubeconfig/admin.conf"), b.Bin(s.Program)}
	return b.command(ctx, append(inside, args...)...)
}

var (
	resultLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)$`)
	reasonLine = regexp.MustCompile(`^ *[\w.-]+\.go:\d+: (.*)$`)
)

// parseGoTest reads what a test binary prints with -test.v. Tests that have others in them are no specs themselves, unless
// they failed and none in them did.
func parseGoTest(out string) []Spec {
	var specs []Spec
	said := map[string][]string{} // test -> its log, by the line that says which test goes on
	current := ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if m := resultLine.FindStringSubmatch(line); m != nil {
			seconds, _ := strconv.ParseFloat(m[3], 64)
			state := map[string]State{"PASS": Passed, "FAIL": Failed, "SKIP": Skipped}[m[1]]
			specs = append(specs, Spec{Name: m[2], State: state, Seconds: seconds})
			continue
		}
		if name, ok := running(line); ok {
			current = name
			continue
		}
		if m := reasonLine.FindStringSubmatch(line); m != nil {
			said[current] = append(said[current], m[1])
		}
	}
	var leaves []Spec
	for _, s := range specs {
		inside, failed := false, false
		for _, other := range specs {
			if strings.HasPrefix(other.Name, s.Name+"/") {
				inside, failed = true, failed || other.State == Failed
			}
		}
		if inside && (s.State != Failed || failed) {
			continue
		}
		if lines := said[s.Name]; s.State != Passed && len(lines) > 0 {
			s.Reason = lines[len(lines)-1]
		}
		leaves = append(leaves, s)
	}
	return leaves
}

// running is the test of a line that says which one goes on.
func running(line string) (string, bool) {
	for _, mark := range []string{"=== RUN   ", "=== CONT  ", "=== NAME  "} {
		if name, ok := strings.CutPrefix(line, mark); ok {
			return name, true
		}
	}
	return "", false
}

// progress prints the lines that end a test.
type progress struct {
	out  io.Writer
	rest []byte
}

func (p *progress) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		if resultLine.Match(line) {
			fmt.Fprintf(p.out, "%s\n", line)
		}
		p.rest = rest
	}
}
