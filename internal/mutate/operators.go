package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// edit replaces a part of a file.
type edit struct {
	from, to int
	text     string
}

// mutant is one mistake in one function.
type mutant struct {
	ID     int // what the environment says; from 1, within one target
	File   string
	Func   string // with the type of its receiver
	Line   int
	What   string // "== -> !=: a == b"; with "#2" and so on if the function has it more than once
	edit   edit
	source *function
}

// Name identifies a mutant as long as its function has the expression.
func (m *mutant) Name() string { return m.File + " " + m.Func + " " + m.What }

// function is one function of a file.
type function struct {
	file *sourceFile
	decl *ast.FuncDecl
	name string
}

// sourceFile is a parsed file.
type sourceFile struct {
	path string // as in mutants
	text []byte
	fset *token.FileSet
	ast  *ast.File

	zeros map[string]bool // constants of the package that are 0
}

// zeroConstants adds the constants of a file that are 0: those that begin a list with iota, or say so.
func (f *sourceFile) zeroConstants(to map[string]bool) {
	for _, d := range f.ast.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for i, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			for j, name := range v.Names {
				if j >= len(v.Values) {
					break
				}
				id, isIdent := v.Values[j].(*ast.Ident)
				lit, isLit := v.Values[j].(*ast.BasicLit)
				if isIdent && id.Name == "iota" && i == 0 || isLit && lit.Value == "0" {
					to[name.Name] = true
				}
			}
		}
	}
}

func parse(path string, text []byte) (*sourceFile, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	return &sourceFile{path: path, text: text, fset: fset, ast: f}, nil
}

func (f *sourceFile) at(p token.Pos) int { return f.fset.Position(p).Offset }

func (f *sourceFile) src(n ast.Node) string { return string(f.text[f.at(n.Pos()):f.at(n.End())]) }

// mutants makes every mistake that we know in every function of a file.
func (f *sourceFile) mutants() []*mutant {
	var all []*mutant
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil || fn.Name.Name == "init" || fn.Name.Name == "main" || fn.Name.Name == "_" {
			continue
		}
		m := &maker{function: &function{file: f, decl: fn, name: funcName(f, fn)}, seen: map[string]int{}}
		m.walk(fn.Body, fn.Type.Results)
		all = append(all, m.made...)
	}
	return all
}

func funcName(f *sourceFile, fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	t := strings.TrimPrefix(f.src(fn.Recv.List[0].Type), "*")
	t, _, _ = strings.Cut(t, "[")
	return t + "." + fn.Name.Name
}

// maker makes the mutants of one function.
type maker struct {
	*function
	made []*mutant
	seen map[string]int
}

func (m *maker) replace(n ast.Node, what, text string) {
	m.put(n, what, edit{m.file.at(n.Pos()), m.file.at(n.End()), text})
}

// put notes a mutant; what it says of n is on one line.
func (m *maker) put(n ast.Node, what string, e edit) {
	shown := strings.Join(strings.Fields(m.file.src(n)), " ")
	if len(shown) > 90 {
		shown = shown[:60] + " ... " + shown[len(shown)-25:]
	}
	what += ": " + shown
	if m.seen[what]++; m.seen[what] > 1 {
		what += fmt.Sprintf(" #%d", m.seen[what])
	}
	m.made = append(m.made, &mutant{
		File: m.file.path, Func: m.name, Line: m.file.fset.Position(n.Pos()).Line, What: what, edit: e, source: m.function,
	})
}

// walk goes through a body whose returns give results.
func (m *maker) walk(body ast.Node, results *ast.FieldList) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			m.walk(n.Body, n.Type.Results)
			return false
		case *ast.BlockStmt:
			m.statements(n.List)
		case *ast.CaseClause:
			m.clause(n)
		case *ast.CommClause:
			m.statements(n.Body)
		case *ast.IfStmt:
			m.condition(n.Cond)
		case *ast.BinaryExpr:
			m.binary(n)
		case *ast.UnaryExpr:
			if n.Op == token.NOT {
				m.replace(n, "without !", m.file.src(n.X))
			}
		case *ast.ReturnStmt:
			m.result(n, results)
		case *ast.BranchStmt:
			m.branch(n)
		case *ast.IncDecStmt:
			m.put(n, map[token.Token]string{token.INC: "++ -> --", token.DEC: "-- -> ++"}[n.Tok],
				edit{m.file.at(n.TokPos), m.file.at(n.TokPos) + 2, map[token.Token]string{token.INC: "--", token.DEC: "++"}[n.Tok]})
		case *ast.CompositeLit:
			m.elements(n)
		case *ast.CallExpr:
			return m.call(n)
		case *ast.BasicLit:
			m.number(n)
		case *ast.Ident:
			if n.Name == "true" || n.Name == "false" {
				m.replace(n, "turned round", map[string]string{"true": "false", "false": "true"}[n.Name])
			}
		case *ast.KeyValueExpr:
			// Comments are for people.
			if id, ok := n.Key.(*ast.Ident); ok && id.Name == "Comment" {
				return false
			}
		}
		return true
	})
}

// statements leaves out each statement that can be left out.
func (m *maker) statements(list []ast.Stmt) {
	for _, s := range list {
		what := ""
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				what = "left out"
			}
		case *ast.ExprStmt:
			if c, ok := s.X.(*ast.CallExpr); ok {
				if id, ok := c.Fun.(*ast.Ident); ok && id.Name == "panic" {
					continue // it says that this cannot be
				}
			}
			what = "left out"
		case *ast.IncDecStmt, *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt, *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt,
			*ast.TypeSwitchStmt, *ast.BranchStmt:
			what = "left out"
		case *ast.ReturnStmt:
			if len(s.Results) == 0 {
				what = "left out"
			}
		}
		if what != "" {
			m.replace(s, what, "if false { "+m.file.src(s)+" }")
		}
	}
}

// clause leaves out a case, and turns conditions of one round.
func (m *maker) clause(c *ast.CaseClause) {
	m.statements(c.Body)
	from, to := m.file.at(c.Pos()), m.file.at(c.End())
	m.put(head{c}, "without case", edit{from, to, ""})
	for _, x := range c.List {
		m.condition(x)
	}
}

// head is a case clause without what it does.
type head struct{ *ast.CaseClause }

func (h head) End() token.Pos { return h.Colon }

// condition is negated, unless an operator of its own says so already. What is no condition does not compile.
func (m *maker) condition(x ast.Expr) {
	if b, ok := x.(*ast.BinaryExpr); ok && (b.Op == token.EQL || b.Op == token.NEQ) {
		return
	}
	if u, ok := x.(*ast.UnaryExpr); ok && u.Op == token.NOT {
		return
	}
	m.replace(x, "negated", "!("+m.file.src(x)+")")
}

var swaps = map[token.Token]string{
	token.EQL: "!=", token.NEQ: "==", token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">", token.LAND: "||",
	token.LOR: "&&", token.ADD: "-", token.SUB: "+", token.MUL: "/", token.QUO: "*", token.AND: "|", token.OR: "&", token.SHL: ">>",
	token.SHR: "<<", token.REM: "*", token.XOR: "|", token.AND_NOT: "&",
}

func (m *maker) binary(b *ast.BinaryExpr) {
	to, ok := swaps[b.Op]
	if !ok || b.Op == token.ADD && (isString(b.X) || isString(b.Y)) {
		return
	}
	at := m.file.at(b.OpPos)
	m.put(b, b.Op.String()+" -> "+to, edit{at, at + len(b.Op.String()), to})
	if b.Op == token.LAND || b.Op == token.LOR {
		m.put(b, "left side only", edit{m.file.at(b.X.End()), m.file.at(b.End()), ""})
		m.put(b, "right side only", edit{m.file.at(b.Pos()), m.file.at(b.Y.Pos()), ""})
	}
}

func isString(x ast.Expr) bool {
	if b, ok := x.(*ast.BinaryExpr); ok {
		return isString(b.X) || isString(b.Y)
	}
	l, ok := x.(*ast.BasicLit)
	return ok && l.Kind == token.STRING
}

// result returns zero values.
func (m *maker) result(r *ast.ReturnStmt, results *ast.FieldList) {
	if len(r.Results) == 0 || results == nil {
		return
	}
	zero := true
	for _, x := range r.Results {
		switch x := x.(type) {
		case *ast.Ident:
			zero = zero && (x.Name == "nil" || x.Name == "false" || m.file.zeros[x.Name])
		case *ast.BasicLit:
			zero = zero && (x.Value == "0" || x.Value == `""`)
		case *ast.CompositeLit:
			zero = zero && len(x.Elts) == 0
		default:
			zero = false
		}
	}
	if zero {
		return
	}
	var zs []string
	for _, f := range results.List {
		for range max(1, len(f.Names)) {
			zs = append(zs, "*new("+m.file.src(f.Type)+")")
		}
	}
	if len(zs) == 1 && len(r.Results) == 1 {
		if id, ok := r.Results[0].(*ast.Ident); ok && id.Name == "true" {
			return // turned round already
		}
	}
	m.replace(r, "returns zero", "return "+strings.Join(zs, ", "))
}

func (m *maker) branch(b *ast.BranchStmt) {
	switch {
	case b.Label != nil:
	case b.Tok == token.CONTINUE:
		m.replace(b, "continue -> break", "break")
	case b.Tok == token.BREAK:
		m.replace(b, "break -> continue", "continue")
	}
}

// elements leaves out each element of a literal, save fields of a struct that have their zero value.
func (m *maker) elements(c *ast.CompositeLit) {
	_, isMap := c.Type.(*ast.MapType)
	for i, x := range c.Elts {
		if kv, ok := x.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok && id.Name == "Comment" {
				continue
			}
			if id, ok := kv.Value.(*ast.Ident); ok && !isMap && (m.file.zeros[id.Name] || id.Name == "nil" || id.Name == "false") {
				continue
			}
		}
		m.put(x, "without element", m.without(c.Elts, i))
	}
}

// without takes element i out of a list, with its comma.
func (m *maker) without(list []ast.Expr, i int) edit {
	from, to := m.file.at(list[i].Pos()), m.file.at(list[i].End())
	if i+1 < len(list) {
		to = m.file.at(list[i+1].Pos())
	} else if i > 0 {
		from = m.file.at(list[i-1].End())
	}
	return edit{from, to, ""}
}

// call leaves out arguments of append, and swaps neighbours. It reports whether to look into the call.
func (m *maker) call(c *ast.CallExpr) bool {
	id, _ := c.Fun.(*ast.Ident)
	switch {
	case id != nil && (id.Name == "make" || id.Name == "panic"):
		return false // sizes are hints
	case id != nil && (id.Name == "min" || id.Name == "max"):
		return true // whatever the order
	case id != nil && id.Name == "append":
		for i := 1; i < len(c.Args); i++ {
			e := m.without(c.Args, i)
			if c.Ellipsis.IsValid() && i == len(c.Args)-1 {
				e.to = m.file.at(c.Rparen)
			}
			m.put(c.Args[i], "not appended", e)
		}
		return true
	}
	for i := 0; i+1 < len(c.Args); i++ {
		a, b := c.Args[i], c.Args[i+1]
		if x, y := m.file.src(a), m.file.src(b); x != y && !(c.Ellipsis.IsValid() && i+2 == len(c.Args)) {
			m.put(c, fmt.Sprintf("arguments %d and %d swapped", i+1, i+2), edit{
				m.file.at(a.Pos()), m.file.at(b.End()), y + string(m.file.text[m.file.at(a.End()):m.file.at(b.Pos())]) + x,
			})
		}
	}
	return true
}

func (m *maker) number(l *ast.BasicLit) {
	if l.Kind != token.INT {
		return
	}
	if n, err := strconv.ParseInt(l.Value, 0, 64); err == nil {
		m.replace(l, fmt.Sprintf("%d -> %d", n, n+1), strconv.FormatInt(n+1, 10))
	}
}
