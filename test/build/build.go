// Package build builds the programs of this module for tests that run them.
package build

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/tortie/tortie"

// Programs builds main packages into files, statically. The keys are the files, the values the packages: "./cmd/tortie" of
// this module, or a whole import path. Flags are more ones for go build. The test must run in a folder two below the module's.
func Programs(programs map[string]string, flags ...string) error {
	if err := TouchSources(); err != nil {
		return err
	}
	for file, pkg := range programs {
		if below, ok := strings.CutPrefix(pkg, "./"); ok {
			pkg = module + "/" + below
		}
		args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", file}, flags...)
		cmd := exec.Command("go", append(args, pkg)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// TouchSources looks at each source file, so that `go test` does not answer from its cache when one has changed: it sees
// what a test opens itself, but not what `go build` and `go list` read. The test must run in a folder two below the module's.
func TouchSources() error {
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".git"):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go"), d.Name() == "go.mod":
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("looking at the sources: %w", err)
	}
	return nil
}
