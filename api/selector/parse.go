package selector

import (
	"fmt"
	"strings"
)

const (
	// MaxIdent is the length of the longest label name.
	MaxIdent = 512
	// MaxDepth is how deep parentheses, and the nodes of the tree, may be nested.
	MaxDepth = 100
)

// SyntaxError says where a selector can't be read.
type SyntaxError struct {
	Selector string
	Pos      int    // byte offset into Selector, from 0
	Expected string // what should stand there
}

// Error names the place by the number of the character, from 1, and shows what is there.
func (e *SyntaxError) Error() string {
	found := "the end"
	if rest := e.Selector[e.Pos:]; rest != "" {
		if len(rest) > 20 {
			rest = rest[:20] + "..."
		}
		found = fmt.Sprintf("%q", rest)
	}
	return fmt.Sprintf("selector, character %d: expected %s, found %s", e.Pos+1, e.Expected, found)
}

// Parse reads a selector. An error is a *SyntaxError.
func Parse(s string) (*Selector, error) {
	p := parser{in: s}
	p.space()
	if p.pos == len(s) {
		return build(All{}), nil
	}
	t, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.pos != len(s) {
		return nil, p.expected("&&, || or the end")
	}
	return build(t.node), nil
}

// parser reads from in at pos. Each method that reads a token leaves pos behind the blanks after it.
type parser struct {
	in     string
	pos    int
	parens int
}

// tree is a node and how many nodes are below it on the longest path.
//
// MaxDepth bounds the parentheses and this height alike. The canonical form of a tree has no more parentheses on a
// path than the tree has nodes, so what was accepted once is accepted in its canonical form.
type tree struct {
	node   Node
	height int
}

func (p *parser) expected(what string) error {
	return &SyntaxError{Selector: p.in, Pos: p.pos, Expected: what}
}

func (p *parser) space() {
	for p.pos < len(p.in) && (p.in[p.pos] == ' ' || p.in[p.pos] == '\t') {
		p.pos++
	}
}

// token reads s, if it is next.
func (p *parser) token(s string) bool {
	if !strings.HasPrefix(p.in[p.pos:], s) {
		return false
	}
	p.pos += len(s)
	p.space()
	return true
}

// words reads words with any blanks or none between them and no letter after them, if they are next.
func (p *parser) words(words ...string) bool {
	start := p.pos
	for i, w := range words {
		if i > 0 {
			p.space()
		}
		if !strings.HasPrefix(p.in[p.pos:], w) {
			p.pos = start
			return false
		}
		p.pos += len(w)
	}
	if p.pos < len(p.in) && isWord(p.in[p.pos]) {
		p.pos = start
		return false
	}
	p.space()
	return true
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

func isIdent(c byte) bool { return isWord(c) || c == '.' || c == '/' || c == '-' }

func (p *parser) or() (tree, error) {
	return p.list("||", p.and, func(of []Node) Node { return Or{of} })
}

func (p *parser) and() (tree, error) {
	return p.list("&&", p.not, func(of []Node) Node { return And{of} })
}

// list reads one or more items with op between them.
func (p *parser) list(op string, item func() (tree, error), join func([]Node) Node) (tree, error) {
	first, err := item()
	if err != nil || !strings.HasPrefix(p.in[p.pos:], op) {
		return first, err
	}
	start := p.pos
	nodes, height := []Node{first.node}, first.height
	for p.token(op) {
		t, err := item()
		if err != nil {
			return tree{}, err
		}
		nodes = append(nodes, t.node)
		height = max(height, t.height)
	}
	return p.above(join(nodes), height, start)
}

// above returns the tree of a node over a subtree of the given height.
func (p *parser) above(n Node, height, at int) (tree, error) {
	if height >= MaxDepth {
		p.pos = at
		return tree{}, p.expected(fmt.Sprintf("at most %d levels of nesting", MaxDepth))
	}
	return tree{n, height + 1}, nil
}

func (p *parser) not() (tree, error) {
	start, negate := p.pos, false
	for p.token("!") {
		negate = !negate
	}
	t, err := p.prim()
	if err != nil || !negate {
		return t, err
	}
	if n, ok := t.node.(Not); ok { // "!(!a)"
		return tree{n.Of, t.height - 1}, nil
	}
	return p.above(Not{t.node}, t.height, start)
}

func (p *parser) prim() (tree, error) {
	if p.pos < len(p.in) && p.in[p.pos] == '(' {
		return p.paren()
	}
	if p.pos == len(p.in) || !isIdent(p.in[p.pos]) {
		return tree{}, p.expected("a label name, has(), all(), global() or a parenthesis")
	}
	var n Node
	var err error
	switch {
	case p.token("all("):
		n, err = All{}, p.closing()
	case p.token("global("):
		n, err = Global{}, p.closing()
	case p.token("has("):
		var label string
		if label, err = p.ident(); err == nil {
			n, err = Has{label}, p.closing()
		}
	default:
		n, err = p.comparison()
	}
	return tree{node: n}, err
}

func (p *parser) paren() (tree, error) {
	if p.parens == MaxDepth {
		return tree{}, p.expected(fmt.Sprintf("at most %d levels of parentheses", MaxDepth))
	}
	p.parens++
	p.token("(")
	t, err := p.or()
	if err != nil {
		return tree{}, err
	}
	p.parens--
	if !p.token(")") {
		return tree{}, p.expected("&&, || or )")
	}
	return t, nil
}

func (p *parser) closing() error {
	if !p.token(")") {
		return p.expected(")")
	}
	return nil
}

func (p *parser) ident() (string, error) {
	end := p.pos
	for end < len(p.in) && isIdent(p.in[end]) {
		end++
	}
	s := p.in[p.pos:end]
	switch {
	case s == "":
		return "", p.expected("a label name")
	case len(s) > MaxIdent:
		return "", p.expected(fmt.Sprintf("a label name of at most %d characters", MaxIdent))
	}
	p.pos = end
	p.space()
	return s, nil
}

func (p *parser) comparison() (Node, error) {
	label, err := p.ident()
	if err != nil {
		return nil, err
	}
	var with func(value string) Node
	switch {
	case p.token("=="):
		with = func(v string) Node { return Eq{label, v} }
	case p.token("!="):
		with = func(v string) Node { return NotEq{label, v} }
	case p.words("contains"):
		with = func(v string) Node { return Contains{label, v} }
	case p.words("starts", "with"):
		with = func(v string) Node { return StartsWith{label, v} }
	case p.words("ends", "with"):
		with = func(v string) Node { return EndsWith{label, v} }
	case p.words("in"):
		values, err := p.set()
		return In{label, values}, err
	case p.words("not", "in"):
		values, err := p.set()
		return NotIn{label, values}, err
	default:
		return nil, p.expected("==, !=, in, not in, contains, starts with or ends with")
	}
	value, err := p.str()
	if err != nil {
		return nil, err
	}
	return with(value), nil
}

func (p *parser) set() ([]string, error) {
	if !p.token("{") {
		return nil, p.expected("{")
	}
	values := []string{}
	for !p.token("}") {
		v, err := p.str()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		if !p.token(",") && !strings.HasPrefix(p.in[p.pos:], "}") {
			return nil, p.expected(`"," or }`)
		}
	}
	return sortedSet(values), nil
}

func (p *parser) str() (string, error) {
	if p.pos == len(p.in) || p.in[p.pos] != '"' && p.in[p.pos] != '\'' {
		return "", p.expected("a string in quotes")
	}
	body := p.in[p.pos+1:]
	end := strings.IndexByte(body, p.in[p.pos])
	if end < 0 {
		return "", p.expected("a string with an ending quote")
	}
	p.pos += end + 2
	p.space()
	return body[:end], nil
}
