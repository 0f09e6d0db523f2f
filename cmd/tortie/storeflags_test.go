package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/agent/config"
)

// TestKubernetesStore: the API server is named as any other store is, for the agent and for the verbs.
func TestKubernetesStore(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("TORTIE_STORE", "")
	t.Setenv("NODE_NAME", "node7")
	file := filepath.Join(t.TempDir(), "agent.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	agent := func(args ...string) config.Config {
		t.Helper()
		cmd := agentCommand()
		(&storeFlags{}).register(cmd.PersistentFlags())
		cmd.Flags().String("socket", "", "")
		var cfg config.Config
		cmd.RunE = func(c *cobra.Command, _ []string) (err error) {
			cfg, err = agentConfig(c.Flags(), file, config.Default())
			return err
		}
		cmd.SetArgs(args)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	write("store: {kubernetes: {apiServers: ['https://192.0.2.1:6443']}}\n")
	if c := agent(); c.Store.Kubernetes == nil || len(c.Store.Kubernetes.APIServers) != 1 || c.NodeName != "node7" || c.EndpointToHost != "Accept" ||
		filepath.Base(c.CNI.Source) != "tortie-cni" || !filepath.IsAbs(c.CNI.Source) {
		t.Errorf("the file: %+v", c)
	}
	if c := agent("--store", "kubernetes:/my/config"); c.Store.Kubernetes == nil || c.Store.Kubernetes.Kubeconfig != "/my/config" || len(c.Store.Kubernetes.APIServers) != 1 {
		t.Errorf("the flag over the file: %+v", c.Store)
	}
	if c := agent("--store", "unix:///x"); c.Store.Kubernetes != nil || c.Store.Endpoints[0] != "unix:///x" || c.EndpointToHost != "Drop" {
		t.Errorf("another store over the file: %+v", c.Store)
	}
	write("nodeName: node1\n")
	if c := agent(); c.NodeName != "node1" || c.Store.Kubernetes != nil {
		t.Errorf("the file's name: %+v", c)
	}
	t.Setenv("TORTIE_STORE", "kubernetes")
	if c := agent(); c.Store.Kubernetes == nil {
		t.Errorf("the environment: %+v", c.Store)
	}

	s := &storeFlags{endpoints: []string{"kubernetes:/my/config"}}
	if c := s.settings(); c.Kubernetes == nil || c.Kubernetes.Kubeconfig != "/my/config" || !s.oneByOne() {
		t.Errorf("a verb: %+v", c)
	}
	s.endpoints = []string{"unix:///x"}
	if c := s.settings(); c.Kubernetes != nil || s.oneByOne() {
		t.Errorf("a verb with another store: %+v", c)
	}
}
