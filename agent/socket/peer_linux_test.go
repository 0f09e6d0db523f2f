package socket

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tortie/tortie/internal/agentapi"
)

// TestPeerCredentials asks as other users, which takes root to become: this test binary again, as the client.
func TestPeerCredentials(t *testing.T) {
	if path := os.Getenv("TORTIE_TEST_SOCKET"); path != "" {
		c := agentapi.NewClient(path)
		_, look := c.Status(t.Context(), agentapi.StatusRequest{})
		_, attach := c.Attach(t.Context(), agentapi.AttachRequest{Sandbox: "s"}, nil)
		detach := c.Detach(t.Context(), agentapi.DetachRequest{})
		check := c.Check(t.Context(), agentapi.CheckRequest{}, nil)
		t.Fatalf("look: %v\nattach: %v\ndetach: %v\ncheck: %v", look, attach, detach, check)
	}
	if os.Getuid() != 0 {
		t.Fatal("this test must run as root: it asks as other users")
	}
	dir, err := os.MkdirTemp("/tmp", "tortie-peer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self := filepath.Join(dir, "test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, b, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &desk{attach: func(context.Context, agentapi.AttachRequest, *os.File) error { return nil }}
	path, _ := serve(t, d, func(s *Server) {
		s.rights = func(c *net.UnixConn) (rights, error) { return checkPeer(c, 4321) }
	})
	// The file lets everyone in; it is the credentials that must not.
	for p := path; p != "/tmp"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	everything := []string{"look: <nil>", "attach: <nil>", "detach: plain error", "check: <nil>"}
	look := []string{"look: <nil>", "attach is root's to ask for", "detach is root's to ask for", "check is root's to ask for"}
	nothing := []string{"look: user 1234 may not ask this agent", "attach: user 1234 may not", "detach: user 1234 may not", "check: user 1234 may not"}
	for _, c := range []struct {
		name string
		cred syscall.Credential
		want []string
	}{
		{"root", syscall.Credential{}, everything},
		{"root of another group", syscall.Credential{Gid: 1234}, everything},
		{"a stranger", syscall.Credential{Uid: 1234, Gid: 1234, NoSetGroups: false}, nothing},
		{"a stranger of root's group", syscall.Credential{Uid: 1234, Gid: 0}, nothing},
		{"of the group", syscall.Credential{Uid: 1234, Gid: 4321}, look},
		{"also of the group", syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{7, 4321}}, look},
		{"of other groups", syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{7, 8}}, nothing},
	} {
		before := d.asked.Load()
		cmd := exec.Command(self, "-test.run", "^TestPeerCredentials$")
		cmd.Env = append(os.Environ(), "TORTIE_TEST_SOCKET="+path)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &c.cred}
		out, _ := cmd.CombinedOutput() // it always fails, to say what it got
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: %s\nwant %q", c.name, out, want)
			}
		}
		if n := d.asked.Load() - before; n != map[string]int32{everything[1]: 4, look[1]: 1, nothing[1]: 0}[c.want[1]] {
			t.Errorf("%s: the handler was asked %d times", c.name, n)
		}
	}
}
