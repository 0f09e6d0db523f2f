package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// target is what is mutated together, and the tests that judge it.
type target struct {
	Name  string
	Dir   string   // of the package, from the root of the module
	Files []string // globs within Dir
	Tests []suite  // the fast ones first
}

// suite is tests of one package.
type suite struct {
	Dir       string
	Run, Skip string // as in go test
	Short     bool
}

// load makes the mutants of a target.
func (t *target) load(root string) ([]*sourceFile, []*mutant, error) {
	zeros, err := zerosOf(filepath.Join(root, t.Dir))
	if err != nil {
		return nil, nil, err
	}
	var files []*sourceFile
	var all []*mutant
	for _, glob := range t.Files {
		paths, err := filepath.Glob(filepath.Join(root, t.Dir, glob))
		if err != nil {
			return nil, nil, err
		}
		if len(paths) == 0 {
			return nil, nil, fmt.Errorf("%s: there is no %s", t.Dir, glob)
		}
		for _, p := range paths {
			if matched, _ := filepath.Match("*_test.go", filepath.Base(p)); matched {
				continue
			}
			text, err := os.ReadFile(p)
			if err != nil {
				return nil, nil, err
			}
			f, err := parse(filepath.Join(t.Dir, filepath.Base(p)), text)
			if err != nil {
				return nil, nil, err
			}
			f.zeros = zeros
			files, all = append(files, f), append(all, f.mutants()...)
		}
	}
	for i, m := range all {
		m.ID = i + 1
	}
	return files, all, nil
}

// zerosOf finds the constants of a package that are 0.
func zerosOf(dir string) (map[string]bool, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	zeros := map[string]bool{}
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		f, err := parse(p, text)
		if err != nil {
			return nil, err
		}
		f.zeroConstants(zeros)
	}
	return zeros, nil
}

// maxRounds bounds how often the compiler is asked which mutants it refuses: what hides behind one mistake shows in the
// next round.
const maxRounds = 8

// built is a target whose mutants compile.
type built struct {
	*target
	mutants  []*mutant
	binaries []string // one for each of Tests
}

// build compiles the mutants of a target and its tests into dir. What the compiler refuses is noted.
func (t *target) build(ctx context.Context, root, dir string, rs *results, keep func(*mutant) bool) (*built, error) {
	files, ms, err := t.load(root)
	if err != nil {
		return nil, err
	}
	ms = slices.DeleteFunc(rs.compiling(ms), func(m *mutant) bool { return !keep(m) })
	overlay := filepath.Join(dir, "overlay.json")
	for round := 0; ; round++ {
		lines, err := t.overlay(root, dir, overlay, files, ms)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-gcflags=-e", "-overlay", overlay, "./"+t.Dir)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		bad, other := refused(out, lines)
		if len(bad) == 0 || len(other) > 0 || round == maxRounds {
			return nil, fmt.Errorf("building %s with its mutants: %w\n%s%s", t.Dir, err, other, out[:min(len(out), 4000)])
		}
		kept := ms[:0:0]
		for _, m := range ms {
			if !bad[m.ID] {
				kept = append(kept, m)
			} else if err := rs.put(result{Name: m.Name(), Source: hashOf(m), Refused: true}); err != nil {
				return nil, err
			}
		}
		ms = kept
	}
	b := &built{target: t, mutants: ms}
	made := map[string]string{}
	for i, s := range t.Tests {
		bin := made[s.Dir]
		if bin != "" {
			b.binaries = append(b.binaries, bin)
			continue
		}
		bin = filepath.Join(dir, fmt.Sprintf("tests%d", i))
		made[s.Dir] = bin
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", bin, "./"+s.Dir)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building the tests of %s: %w\n%s", s.Dir, err, out)
		}
		b.binaries = append(b.binaries, bin)
	}
	return b, nil
}

// overlay writes the files of a target with their mutants in them, and returns which mutant is on which line.
func (t *target) overlay(root, dir, name string, files []*sourceFile, ms []*mutant) (map[string]map[int]int, error) {
	replace := map[string]string{}
	lines := map[string]map[int]int{}
	write := func(path string, text []byte) error {
		file := filepath.Join(dir, filepath.Base(path))
		replace[filepath.Join(root, path)] = file
		return os.WriteFile(file, text, 0o644)
	}
	for _, f := range files {
		var mine []*mutant
		for _, m := range ms {
			if m.source.file == f {
				mine = append(mine, m)
			}
		}
		c := f.clone(mine)
		lines[filepath.Base(f.path)] = c.lines
		if err := write(f.path, c.text); err != nil {
			return nil, err
		}
	}
	rt := filepath.Join(t.Dir, "zz_mutants.go")
	if err := write(rt, fmt.Appendf(nil, runtimeSource, files[0].ast.Name.Name)); err != nil {
		return nil, err
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	return lines, os.WriteFile(name, b, 0o644)
}

var compilerError = regexp.MustCompile(`^(\S+\.go):(\d+):(?:\d+:)? (.*)`)

// refused says which mutants the compiler complained about, and what else it said.
func refused(out []byte, lines map[string]map[int]int) (bad map[int]bool, other []byte) {
	bad = map[int]bool{}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		m := compilerError.FindStringSubmatch(sc.Text())
		if m == nil {
			continue // a heading, or more about the line above
		}
		n, _ := strconv.Atoi(m[2])
		if id := lines[filepath.Base(m[1])][n]; id != 0 {
			bad[id] = true
		} else {
			other = append(append(other, sc.Text()...), '\n')
		}
	}
	return bad, other
}
