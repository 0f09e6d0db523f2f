package kubetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tortie/tortie/internal/netns"
	"golang.org/x/sys/unix"
)

const (
	startTimeout = 90 * time.Second
	stopTimeout  = 20 * time.Second
)

// Bin is where `make e2e` has built a program.
func Bin(program string) string {
	return filepath.Join(cmp.Or(os.Getenv("TORTIE_E2E_DIR"), "/tmp/tortie-e2e"), "bin", program)
}

// ErrNotAsked says that the tests that need a real API server are not to be run. `make e2e` runs them; `make test` does the
// same on every machine, whatever has been built there.
var ErrNotAsked = errors.New("needs a real API server: make e2e runs it, by TORTIE_E2E=1")

// Server is a running API server.
type Server struct {
	// Dir holds what it writes, its certificates and logs.
	Dir string
	// Wire leads to it.
	*Wire
	// EtcdURL is where its etcd listens, for those who dial with Dial.
	EtcdURL string

	ns       *netns.Ns
	etcd, ap *exec.Cmd
}

// Start runs an API server with its data in dir, and waits until it is ready. Users are more ones than the administrator:
// their names by token.
func Start(dir string, users map[string]string) (s *Server, err error) {
	if os.Getenv("TORTIE_E2E") == "" {
		return nil, ErrNotAsked
	}
	for _, f := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(Bin(f)); err != nil {
			return nil, fmt.Errorf("%w (test/e2e/testbed build makes it)", err)
		}
	}
	s = &Server{Dir: dir, EtcdURL: "http://127.0.0.1:2379"}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if err := pki(dir); err != nil {
		return nil, err
	}
	var tokens strings.Builder
	for token, user := range users {
		fmt.Fprintf(&tokens, "%s,%s,%s\n", token, user, user)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokens"), []byte(tokens.String()), 0o600); err != nil {
		return nil, err
	}
	if s.ns, err = netns.Anonymous(); err != nil {
		return nil, fmt.Errorf("a network namespace for the API server (needs root): %w", err)
	}
	if err := s.ns.Do(loopbackUp); err != nil {
		return nil, err
	}
	if s.etcd, err = s.run("etcd", "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", s.EtcdURL, "--advertise-client-urls", s.EtcdURL,
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
		"--initial-cluster", "default=http://127.0.0.1:2380"); err != nil {
		return nil, err
	}
	if err := s.StartAPIServer(); err != nil {
		return nil, err
	}
	if s.Wire, err = newWire(func() (net.Conn, error) { return s.Dial("127.0.0.1:6443") }); err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.Kubeconfig(), []byte(s.kubeconfig()), 0o600); err != nil {
		return nil, err
	}
	return s, s.ready()
}

// StartAPIServer starts the API server, after StopAPIServer; it does not wait until it is ready.
func (s *Server) StartAPIServer() (err error) {
	in := func(name string) string { return filepath.Join(s.Dir, name) }
	s.ap, err = s.run("kube-apiserver", "--etcd-servers", s.EtcdURL, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
		"--endpoint-reconciler-type", "none", "--secure-port", "6443", "--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount",
		"--service-cluster-ip-range", "10.96.0.0/16", "--allow-privileged", "--profiling=false", "--event-ttl", "10m",
		"--client-ca-file", in("ca.crt"), "--tls-cert-file", in("apiserver.crt"), "--tls-private-key-file", in("apiserver.key"),
		"--token-auth-file", in("tokens"), "--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", in("accounts.key"), "--service-account-signing-key-file", in("accounts.key"))
	return err
}

// StopAPIServer ends the API server, and leaves etcd.
func (s *Server) StopAPIServer() { stop(s.ap) }

// run starts a program in the namespace. It ends with the process that we are.
func (s *Server) run(name string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(s.log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(Bin(name), args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.ns.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return cmd, nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("a socket: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("setting lo up: %w", err)
	}
	return nil
}

func (s *Server) log(name string) string { return filepath.Join(s.Dir, name+".log") }

func stop(cmd *exec.Cmd) {
	if cmd == nil || cmd.Process == nil || cmd.ProcessState != nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	late := time.AfterFunc(stopTimeout, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // how it ended does not matter
}

// Stop ends everything.
func (s *Server) Stop() {
	if s.Wire != nil {
		s.Wire.Close()
	}
	stop(s.ap)
	stop(s.etcd)
	if s.ns != nil {
		s.ns.Close()
	}
}

// Dial connects to an address inside the server's namespace.
func (s *Server) Dial(address string) (c net.Conn, err error) {
	err = s.ns.Do(func() error {
		c, err = net.DialTimeout("tcp", address, 5*time.Second)
		return err
	})
	return c, err
}

// Kubeconfig is the path of an administrator's configuration, which goes over the wire.
func (s *Server) Kubeconfig() string { return filepath.Join(s.Dir, "admin.conf") }

func (s *Server) kubeconfig() string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "%s", certificate-authority: %s/ca.crt}}]
users: [{name: admin, user: {client-certificate: %s/admin.crt, client-key: %s/admin.key}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
`, s.URL(), s.Dir, s.Dir, s.Dir)
}

// Client is an administrator's, which goes past the wire.
func (s *Server) Client() (*http.Client, error) {
	ca, err := os.ReadFile(filepath.Join(s.Dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(s.Dir, "admin.crt"), filepath.Join(s.Dir, "admin.key"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}},
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return s.Dial("127.0.0.1:6443") },
		ForceAttemptHTTP2: true,
	}}, nil
}

// ready waits until the server is.
func (s *Server) ready() error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	var last error
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if last = get(c, "https://127.0.0.1:6443/readyz"); last == nil {
			return nil
		}
	}
	return fmt.Errorf("the API server is not ready: %w\n%s", last, s.tail("kube-apiserver"))
}

func get(c *http.Client, url string) error {
	res, err := c.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(body))
	}
	return err
}

func (s *Server) tail(name string) string {
	b, err := os.ReadFile(s.log(name))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-3000):])
}
