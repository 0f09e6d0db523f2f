package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `package p

type t[K comparable] struct{ k K }

const none = iota

func (x *t[K]) f(_ int, more ...int) (bool, error) {
	if len(more) > 3 && x != nil {
		return true, nil
	}
	for _, m := range more {
		switch {
		case m == 1:
			continue
		default:
			g[int](m, 2)
		}
	}
	return false, nil
}

func g[T any](a, b T) { h = append(h, 1) }

var h []int

func zero() int { return none }
`

func sampleMutants(t *testing.T) (*sourceFile, []*mutant) {
	t.Helper()
	f, err := parse("p/p.go", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	f.zeros = map[string]bool{}
	f.zeroConstants(f.zeros)
	ms := f.mutants()
	for i, m := range ms {
		m.ID = i + 1
	}
	return f, ms
}

func TestMutants(t *testing.T) {
	_, ms := sampleMutants(t)
	var got []string
	for _, m := range ms {
		got = append(got, m.Func+" "+m.What)
	}
	want := []string{
		"t.f left out: if len(more) > 3 && x != nil { return true, nil }",
		"t.f left out: for _, m := range more { switch { case m == 1: continue default: g[int](m, 2) } }",
		"t.f negated: len(more) > 3 && x != nil",
		"t.f && -> ||: len(more) > 3 && x != nil",
		"t.f left side only: len(more) > 3 && x != nil",
		"t.f right side only: len(more) > 3 && x != nil",
		"t.f > -> >=: len(more) > 3",
		"t.f 3 -> 4: 3",
		"t.f != -> ==: x != nil",
		"t.f returns zero: return true, nil",
		"t.f turned round: true",
		"t.f left out: switch { case m == 1: continue default: g[int](m, 2) }",
		"t.f left out: continue",
		"t.f without case: case m == 1",
		"t.f == -> !=: m == 1",
		"t.f 1 -> 2: 1",
		"t.f continue -> break: continue",
		"t.f left out: g[int](m, 2)",
		"t.f without case: default",
		"t.f arguments 1 and 2 swapped: g[int](m, 2)",
		"t.f 2 -> 3: 2",
		"t.f turned round: false",
		"g left out: h = append(h, 1)",
		"g not appended: 1",
		"g 1 -> 2: 1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("mutants (-want +got):\n%s", d)
	}
}

// TestClonesRun builds a program with all its mutants in it, and lets some of them run.
func TestClonesRun(t *testing.T) {
	f, ms := sampleMutants(t)
	dir := t.TempDir()
	c := f.clone(ms)
	for name, text := range map[string]string{
		"p.go": string(c.text), "zz.go": strings.ReplaceAll(runtimeSource, "%s", "p"), "go.mod": "module p\n\ngo 1.24\n",
		"p_test.go": "package p\n\nimport \"testing\"\n\nfunc TestF(t *testing.T) {\n\tx := &t_{}\n" +
			"\tif ok, _ := x.f(0, 1, 2, 3, 4); !ok || zero() != 0 {\n\t\tt.Fatal()\n\t}\n}\n\ntype t_ = t[int]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "tests")
	cmd := exec.Command("go", "test", "-c", "-vet=off", "-o", bin, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, c.text)
	}
	b := &built{target: &target{Tests: []suite{{Dir: ".", Run: "."}}}, binaries: []string{bin}}
	for what, want := range map[string]bool{
		"": true, "== -> !=: m == 1": true, "returns zero: return true, nil": false, "turned round: true": false, "&& -> ||: len(more) > 3 && x != nil": true,
		"left out: if len(more) > 3 && x != nil { return true, nil }": false,
	} {
		id := 0
		if what != "" {
			id = ms[slices.IndexFunc(ms, func(m *mutant) bool { return m.What == what })].ID
		}
		passed, err := b.once(t.Context(), dir, 0, id)
		if err != nil || passed != want {
			t.Errorf("mutant %q: the tests pass: %t (%v), want %t", what, passed, err, want)
		}
	}
}

// TestRefused: the compiler's complaints lead to the mutants that they are about.
func TestRefused(t *testing.T) {
	lines := map[string]map[int]int{"a.go": {10: 7, 11: 7, 12: 8}}
	bad, other := refused([]byte("# p\nx/a.go:11:3: declared and not used: y\n\tmore about it\nx/a.go:12: missing return\nx/a.go:3:1: oh\n"), lines)
	if d := cmp.Diff(map[int]bool{7: true, 8: true}, bad); d != "" || string(other) != "x/a.go:3:1: oh\n" {
		t.Errorf("%s, other %q", d, other)
	}
}

func TestResultsOutliveARun(t *testing.T) {
	_, ms := sampleMutants(t)
	file := filepath.Join(t.TempDir(), "results")
	rs, err := openResults(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []result{{Name: ms[0].Name(), Source: hashOf(ms[0]), Killed: "p"}, {Name: ms[1].Name(), Source: hashOf(ms[1])},
		{Name: ms[2].Name(), Source: "another", Killed: "p"}} {
		if err := rs.put(r); err != nil {
			t.Fatal(err)
		}
	}
	rs.file.WriteString("{\"Name\": broken off")
	rs.file.Close()
	if rs, err = openResults(file); err != nil {
		t.Fatal(err)
	}
	defer rs.file.Close()
	for i, want := range [][2]bool{{true, true}, {true, false}, {false, false}, {false, false}} {
		if run, killed := rs.outcome(ms[i]); run != want[0] || killed != want[1] {
			t.Errorf("mutant %d: run %t, killed %t, want %v", i, run, killed, want)
		}
	}
	doc, wrong := report(map[string][]*mutant{"all": ms}, []string{"all"}, rs, map[string]string{ms[1].Name(): "because"})
	if len(wrong) != 2 || !strings.Contains(string(doc), "because") { // the score, and how many were not run
		t.Errorf("%d things wrong of %d:\n%s", len(wrong), len(ms), doc)
	}
}

// TestReasonsAreAboutSomething: a reason for a mutant that is not made any more is stale.
func TestReasonsAreAboutSomething(t *testing.T) {
	reasons, err := parseReasons(reasonsText)
	if err != nil {
		t.Fatal(err)
	}
	root, err := moduleRoot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, tg := range targets {
		_, ms, err := tg.load(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms {
			names[m.Name()] = true
		}
	}
	for name := range reasons {
		if !names[name] {
			t.Errorf("testdata/reasons.txt: there is no such mutant any more: %s", name)
		}
	}
	if _, err := parseReasons("\ta mutant\n"); err == nil {
		t.Error("a mutant without a reason is taken")
	}
}

// TestTargetsRunTests: what is to judge mutants are names of tests that exist.
func TestTargetsRunTests(t *testing.T) {
	root, err := moduleRoot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, tg := range targets {
		for _, s := range tg.Tests {
			paths, err := filepath.Glob(filepath.Join(root, s.Dir, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			run, found := regexp.MustCompile(s.Run), false
			for _, p := range paths {
				text, err := os.ReadFile(p)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)`).FindAllStringSubmatch(string(text), -1) {
					found = found || run.MatchString(m[1])
				}
			}
			if !found {
				t.Errorf("%s: no test of %s is called like %q", tg.Name, s.Dir, s.Run)
			}
		}
	}
}
