//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Demo is the story that `make demo` tells. Examples is the folder of its YAML files.
type Demo struct {
	Out      io.Writer
	Color    bool
	Examples string
	Options  Options

	lab       *Lab
	start     time.Time
	workloads map[string]*Workload
	sources   []*Host
	targets   []Target
}

// roles are the workloads on each node.
var roles = []struct {
	name   string
	server Server
}{
	{"web", Server{Port: 80}},
	{"api", Server{Name: "http", Port: 8080}},
	{"db", Server{Name: "postgres", Port: 5432}},
}

// outsiders are the hosts that are no nodes; the second has an address that the policies block.
var outsiders = []struct {
	name string
	host uint8
}{{"office", 10}, {"badguy", 66}}

// Run tells the story and takes the lab down again. Any difference between the network and the oracle is an error.
func (d *Demo) Run(ctx context.Context) (err error) {
	d.start = time.Now()
	defer func() {
		if d.lab != nil {
			d.say("Cleaning up")
			err = errors.Join(err, d.lab.Down())
		}
		if err == nil {
			fmt.Fprintf(d.Out, "\nDone in %.0f s. `make lab` leaves the same nodes running for you.\n", time.Since(d.start).Seconds())
		}
	}()
	for _, step := range []func(context.Context) error{d.Up, d.before, d.apply, d.explain, d.crash} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// say prints a heading.
func (d *Demo) say(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if d.Color {
		s = "\x1b[1m" + s + "\x1b[0m"
	}
	fmt.Fprintf(d.Out, "\n%s\n", s)
}

func (d *Demo) line(format string, args ...any) { fmt.Fprintf(d.Out, "  "+format+"\n", args...) }

// Lab is the running lab, after Up.
func (d *Demo) Lab() *Lab { return d.lab }

// Up brings up the nodes, their workloads and two hosts outside.
func (d *Demo) Up(ctx context.Context) error {
	d.say("Two nodes, three workloads on each, and two hosts outside")
	o := d.Options
	o.Progress = func(what string) { d.line("%s", what) }
	var err error
	if d.lab, err = New(ctx, o); err != nil {
		return err
	}
	if _, err := d.lab.Tortie(ctx, nil, "apply", "-f", filepath.Join(d.Examples, "network")); err != nil {
		return err
	}
	d.workloads = map[string]*Workload{}
	for _, n := range d.lab.Nodes {
		for i, r := range roles {
			name := fmt.Sprintf("%s-%d", r.name, n.Index)
			w, err := d.lab.AddWorkload(ctx, WorkloadSpec{
				Name: name, Namespace: "shop", Node: n.Index, Host: i + 1, Labels: map[string]string{"role": r.name},
				Profiles: []string{"kns.shop"}, Servers: []Server{r.server},
			})
			if err != nil {
				return err
			}
			d.workloads[name] = w
			d.sources = append(d.sources, w.Host)
			d.targets = append(d.targets, Target{w.Host, r.server.Port, fmt.Sprintf("%s:%d", name, r.server.Port)})
			d.line("%-6s on %s  %-11s %s", name, n.Name, w.Addr(4), w.Addr(6))
		}
	}
	for _, o := range outsiders {
		h, err := d.lab.AddOutside(o.name, o.host)
		if err != nil {
			return err
		}
		d.line("%-6s outside %-11s %s", o.name, h.Addr(4), h.Addr(6))
		d.sources = append(d.sources, h.Host)
	}
	return nil
}

// matrix measures who can talk to whom, over both families, and prints it.
func (d *Demo) matrix(ctx context.Context) (allowed, all int, err error) {
	began := time.Now()
	var ms []*Matrix
	for _, family := range []int{4, 6} {
		m, err := d.lab.Settled(ctx, family, d.sources, d.targets)
		if m != nil {
			ms = append(ms, m)
			allowed += m.Allowed()
			all += len(d.sources) * len(d.targets)
		}
		if err != nil {
			if len(ms) > 0 {
				PrintMatrices(d.Out, d.Color, ms...)
			}
			return allowed, all, err
		}
	}
	PrintMatrices(d.Out, d.Color, ms...)
	d.line("%d of %d connections (IPv4 and IPv6) got through, each as the oracle says (%.1f s)", allowed, all, time.Since(began).Seconds())
	return allowed, all, nil
}

func (d *Demo) before(ctx context.Context) error {
	d.say("Who can talk to whom without any policy")
	allowed, all, err := d.matrix(ctx)
	if err == nil && allowed != all {
		err = fmt.Errorf("without policy %d of %d connections got through", allowed, all)
	}
	return err
}

func (d *Demo) apply(ctx context.Context) error {
	dir := filepath.Join(d.Examples, "policy")
	d.say("Applying the policies in %s", dir)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := d.describe(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	out, err := d.lab.Tortie(ctx, nil, "apply", "-f", dir)
	if err != nil {
		return err
	}
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		d.line("%s", l)
	}
	d.say("Who can talk to whom now")
	allowed, all, err := d.matrix(ctx)
	if err == nil && (allowed == 0 || allowed == all) {
		err = fmt.Errorf("the policies make no difference: %d of %d connections got through", allowed, all)
	}
	return err
}

// describe prints the comment that a file begins with.
func (d *Demo) describe(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	d.line("%s", filepath.Base(file))
	for _, l := range strings.Split(string(b), "\n") {
		text, ok := strings.CutPrefix(l, "# ")
		if !ok {
			return nil
		}
		d.line("    %s", text)
	}
	return nil
}

func (d *Demo) explain(ctx context.Context) error {
	from, to := d.workloads["web-1"], d.workloads["db-2"]
	d.say("Why can't web-1 on n1 reach db-2 on n2?")
	args := []string{"explain", "shop/" + from.Name, "shop/" + to.Name, "tcp", "5432"}
	d.line("$ tortie %s", strings.Join(args, " "))
	out, err := d.lab.Tortie(ctx, from.Node, args...)
	for _, l := range strings.Split(strings.TrimRight(out, "\n"), "\n") {
		d.line("%s", l)
	}
	if err == nil {
		return errors.New("explain says that this connection is allowed")
	}
	if !strings.Contains(out, "DENY") { // a denial has an exit code of its own; anything else is an error
		return err
	}
	return nil
}

// crash kills an agent under traffic, and brings it back.
func (d *Demo) crash(ctx context.Context) error {
	n := d.lab.Nodes[1]
	d.say("Killing the agent on %s with -9, under traffic", n.Name)
	web, api, db := d.workloads["web-1"], d.workloads["api-2"], d.workloads["db-2"]
	allowed, err := StartTraffic(web.Host, api.Addr(4), 8080)
	if err != nil {
		return err
	}
	defer allowed.Stop()
	denied := StartDenied(web.Host, db.Addr(4), 5432)
	defer denied.Stop()
	if err := wait(ctx, time.Second); err != nil {
		return err
	}
	pid := n.Agent.Pid()
	n.Agent.Kill()
	d.line("agent %d is dead; web-1 goes on asking api-2 (allowed) and trying db-2 (denied)", pid)
	if err := wait(ctx, 3*time.Second); err != nil {
		return err
	}
	began := time.Now()
	if err := n.StartAgent(); err != nil {
		return err
	}
	if err := n.AwaitReady(ctx); err != nil {
		return err
	}
	d.line("a new agent, %d, was ready after %d ms", n.Agent.Pid(), time.Since(began).Milliseconds())
	if err := wait(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	allowed.Stop()
	denied.Stop()
	d.line("open connection: %d exchanges, %d lost; new connections: %d, %d lost", allowed.Kept.OK(), allowed.Kept.Failed(),
		allowed.New.OK(), allowed.New.Failed())
	d.line("denied connections: %d tried, %d got through", denied.New.OK()+denied.New.Failed(), denied.New.OK())
	if got := denied.New.OK(); got > 0 {
		return fmt.Errorf("%d denied connections got through while the agent was away", got)
	}
	return allowed.Lost()
}

// wait passes time on purpose: while it does, traffic runs.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hint is a command to try, what it shows, and how it ends.
type hint struct {
	command, shows string
	exit           int
}

// hints can be tried one after another, each after what the one before has made of the lab.
func (d *Demo) hints() []hint {
	tortie, policy := absolute(d.Options.Binary), absolute(filepath.Join(d.Examples, "policy"))
	n1, web, api, db := d.lab.Nodes[0], d.workloads["web-1"], d.workloads["api-2"], d.workloads["db-2"]
	try := func(w *Workload, port uint16) string {
		return fmt.Sprintf("ip netns exec %s timeout 2 bash -c ': </dev/tcp/%s/%d'", web.Netns(), w.Addr(4), port)
	}
	return []hint{
		{"export TORTIE_STORE=" + d.lab.StoreEndpoint() + " TORTIE_SOCKET=" + n1.Socket(), "the store, and the agent of n1", 0},
		{tortie + " status", "", 0},
		{tortie + " get workloadendpoints -A", "", 0},
		{fmt.Sprintf("ip netns exec %s ping -c 1 %s", web.Netns(), api.Addr(4)), "no policy yet: all is allowed", 0},
		{tortie + " policy preview -f " + policy, "what policies would change", 0},
		{tortie + " apply -f " + policy, "", 0},
		{try(api, 8080), "silence: web may still ask api", 0},
		{try(db, 5432), "and not db: no answer", 124},
		{fmt.Sprintf("%s explain shop/web-1 shop/db-2 tcp 5432", tortie), "why", 4},
		{fmt.Sprintf("ip netns exec %s nft list table inet tortie", n1.Netns()), "", 0},
	}
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// Hints says what to try in a lab that is left running.
func (d *Demo) Hints() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe lab %s is running. In another terminal (as root), one after another:\n\n", d.lab.ID)
	for _, h := range d.hints() {
		if h.shows != "" {
			fmt.Fprintf(&b, "  # %s\n", h.shows)
		}
		fmt.Fprintf(&b, "  %s\n", h.command)
	}
	fmt.Fprintf(&b, "\nLogs are in %s. Ctrl-C takes the lab down.\n", d.lab.Dir)
	return b.String()
}
