//go:build linux

package docs

import (
	"regexp"
	"strings"
	"testing"
)

// matches says whether a command has printed what a page says. In the page a line "..." stands for any lines, and "..."
// within a line for any text. Spaces at the ends of lines, and how many there are between two words, don't matter: they
// align columns with values that differ.
func matches(want, got string) bool {
	var re strings.Builder
	re.WriteString(`^`)
	for _, line := range lines(want) {
		if strings.TrimSpace(line) == "..." {
			re.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		for i, part := range strings.Split(line, "...") {
			if i > 0 {
				re.WriteString(`[^\n]*`)
			}
			re.WriteString(regexp.QuoteMeta(part))
		}
		re.WriteString(`\n`)
	}
	re.WriteString(`$`)
	text := strings.Join(lines(got), "\n")
	if text != "" {
		text += "\n"
	}
	return regexp.MustCompile(re.String()).MatchString(text)
}

var spaces = regexp.MustCompile(`(\S)[ \t]+`)

// lines are the lines of a text with single spaces, without those that are empty at its ends.
func lines(text string) []string {
	text = strings.Trim(text, "\n")
	if strings.TrimSpace(text) == "" {
		return nil
	}
	ls := strings.Split(text, "\n")
	for i, l := range ls {
		ls[i] = strings.TrimRight(spaces.ReplaceAllString(l, "$1 "), " ")
	}
	return ls
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want, got string
		same      bool
	}{
		{"", "", true},
		{"", "x\n", false},
		{"a\nb\n", "a\nb", true},
		{"a\nb\n", "a\n", false},
		{"a\n", "a\nb\n", false},
		{"...\n", "", true},
		{"...\n", "a\nb\n", true},
		{"a\n...\nd\n", "a\nb\nc\nd\n", true},
		{"a\n...\nd\n", "a\nb\nc\n", false},
		{"...\nd\n", "d\nd\n", true},
		{"pid ..., ready\n", "pid 17, ready\n", true},
		{"pid ..., ready\n", "pid 17\n, ready\n", false},
		{"x (a+)\n", "x (a+)\n", true},
		{"x (a+)\n", "x aa\n", false},
		{"NAME  STATE\nn1  ready\n", "NAME   STATE  \nn1     ready\n", true},
		{"  two\n", "two\n", false},
	} {
		if got := matches(c.want, c.got); got != c.same {
			t.Errorf("%q against %q: %v", c.want, c.got, got)
		}
	}
}
