package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const namespace = "tortie-system"

// settings are what is written into the manifest's section cni of the agents' settings.
var settings = map[From]string{
	FromHostLocal: "ipam: {type: host-local, ranges: [[{subnet: usePodCidr}]]}",
	FromAnother:   "chainTo: routed\n      confName: 00-tortie.conflist",
}

const lastOfCNI = "      confDir: /host/etc/cni/net.d\n" // of the manifest's section cni

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
	if err := b.await(ctx, "-n", namespace, "rollout", "status", "daemonset/tortie-agent", "--timeout=180s"); err != nil {
		return err
	}
	if c.From == FromAnother {
		if err := b.replug(ctx); err != nil {
			return err
		}
	}
	for _, what := range [][]string{
		{"-n", namespace, "rollout", "status", "deployment/tortie-controllers", "--timeout=180s"},
		{"wait", "nodes", "--all", "--for=condition=Ready", "--timeout=120s"},
		{"-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s"},
	} {
		if err := b.await(ctx, what...); err != nil {
			return err
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
	manifest, err := os.ReadFile(filepath.Join(b.Root, "deploy/tortie.yaml"))
	if err != nil {
		return err
	}
	text := string(manifest)
	if more := settings[c.From]; more != "" {
		if strings.Count(text, lastOfCNI) != 1 {
			return fmt.Errorf("deploy/tortie.yaml has not one line %q to write settings behind", lastOfCNI)
		}
		text = strings.Replace(text, lastOfCNI, lastOfCNI+"      "+more+"\n", 1)
	}
	if err := b.Apply(ctx, text); err != nil {
		return err
	}
	if _, err := b.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd/ippools.projectcalico.org"); err != nil {
		return err
	}
	return b.applyPools(ctx, c)
}

func (b *Bed) applyPools(ctx context.Context, c Cluster) error {
	var pools []string
	if c.From == FromPools && !c.IPv6 {
		pools = append(pools, "pool.yaml")
	}
	if c.From == FromPools && (c.IPv6 || c.Dual) {
		pools = append(pools, "pool-ipv6.yaml")
	}
	if c.From == FromHostLocal {
		pools = append(pools, "pool-of-nodes.yaml")
	}
	for _, p := range pools {
		if _, err := b.Kubectl(ctx, "apply", "-f", filepath.Join(b.Root, "examples/kubernetes", p)); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bed) await(ctx context.Context, args ...string) error {
	if _, err := b.Kubectl(ctx, args...); err != nil {
		return fmt.Errorf("waiting for what was installed: %w", err)
	}
	return nil
}

// replug makes those pods anew that the other plugin has plugged in without Tortie, once Tortie is behind it on all nodes.
func (b *Bed) replug(ctx context.Context) error {
	nodes, err := b.Nodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		const look = "for i in $(seq 300); do [ ! -e /etc/cni/net.d/00-tortie.conflist ] || exit 0; sleep 0.2; done; exit 1"
		if _, err := b.Exec(ctx, n, "sh", "-c", look); err != nil {
			return fmt.Errorf("no agent has written its configuration on %s: %w", n, err)
		}
	}
	_, err = b.Kubectl(ctx, "-n", "kube-system", "rollout", "restart", "deployment/coredns")
	return err
}
