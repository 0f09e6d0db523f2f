package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

type connectOptions struct {
	files      []string
	namespaces []string
	selector   string
	nodes      bool
	each       bool
	output     string
	scope
}

var connectOutputs = map[string]func(*Env, *connectivity) error{
	"text": func(env *Env, c *connectivity) error { env.printConnectivity(c); return nil },
	"list": func(env *Env, c *connectivity) error { env.listConnectivity(c); return nil },
	"svg":  func(env *Env, c *connectivity) error { return drawSVG(env.Out, c) },
	"dot":  func(env *Env, c *connectivity) error { return drawDot(env.Out, c) },
	"json": func(env *Env, c *connectivity) error { return writeJSON(env.Out, c.json()) },
	"yaml": func(env *Env, c *connectivity) error { return writeYAML(env.Out, c.json()) },
}

var connectFormats = []string{"text", "list", "svg", "dot", "json", "yaml"}

func connectivityCommand(env *Env) *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:   "connectivity",
		Short: "Draw who may talk to whom",
		Long: `Draw who may open connections to whom, as policy has it: a matrix of sources and destinations, as text or as a picture
(-o svg), a list, a graph for Graphviz (-o dot), or data.

Workloads of a namespace that are treated alike stand in one row; --each gives each its own. "outside" stands for the
world outside of the cluster, with a row for each prefix that policy speaks of. The answers are those of
"tortie explain", computed from the store (or with -f from files) for every node.`,
		Example: `  tortie connectivity -n shop
  tortie connectivity --port 5432 --to "role == 'db'"
  tortie connectivity -o svg > connectivity.svg
  tortie connectivity -f cluster/ -o dot | dot -Tpng > connectivity.png`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			print, ok := connectOutputs[o.output]
			if !ok {
				return usage("there is no output format %q; the formats are %s", o.output, strings.Join(connectFormats, ", "))
			}
			c, err := env.connectivity(cmd.Context(), o)
			if err != nil {
				return err
			}
			err = print(env, c)
			toKnow(env.Err, c.problems)
			return err
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "file or folder that holds the cluster, instead of the store (may be given several times)")
	f.StringArrayVarP(&o.namespaces, "namespace", "n", nil, "only flows from or to this namespace (may be given several times)")
	f.StringVarP(&o.selector, "selector", "l", "", "only ends with these labels (and what is outside)")
	f.BoolVar(&o.nodes, "nodes", false, "nodes too")
	f.BoolVar(&o.each, "each", false, "a row for each workload")
	f.StringVarP(&o.output, "output", "o", "text", strings.Join(connectFormats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(connectFormats, noFiles))
	o.register(cmd)
	return cmd
}

// connectivity is an answer, with its units in groups that can be drawn.
type connectivity struct {
	*answer
	title    string
	whole    string // the word for all that was asked about
	groups   []group
	links    [][]link // by source and destination
	problems []string
}

// group is ends that have the same links.
type group struct {
	name  string
	space string // of the picture: the namespace, "nodes", "outside"
	units []int
	from  bool // it is a source; to: a destination
	to    bool
}

// link is what one group may send to another.
type link struct {
	none    bool   // there is no pair, or nobody asked
	level   level  // of allowed
	allowed string // in words; "" = nothing
	own     string // of pairs on one node, where that is different; "" = nothing
	differs bool   // own counts
	mixed   bool   // some pairs differ from others
}

// level is how much is allowed.
type level uint8

const (
	nothing level = iota
	some
	all
)

func (env *Env) connectivity(ctx context.Context, o connectOptions) (*connectivity, error) {
	objects, problems, err := env.objectsOf(ctx, o.files, "default")
	if err != nil {
		return nil, err
	}
	progress := env.progress()
	w := newWorldWith(objects, "", progress)
	q, err := o.question(w)
	if err != nil {
		return nil, err
	}
	q.progress = progress
	selected, err := bySelector("--selector", o.selector)
	if err != nil {
		return nil, err
	}
	shown := func(e *end) bool {
		return (o.nodes || e.kind != hostEnd) && (selected == nil || e.kind == outsideEnd || selected(e))
	}
	q.from, q.to = both(q.from, shown), both(q.to, shown)
	if len(o.namespaces) > 0 {
		q.pair = func(x, y *end) bool {
			return slices.Contains(o.namespaces, x.namespace) || slices.Contains(o.namespaces, y.namespace)
		}
	}
	if o.each {
		q.tag = func(e *end) string { return e.String() }
	}
	a, err := ask(ctx, q)
	if err != nil {
		return nil, err
	}
	c := &connectivity{answer: a, problems: append(problems, w.problems...), title: o.title(), whole: "all"}
	if o.protocol != "" || o.port != 0 {
		c.whole = "yes"
	}
	c.makeGroups()
	if len(c.groups) == 0 {
		return nil, &ExitCoder{Code: ExitMissing, Err: fmt.Errorf("there is no pair of ends to draw: no workload fits (tortie get workloadendpoints -A lists them)")}
	}
	return c, nil
}

func both(a, b func(*end) bool) func(*end) bool {
	return func(e *end) bool { return (a == nil || a(e)) && b(e) }
}

func (o *connectOptions) title() string {
	s := "Who may talk to whom"
	if o.protocol != "" || o.port != 0 {
		s += ", " + strings.TrimSpace(orTCP(o.protocol)+" "+strings.TrimPrefix(fmt.Sprint(o.port), "0"))
	}
	if o.family != "" {
		s += ", IPv" + o.family
	}
	if len(o.namespaces) > 0 {
		s += ", from or to " + strings.Join(o.namespaces, ", ")
	}
	return s
}

func orTCP(protocol string) string {
	if protocol == "" {
		return "tcp"
	}
	return protocol
}

// linkBetween says what may pass between some units.
func (c *connectivity) linkBetween(from, to []int) link {
	here, there := map[string]int32{}, map[string]int32{} // pairs on one node, and the others
	for _, u := range from {
		for _, v := range to {
			at := c.at[u][v]
			if at < 0 {
				continue
			}
			t := there
			if c.sameNode(u, v) {
				t = here
			}
			t[c.words(at)] = at
		}
	}
	switch {
	case len(here)+len(there) == 0:
		return link{none: true}
	case len(here) > 1 || len(there) > 1:
		return link{mixed: true, level: some, allowed: "partly"}
	case len(there) == 0:
		there = here
	}
	l := link{}
	for words, at := range there {
		l.allowed, l.level = words, c.level(at)
	}
	for words, at := range here {
		if words != l.allowed {
			l.own, l.differs = words, true
			l.level = max(l.level, min(c.level(at), some))
		}
	}
	return l
}

// words says what a cell allows.
func (c *connectivity) words(at int32) string {
	cell := &c.cells[at]
	if c.level(at) == all {
		return c.whole
	}
	return phrase(c.probes, cell.allowed[0], cell.tried)
}

func (c *connectivity) level(at int32) level {
	cell := &c.cells[at]
	any, every := false, true
	for i, t := range cell.tried {
		any = any || t && cell.allowed[0][i]
		every = every && (!t || cell.allowed[0][i])
	}
	switch {
	case !any:
		return nothing
	case every:
		return all
	}
	return some
}

// maxSplit is up to how many groups those with mixed links are taken apart.
const maxSplit = 40

// makeGroups takes units together as long as each has the same links to every other group.
func (c *connectivity) makeGroups() {
	var used []int
	for u := range c.units {
		for v := range c.units {
			if c.at[u][v] >= 0 || c.at[v][u] >= 0 {
				used = append(used, u)
				break
			}
		}
	}
	part := newPartition(c, used)
	small := len(used) <= 200
	for part.refine(); small && len(part.blocks()) < maxSplit && part.splitMixed(); part.refine() {
	}
	for small && part.join() {
	}
	names := newNamer(c.ends)
	for _, units := range part.blocks() {
		g := group{units: units, name: names.name(c.members(units))}
		e := c.ends[c.units[units[0]].members[0]]
		g.space = [...]string{e.namespace, "nodes", "outside"}[e.kind]
		c.groups = append(c.groups, g)
	}
	slices.SortFunc(c.groups, func(a, b group) int {
		return compareEnds(c.ends[c.units[a.units[0]].members[0]], c.ends[c.units[b.units[0]].members[0]])
	})
	c.links = make([][]link, len(c.groups))
	for i := range c.groups {
		for j := range c.groups {
			l := c.linkBetween(c.groups[i].units, c.groups[j].units)
			c.links[i] = append(c.links[i], l)
			c.groups[i].from = c.groups[i].from || !l.none
			c.groups[j].to = c.groups[j].to || !l.none
		}
	}
}

// sources and destinations are the groups that have a row and a column.
func (c *connectivity) sources() (out []int) {
	for i, g := range c.groups {
		if g.from {
			out = append(out, i)
		}
	}
	return out
}

func (c *connectivity) destinations() (out []int) {
	for i, g := range c.groups {
		if g.to {
			out = append(out, i)
		}
	}
	return out
}
