package ctl

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// How wide a matrix may be, and a word in it.
const (
	maxColumns = 30
	maxWidth   = 120
	maxCell    = 14
)

// printConnectivity draws a matrix; where there is too much for one, a list.
func (env *Env) printConnectivity(c *connectivity) {
	rows, cols := c.sources(), c.destinations()
	if len(cols) > maxColumns {
		env.listConnectivity(c)
		return
	}
	fmt.Fprintf(env.Out, "%s (rows are sources):\n\n", c.title)
	t := &matrixText{c: c, notes: map[string]string{}}
	lines := [][]string{t.head(cols, false)}
	for _, i := range rows {
		lines = append(lines, t.line(i, cols, false))
	}
	if width(lines) > maxWidth { // name the columns by the numbers of the rows
		lines = [][]string{t.head(cols, true)}
		for _, i := range rows {
			lines = append(lines, t.line(i, cols, true))
		}
		for _, j := range cols {
			if !c.groups[j].from {
				t.order = append(t.order, strconv.Itoa(j+1))
				t.notes[strconv.Itoa(j+1)] = c.groups[j].name
			}
		}
	}
	printCells(env.Out, lines)
	if len(t.order) > 0 {
		fmt.Fprintln(env.Out)
		tw := tabwriter.NewWriter(env.Out, 0, 8, 2, ' ', 0)
		for _, key := range t.order {
			fmt.Fprintf(tw, "  %s\t%s\n", key, t.notes[key])
		}
		tw.Flush()
	}
	env.footer(c)
}

func (env *Env) footer(c *connectivity) {
	fmt.Fprintf(env.Out, "\n%s\n", strings.Replace(c.extent(), "Compared", "Asked about", 1))
	for _, n := range c.notes {
		fmt.Fprintln(env.Out, n)
	}
}

// matrixText makes the words of a matrix. What is too long for a cell becomes a letter, explained below it.
type matrixText struct {
	c     *connectivity
	notes map[string]string // by letter
	order []string
}

func (t *matrixText) head(cols []int, numbers bool) []string {
	out := []string{""}
	for _, j := range cols {
		name := t.c.groups[j].name
		if numbers {
			name = strconv.Itoa(j + 1)
		}
		out = append(out, name)
	}
	return out
}

func (t *matrixText) line(i int, cols []int, numbers bool) []string {
	name := t.c.groups[i].name
	if numbers {
		name = fmt.Sprintf("%d  %s", i+1, name)
	}
	out := []string{name}
	for _, j := range cols {
		out = append(out, t.cell(t.c.links[i][j]))
	}
	return out
}

func (t *matrixText) cell(l link) string {
	text := l.text()
	if utf8.RuneCountInString(text) <= maxCell {
		return text
	}
	for _, key := range t.order {
		if t.notes[key] == text {
			return key
		}
	}
	key := letters(len(t.order))
	t.order = append(t.order, key)
	t.notes[key] = text
	return key
}

// letters counts A, B, ..., Z, AA.
func letters(n int) string {
	if n < 26 {
		return string(rune('A' + n))
	}
	return letters(n/26-1) + letters(n%26)
}

// text says a link in words: "-" is nothing, "." is no pair.
func (l link) text() string {
	word := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	switch {
	case l.none:
		return "."
	case l.differs:
		return word(l.allowed) + "; on the same node: " + word(l.own)
	}
	return word(l.allowed)
}

func width(lines [][]string) int {
	total := 0
	for _, w := range widths(lines) {
		total += w + 2
	}
	return total
}

func widths(lines [][]string) []int {
	out := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, c := range l {
			out[i] = max(out[i], utf8.RuneCountInString(c))
		}
	}
	return out
}

func printCells(w io.Writer, lines [][]string) {
	ws := widths(lines)
	for _, l := range lines {
		var b strings.Builder
		for i, c := range l {
			b.WriteString(c + strings.Repeat(" ", ws[i]-utf8.RuneCountInString(c)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// listConnectivity names each pair of groups that may talk.
func (env *Env) listConnectivity(c *connectivity) {
	fmt.Fprintf(env.Out, "%s:\n\n", c.title)
	tw := tabwriter.NewWriter(env.Out, 0, 8, 2, ' ', 0)
	n := 0
	for _, i := range c.sources() {
		for _, j := range c.destinations() {
			if l := c.links[i][j]; l.level > nothing {
				fmt.Fprintf(tw, "%s\t-> %s\t%s\n", c.groups[i].name, c.groups[j].name, l.text())
				n++
			}
		}
	}
	tw.Flush()
	if n == 0 {
		fmt.Fprintln(env.Out, "Nobody may talk to anybody.")
	}
	env.footer(c)
}

// connectivityJSON is what -o json gives.
type connectivityJSON struct {
	Groups   []groupJSON `json:"groups"`
	Links    []linkJSON  `json:"links"` // of groups that may talk
	Pairs    int         `json:"pairs"`
	AllPairs int         `json:"allPairs"`
	Asked    int         `json:"decisions"`
	Notes    []string    `json:"notes,omitempty"`
	Problems []string    `json:"problems,omitempty"`
}

type groupJSON struct {
	Name    string   `json:"name"`
	Space   string   `json:"space"` // namespace, "nodes" or "outside"
	Members []string `json:"members"`
}

type linkJSON struct {
	From     int     `json:"from"` // index of a group
	To       int     `json:"to"`
	Allowed  string  `json:"allowed"`            // in words; "" = nothing
	SameNode *string `json:"sameNode,omitempty"` // where pairs on one node are treated in another way
	Mixed    bool    `json:"mixed,omitempty"`    // pairs differ; --each tells them apart
}

func (c *connectivity) json() connectivityJSON {
	out := connectivityJSON{Pairs: c.pairs, AllPairs: c.all, Asked: c.asked, Notes: c.notes, Problems: c.problems, Links: []linkJSON{}}
	names := newNamer(c.ends)
	for i, g := range c.groups {
		out.Groups = append(out.Groups, groupJSON{g.name, g.space, names.each(c.members(g.units))})
		for j, l := range c.links[i] {
			if l.level == nothing {
				continue
			}
			lj := linkJSON{From: i, To: j, Allowed: l.allowed, Mixed: l.mixed}
			if l.differs {
				lj.SameNode = &l.own
			}
			out.Links = append(out.Links, lj)
		}
	}
	return out
}

// drawDot writes a graph in the language of Graphviz, with a box for each namespace.
func drawDot(w io.Writer, c *connectivity) error {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph connectivity {\n  label=%s; labelloc=t; rankdir=LR; fontname=\"sans-serif\";\n", dotString(c.title))
	b.WriteString("  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n")
	space := ""
	for i, g := range c.groups {
		if g.space != space {
			if space != "" {
				b.WriteString("  }\n")
			}
			space = g.space
			fmt.Fprintf(&b, "  subgraph %s {\n    label=%s; style=rounded; bgcolor=\"#f4f6f8\"; color=\"#c8d0d8\";\n", dotString("cluster_"+space), dotString(space))
		}
		fmt.Fprintf(&b, "    g%d [label=%s];\n", i, dotString(g.name))
	}
	if space != "" {
		b.WriteString("  }\n")
	}
	for i, row := range c.links {
		for j, l := range row {
			switch l.level {
			case all:
				fmt.Fprintf(&b, "  g%d -> g%d [color=\"#1a7f5a\", label=%s];\n", i, j, dotString(l.text()))
			case some:
				fmt.Fprintf(&b, "  g%d -> g%d [color=\"#b7791f\", label=%s];\n", i, j, dotString(l.text()))
			}
		}
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func dotString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
