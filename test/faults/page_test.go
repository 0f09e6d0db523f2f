//go:build linux

package faults

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestPage: each test that docs/faults.md names is there.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("grep", "-rhoE", "--include=*_test.go", "^func Test[A-Za-z0-9]+", "../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		there[strings.TrimPrefix(strings.TrimSpace(line), "func ")] = true
	}
	named := regexp.MustCompile("`[a-z]+\\.(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(page), -1)
	for _, n := range named {
		if !there[n[1]] {
			t.Errorf("docs/faults.md names %s, and there is no such test", n[1])
		}
	}
	if len(named) < 40 {
		t.Errorf("only %d tests are named", len(named))
	}
}
