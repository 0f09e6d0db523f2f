//go:build e2e && linux

package upgrade

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// helm runs Helm where kubectl runs.
func (b *bed) helm(args ...string) string {
	b.Helper()
	state := b.Bed.State()
	env := []string{"env", "HOME=" + filepath.Join(state, "run/helm"), "KUBECONFIG=" + filepath.Join(state, "run/kubeconfig/admin.conf")}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := b.Bed.Exec(ctx, "hub", slices.Concat(env, []string{b.Bed.Bin("helm")}, args)...)
	if err != nil {
		b.Fatalf("helm %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// TestHelm: the older chart installed, upgraded to this one, back, and removed.
func TestHelm(t *testing.T) {
	b := open(t)
	b.bare()
	b.pull(b.old, b.nodes()...)
	b.pull(b.tree, b.nodes()...)
	b.helm("install", "tortie", b.old.chart(), "--namespace", bedtest.System, "--create-namespace",
		"--set", "pools[0].name=pods,pools[0].cidr=10.244.0.0/16,pools[0].natOutgoing=true")
	b.rolledOut()
	b.running(b.old)
	b.restartOthers()
	b.MakeNamespace()
	s := b.Scene()
	f := s.StartPatientFlow()

	b.do("kubectl apply -f deploy/crds")
	b.helm("upgrade", "tortie", b.tree.chart(), "--namespace", bedtest.System, "--reset-then-reuse-values")
	b.rolledOut()
	b.running(b.tree)
	s.Holds()
	b.helm("rollback", "tortie", "--namespace", bedtest.System)
	b.rolledOut()
	b.running(b.old)
	s.Holds()
	b.helm("upgrade", "tortie", b.tree.chart(), "--namespace", bedtest.System, "--reset-then-reuse-values")
	b.rolledOut()
	b.running(b.tree)
	f.Lossless()
	s.Holds()
	s.NoSandboxRebuilt()

	b.objects()
	b.do("kubectl delete -f deploy/crds")
	b.helm("uninstall", "tortie", "--namespace", bedtest.System)
	b.do("kubectl delete namespace tortie-system")
	for _, command := range b.commands("Remove it")[2:] {
		b.do(command)
	}
	b.gone()
}
