package selector

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t testing.TB, s string) *Selector {
	t.Helper()
	sel, err := Parse(s)
	if err != nil {
		t.Fatalf("Parse(%q): %v", s, err)
	}
	return sel
}

var canonicalCases = []struct{ in, want string }{
	{"", `all()`},
	{" \t ", `all()`},
	{"all()", `all()`},
	{"all( )", `all()`},
	{"\tglobal()  ", `global()`},
	{"has(a)", `has(a)`},
	{"has( a\t)", `has(a)`},
	{"has(projectcalico.org/name-1_x)", `has(projectcalico.org/name-1_x)`},
	{`a=='b'`, `a == "b"`},
	{`a == ""`, `a == ""`},
	{`a != "it's"`, `a != "it's"`},
	{`a == 'say "x"'`, `a == 'say "x"'`},
	{`a == "\n"`, `a == "\n"`},
	{`a contains 'b'`, `a contains "b"`},
	{`a contains"b"`, `a contains "b"`},
	{`a starts with 'b'`, `a starts with "b"`},
	{`a startswith'b'`, `a starts with "b"`},
	{"a starts \t with 'b'", `a starts with "b"`},
	{`a ends with 'b'`, `a ends with "b"`},
	{`a endswith 'b'`, `a ends with "b"`},
	{`a in {'c', "b" ,'c'}`, `a in {"b", "c"}`},
	{`a in{'b',}`, `a in {"b"}`},
	{`a in {}`, `a in {}`},
	{`a in { }`, `a in {}`},
	{`a not in {"x"}`, `a not in {"x"}`},
	{`a notin{"x"}`, `a not in {"x"}`},
	{`a not in {}`, `a not in {}`},
	{`in in {"in"}`, `in in {"in"}`},
	{`all == 'x'`, `all == "x"`},
	{`has != 'x'`, `has != "x"`},
	{`contains contains 'x'`, `contains contains "x"`},
	{`has(has)`, `has(has)`},
	{`a.b/c-d == 'x'`, `a.b/c-d == "x"`},
	{`!has(a)`, `!has(a)`},
	{`! ! has(a)`, `has(a)`},
	{`!!!has(a)`, `!has(a)`},
	{`!(!has(a))`, `has(a)`},
	{`!(!(has(a) && has(b)))`, `has(a) && has(b)`},
	{`!(((!(has(a)))))`, `has(a)`},
	{`!a == 'x'`, `!a == "x"`},
	{`!(a == 'x')`, `!a == "x"`},
	{`!a == 'x' && b == 'y'`, `!a == "x" && b == "y"`},
	{`!(a == 'x' && b == 'y')`, `!(a == "x" && b == "y")`},
	{`a == 'x' && b == 'y' || has(c)`, `(a == "x" && b == "y") || has(c)`},
	{`a == 'x' && (b == 'y' || has(c))`, `a == "x" && (b == "y" || has(c))`},
	{`has(a)||has(b)||has(c)&&has(d)`, `has(a) || has(b) || (has(c) && has(d))`},
	{`(has(a) && has(b)) && has(c)`, `(has(a) && has(b)) && has(c)`},
	{`((has(a)))`, `has(a)`},
	{`(all())`, `all()`},
}

func TestCanonicalForm(t *testing.T) {
	for _, c := range canonicalCases {
		s := mustParse(t, c.in)
		if s.String() != c.want {
			t.Errorf("Parse(%q) prints %s, want %s", c.in, s, c.want)
		}
		again := mustParse(t, s.String())
		if diff := cmp.Diff(s.Root(), again.Root()); diff != "" {
			t.Errorf("Parse(%q) reads back as another tree:\n%s", s, diff)
		}
	}
}

// The ids are part of what a user may see in a dataplane and must not change between releases.
func TestID(t *testing.T) {
	for in, want := range map[string]string{
		"":           "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug",
		"a == 'b'":   "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ",
		`a  == "b" `: "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ",
	} {
		if got := mustParse(t, in).ID(); got != want {
			t.Errorf("ID of %q = %s, want %s", in, got, want)
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, c := range []struct {
		in, want string
	}{
		{`a`, `selector, character 2: expected ==, !=, in, not in, contains, starts with or ends with, found the end`},
		{`a = 'b'`, `selector, character 3: expected ==, !=, in, not in, contains, starts with or ends with, found "= 'b'"`},
		{`a == b`, `selector, character 6: expected a string in quotes, found "b"`},
		{`a == `, `selector, character 6: expected a string in quotes, found the end`},
		{`a == 'b`, `selector, character 6: expected a string with an ending quote, found "'b"`},
		{`a == 'b' c`, `selector, character 10: expected &&, || or the end, found "c"`},
		{`a == 'b' & c == 'd'`, `selector, character 10: expected &&, || or the end, found "& c == 'd'"`},
		{`a == 'b' &&`, `selector, character 12: expected a label name, has(), all(), global() or a parenthesis, found the end`},
		{`a == 'b' || || c == 'd'`, `selector, character 13: expected a label name, has(), all(), global() or a parenthesis, found "|| c == 'd'"`},
		{`(a == 'b'`, `selector, character 10: expected &&, || or ), found the end`},
		{`a == 'b')`, `selector, character 9: expected &&, || or the end, found ")"`},
		{`()`, `selector, character 2: expected a label name, has(), all(), global() or a parenthesis, found ")"`},
		{`!`, `selector, character 2: expected a label name, has(), all(), global() or a parenthesis, found the end`},
		{`has()`, `selector, character 5: expected a label name, found ")"`},
		{`has(a`, `selector, character 6: expected ), found the end`},
		{`has (a)`, `selector, character 5: expected ==, !=, in, not in, contains, starts with or ends with, found "(a)"`},
		{`all(x)`, `selector, character 5: expected ), found "x)"`},
		{`a in 'b'`, `selector, character 6: expected {, found "'b'"`},
		{`a in {b}`, `selector, character 7: expected a string in quotes, found "b}"`},
		{`a in {,}`, `selector, character 7: expected a string in quotes, found ",}"`},
		{`a in {'b' 'c'}`, `selector, character 11: expected "," or }, found "'c'}"`},
		{`a in {'b'`, `selector, character 10: expected "," or }, found the end`},
		{`a inx {'b'}`, `selector, character 3: expected ==, !=, in, not in, contains, starts with or ends with, found "inx {'b'}"`},
		{`a containsx 'b'`, `selector, character 3: expected ==, !=, in, not in, contains, starts with or ends with, found "containsx 'b'"`},
		{`a not 'b'`, `selector, character 3: expected ==, !=, in, not in, contains, starts with or ends with, found "not 'b'"`},
		{"a\n== 'b'", `selector, character 2: expected ==, !=, in, not in, contains, starts with or ends with, found "\n== 'b'"`},
		{`a == "it\"s"`, `selector, character 11: expected &&, || or the end, found "s\""`},
		{`ä == 'b'`, `selector, character 1: expected a label name, has(), all(), global() or a parenthesis, found "ä == 'b'"`},
		{`a == 'b' aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa`, `selector, character 10: expected &&, || or the end, found "aaaaaaaaaaaaaaaaaaaa..."`},
	} {
		_, err := Parse(c.in)
		if syntax := new(SyntaxError); !errors.As(err, &syntax) || err.Error() != c.want {
			t.Errorf("Parse(%q)\n got: %v\nwant: %s", c.in, err, c.want)
		}
	}
}

func TestLimits(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("(", n) + "has(a)" + strings.Repeat(")", n) }
	// Each round adds a pair of parentheses, and an Or above an And above a Not.
	deep := func(n int) string {
		return strings.Repeat("has(x) || has(b) && !(", n) + "has(a) || has(c)" + strings.Repeat(")", n)
	}
	for _, c := range []struct {
		name, in string
		ok       bool
	}{
		{"longest label", "has(" + strings.Repeat("x", 512) + ")", true},
		{"label too long", "has(" + strings.Repeat("x", 513) + ")", false},
		{"compared label too long", strings.Repeat("x", 513) + " == 'a'", false},
		{"most parentheses", nested(100), true},
		{"too many parentheses", nested(101), false},
		{"a million parentheses", strings.Repeat("(", 1e6), false},
		{"deepest tree", deep(33), true},
		{"tree too deep", deep(34), false},
		{"a million exclamation marks", strings.Repeat("!", 1e6) + "has(a)", true},
		{"a long list", strings.Repeat("has(a) && ", 1e4) + "has(b)", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Parse(c.in)
			if (err == nil) != c.ok {
				t.Fatalf("error %v, want ok = %v", err, c.ok)
			}
			if err != nil {
				return
			}
			if again := mustParse(t, s.String()); again.ID() != s.ID() {
				t.Error("the canonical form has another id")
			}
		})
	}
}

func TestMatches(t *testing.T) {
	labels := Map{"a": "one", "b": "two", "empty": "", "role/x": "web-front"}
	for s, want := range map[string]bool{
		`all()`:                             true,
		`global()`:                          true,
		`!all()`:                            false,
		`has(a)`:                            true,
		`has(empty)`:                        true,
		`has(none)`:                         false,
		`!has(none)`:                        true,
		`a == "one"`:                        true,
		`a == "ONE"`:                        false,
		`none == ""`:                        false,
		`empty == ""`:                       true,
		`a != "two"`:                        true,
		`a != "one"`:                        false,
		`none != "one"`:                     true,
		`role/x contains "b-f"`:             true,
		`role/x contains ""`:                true,
		`none contains ""`:                  false,
		`role/x starts with "web"`:          true,
		`role/x starts with "front"`:        false,
		`none starts with ""`:               false,
		`role/x ends with "front"`:          true,
		`role/x ends with "web"`:            false,
		`none ends with ""`:                 false,
		`a in {"one", "two"}`:               true,
		`a in {"three"}`:                    false,
		`a in {}`:                           false,
		`none in {"one"}`:                   false,
		`none in {}`:                        false,
		`a not in {"one"}`:                  false,
		`a not in {"three"}`:                true,
		`a not in {}`:                       true,
		`none not in {"one"}`:               true,
		`!a == "one" || b == "two"`:         true,
		`!(a == "one" || b == "two")`:       false,
		`!a == "x" && b == "two"`:           true,
		`has(none) && has(a) || has(b)`:     true,
		`has(none) && (has(a) || has(b))`:   false,
		`has(a) && has(b) && has(none)`:     false,
		`has(none) || none == "" || has(a)`: true,
	} {
		if got := mustParse(t, s).Matches(labels); got != want {
			t.Errorf("%s matches %v: %v", s, labels, got)
		}
	}
}

func TestMatchesAllocatesNothing(t *testing.T) {
	s := mustParse(t, `a in {"x", "one"} && !has(none) && (b starts with "t" || c ends with "x") && d != "x"`)
	labels := Map{"a": "one", "b": "two"}
	if n := testing.AllocsPerRun(100, func() { s.Matches(labels) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMentions(t *testing.T) {
	s := mustParse(t, `c == "x" && (!has(a) || b contains "x") && c in {"y"} && d not in {} && e != "" && f starts with "" && g ends with ""`)
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e", "f", "g"}, s.Mentions()); diff != "" {
		t.Error(diff)
	}
	if got := mustParse(t, "all()").Mentions(); len(got) != 0 {
		t.Errorf("all() mentions %v", got)
	}
}

func TestRestrictions(t *testing.T) {
	for s, want := range map[string]map[string]Restriction{
		`all()`:                {},
		`global()`:             {},
		`has(a)`:               {"a": {Present: true}},
		`!has(a)`:              {"a": {Absent: true}},
		`a == "x"`:             {"a": {Present: true, Values: []string{"x"}}},
		`!a == "x"`:            {},
		`a != "x"`:             {},
		`!a != "x"`:            {},
		`a contains "x"`:       {"a": {Present: true}},
		`a starts with "x"`:    {"a": {Present: true}},
		`a ends with "x"`:      {"a": {Present: true}},
		`a in {"y", "x"}`:      {"a": {Present: true, Values: []string{"x", "y"}}},
		`a in {}`:              {"a": {Present: true, Values: []string{}}},
		`a not in {"y"}`:       {},
		`has(a) && b == "x"`:   {"a": {Present: true}, "b": {Present: true, Values: []string{"x"}}},
		`has(a) && a == "x"`:   {"a": {Present: true, Values: []string{"x"}}},
		`a == "x" && a == "y"`: {"a": {Present: true, Values: []string{}}},
		`has(a) && !has(a)`:    {"a": {Present: true, Absent: true}},
		`has(a) || has(b)`:     {},
		`has(a) || a == "x"`:   {"a": {Present: true}},
		`a == "x" || a == "y"`: {"a": {Present: true, Values: []string{"x", "y"}}},
		`a == "x" || !has(a)`:  {},
		`!has(a) || !has(a)`:   {"a": {Absent: true}},
		`a == "x" || a in {}`:  {"a": {Present: true, Values: []string{"x"}}},
		`a in {} || a == "x"`:  {"a": {Present: true, Values: []string{"x"}}},
		`a in {} || b in {}`:   {"b": {Present: true, Values: []string{}}},
		`!(has(a) && has(b))`:  {},
		`a != "x" && has(b)`:   {"b": {Present: true}},
		`a == "x" && (b == "y" || b == "z" && has(c))`: {
			"a": {Present: true, Values: []string{"x"}}, "b": {Present: true, Values: []string{"y", "z"}}},
		`a in {"x", "y"} && a in {"y", "z"}`: {"a": {Present: true, Values: []string{"y"}}},
	} {
		got := mustParse(t, s).Restrictions()
		if got == nil {
			got = map[string]Restriction{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s, diff)
		}
	}
}

func TestNew(t *testing.T) {
	s, err := New(And{[]Node{Eq{"ns", "prod"}, In{"a", []string{"z", "b", "z"}}, NotIn{"b", nil}}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `ns == "prod" && a in {"b", "z"} && b not in {}`; s.String() != want {
		t.Errorf("prints %s, want %s", s, want)
	}
	if never, err := New(In{Label: "a"}); err != nil || never.Matches(Map{"a": ""}) || !impossible(never.Restrictions()) {
		t.Errorf("in with no values: %v, %v", never, err)
	}
	deep := Node(Has{"a"})
	for range 51 {
		deep = Not{And{[]Node{deep, All{}}}}
	}
	for name, n := range map[string]Node{
		"nil":             nil,
		"nil inside":      Not{},
		"empty label":     Has{},
		"space in label":  Eq{"a b", "x"},
		"long label":      Has{strings.Repeat("x", 513)},
		"both quotes":     Eq{"a", `'"`},
		"in, both quotes": In{"a", []string{"x", `'"`}},
		"one operand":     And{[]Node{Has{"a"}}},
		"bad operand":     Or{[]Node{Has{"a"}, Has{""}}},
		"double not":      Not{Not{Has{"a"}}},
		"too deep":        deep,
	} {
		if s, err := New(n); err == nil {
			t.Errorf("%s: took %v", name, s)
		}
	}
}

func TestRelabel(t *testing.T) {
	s := mustParse(t, `a == "1" && b != "1" && c contains "1" && d starts with "1" && e ends with "1" && (f in {"1"} || g not in {"1"}) && !has(h) && all()`)
	got, err := New(Relabel(s.Root(), func(l string) string { return "x." + l }))
	if err != nil {
		t.Fatal(err)
	}
	want := `x.a == "1" && x.b != "1" && x.c contains "1" && x.d starts with "1" && x.e ends with "1" && (x.f in {"1"} || x.g not in {"1"}) && !has(x.h) && all()`
	if got.String() != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if slices.ContainsFunc(s.Mentions(), func(l string) bool { return strings.HasPrefix(l, "x.") }) {
		t.Error("the selector itself was changed")
	}
}

// randomLabels gives labels that s is likely to tell apart.
func randomLabels(s *Selector, r *rand.Rand) Map {
	values := []string{"", "x"}
	Walk(s.Root(), func(n Node) {
		switch n := n.(type) {
		case Eq:
			values = append(values, n.Value)
		case NotEq:
			values = append(values, n.Value)
		case Contains:
			values = append(values, n.Value, "x"+n.Value+"x")
		case StartsWith:
			values = append(values, n.Value, n.Value+"x")
		case EndsWith:
			values = append(values, n.Value, "x"+n.Value)
		case In:
			values = append(values, n.Values...)
		case NotIn:
			values = append(values, n.Values...)
		}
	})
	m := Map{}
	for _, name := range s.Mentions() {
		if r.IntN(3) > 0 {
			m[name] = values[r.IntN(len(values))]
		}
	}
	return m
}

func FuzzParse(f *testing.F) {
	for _, c := range canonicalCases {
		f.Add(c.in, uint64(1))
	}
	for _, s := range []string{`a == 'b' &&`, `((`, `a in {`, `!`, `has(`, "a\x00", `a == '"' || b == "'"`, `a not in {"x",'y',} || !!c notin {}`} {
		f.Add(s, uint64(2))
	}
	f.Fuzz(func(t *testing.T, in string, seed uint64) {
		s, err := Parse(in)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Pos < 0 || syntax.Pos > len(in) {
				t.Fatalf("Parse(%q): odd error %v", in, err)
			}
			_ = err.Error()
			return
		}
		again, err := Parse(s.String())
		if err != nil {
			t.Fatalf("Parse(%q) prints %q, which Parse refuses: %v", in, s, err)
		}
		if again.String() != s.String() || again.ID() != s.ID() {
			t.Fatalf("%q: canonical %q, then %q", in, s, again)
		}
		built, err := New(s.Root())
		if err != nil || built.ID() != s.ID() {
			t.Fatalf("%q: New of its tree gives %v, %v", in, built, err)
		}
		r := rand.New(rand.NewPCG(seed, 1))
		restrictions := s.Restrictions()
		for range 8 {
			labels := randomLabels(s, r)
			match := s.Matches(labels)
			if again.Matches(labels) != match {
				t.Fatalf("%q and %q differ about %v", in, s, labels)
			}
			for name, restriction := range restrictions {
				value, ok := labels[name]
				if match && !restriction.Allows(value, ok) {
					t.Fatalf("%q matches %v in spite of restriction %+v of %s", in, labels, restriction, name)
				}
			}
		}
	})
}

const typical = `(app == "web" && env in {"prod", "test"} && !has(legacy)) && projectcalico.org/namespace == "shop"`

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(typical); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	s := mustParse(b, typical)
	labels := Map{"app": "web", "env": "prod", "projectcalico.org/namespace": "shop", "x": "y"}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Matches(labels) {
			b.Fatal("no match")
		}
	}
}
