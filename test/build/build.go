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

// Programs builds main packages of this module into files, statically. The keys are the files, the values the packages
// ("cmd/tortie"). The test must run in a folder two below the module's.
func Programs(programs map[string]string) error {
	if err := touchSources("../.."); err != nil {
		return fmt.Errorf("looking at the sources: %w", err)
	}
	for file, pkg := range programs {
		cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", file, "github.com/tortie/tortie/"+pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// touchSources looks at each source file, so that `go test` does not answer from its cache when one has changed: it sees
// what a test opens itself, but not what `go build` reads.
func touchSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
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
}
