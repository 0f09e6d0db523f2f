package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/agent/config"
)

// TestControllersLogTheirServer: the clients of the controllers say when they go to another API server, as the store does.
func TestControllersLogTheirServer(t *testing.T) {
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}`)
	}))
	defer answers.Close()
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(`{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: "`+away.URL+`"}}],
		contexts: [{name: c, context: {cluster: c}}], current-context: c}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	k, err := openKubernetes(&config.Kubernetes{Kubeconfig: file, APIServers: []string{away.URL, answers.URL}}, "ns",
		slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Core.Nodes().Get(t.Context(), "n1", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(answers.URL, "http://"); !strings.Contains(said.String(), "another API server answers") || !strings.Contains(said.String(), want) {
		t.Errorf("%q does not name %s", said.String(), want)
	}
}
