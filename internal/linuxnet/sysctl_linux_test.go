package linuxnet

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns/netnstest"
)

// hostDirEnv says where the host's /proc/sys/net is mounted for the part of TestSysctlsInContainer that is in a container.
const hostDirEnv = "TEST_HOST_SYSCTLS"

// TestSysctlsInContainer: with a /proc/sys that can't be written, as in a container, that of the host is.
func TestSysctlsInContainer(t *testing.T) {
	if dir := os.Getenv(hostDirEnv); dir != "" {
		inContainer(t, dir)
		return
	}
	script := `mount --make-rprivate / && mount --bind /proc/sys/net "$` + hostDirEnv + `" && mount --bind /proc/sys /proc/sys &&
mount -o remount,ro,bind /proc/sys && exec "$0" "$@"`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, os.Args[0], "-test.run=^TestSysctlsInContainer$", "-test.v")
	cmd.Env = append(os.Environ(), hostDirEnv+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestSysctlsInContainer") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func inContainer(t *testing.T, dir string) {
	ns := netnstest.New(t)
	c, err := Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other, err := Open(netnstest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	want := []Sysctl{{Path: "ipv4/ip_forward", Value: "1"}, {Path: "ipv6/conf/lo/disable_ipv6", Value: "1"}}
	c.hostSysctls = filepath.Join(dir, "none")
	if err := c.SetSysctls(want); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), c.hostSysctls) {
		t.Errorf("without the host's: %v", err)
	}
	c.hostSysctls = dir
	if err := c.SetSysctls(want); err != nil {
		t.Fatal(err)
	}
	if diff, err := c.DiffSysctls(want); err != nil || len(diff) > 0 {
		t.Errorf("after: %v, %v", diff, err)
	}
	if v, err := other.Sysctl("ipv4/ip_forward"); err != nil || v != "0" {
		t.Errorf("in another namespace: %q, %v", v, err)
	}
}
