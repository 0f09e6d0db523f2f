//go:build linux

package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// memberEnv makes this program run one member of an etcd cluster: it holds a member as JSON.
const memberEnv = "TORTIE_FAULTS_MEMBER"

// member is an etcd of somebody else, as a process that can be killed: the machines' peers of a real cluster.
type member struct {
	Name, Dir, Socket, Peer string
	Cluster                 string // name=url of all members
	cmd                     *exec.Cmd
}

func runMember(text string) int {
	if err := serveMember(text); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func serveMember(text string) error {
	var m member
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return err
	}
	_ = os.Remove(m.Socket) // of a member that was killed
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster = m.Name, m.Dir, m.Cluster
	c.TickMs, c.ElectionMs = 50, 500
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	client, peer := url.URL{Scheme: "unix", Path: m.Socket}, url.URL{Scheme: "http", Host: m.Peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	return <-e.Err()
}

func (m *member) endpoint() string { return "unix://" + m.Socket }

func (m *member) start(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	m.cmd = exec.Command("/proc/self/exe")
	m.cmd.Env = append(os.Environ(), memberEnv+"="+string(text))
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		said <- strings.TrimSpace(line)
	}()
	select {
	case line := <-said:
		if line != "listening" {
			t.Fatalf("etcd %s says %q", m.Name, line)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("etcd %s does not start", m.Name)
	}
}

func (m *member) kill() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// newCluster starts an etcd of three members.
func newCluster(t *testing.T) []*member {
	t.Helper()
	dir, err := os.MkdirTemp("", "tfe") // short: it holds Unix sockets
	if err != nil {
		t.Fatal(err)
	}
	var ms []*member
	var all []string
	for i := range 3 {
		m := &member{Name: fmt.Sprintf("m%d", i), Dir: filepath.Join(dir, fmt.Sprintf("m%d", i)), Socket: filepath.Join(dir, fmt.Sprintf("s%d", i)), Peer: freePort(t)}
		ms, all = append(ms, m), append(all, m.Name+"=http://"+m.Peer)
	}
	t.Cleanup(func() {
		for _, m := range ms {
			m.kill()
		}
		os.RemoveAll(dir)
	})
	for _, m := range ms {
		m.Cluster = strings.Join(all, ",")
		m.start(t)
	}
	return ms
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
