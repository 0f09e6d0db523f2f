//go:build linux

package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// examples is a block of examples in commands.md, which is made out of the help texts.
var examples = regexp.MustCompile("(?s)For example:\n\n```\n(.*?)```")

// askHelp turns each command of Tortie's into a question for its help, which is answered only if the command and its
// flags are there. What stands around it does nothing.
const askHelp = `set -eo pipefail
tortie() { command tortie "$@" --help >/dev/null; }
for c in cat dot ip jq mv systemctl vi; do eval "$c() { :; }"; done
`

// TestExamplesOfCommands: the examples of help texts speak of commands and flags that there are.
func TestExamplesOfCommands(t *testing.T) {
	b, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range examples.FindAllStringSubmatch(string(b), -1) {
		for line := range strings.Lines(m[1]) {
			n++
			if says := example(t, line); says != "" {
				t.Errorf("%s%s", line, says)
			}
		}
	}
	if n < 30 {
		t.Errorf("%d examples: is the page still written like that?", n)
	}
	if example(t, "tortie get --no-such-flag") == "" || example(t, "tortie no-such-command") == "" || example(t, "nobody | tortie get") == "" {
		t.Error("this test finds nothing wrong with anything")
	}
}

func example(t *testing.T, line string) string {
	cmd := exec.Command("bash", "-c", askHelp+line)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+built.bin()+":/usr/bin:/bin")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(filepath.Base(cmd.Path)+": "+string(out)) + " " + err.Error()
}
