package drivertest

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/tortie/tortie/drivers"
)

//go:embed testdata/*.txtar
var testdata embed.FS

// Case is one story: States applied one after another, and what becomes of packets under each.
type Case struct {
	Name   string // file name without .txtar
	Doc    string // what the case shows, in a sentence or more
	Scenes []Scene
}

// Scene is one State and the verdicts under it.
type Scene struct {
	Title string // as the file has it: "state", "change: b leaves"
	State *drivers.State
	Lines []Line
}

// Line is one verdict line: what its author expects of one packet, in each family that it is about.
type Line struct {
	Pos    string // file:line
	Text   string
	Probes []Probe // SrcPort 0 where a port is a free one: assignPorts fills it in
	Allow  bool
	Masq   bool   // it arrives with an address of the node as its source
	By     string // what decides, in the words of doc.go; "" = not said
}

// Cases returns the suite's own cases, in the order of their names.
func Cases() ([]Case, error) { return ParseCases(testdata, "testdata") }

// ParseCases reads the .txtar files of a directory. The error joins those of all files.
func ParseCases(fsys fs.FS, dir string) ([]Case, error) {
	names, err := fs.Glob(fsys, path.Join(dir, "*.txtar"))
	if err != nil {
		return nil, fmt.Errorf("listing cases: %w", err)
	}
	slices.Sort(names)
	var cases []Case
	var errs []error
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("reading a case: %w", err)
		}
		c, err := ParseCase(path.Base(name), data)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		cases = append(cases, c)
	}
	return cases, errors.Join(errs...)
}

// ParseCase reads one case; file is its name for messages.
func ParseCase(file string, data []byte) (Case, error) {
	ar := txtar.Parse(data)
	c := Case{Name: strings.TrimSuffix(file, ".txtar"), Doc: strings.TrimSpace(string(ar.Comment))}
	var errs []error
	if c.Doc == "" {
		errs = append(errs, fmt.Errorf("%s:1: the first line says in a sentence what the case shows", file))
	}
	b := newBuilder()
	line := 1 + strings.Count(string(ar.Comment), "\n")
	for _, f := range ar.Files {
		p := section{file: file, first: line + 1, lines: strings.Split(string(f.Data), "\n")}
		line += 1 + strings.Count(string(f.Data), "\n")
		word, _, _ := strings.Cut(strings.TrimRight(strings.Fields(f.Name + " ?")[0], ":"), ":")
		switch word {
		case "state", "change":
			if word == "state" {
				b = newBuilder()
			}
			err := p.each(b.define)
			s, buildErr := b.build()
			if err == nil && buildErr != nil {
				err = fmt.Errorf("%s:%d: %w", file, p.first-1, buildErr)
			}
			if err != nil {
				errs = append(errs, err)
				return c, errors.Join(errs...) // what follows would only be noise
			}
			c.Scenes = append(c.Scenes, Scene{Title: f.Name, State: s})
		case "steps":
			if len(c.Scenes) == 0 {
				errs = append(errs, fmt.Errorf("%s:%d: steps before any state", file, p.first-1))
				return c, errors.Join(errs...)
			}
			sc := &c.Scenes[len(c.Scenes)-1]
			errs = append(errs, p.each(func(text string) error {
				l, err := parseLine(text, sc.State)
				l.Pos, l.Text = p.pos(), text
				sc.Lines = append(sc.Lines, l)
				return err
			}))
		default:
			errs = append(errs, fmt.Errorf("%s:%d: section %q is none of state, change, steps", file, p.first-1, f.Name))
		}
	}
	if len(c.Scenes) == 0 {
		errs = append(errs, fmt.Errorf("%s:1: no state", file))
	}
	return c, errors.Join(errs...)
}

// section walks the lines of one section of a file and knows where it is.
type section struct {
	file  string
	first int // line number of lines[0]
	at    int
	lines []string
}

func (p *section) pos() string { return fmt.Sprintf("%s:%d", p.file, p.first+p.at) }

// each calls fn with every line that says something, without comments and blanks; errors get the position.
func (p *section) each(fn func(text string) error) error {
	var errs []error
	for i, text := range p.lines {
		p.at = i
		if j := strings.Index(text, "#"); j == 0 || j > 0 && (text[j-1] == ' ' || text[j-1] == '\t') {
			text = text[:j]
		}
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if err := fn(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.pos(), err))
		}
	}
	return errors.Join(errs...)
}
