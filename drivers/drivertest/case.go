package drivertest

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
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

// Scene is what happens, the State that is applied then, and the verdicts under it.
type Scene struct {
	Title  string // as the file has it: "state", "change: b leaves"
	Before []Event
	Kept   bool // the State is that of the scene before, and is not applied again
	State  *drivers.State
	Lines  []Line
	Check  bool // the dataplane must hold what the direct path to State leaves in it
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
	cp := &caseParser{file: file, b: newBuilder()}
	cp.c = Case{Name: strings.TrimSuffix(file, ".txtar"), Doc: strings.TrimSpace(string(ar.Comment))}
	if cp.c.Doc == "" {
		cp.errs = append(cp.errs, fmt.Errorf("%s:1: the first line says in a sentence what the case shows", file))
	}
	line := 1 + strings.Count(string(ar.Comment), "\n")
	for _, f := range ar.Files {
		p := section{file: file, first: line + 1, lines: strings.Split(string(f.Data), "\n")}
		line += 1 + strings.Count(string(f.Data), "\n")
		if !cp.section(f.Name, p) {
			return cp.c, errors.Join(cp.errs...) // what follows would only be noise
		}
	}
	if len(cp.c.Scenes) == 0 {
		cp.errs = append(cp.errs, fmt.Errorf("%s:1: no state", file))
	} else if n := len(cp.c.Scenes); n > 1 {
		cp.c.Scenes[n-1].Check = true
	}
	if len(cp.events) > 0 {
		cp.errs = append(cp.errs, fmt.Errorf("%s: nothing follows %q", file, cp.events[len(cp.events)-1]))
	}
	return cp.c, errors.Join(cp.errs...)
}

// caseParser reads one case, section by section.
type caseParser struct {
	file   string
	c      Case
	b      *builder
	events []Event // since the last scene
	errs   []error
}

// section reads one section and reports whether it makes sense to go on.
func (cp *caseParser) section(name string, p section) bool {
	fields := strings.Fields(name + " ?")
	word, _, _ := strings.Cut(strings.TrimRight(fields[0], ":"), ":")
	fail := func(format string, args ...any) bool {
		cp.errs = append(cp.errs, fmt.Errorf("%s:%d: %w", cp.file, p.first-1, fmt.Errorf(format, args...)))
		return false
	}
	switch word {
	case "state", "change":
		if word == "state" {
			cp.b = newBuilder()
		}
		if err := p.each(cp.b.define); err != nil {
			cp.errs = append(cp.errs, err)
			return false
		}
		s, err := cp.b.build()
		if err != nil {
			return fail("%w", err)
		}
		cp.scene(Scene{Title: name, State: s})
	case "steps":
		if len(cp.c.Scenes) == 0 {
			return fail("steps before any state")
		}
		sc := &cp.c.Scenes[len(cp.c.Scenes)-1]
		if len(cp.events) > 0 { // of the State that is there
			cp.scene(Scene{Title: name, State: sc.State})
			sc = &cp.c.Scenes[len(cp.c.Scenes)-1]
		}
		if err := p.each(func(text string) error {
			l, err := parseLine(text, sc.State)
			l.Pos, l.Text = p.pos(), text
			sc.Lines = append(sc.Lines, l)
			return err
		}); err != nil {
			cp.errs = append(cp.errs, err)
		}
	case "stop", "start", "resync", "tamper", "fail", "refuse", "squash":
		e, err := parseEvent(word, fields[1:len(fields)-1])
		if err != nil {
			return fail("section %q: %w", name, err)
		}
		cp.events = append(cp.events, e)
	default:
		return fail("section %q is none of state, change, steps, stop, start, resync, tamper, fail, refuse, squash", name)
	}
	return true
}

// scene adds a scene, after the events that came before it.
func (cp *caseParser) scene(sc Scene) {
	sc.Before, cp.events = cp.events, nil
	if n := len(cp.c.Scenes); n > 0 && sc.State == cp.c.Scenes[n-1].State {
		sc.Kept = !slices.ContainsFunc(sc.Before, func(e Event) bool { return e.Kind != Stop && e.Kind != Start })
	}
	cp.c.Scenes = append(cp.c.Scenes, sc)
}

// parseEvent reads the name of a section that is an event.
func parseEvent(word string, args []string) (Event, error) {
	kinds := map[string]EventKind{"stop": Stop, "start": Start, "resync": Resync, "tamper": Tamper, "fail": Fail, "refuse": Refuse, "squash": Squash}
	e := Event{Kind: kinds[word]}
	switch e.Kind {
	case Tamper, Fail:
		if len(args) == 0 {
			return e, errors.New("which one?")
		}
		var err error
		e.N, err = strconv.ParseUint(args[0], 10, 64)
		return e, err
	case Refuse:
		if len(args) < 2 || args[0] != "policy" && args[0] != "set" {
			return e, errors.New(`want "refuse policy P" or "refuse set S"`)
		}
		if args[0] == "set" {
			e.Object = drivers.ObjectRef{Kind: drivers.ObjSet, Set: drivers.SetID(args[1])}
			return e, nil
		}
		id, err := parsePolicyRef(args[1])
		e.Object = drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}
		return e, err
	}
	return e, nil
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
