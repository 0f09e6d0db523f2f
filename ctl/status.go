package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/tortie/tortie/internal/agentapi"
)

func statusCommand(env *Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the agent on this node is doing",
		Long: `Show how the agent on this node is doing: whether it follows the store, which workloads' policy is enforced, and what
is in the way (objects that can't be read, foreign firewall rules), with what to do about it.

The exit code is 0 if the agent is ready, 1 if it is not or can't be asked.`,
		Example: "  tortie status\n  tortie status -o json | jq .endpoints",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := env.agent().Status(cmd.Context(), agentapi.StatusRequest{Inspect: true})
			if err != nil {
				return fmt.Errorf("%w\nis the agent running here? (tortie agent; --socket says where it listens)", err)
			}
			switch output {
			case "json":
				err = writeJSON(env.Out, st)
			case "yaml":
				err = writeYAML(env.Out, st)
			case "table":
				err = env.printStatus(st)
			default:
				return usage("there is no output format %q; the formats are table, yaml and json", output)
			}
			if err == nil && !st.Ready {
				return &ExitCoder{Code: ExitError}
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, yaml or json")
	return cmd
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // selectors are full of &&
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func writeYAML(w io.Writer, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func (env *Env) printStatus(st agentapi.Status) error {
	tw := tabwriter.NewWriter(env.Out, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	var addrs []string
	for _, a := range st.Addresses {
		addrs = append(addrs, a.String())
	}
	row("Node", "%s  %s", st.Node, strings.Join(addrs, ", "))
	row("Agent", "%s, version %s, pid %d, started %s ago", env.good(st.Ready, "ready", "not ready"), st.Version, st.PID, since(st.Started))
	for _, n := range st.NotReady {
		row("", "waits for: %s", n)
	}
	store := env.good(st.Store.Connected, "connected", "not connected") + " since " + since(st.Store.Since)
	if st.Store.Error != "" {
		store += ": " + st.Store.Error
	}
	row("Store", "%s", store)
	if st.Store.Backlog > 0 {
		row("", "%d deletions wait for the store", st.Store.Backlog)
	}
	row("Driver", "%s", st.Driver.Name)
	c := st.Counts
	row("Holds", "%d endpoints, %d policies, %d sets (%d members), %d routes, %d peers", c.Endpoints, c.Policies, c.Sets, c.Members, c.Routes, c.Peers)
	row("Dataplane", "%s", env.applyLine(st.Apply))
	if p := st.Persisted; p.Error != "" {
		row("Persisted", "%s", env.red(p.Error))
	} else if !p.Last.IsZero() {
		row("Persisted", "%d bytes, %s ago", p.Bytes, since(p.Last))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	env.printEndpoints(st.Endpoints)
	env.printProblems("Refused by the dataplane", st.Apply.Failed)
	env.printProblems("Objects with problems", st.Problems)
	if len(st.Foreign) > 0 {
		fmt.Fprintf(env.Out, "\n%s\n", env.red("In the way, on this host"))
		for _, f := range st.Foreign {
			fmt.Fprintf(env.Out, "  %s: %s\n    mend: %s\n", f.Where, f.What, f.Mend)
		}
	}
	return nil
}

func (env *Env) applyLine(a agentapi.ApplyStatus) string {
	s := env.good(a.InSync && a.Error == "", "in sync", "not in sync")
	if a.Boot != "" && !a.InSync {
		s += ", protected by " + a.Boot
	}
	if !a.Last.IsZero() {
		s += fmt.Sprintf(", last write %s ago (%.1f ms)", since(a.Last), a.DurationMS)
	}
	if a.Pending > 0 {
		s += fmt.Sprintf(", %d objects on their way", a.Pending)
	}
	if a.Error != "" {
		s += ": " + a.Error
	}
	return s
}

func (env *Env) printEndpoints(eps []agentapi.EndpointStatus) {
	if len(eps) == 0 {
		fmt.Fprintln(env.Out, "\nNo endpoints: nothing is plugged in on this node.")
		return
	}
	fmt.Fprintln(env.Out)
	rows := [][]string{{"ENDPOINT", "KIND", "INTERFACE", "ADDRESSES", "POLICY"}}
	var notes []string
	for _, e := range eps {
		var as []string
		for _, a := range e.Addresses {
			as = append(as, a.String())
		}
		state := env.good(e.Enforced, "enforced", "not enforced")
		if e.Reason != "" {
			state += ": " + e.Reason
		}
		if e.Phase != "" {
			state += " (" + e.Phase + ")"
		}
		rows = append(rows, []string{e.Name, e.Kind, e.HostIface, dash(strings.Join(as, ",")), state})
		for _, l := range e.Losses {
			notes = append(notes, fmt.Sprintf("  %s: %s", e.Name, l))
		}
	}
	writeRows(env.Out, rows)
	if len(notes) > 0 {
		fmt.Fprintf(env.Out, "\nWhat this driver can't express, and does instead (it never allows more)\n%s\n", strings.Join(notes, "\n"))
	}
}

func (env *Env) printProblems(title string, ps []agentapi.Problem) {
	if len(ps) == 0 {
		return
	}
	fmt.Fprintf(env.Out, "\n%s\n", env.red(title))
	for _, p := range ps {
		field := ""
		if p.Field != "" {
			field = " " + p.Field
		}
		fmt.Fprintf(env.Out, "  %s%s: %s\n", p.Object, field, p.Reason)
	}
}

// writeRows aligns cells that may hold colours, which tabwriter would count as text.
func writeRows(w io.Writer, rows [][]string) {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], visible(c))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			b.WriteString(c)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-visible(c)+2))
			}
		}
		fmt.Fprintln(w, b.String())
	}
}

// visible is the number of characters of s that a terminal shows.
func visible(s string) int {
	n, escape := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			n++
		}
	}
	return n
}

func (env *Env) color(code, s string) string {
	if !env.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (env *Env) red(s string) string   { return env.color("31", s) }
func (env *Env) green(s string) string { return env.color("32", s) }

func (env *Env) good(ok bool, yes, no string) string {
	if ok {
		return env.green(yes)
	}
	return env.red(no)
}

// since gives an age that a person reads at a glance.
func since(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	switch d := time.Since(t); {
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}
