package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/test/kubetest"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"sigs.k8s.io/yaml"
)

const patience = 30 * time.Second

// cluster is the one real API server of this package's tests. They take turns.
type cluster struct {
	*kubetest.Server
	client *http.Client
	turn   sync.Mutex
}

var started struct {
	once sync.Once
	c    *cluster
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if started.c != nil {
		started.c.Stop()
		os.RemoveAll(started.c.Dir)
	}
	os.Exit(code)
}

// users have no rights but those that a test gives them.
var users = map[string]string{"reader-token": "reader"}

func startCluster() (*cluster, error) {
	dir, err := os.MkdirTemp("", "tortie-kube")
	if err != nil {
		return nil, err
	}
	s, err := kubetest.Start(dir, users)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	c := &cluster{Server: s}
	if c.client, err = s.Client(); err != nil {
		return c, err
	}
	return c, c.applyCRDs()
}

// take returns the cluster, empty, for the rest of the test.
func take(t testing.TB) *cluster {
	t.Helper()
	started.once.Do(func() { started.c, started.err = startCluster() })
	if errors.Is(started.err, kubetest.ErrNotAsked) {
		t.Skip(started.err)
	}
	if started.err != nil {
		t.Fatal(started.err)
	}
	c := started.c
	c.turn.Lock()
	t.Cleanup(c.turn.Unlock)
	c.empty(t)
	return c
}

// call makes a request as an administrator, past the wire.
func (c *cluster) call(method, path string, body any) ([]byte, error) {
	data, ok := body.([]byte)
	if !ok && body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequest(method, "https://127.0.0.1:6443"+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/apply-patch+yaml")
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, out)
	}
	return out, err
}

func (c *cluster) applyCRDs() error {
	files, err := filepath.Glob("../../deploy/crds/*.yaml")
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no CustomResourceDefinitions in deploy/crds: %w", err)
	}
	var names []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for _, doc := range strings.Split(string(data), "\n---") {
			name, err := c.apply("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/", []byte(doc))
			if err != nil {
				return err
			}
			if name != "" {
				names = append(names, name)
			}
		}
	}
	for _, n := range names {
		plural, _, _ := strings.Cut(n, ".")
		if err := c.untilServed("/apis/projectcalico.org/v3/" + plural + "?limit=1"); err != nil {
			return err
		}
	}
	return nil
}

// apply writes one YAML document, and returns its name.
func (c *cluster) apply(path string, doc []byte) (string, error) {
	var o struct {
		Metadata struct{ Name string } `json:"metadata"`
	}
	if err := yaml.Unmarshal(doc, &o); err != nil || o.Metadata.Name == "" {
		return "", err
	}
	_, err := c.call(http.MethodPatch, path+o.Metadata.Name+"?fieldManager=test&force=true", doc)
	return o.Metadata.Name, err
}

func (c *cluster) untilServed(path string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		_, err := c.call(http.MethodGet, path, nil)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// empty deletes what tests leave behind.
func (c *cluster) empty(t testing.TB) {
	t.Helper()
	c.Up()
	paths := []string{"/api/v1/nodes"}
	for _, ns := range c.namespaces(t) {
		for _, p := range []string{"/api/v1/namespaces/%s/pods?gracePeriodSeconds=0", "/api/v1/namespaces/%s/serviceaccounts",
			"/apis/networking.k8s.io/v1/namespaces/%s/networkpolicies", "/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices"} {
			paths = append(paths, fmt.Sprintf(p, ns))
		}
	}
	for _, src := range sources(seed) {
		if !strings.HasSuffix(src.name, ".projectcalico.org") {
			continue
		}
		if !src.namespaced {
			paths = append(paths, src.path+"/"+src.plural)
			continue
		}
		for _, ns := range c.namespaces(t) {
			paths = append(paths, fmt.Sprintf("%s/namespaces/%s/%s", src.path, ns, src.plural))
		}
	}
	for _, p := range paths {
		if _, err := c.call(http.MethodDelete, p, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *cluster) namespaces(t testing.TB) (out []string) {
	t.Helper()
	data, err := c.call(http.MethodGet, "/api/v1/namespaces", nil)
	if err != nil {
		t.Fatal(err)
	}
	var l struct {
		Items []struct {
			Metadata struct{ Name string } `json:"metadata"`
		} `json:"items"`
	}
	if err := json.Unmarshal(data, &l); err != nil {
		t.Fatal(err)
	}
	for _, i := range l.Items {
		out = append(out, i.Metadata.Name)
	}
	return out
}

// must makes a request that has to succeed.
func (c *cluster) must(t testing.TB, method, path string, body any) []byte {
	t.Helper()
	out, err := c.call(method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// open returns a store on the cluster: over the wire, or past it.
func (c *cluster) open(t testing.TB, wire bool) *Store {
	t.Helper()
	rc, err := Config{Kubeconfig: c.Kubeconfig(), Version: "test"}.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	if !wire {
		rc.Host = "https://127.0.0.1:6443"
		rc.Dial = func(_ context.Context, _, address string) (net.Conn, error) { return c.Dial(address) }
	}
	s, err := open(rc, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// compact forgets all history that etcd has.
func (c *cluster) compact(t testing.TB) {
	t.Helper()
	e, err := clientv3.New(clientv3.Config{Endpoints: []string{c.EtcdURL}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			return c.Dial(strings.TrimPrefix(c.EtcdURL, "http://"))
		})}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := e.Get(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Compact(ctx, got.Header.Revision); err != nil && !strings.Contains(err.Error(), "has been compacted") {
		t.Fatal(err)
	}
}

// path is where an object of our own kinds is.
func path(k api.Key) string {
	info, _ := api.KindByName(k.Kind)
	p := "/apis/projectcalico.org/v3/"
	if k.Namespace != "" {
		p += "namespaces/" + k.Namespace + "/"
	}
	return p + info.Plural
}
