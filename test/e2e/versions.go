package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Versions are of what a run is made of.
type Versions struct {
	Kubernetes string `json:"kubernetes"`
	Containerd string `json:"containerd"`
	Kernel     string `json:"kernel"`
	CPUs       int    `json:"cpus"`
}

func (v Versions) String() string {
	return fmt.Sprintf("Kubernetes %s, %s, Linux %s, %d processors", v.Kubernetes, v.Containerd, v.Kernel, v.CPUs)
}

// Versions asks a node.
func (b *Bed) Versions(ctx context.Context) (Versions, error) {
	const path = `{range .items[0]}{.status.nodeInfo.kubeletVersion} {.status.nodeInfo.containerRuntimeVersion} {.status.nodeInfo.kernelVersion} {.status.capacity.cpu}{end}`
	out, err := b.Kubectl(ctx, "get", "nodes", "-o", "jsonpath="+path)
	if err != nil {
		return Versions{}, err
	}
	var v Versions
	if _, err := fmt.Sscan(out, &v.Kubernetes, &v.Containerd, &v.Kernel, &v.CPUs); err != nil {
		return v, fmt.Errorf("reading versions of %q: %w", out, err)
	}
	v.Containerd = strings.Replace(v.Containerd, "://", " ", 1)
	return v, nil
}

// Commit is the repository's, with "+" if files are not as committed.
func (b *Bed) Commit(ctx context.Context) string {
	git := func(args ...string) string {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", b.Root, "-c", "safe.directory=*"}, args...)...).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	commit := git("rev-parse", "--short", "HEAD")
	if commit == "" {
		return "unknown"
	}
	if git("status", "--porcelain", "--untracked-files=no") != "" {
		commit += "+"
	}
	return commit
}
