//go:build linux

package docs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/machine"
)

// shell is a shell that runs on a machine as long as a page is read: it remembers folders and variables.
type shell struct {
	dir   string // of its scripts and outputs
	in    io.WriteCloser
	codes *bufio.Reader
	n     int
}

// commandTimeout bounds one command of a page.
const commandTimeout = 40 * time.Second

// newShell starts a shell in a folder of a machine. It ends with the machine.
func newShell(m *machine.Machine, home, scratch string, env []string) (*shell, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd := exec.Command("bash", "--noprofile", "--norc")
	cmd.Dir, cmd.Env, cmd.ExtraFiles = home, env, []*os.File{w}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if _, err := m.Start(cmd); err != nil {
		return nil, err
	}
	return &shell{dir: scratch, in: in, codes: bufio.NewReader(r)}, nil
}

// run runs a command, and returns what it has printed and its exit code. What it leaves running in the background prints
// elsewhere.
func (s *shell) run(command string) (string, int, error) {
	s.n++
	script, out := filepath.Join(s.dir, fmt.Sprintf("%d.sh", s.n)), filepath.Join(s.dir, fmt.Sprintf("%d.out", s.n))
	if err := os.WriteFile(script, []byte(command), 0o600); err != nil {
		return "", 0, err
	}
	if _, err := fmt.Fprintf(s.in, ". %s >%s 2>&1 </dev/null 3>&-; echo $? >&3\n", script, out); err != nil {
		return "", 0, err
	}
	code := make(chan string, 1)
	go func() {
		line, _ := s.codes.ReadString('\n')
		code <- strings.TrimSpace(line)
	}()
	select {
	case c := <-code:
		b, err := os.ReadFile(out)
		if err != nil {
			return "", 0, err
		}
		n, err := strconv.Atoi(c)
		if err != nil {
			return string(b), 0, fmt.Errorf("the shell has ended")
		}
		return string(b), n, nil
	case <-time.After(commandTimeout):
		b, _ := os.ReadFile(out)
		return string(b), 0, fmt.Errorf("no end after %v", commandTimeout)
	}
}

// command is a command of a block, and what the page says that it prints.
type command struct {
	machine string // "" = the first
	text    string
	prints  string
}

var prompt = regexp.MustCompile(`^([a-z][a-z0-9-]*)?\$ (.*)$`)

// consoleCommands are the commands of a block of console.
func consoleCommands(text string) ([]command, error) {
	var cs []command
	ls := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(ls); i++ {
		m := prompt.FindStringSubmatch(ls[i])
		if m == nil {
			if len(cs) == 0 {
				return nil, fmt.Errorf("%q is printed by no command", ls[i])
			}
			cs[len(cs)-1].prints += ls[i] + "\n"
			continue
		}
		c := command{machine: m[1], text: m[2] + "\n"}
		for !complete(c.text) && i+1 < len(ls) {
			i++
			c.text += strings.TrimPrefix(ls[i], "> ") + "\n"
		}
		cs = append(cs, c)
	}
	return cs, nil
}

// scriptCommands are the commands of a block of sh.
func scriptCommands(text string) []command {
	var cs []command
	c := command{}
	for line := range strings.Lines(text) {
		c.text += line
		if strings.TrimSpace(c.text) != "" && complete(c.text) {
			cs = append(cs, c)
			c = command{}
		}
	}
	return cs
}

// complete says whether a shell would not ask for more. It warns of a here-document that has not ended.
func complete(script string) bool {
	if strings.HasSuffix(script, "\\\n") {
		return false
	}
	cmd := exec.Command("bash", "--norc", "-n")
	cmd.Stdin = strings.NewReader(script)
	var says bytes.Buffer
	cmd.Stderr = &says
	return cmd.Run() == nil && says.Len() == 0
}

func TestCommands(t *testing.T) {
	cs, err := consoleCommands("$ cat > x <<'EOF'\na: b\n\nEOF\ntwo$ tortie get \\\n>   tiers\nNAME\n...\n$ for i in 1 2; do\n  echo $i\ndone\n1\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []command{{text: "cat > x <<'EOF'\na: b\n\nEOF\n"}, {machine: "two", text: "tortie get \\\n  tiers\n", prints: "NAME\n...\n"},
		{text: "for i in 1 2; do\n  echo $i\ndone\n", prints: "1\n"}}
	if fmt.Sprint(cs) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", cs, want)
	}
	if _, err := consoleCommands("NAME\n$ tortie get\n"); err == nil {
		t.Error("output before any command is no error")
	}
	if got := scriptCommands("a\n\n# remark\nif b; then\n  c\nfi\n"); len(got) != 3 {
		t.Errorf("%q", got)
	}
}
