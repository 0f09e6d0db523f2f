//go:build e2e

package admission

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/netns"
	"github.com/vishvananda/netlink"
	"sigs.k8s.io/yaml"
)

const (
	address = "10.99.0.1" // of the loopback interface: an API server advertises no 127.0.0.1
	token   = "admin-of-the-test"
)

// A server is a real API server with the CRDs and the admission policies.
type server struct {
	client *http.Client
	ns     *netns.Ns
}

// bin finds a program of the bed.
func bin(name string) (string, error) {
	dir := os.Getenv("TORTIE_E2E_DIR")
	if dir == "" {
		dir = "/tmp/tortie-e2e"
	}
	path := filepath.Join(dir, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; build it with test/e2e/testbed build", err)
	}
	return path, nil
}

// start runs etcd and the API server until the test ends.
func start(t *testing.T) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: its API server has a network namespace of its own")
	}
	ns, err := netns.Anonymous()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := ns.Do(loopback); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "sa.key")
	writeKey(t, key)
	tokens := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(token+`,admin,admin,"system:masters"`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon(t, ns, dir, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380")
	log := daemon(t, ns, dir, "kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379", "--cert-dir", filepath.Join(dir, "pki"),
		"--bind-address", address, "--advertise-address", address, "--secure-port", "6443", "--endpoint-reconciler-type", "none",
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction", "--token-auth-file", tokens,
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--service-cluster-ip-range", "10.96.0.0/16", "--profiling=false")
	s := &server{ns: ns}
	s.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it has made its certificate itself, in a namespace of ours
		DialContext:     s.dial,
	}}
	t.Cleanup(s.client.CloseIdleConnections)
	s.wait(t, "the API server is ready (log in "+log+")", func() error {
		if code, body := s.do(t, admin, http.MethodGet, "/readyz", nil); code != http.StatusOK {
			return errors.New(body.text)
		}
		return nil
	})
	return s
}

func loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address + "/32")
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(lo, a), netlink.LinkSetUp(lo))
}

func writeKey(t *testing.T, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// daemon runs a program in the namespace, and returns the path of its log.
func daemon(t *testing.T, ns *netns.Ns, dir, name string, args ...string) string {
	t.Helper()
	path, err := bin(name)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the end of the log of %s:\n%s", name, b[max(0, len(b)-3000):])
		}
		cmd.Process.Kill()
		cmd.Wait()
	})
	return log.Name()
}

// dial connects inside of the namespace.
func (s *server) dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	return c, errors.Join(s.ns.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr)
		return err
	}))
}

// A user is who asks: everybody but the administrator is impersonated.
type user struct {
	name   string
	groups []string
	node   string // that the token of an agent names
}

var admin = user{}

// answer is what the API server says.
type answer struct {
	text   string
	object map[string]any
}

func (a answer) message() string {
	m, _ := a.object["message"].(string)
	return m
}

func (s *server) do(t *testing.T, u user, method, path string, body any) (int, answer) {
	t.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+address+":6443"+path, in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	if u.name != "" {
		req.Header.Set("Impersonate-User", u.name)
		for _, g := range append(u.groups, "system:authenticated") {
			req.Header.Add("Impersonate-Group", g)
		}
		if u.node != "" {
			req.Header.Set("Impersonate-Extra-"+url.PathEscape("authentication.kubernetes.io/node-name"), u.node)
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, answer{text: err.Error()}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, answer{text: err.Error()}
	}
	a := answer{text: string(b)}
	if err := json.Unmarshal(b, &a.object); err != nil {
		a.object = nil
	}
	return resp.StatusCode, a
}

// must is for what has to work, for the rest of the test to say anything.
func (s *server) must(t *testing.T, method, path string, body any) {
	t.Helper()
	if code, a := s.do(t, admin, method, path, body); code >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, code, a.text)
	}
}

// wait polls until ready returns nil.
func (s *server) wait(t *testing.T, what string, ready func() error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := ready()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("waiting until %s: %v", what, t.Context().Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// documents reads YAML files.
func documents(t *testing.T, pattern string) []map[string]any {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal(pattern, files, err)
	}
	var out []map[string]any
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(b), "\n---\n") {
			var o map[string]any
			if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			out = append(out, o)
		}
	}
	return out
}

// paths says where the objects of a kind of Kubernetes are made.
var paths = map[string]string{
	"CustomResourceDefinition":         "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
	"ValidatingAdmissionPolicy":        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
	"ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
	"ClusterRole":                      "/apis/rbac.authorization.k8s.io/v1/clusterroles",
	"ClusterRoleBinding":               "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}

// install applies deploy/crds and deploy/policies, and waits until they are in force.
func (s *server) install(t *testing.T) {
	t.Helper()
	for _, o := range append(documents(t, "../../../deploy/crds/*.yaml"), documents(t, "../../../deploy/policies/*.yaml")...) {
		kind := o["kind"].(string)
		if paths[kind] == "" {
			t.Fatalf("nobody knows where a %s goes", kind)
		}
		s.must(t, http.MethodPost, paths[kind]+"?fieldValidation=Strict", o)
	}
	s.wait(t, "all kinds are served", func() error {
		for _, d := range documents(t, "../../../deploy/crds/*.yaml") {
			name := d["metadata"].(map[string]any)["name"].(string)
			plural, _, _ := strings.Cut(name, ".")
			if code, a := s.do(t, admin, http.MethodGet, api+"/"+plural, nil); code != http.StatusOK {
				return fmt.Errorf("%s: %d %s", plural, code, a.text)
			}
		}
		return nil
	})
}
