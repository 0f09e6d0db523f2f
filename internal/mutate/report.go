package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// floor is the share of mutants that must be killed, in percent.
const floor = 95

//go:embed testdata/reasons.txt
var reasonsText string

// parseReasons reads why mutants may survive: a line with the reason, then, indented, the names of those it is about.
func parseReasons(text string) (map[string]string, error) {
	reasons := map[string]string{}
	reason := ""
	for i, line := range strings.Split(text, "\n") {
		name, indented := strings.CutPrefix(line, "\t")
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case !indented:
			reason = line
		case reason == "":
			return nil, fmt.Errorf("reasons, line %d: there is no reason before it", i+1)
		case reasons[name] != "":
			return nil, fmt.Errorf("reasons, line %d: there are two reasons for %s", i+1, name)
		default:
			reasons[name] = reason
		}
	}
	return reasons, nil
}

// score is what became of the mutants of one file.
type score struct {
	file               string
	all, run, survived int
}

// percent of what has been run is killed.
func (s score) percent() float64 { return 100 * float64(s.run-s.survived) / float64(max(1, s.run)) }

// tally counts results, file by file, and returns the survivors.
func tally(ms []*mutant, rs *results) ([]score, []*mutant) {
	of := map[string]*score{}
	var left []*mutant
	for _, m := range ms {
		s := of[m.File]
		if s == nil {
			s = &score{file: m.File}
			of[m.File] = s
		}
		s.all++
		if run, killed := rs.outcome(m); run {
			if s.run++; !killed {
				s.survived++
				left = append(left, m)
			}
		}
	}
	var scores []score
	for _, f := range slices.Sorted(maps.Keys(of)) {
		scores = append(scores, *of[f])
	}
	return scores, left
}

// sum adds scores up.
func sum(name string, scores []score) score {
	all := score{file: name}
	for _, s := range scores {
		all.all, all.run, all.survived = all.all+s.all, all.run+s.run, all.survived+s.survived
	}
	return all
}

const introduction = `# Mutation testing

` + "`make mutate`" + ` makes small mistakes in the code that decides what becomes of a packet, one at a time: it turns a condition
round, swaps an operator or two arguments, leaves out a statement, a case or an element of a literal, returns zero, is off
by one. For each it runs the tests that have to notice. This page is its report: do not edit it. What is mutated, and which
tests judge it, is in [internal/mutate](../internal/mutate/doc.go).

A mutant that survives is a gap in the tests, or changes nothing that matters; the reasons are in
` + "`internal/mutate/testdata/reasons.txt`" + `, and a reason that has become stale fails a test.

`

// report writes docs/mutation.md. It returns what is wrong: a score below the floor, survivors without a reason.
func report(parts map[string][]*mutant, order []string, rs *results, reasons map[string]string) ([]byte, []string) {
	var b bytes.Buffer
	var wrong []string
	b.WriteString(introduction)
	b.WriteString("| file | mutants | run | killed | score |\n|---|---:|---:|---:|---:|\n")
	left := map[string][]*mutant{}
	for _, name := range order {
		var scores []score
		scores, left[name] = tally(parts[name], rs)
		for _, s := range scores {
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %.1f%% |\n", s.file, s.all, s.run, s.run-s.survived, s.percent())
		}
		all := sum(name, scores)
		fmt.Fprintf(&b, "| **%s** | **%d** | **%d** | **%d** | **%.1f%%** |\n", name, all.all, all.run, all.run-all.survived, all.percent())
		if all.percent() < floor {
			wrong = append(wrong, fmt.Sprintf("%s: %.1f%% are killed, want %d%%", name, all.percent(), floor))
		}
		if all.run < all.all {
			wrong = append(wrong, fmt.Sprintf("%s: %d mutants have not been run", name, all.all-all.run))
		}
	}
	b.WriteString("\n## Survivors\n")
	for _, name := range order {
		fmt.Fprintf(&b, "\n### %s\n", name)
		by := map[string][]*mutant{}
		for _, m := range left[name] {
			why := reasons[m.Name()]
			if why == "" {
				why = "No reason is known."
				wrong = append(wrong, fmt.Sprintf("%s:%d: no test notices: %s %s", m.File, m.Line, m.Func, m.What))
			}
			by[why] = append(by[why], m)
		}
		for _, why := range slices.Sorted(maps.Keys(by)) {
			fmt.Fprintf(&b, "\n%s\n\n", why)
			for _, m := range by[why] {
				fmt.Fprintf(&b, "- %s, %s, ``%s``\n", filepath.Base(m.File), m.Func, m.What)
			}
		}
		if len(left[name]) == 0 {
			b.WriteString("\nNone.\n")
		}
	}
	return b.Bytes(), wrong
}
