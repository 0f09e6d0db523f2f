//go:build linux

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// page is a page of the docs, taken apart.
type page struct {
	name     string
	machines []string
	steps    []step
}

// step is one thing that a reader does, or what stands between two of them.
type step struct {
	line int    // of the page
	kind string // "heading", one of kinds; of comments: "run", "recipes"
	text string
	// What comments right above a block say of it.
	file       string // that it becomes
	exits      int    // code of the last command
	notRun     string // why not
	everywhere bool   // on all machines
}

var (
	fence   = regexp.MustCompile("^( *)```(.*)$")
	comment = regexp.MustCompile(`(?s)^<!--\s*(machines|machine|recipes|exits|file|not run|run):?\s*(.*?)\s*-->$`)
	// indented is a command in a block that is one only by its indentation.
	indented = regexp.MustCompile(`^ {4,}(tortie|systemctl|ip|nft|make|curl|install) `)
	named    = regexp.MustCompile(`^# ([\w./-]+\.(?:yaml|conflist))$`)
)

// kinds of blocks; a block without one is a mistake, as nobody knows whether to run it.
var kinds = []string{"console", "sh", "yaml", "json", "text", "verdicts", "go", "diff"}

func readPage(path string) (*page, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := parsePage(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	p.name = filepath.Base(path)
	return p, nil
}

// parsePage takes a page apart. An error begins with the line's number.
func parsePage(text string) (*page, error) {
	p := &page{}
	lines := strings.Split(text, "\n")
	next := step{} // what comments have said of the block to come
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case strings.HasPrefix(line, "#"):
			p.steps = append(p.steps, step{line: i + 1, kind: "heading", text: strings.TrimLeft(line, "# ")})
		case strings.HasPrefix(strings.TrimSpace(line), "<!--"):
			end := i
			for end < len(lines)-1 && !strings.Contains(lines[end], "-->") {
				end++
			}
			if err := p.comment(strings.Join(lines[i:end+1], "\n"), i+1, &next); err != nil {
				return nil, fmt.Errorf("%d: %w", i+1, err)
			}
			i = end
			continue
		case fence.MatchString(line):
			m := fence.FindStringSubmatch(line)
			s := next
			s.line, s.kind = i+1, m[2]
			if !slices.Contains(kinds, s.kind) {
				return nil, fmt.Errorf("%d: a block of %q: say whether it is %v", i+1, s.kind, kinds)
			}
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
				s.text += strings.TrimPrefix(lines[i], m[1]) + "\n"
			}
			if first, _, _ := strings.Cut(s.text, "\n"); s.kind == "yaml" && named.MatchString(first) && s.file == "" {
				s.file = named.FindStringSubmatch(first)[1]
			}
			p.steps = append(p.steps, s)
			next = step{}
			continue
		case strings.TrimSpace(line) == "":
			continue
		case indented.MatchString(line):
			return nil, fmt.Errorf("%d: commands stand between fences", i+1)
		}
		if next != (step{}) {
			return nil, fmt.Errorf("%d: a comment about a block, and no block below it", i+1)
		}
	}
	return p, nil
}

// comment takes a comment in: it is about the page, about the next block, or a step itself. Others are for people.
func (p *page) comment(text string, line int, next *step) error {
	m := comment.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return nil
	}
	var err error
	switch m[1] {
	case "machines":
		p.machines = strings.Fields(m[2])
	case "machine":
		if next.everywhere = m[2] == "all"; !next.everywhere {
			err = fmt.Errorf("machine: all, or none is said")
		}
	case "recipes":
		p.steps = append(p.steps, step{line: line, kind: "recipes"})
	case "exits":
		_, err = fmt.Sscan(m[2], &next.exits)
	case "file":
		next.file = m[2]
	case "not run":
		if next.notRun = m[2]; next.notRun == "" {
			err = fmt.Errorf("why is it not run?")
		}
	case "run":
		p.steps = append(p.steps, step{line: line, kind: "run", text: m[2] + "\n", everywhere: next.everywhere})
		*next = step{}
	}
	return err
}

func TestParsePage(t *testing.T) {
	p, err := parsePage(`# A page
<!-- machines: one two -->

Some text.

<!-- a remark -->
<!-- exits 4 -->
` + "```console\n$ false\n```" + `
<!-- run:
systemctl stop x
-->
` + "```yaml\n# /etc/x.yaml\nkind: X\n```\n\n  <!-- exits 2 -->\n  ```sh\n  make\n  ```\n<!-- not run: no cats here -->\n```sh\nmeow\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []step{{line: 1, kind: "heading", text: "A page"},
		{line: 8, kind: "console", text: "$ false\n", exits: 4},
		{line: 11, kind: "run", text: "systemctl stop x\n"},
		{line: 14, kind: "yaml", text: "# /etc/x.yaml\nkind: X\n", file: "/etc/x.yaml"},
		{line: 20, kind: "sh", text: "make\n", exits: 2},
		{line: 24, kind: "sh", text: "meow\n", notRun: "no cats here"}}
	if d := cmp.Diff(want, p.steps, cmp.AllowUnexported(step{})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"one", "two"}, p.machines); d != "" {
		t.Error(d)
	}
	for text, says := range map[string]string{
		"```\nx\n```":                      `1: a block of ""`,
		"<!-- exits 1 -->\n\nand so on":    "3: a comment about a block",
		"<!-- not run: -->\n```sh\n```":    "1: why",
		"\n<!-- exits many -->":            "2: ",
		"so:\n\n    tortie status -o json": "3: commands",
	} {
		if _, err := parsePage(text); err == nil || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%q: %v, want %s", text, err, says)
		}
	}
}
