package machine

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

func output(t *testing.T, m *Machine, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = "/"
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := m.Run(cmd); err != nil {
		t.Fatalf("%s: %v: %s", script, err, &out)
	}
	return strings.TrimSpace(out.String())
}

func TestMachine(t *testing.T) {
	ns := netnstest.New(t)
	theirs := filepath.Join(t.TempDir(), "theirs")
	if err := os.WriteFile(theirs, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := New(Options{Name: "kitten", Netns: ns, Empty: []string{"/run", "/run/netns", "/opt"},
		Own: []string{"/etc"}, Binds: map[string]string{"/opt/a/file": theirs}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ script, want string }{
		{"hostname", "kitten"},
		{"cat /opt/a/file", "theirs"},
		{"ls -A /opt", "a"},
		{"echo meow >/etc/tortie-test-machine; cat /etc/tortie-test-machine; mountpoint -q /mnt || echo and no more", "meow\nand no more"},
		{"ls -A /run/netns; ip netns add x; ip netns list", "x"},
	} {
		if got := output(t, m, c.script); got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(netns.Dir, "x")); err == nil {
		t.Error("a namespace of the machine is seen outside")
	}
	if _, err := os.Stat("/etc/tortie-test-machine"); err == nil {
		t.Error("a file of the machine is seen outside")
	}
	if b, err := os.ReadFile(m.Path("/opt/a/file")); err != nil || string(b) != "theirs" {
		t.Errorf("from outside: %q, %v", b, err)
	}
	daemon := output(t, m, "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
	if n, err := strconv.Atoi(daemon); err != nil || n > 1000 {
		t.Errorf("a process on the machine has pid %q, %v", daemon, err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.Dir = "/"
	if _, err := m.Start(cmd); err != nil {
		t.Fatal(err)
	}
	proc := m.Path("/proc")
	m.Close()
	if _, err := os.Stat(proc); err == nil {
		t.Error("the machine is still there")
	}
}

func TestBrokenMachine(t *testing.T) {
	for _, o := range []Options{{Name: "x", Binds: map[string]string{"/opt": "/nowhere/at/all"}}, {Empty: []string{"/nowhere/at/all"}}} {
		if m, err := New(o); err == nil {
			m.Close()
			t.Errorf("%v: no error", o)
		} else if !strings.Contains(err.Error(), "/nowhere/at/all") {
			t.Error(err)
		}
	}
}
