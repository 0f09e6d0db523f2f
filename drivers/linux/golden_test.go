package linux

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// goldenLimits merge what few rules have in common.
func goldenLimits() limits {
	return limits{groupMin: 2, groupCut: 4, policies: 2, rules: 4, members: 4}
}

// TestStoriesGolden shows what is written for the scenes of a case, one after another: in full, with who is to blame for
// each write, and in order. So it shows as well what is not written.
func TestStoriesGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no cases: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cs, err := drivertest.ParseCase(filepath.Base(file), text)
		if err != nil {
			t.Fatal(err)
		}
		checkGolden(t, strings.TrimSuffix(filepath.Base(file), ".txtar"), told(t, cs))
	}
}

// checkGolden compares text with a golden file.
func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s changed; -update if it should:\n%s", name, d)
	}
}

// told follows a case, and says what each scene writes. The writes must lead to the program that the scene has by itself,
// and that must do what the oracle says.
func told(t *testing.T, cs drivertest.Case) string {
	t.Helper()
	var b strings.Builder
	c, d, have, before := newCompiler(), newDesk(), noTables(), (*drivers.State)(nil)
	c.limits = goldenLimits()
	for _, sc := range cs.Scenes {
		fmt.Fprintf(&b, "== %s\n", sc.Title)
		var ch *drivers.Changes
		if before != nil {
			ch = drivertest.Diff(before, sc.State)
		}
		c.touched = map[Key]struct{}{}
		c.update(sc.State.Clone(), ch)
		ops := plan(&c.prog, have, c.touched, deltasOf(c, ch))
		for i := range ops {
			b.WriteString(written(&ops[i]) + "\n")
		}
		d.commit(t, &c.prog, ops, cs.Name+", "+sc.Title)
		have.wrote(&c.prog, c.touched)
		alone := newCompiler()
		alone.limits = c.limits
		alone.update(sc.State.Clone(), nil)
		if diff := cmp.Diff(inFull(alone.prog), inFull(c.prog)); diff != "" {
			t.Fatalf("%s, %s: (-alone +here):\n%s", cs.Name, sc.Title, diff)
		}
		var pks []drivers.Packet
		for _, l := range sc.Lines {
			for _, p := range l.Probes {
				if p.Packet.SrcPort == 0 && hasPorts(p.Packet.Proto) {
					p.Packet.SrcPort = 40000
				}
				pks = append(pks, p.Packet)
			}
		}
		agree(t, sc.State, &c.prog, pks)
		before = sc.State
	}
	return b.String()
}

// written is all that an op says.
func written(o *op) string {
	text := o.String()
	switch o.kind {
	case opAddSet:
		empty := *o.set
		empty.Content = elems{}
		var b strings.Builder
		empty.write(&b)
		text += ": " + strings.TrimSpace(b.String())
	case opAddElems, opDelElems:
		for _, e := range o.elems {
			text += " " + o.set.key(e)
			if o.set.Verdict {
				text += " : " + (&Action{Kind: e.Kind, Chain: e.Chain}).String()
			}
			text += ","
		}
	case opAddRule:
		text += ": " + o.chain.Rules[o.rule].String()
	case opAddChain:
		if h := o.chain.Hook; h != nil {
			text += fmt.Sprintf(": type %s hook %s priority %d", h.Type, h.Hook, h.Priority)
		}
		if o.chain.Comment != "" {
			text += " # " + o.chain.Comment
		}
	}
	return text
}

// inFull is a program as text, by object, with who is to blame for what.
func inFull(p Program) map[Key]string {
	m := objects(p)
	owner := func(o *drivers.ObjectRef) string {
		if o == nil {
			return "-"
		}
		return o.String()
	}
	for k, c := range p.Chains {
		m[k] += c.Owner.String()
		for _, r := range c.Rules {
			m[k] += "\n" + owner(r.Owner)
		}
	}
	for k, s := range p.Sets {
		m[k] += s.Owner.String()
		for e := range s.Content.All() {
			m[k] += "\n" + s.key(e) + " " + owner(e.Owner)
		}
	}
	return m
}
