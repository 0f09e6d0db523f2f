package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const namespace = "tortie-system"

// pool6 is the second pool of a cluster with both families, beside the one that users apply.
const pool6 = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods-ipv6}
spec: {cidr: "fd00:244::/48", natOutgoing: true}
`

// Install does what users do, with the images of `make images`: it applies the manifest and a pool, and waits until
// pods run.
func (b *Bed) Install(ctx context.Context, c Cluster) error {
	image := filepath.Join(b.Root, "bin/images/tortie.tar")
	if _, err := os.Stat(image); err != nil {
		return fmt.Errorf("the image of `make images`: %w", err)
	}
	start := time.Now()
	if err := b.testbed(ctx, nil, "import", image); err != nil {
		return err
	}
	if err := b.applyManifest(ctx, c); err != nil {
		return fmt.Errorf("installing: %w", err)
	}
	for _, what := range [][]string{
		{"-n", namespace, "rollout", "status", "daemonset/tortie-agent", "--timeout=180s"},
		{"-n", namespace, "rollout", "status", "deployment/tortie-controllers", "--timeout=180s"},
		{"wait", "nodes", "--all", "--for=condition=Ready", "--timeout=120s"},
		{"-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s"},
	} {
		if _, err := b.Kubectl(ctx, what...); err != nil {
			return fmt.Errorf("waiting for what was installed: %w", err)
		}
	}
	fmt.Fprintf(b.Out, "installed, and pods run, after %.0fs\n", time.Since(start).Seconds())
	return nil
}

func (b *Bed) applyManifest(ctx context.Context, c Cluster) error {
	// ClusterNetworkPolicy is no part of Kubernetes: who wants it installs it
	if _, err := b.Kubectl(ctx, "apply", "-f", filepath.Join(b.State(), "cnp/crd.yaml")); err != nil {
		return err
	}
	if _, err := b.Kubectl(ctx, "apply", "-f", filepath.Join(b.Root, "deploy/tortie.yaml")); err != nil {
		return err
	}
	if _, err := b.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd/ippools.projectcalico.org"); err != nil {
		return err
	}
	if _, err := b.Kubectl(ctx, "apply", "-f", filepath.Join(b.Root, "examples/kubernetes/pool.yaml")); err != nil {
		return err
	}
	if !c.Dual {
		return nil
	}
	return b.Apply(ctx, pool6)
}
