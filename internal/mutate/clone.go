package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// variable is the environment variable that says which mutant runs.
const variable = "TORTIE_MUTANT"

// runtimeSource is the file that an overlay adds to a mutated package.
const runtimeSource = `package %s

import (
	"os"
	"strconv"
)

var tortieMutant, _ = strconv.Atoi(os.Getenv("` + variable + `"))
`

// cloned is a file with its mutants in it.
type cloned struct {
	text  []byte
	lines map[int]int // line -> ID of the mutant that is there
}

// clone writes f anew: each mutated function begins with the question which of its copies is to run, and the copies are at
// the end. Lines of the original stay where they are.
func (f *sourceFile) clone(ms []*mutant) cloned {
	of := map[*function][]*mutant{}
	var fns []*function
	for _, m := range ms {
		if of[m.source] == nil {
			fns = append(fns, m.source)
		}
		of[m.source] = append(of[m.source], m)
	}
	var edits []edit
	for _, fn := range fns {
		edits = append(edits, fn.dispatch(of[fn])...)
	}
	out := cloned{text: apply(f.text, 0, len(f.text), edits), lines: map[int]int{}}
	line := 1 + bytes.Count(out.text, []byte("\n"))
	for _, m := range ms {
		text := append(m.source.copy(m), '\n')
		for range bytes.Count(text, []byte("\n")) {
			out.lines[line] = m.ID
			line++
		}
		out.text = append(out.text, text...)
	}
	return out
}

// apply makes edits, which are in no order and do not overlap, in text[from:to].
func apply(text []byte, from, to int, edits []edit) []byte {
	edits = slices.Clone(edits)
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	var out []byte
	at := from
	for _, e := range edits {
		out = append(append(out, text[at:e.from]...), e.text...)
		at = e.to
	}
	return append(out, text[at:to]...)
}

// copy is the function with a mistake, under another name.
func (fn *function) copy(m *mutant) []byte {
	f, d := fn.file, fn.decl
	name := edit{f.at(d.Name.End()), f.at(d.Name.End()), fmt.Sprintf("_m%d", m.ID)}
	return apply(f.text, f.at(d.Pos()), f.at(d.End()), []edit{name, m.edit})
}

// dispatch are the edits that make a function call one of its copies. Parameters without names get some.
func (fn *function) dispatch(ms []*mutant) []edit {
	var edits []edit
	args := fn.names(fn.decl.Type.Params, "p", &edits)
	call := ""
	if fn.decl.Recv != nil {
		call = fn.names(fn.decl.Recv, "recv", &edits)[0] + "."
	}
	call += fn.decl.Name.Name
	types := ""
	if tp := fn.decl.Type.TypeParams; tp != nil {
		types = "[" + strings.Join(fn.names(tp, "T", &edits), ", ") + "]"
	}
	var b strings.Builder
	b.WriteString(" switch tortieMutant {")
	for _, m := range ms {
		how, end := "return ", ""
		if fn.decl.Type.Results == nil || len(fn.decl.Type.Results.List) == 0 {
			how, end = "", "; return"
		}
		fmt.Fprintf(&b, " case %d: %s%s_m%d%s(%s)%s;", m.ID, how, call, m.ID, types, strings.Join(args, ", "), end)
	}
	b.WriteString(" };")
	at := fn.file.at(fn.decl.Body.Lbrace) + 1
	return append(edits, edit{at, at, b.String()})
}

// names are those of parameters, as a call passes them on.
func (fn *function) names(fields *ast.FieldList, prefix string, edits *[]edit) []string {
	var names []string
	for i, p := range fields.List {
		_, variadic := p.Type.(*ast.Ellipsis)
		dots := map[bool]string{true: "..."}[variadic]
		if len(p.Names) == 0 {
			name := fmt.Sprintf("%s%d", prefix, i)
			at := fn.file.at(p.Type.Pos())
			*edits = append(*edits, edit{at, at, name + " "})
			names = append(names, name+dots)
		}
		for j, id := range p.Names {
			name := id.Name
			if name == "_" {
				name = fmt.Sprintf("%s%d%d", prefix, i, j)
				*edits = append(*edits, edit{fn.file.at(id.Pos()), fn.file.at(id.End()), name})
			}
			names = append(names, name+dots)
		}
	}
	return names
}
