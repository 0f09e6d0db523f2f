package imports

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/tortie/tortie/test/build"
)

// mayExec are the packages that start programs, and why. Nothing that anybody but the user of the command line says may
// reach a command.
var mayExec = map[string]string{
	module + "/ctl": "the user's own editor, with a file of our making as its one argument",
}

// TestExec: the daemons and the plugin start no programs, so that nothing that anybody says can end up in a shell. (The CNI
// library starts the IPAM plugin that the network configuration names, which is root's file.)
func TestExec(t *testing.T) {
	if err := build.TouchSources(); err != nil {
		t.Fatal(err)
	}
	for _, goos := range []string{"linux", "windows"} {
		cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
		cmd.Env = append(cmd.Environ(), "GOOS="+goos)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		seen := 0
		for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
			var p pkg
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if under(p.ImportPath, module+"/test") || under(p.ImportPath, module+"/internal/mutate") {
				continue
			}
			seen++
			for _, i := range p.Imports {
				if i == "os/exec" && mayExec[p.ImportPath] == "" {
					t.Errorf("%s imports os/exec", p.ImportPath)
				}
			}
		}
		if seen < 20 {
			t.Errorf("%s: only %d packages were seen", goos, seen)
		}
	}
}
