package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildOld makes the older release from this repository's history with its own tooling, unless that was done before. It
// returns the folder with its sources; the image is in bin/images/tortie.tar there.
func (b *Bed) BuildOld(ctx context.Context) (string, error) {
	releases := filepath.Join(b.State(), "releases")
	dir := filepath.Join(releases, OldCommit)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(releases, 0o755); err != nil {
		return "", err
	}
	half, err := os.MkdirTemp(releases, ".building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(half)
	tar := filepath.Join(half, "source.tar")
	for _, cmd := range [][]string{
		{"git", "-C", b.Root, "archive", "--format=tar", "-o", tar, OldCommit},
		{"tar", "-xf", tar, "-C", half},
		{"rm", tar},
		{"make", "-C", half, "images", "VERSION=" + OldVersion},
	} {
		if err := run(ctx, cmd...); err != nil {
			return "", fmt.Errorf("building %s of commit %s, which a clone without history does not have: %w", OldVersion, OldCommit, err)
		}
	}
	if err := os.Chmod(half, 0o755); err != nil {
		return "", err
	}
	return dir, os.Rename(half, dir)
}

// run runs a command that must not know that a make is running it.
func run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
