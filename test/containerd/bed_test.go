//go:build linux

package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/build"
	"github.com/tortie/tortie/test/lab"
	"github.com/tortie/tortie/test/machine"
)

const (
	debianPlugins = "/usr/lib/cni"
	prefix        = "tortiecri" // of everything that a bed makes
)

// bed is a node of a lab with a containerd beside the agent.
type bed struct {
	dir  string
	lab  *lab.Lab
	node *lab.Node

	machine *machine.Machine
	runtime *machine.Process // containerd
	kubelet *kubelet
}

func newBed(t *testing.T) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs containers and needs root: run it with sudo")
	}
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // not everybody's sudo has them, and containerd looks for runc
	for _, need := range []string{"containerd", "ctr", "runc"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Fatalf("no %s here: scripts/deps.sh test installs it", need)
		}
	}
	sweep(t)
	b := &bed{dir: filepath.Join(os.TempDir(), netns.UniqueName(prefix))} // a socket's path must be short
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, b.dir) })
	b.build(t)
	b.startLab(t)
	b.startMachine(t)
	b.startRuntime(t)
	return b
}

// sweep removes what tests left whose process was killed: their machines ended with them.
func sweep(t *testing.T) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if netns.Orphaned(filepath.Base(dir), prefix) {
			remove(t, dir)
		}
	}
	if _, err := lab.Clean(); err != nil {
		t.Fatal(err)
	}
}

// remove removes a bed's files and cgroups.
func remove(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	removeCgroups(t, filepath.Base(dir))
}

func (b *bed) path(elem ...string) string { return filepath.Join(append([]string{b.dir}, elem...)...) }

// build makes the programs, the image, and the folders that containerd is pointed to.
func (b *bed) build(t *testing.T) {
	t.Helper()
	var errs []error
	for _, d := range []string{"bin", "cni", "conf"} {
		errs = append(errs, os.Mkdir(b.path(d), 0o755))
	}
	errs = append(errs, build.Programs(map[string]string{
		b.path("tortie"): "./cmd/tortie", b.path("bin", "tortie-cni"): "./cmd/tortie-cni", b.path("pause"): "./test/containerd/pause"}))
	for _, p := range []string{"loopback", "portmap"} { // the runtime calls the first itself
		errs = append(errs, os.Symlink(filepath.Join(debianPlugins, p), b.path("bin", p)))
	}
	errs = append(errs, writeImage(b.path("pause.tar"), b.path("pause")), os.WriteFile(b.path("containerd.toml"), []byte(b.config()), 0o600))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// config is containerd's configuration. Root may lack CAP_SYS_RESOURCE, so nobody's OOM score is to be lowered, and
// there may be no overlayfs below a temporary directory.
func (b *bed) config() string {
	return fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "%[1]s/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/bin"
    conf_dir = "%[1]s/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`, b.dir, imageName)
}

// conflist is the configuration of docs/cni.md, with the places of this node.
func (b *bed) conflist() []byte {
	return encode(object{"cniVersion": "1.0.0", "name": "tortie", "plugins": []object{b.plugin(),
		{"type": "portmap", "capabilities": object{"portMappings": true}}}})
}

func (b *bed) plugin() object {
	return object{"type": "tortie-cni", "ipam": object{"type": "tortie"}, "capabilities": object{"ips": true, "mac": true, "dns": true},
		"socket": b.node.Socket(), "notesDir": filepath.Join(b.node.StateDir(), "notes")}
}

type object = map[string]any

func encode(o object) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // of the test's own making
	}
	return b
}

func (b *bed) startLab(t *testing.T) {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Options{Binary: b.path("tortie"), Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	b.lab, b.node = l, l.Nodes[0]
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("agent:\n%s", b.node.Agent.Tail())
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
}

// startMachine makes the machine that containerd runs on: shims have their sockets in /run/containerd whatever its
// configuration says, and libcni its results in /var/lib/cni.
func (b *bed) startMachine(t *testing.T) {
	t.Helper()
	ns, err := netns.OpenNamed(b.node.Netns())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	b.machine, err = machine.New(machine.Options{Name: b.node.NodeName(), Netns: ns, Empty: []string{"/run", "/var/lib"},
		Binds: map[string]string{"/var/lib/cni": b.path("cni")}})
	if err != nil {
		t.Fatal(err)
	}
	if b.kubelet, err = newKubelet(b.path("containerd.sock"), "/"+filepath.Base(b.dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if log, _ := os.ReadFile(b.path("containerd.log")); t.Failed() {
			t.Logf("containerd:\n%s", log)
		}
		b.kubelet.conn.Close()
		b.machine.Close()
	})
}

// startRuntime starts containerd; it is up when it has the image.
func (b *bed) startRuntime(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(b.path("containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("containerd", "--config", b.path("containerd.toml"), "--log-level", "warn")
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, log, log
	if b.runtime, err = b.machine.Start(cmd); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	eventually(t, "an answer of containerd", func() error { // it may say that it is not initialized yet
		_, err := b.kubelet.runtime.Status(ctx, &cri.StatusRequest{})
		return err
	})
	if _, err := b.ctr(ctx, "images", "import", "--snapshotter", "native", b.path("pause.tar")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the image", func() error { return b.kubelet.hasImage(ctx) })
}

// killRuntime ends containerd as a crash does. Its sandboxes run on.
func (b *bed) killRuntime() {
	_ = b.runtime.Kill()
	_ = b.runtime.Wait()
}

// removeCgroups removes a cgroup in all hierarchies that there are. Its processes are gone with the machine.
func removeCgroups(t *testing.T, name string) {
	t.Helper()
	var dirs []string
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		found, _ := filepath.Glob(pattern)
		for _, dir := range found {
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	for _, dir := range slices.Backward(dirs) { // children first
		eventually(t, "removing "+dir, func() error { return syscall.Rmdir(dir) }) // busy until a dying process is gone
	}
}

// eventually waits until fn says nothing.
func eventually(t testing.TB, what string, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
