package e2e

import (
	"context"
	"fmt"
	"strings"
)

// The older release that a cluster is upgraded from, and the commit that is tagged so: not every clone has tags.
const (
	OldVersion = "v0.1.0"
	OldCommit  = "08b7c379e0e055f7f32dab1c9ad48836966b88cf"
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

// tortie is the version of the agents that run, "none" without any.
func (b *Bed) tortie(ctx context.Context) string {
	out, err := b.Kubectl(ctx, "-n", namespace, "exec", "daemonset/tortie-agent", "--", "/tortie", "version")
	if f := strings.Fields(out); err == nil && len(f) > 1 {
		return f[1]
	}
	return "none"
}
