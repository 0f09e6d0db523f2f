package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/agent/config"
)

// TestFilesOfAnAgent: what `clean --all` removes is the agent's alone, the configuration first.
func TestFilesOfAnAgent(t *testing.T) {
	for _, c := range []struct {
		config string
		want   []string
	}{
		{"", []string{"/var/lib/tortie/ledger", "/var/lib/tortie/notes", "/var/lib/tortie/state", "/run/tortie/agent.sock", "/run/tortie/boot"}},
		{"{stateDir: /s, runDir: /r, cni: {binDir: /b, confDir: /c, confName: 05-x.conflist}}", []string{
			"/c/05-x.conflist", "/b/tortie-cni", "/s/ledger", "/s/notes", "/s/state", "/r/agent.sock", "/r/boot"}},
	} {
		cfg, err := config.Parse([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, files(cfg)); d != "" {
			t.Errorf("%s: %s", c.config, d)
		}
	}
}
