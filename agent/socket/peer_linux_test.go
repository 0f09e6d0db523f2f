package socket

import (
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
		_, err := agentapi.NewClient(path).Status(t.Context(), agentapi.StatusRequest{})
		t.Fatalf("answer: %v", err)
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
	path, _ := serve(t, &desk{}, func(s *Server) {
		s.allowed = func(c *net.UnixConn) error { return checkPeer(c, 4321) }
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
	for _, c := range []struct {
		name string
		cred syscall.Credential
		want string
	}{
		{"root", syscall.Credential{}, "answer: <nil>"},
		{"a stranger", syscall.Credential{Uid: 1234, Gid: 1234, NoSetGroups: false}, "user 1234 may not ask this agent"},
		{"of the group", syscall.Credential{Uid: 1234, Gid: 4321}, "answer: <nil>"},
		{"also of the group", syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{7, 4321}}, "answer: <nil>"},
		{"of other groups", syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{7, 8}}, "user 1234 may not ask this agent"},
	} {
		cmd := exec.Command(self, "-test.run", "^TestPeerCredentials$")
		cmd.Env = append(os.Environ(), "TORTIE_TEST_SOCKET="+path)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &c.cred}
		out, _ := cmd.CombinedOutput() // it always fails, to say what it got
		if !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %s\nwant %q", c.name, out, c.want)
		}
	}
}
