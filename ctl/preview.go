package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func policyCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Questions about policy: what a change would do",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(previewCommand(env))
	return cmd
}

type previewOptions struct {
	files, against []string
	namespace      string
	remove, staged bool
	output         string
	exitCode       bool
	scope
}

func previewCommand(env *Env) *cobra.Command {
	var o previewOptions
	cmd := &cobra.Command{
		Use:   "preview -f FILE|FOLDER|-",
		Short: "Say which flows a change of policy would allow and deny",
		Long: `Say which flows would be allowed or denied if the objects of some files were applied (or, with --delete, deleted), without
changing anything. With --staged: if every staged policy were enforced too; without files, what that alone would do.

Every pair of workloads, nodes and some addresses outside of the cluster is compared, before and after, with each kind of
packet that policies tell apart: the ports that rules and workloads name, the others as one kind, ICMP, other protocols.
The answers are those of "tortie explain"; every node is computed from the store. Addresses outside are one for each
prefix that policy speaks of, one for the rest of the world ("outside"), and those of --outside. New flows from port 40000
are meant; tunnels (VXLAN, IPIP) that workloads make are not.

Rows are true for every pair that they name, and complete, unless a line that begins with SAMPLED says that there was too
much to compare.`,
		Example: `  tortie policy preview -f policy.yaml
  tortie policy preview --staged
  tortie policy preview -f old/ --delete --to "role == 'db'"
  tortie policy preview -f new.yaml --against cluster/    # without a store`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return env.preview(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "file or folder to apply; - reads standard input (may be given several times)")
	f.StringArrayVar(&o.against, "against", nil, "file or folder that holds the cluster, instead of the store (may be given several times)")
	f.StringVarP(&o.namespace, "namespace", "n", "default", "namespace of objects that name none")
	f.BoolVar(&o.remove, "delete", false, "the objects would be deleted, not applied")
	f.BoolVar(&o.staged, "staged", false, "all staged policies would be enforced")
	f.StringVarP(&o.output, "output", "o", "text", "text, json or yaml")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 5 if anything would change")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json", "yaml"}, noFiles))
	o.register(cmd)
	return cmd
}

// previewed is what -o json gives.
type previewed struct {
	Change   string         `json:"change"` // what would be done
	Pairs    int            `json:"pairs"`  // that were compared
	AllPairs int            `json:"allPairs"`
	Packets  int            `json:"kindsOfPackets"`
	Asked    int            `json:"decisions"`
	Denied   int            `json:"pairsNewlyDenied"`
	Allowed  int            `json:"pairsNewlyAllowed"`
	Changes  []previewedRow `json:"changes"`
	Notes    []string       `json:"notes,omitempty"`
	Problems []string       `json:"problems,omitempty"`
}

type previewedRow struct {
	From        string   `json:"from"`
	To          string   `json:"to"`
	Packets     string   `json:"packets"`
	Before      string   `json:"before"`
	After       string   `json:"after"`
	Where       string   `json:"where,omitempty"` // of a node and a workload: on the same node, or on others
	By          string   `json:"by"`
	Was         string   `json:"was,omitempty"` // what decided before
	Pairs       int      `json:"pairs"`
	FromMembers []string `json:"fromMembers"`
	ToMembers   []string `json:"toMembers"`
}

func (env *Env) preview(ctx context.Context, o previewOptions) error {
	if !slices.Contains([]string{"text", "json", "yaml"}, o.output) {
		return usage("there is no output format %q; the formats are text, json and yaml", o.output)
	}
	if len(o.files) == 0 && !o.staged {
		return usage("say what would change: tortie policy preview -f FILE, or --staged")
	}
	var given []api.Object
	var err error
	if len(o.files) > 0 {
		if given, err = env.readFiles(o.files, o.namespace); err != nil {
			return err
		}
	}
	now, unread, err := env.objectsOf(ctx, o.against, o.namespace)
	if err != nil {
		return err
	}
	objects, change := o.change(now, given)
	progress := env.progress()
	before, after := newWorldWith(now, "", progress), newWorldWith(objects, "", progress)
	if o.staged {
		after.enforceStaged()
	}
	q, err := o.question(before, after)
	if err != nil {
		return err
	}
	q.progress = progress
	a, err := ask(ctx, q)
	if err != nil {
		return err
	}
	p := a.preview()
	p.Change = change
	p.Problems = append(unread, news(before.problems, after.problems)...)
	if !o.staged && slices.ContainsFunc(given, isStaged) {
		p.Notes = append(p.Notes, "staged policies enforce nothing; --staged shows what they would do")
	}
	switch o.output {
	case "json":
		err = writeJSON(env.Out, p)
	case "yaml":
		err = writeYAML(env.Out, p)
	default:
		env.printPreview(p, a)
	}
	if err == nil && o.exitCode && len(p.Changes) > 0 {
		return &ExitCoder{Code: ExitDiffers}
	}
	return err
}

// objectsOf reads all objects of files, or of the store.
func (env *Env) objectsOf(ctx context.Context, files []string, namespace string) (objects []api.Object, problems []string, err error) {
	if len(files) > 0 {
		objects, err = env.readFiles(files, namespace)
		return objects, nil, err
	}
	err = env.withStore(ctx, func(s datastore.Store) error {
		objects, problems, err = everything(ctx, s)
		return err
	})
	return objects, problems, err
}

func isStaged(o api.Object) bool { return strings.HasPrefix(o.GetKind(), "Staged") }

// change returns the objects that there would be, and says what would be done.
func (o *previewOptions) change(now, given []api.Object) (objects []api.Object, change string) {
	all := map[api.Key]api.Object{}
	for _, o := range now {
		all[api.KeyOf(o)] = o
	}
	created, changed, same, deleted, missing := 0, 0, 0, 0, 0
	for _, g := range given {
		key := api.KeyOf(g)
		old := all[key]
		switch {
		case o.remove && old == nil:
			missing++
		case o.remove:
			deleted++
			delete(all, key)
		case old == nil:
			created++
			all[key] = g
		default:
			was, err1 := bareYAML(old)
			is, err2 := bareYAML(g)
			if err1 == nil && err2 == nil && was == is {
				same++
			} else {
				changed++
			}
			all[key] = g
		}
	}
	var words []string
	for _, c := range []struct {
		n    int
		what string
	}{{created, "created"}, {changed, "changed"}, {same, "as it is"}, {deleted, "deleted"}, {missing, "not there"}} {
		if c.n > 0 {
			words = append(words, fmt.Sprintf("%s %s", count(c.n, "object"), c.what))
		}
	}
	if o.staged {
		words = append(words, "all staged policies enforced")
	}
	return slices.Collect(maps.Values(all)), strings.Join(words, ", ")
}

// news returns what is in after and not in before.
func news(before, after []string) []string {
	return slices.DeleteFunc(slices.Clone(after), func(s string) bool { return slices.Contains(before, s) })
}

// previewRow is what changes in one way.
type previewRow struct{ after, by, was, packets, where string }

// Where a node and a workload are: what passes between those that are together has rules of its own.
const (
	together = "on the same node"
	apart    = "on other nodes"
)

func (a *answer) where(u, v int) string {
	switch {
	case (a.kindOf(u) == hostEnd) == (a.kindOf(v) == hostEnd) || a.kindOf(u) == outsideEnd || a.kindOf(v) == outsideEnd:
		return ""
	case a.ownNode(u, v):
		return together
	}
	return apart
}

// preview makes rows out of an answer about two worlds.
func (a *answer) preview() previewed {
	p := previewed{Pairs: a.pairs, AllPairs: a.all, Asked: a.asked, Packets: len(a.probes), Notes: slices.Clone(a.notes), Changes: []previewedRow{}}
	rowsOf := make([][]previewRow, len(a.cells))
	for i := range a.cells {
		rowsOf[i] = a.rowsOf(&a.cells[i])
	}
	pairs := map[previewRow]map[int][]int{}
	for u, line := range a.at {
		for v, at := range line {
			if at < 0 {
				continue
			}
			denied, allowed := false, false
			for _, r := range rowsOf[at] {
				r.where = a.where(u, v)
				if pairs[r] == nil {
					pairs[r] = map[int][]int{}
				}
				pairs[r][u] = append(pairs[r][u], v)
				denied, allowed = denied || r.after == "deny", allowed || r.after == "allow"
			}
			p.Denied += number(denied) * a.pairsOf(u, v)
			p.Allowed += number(allowed) * a.pairsOf(u, v)
		}
	}
	names := newNamer(a.ends)
	for r, ps := range pairs {
		free := func(u, v int) bool { return a.itself(u, v) || a.where(u, v) != r.where && r.where != "" }
		for _, rect := range a.rectangles(ps, free) {
			from, to := a.members(rect.from), a.members(rect.to)
			p.Changes = append(p.Changes, previewedRow{
				From: names.name(from), To: names.name(to), Packets: r.packets, Where: r.where, By: r.by, Was: r.was, After: r.after,
				Before: map[string]string{"allow": "deny", "deny": "allow"}[r.after],
				Pairs:  rect.pairs, FromMembers: names.each(from), ToMembers: names.each(to),
			})
		}
	}
	slices.SortFunc(p.Changes, func(x, y previewedRow) int {
		return cmp.Or(-cmp.Compare(x.After, y.After), cmp.Compare(x.From, y.From), cmp.Compare(x.To, y.To),
			cmp.Compare(x.Packets, y.Packets), cmp.Compare(x.By, y.By), cmp.Compare(x.Was, y.Was), slices.Compare(x.FromMembers, y.FromMembers))
	})
	return p
}

// rowsOf says in words what changes in one cell.
func (a *answer) rowsOf(c *cell) []previewRow {
	type way struct{ after, by, was string }
	probes := map[way][]bool{}
	for _, ch := range c.changes {
		w := way{"deny", ch.by, ch.was}
		if c.allowed[1][ch.probe] {
			w.after = "allow"
		}
		if probes[w] == nil {
			probes[w] = make([]bool, len(a.probes))
		}
		probes[w][ch.probe] = true
	}
	var out []previewRow
	for w, in := range probes {
		out = append(out, previewRow{after: w.after, by: w.by, was: w.was, packets: phrase(a.probes, in, c.tried)})
	}
	return out
}

func (env *Env) printPreview(p previewed, a *answer) {
	fmt.Fprintf(env.Out, "If so: %s.\n", p.Change)
	after := ""
	for _, c := range p.Changes {
		if c.After != after {
			after = c.After
			n, word := p.Denied, "denied"
			if after == "allow" {
				n, word = p.Allowed, "allowed"
			}
			fmt.Fprintf(env.Out, "\nNewly %s (%s):\n", env.good(after == "allow", word, word), count(n, "pair"))
		}
		where := ""
		if c.Where != "" {
			where = " " + c.Where
		}
		fmt.Fprintf(env.Out, "  %s -> %s%s: %s %s -> %s, by %s", c.From, c.To, where, c.Packets, c.Before, env.good(c.After == "allow", c.After, c.After), cmp.Or(c.By, "nothing that decides"))
		if c.Was != "" && c.Was != c.By {
			fmt.Fprintf(env.Out, " (before: %s)", c.Was)
		}
		fmt.Fprintln(env.Out)
	}
	if len(p.Changes) == 0 {
		fmt.Fprintln(env.Out, "\nNothing would be allowed or denied that is not now.")
	}
	fmt.Fprintf(env.Out, "\n%s\n", a.extent())
	for _, n := range p.Notes {
		fmt.Fprintf(env.Out, "%s\n", n)
	}
	toKnow(env.Err, p.Problems)
}

// extent says how much was compared.
func (a *answer) extent() string {
	var kinds [3]int
	for _, e := range a.ends {
		kinds[e.kind]++
	}
	s := fmt.Sprintf("Compared %s of %s, %s and %s, with %s of packets: %s.", count(a.pairs, "pair"),
		count(kinds[workloadEnd], "workload"), count(kinds[hostEnd], "node"), strings.Replace(count(kinds[outsideEnd], "outside address"), "addresss", "addresses", 1),
		count(len(a.probes), "kind"), count(a.asked, "decision"))
	if a.pairs < a.all {
		s += fmt.Sprintf(" There are %s.", count(a.all, "pair"))
	}
	return s
}

func toKnow(w io.Writer, problems []string) {
	if len(problems) == 0 {
		return
	}
	fmt.Fprintln(w, "\nTo know:")
	for _, p := range problems {
		fmt.Fprintf(w, "  %s\n", p)
	}
}
