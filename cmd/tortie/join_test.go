package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/ctl"
	"github.com/tortie/tortie/store/join"
)

func TestWriteSettings(t *testing.T) {
	files := join.FilesIn("/pki", "node")
	const endpoint = "https://192.0.2.1:2379"
	for name, c := range map[string]struct {
		old, want string // want "" = as in new
		fails     string
	}{
		"new file": {"", "nodeName: n2\n" + files.StoreBlock(endpoint), ""},
		"others stay": {"# mine\ndriver: linux\nnodeName: old\nstore:\n  endpoints: [unix:///run/x]\n# end\n",
			"# mine\ndriver: linux\nnodeName: n2\n" + files.StoreBlock(endpoint) + "# end\n", ""},
		"JSON":         {`{"driver": "linux"}`, "", "agent.yaml"},
		"unknown keys": {"drivr: linux\n", "", "did you mean driver?"},
	} {
		path := filepath.Join(t.TempDir(), "etc", "agent.yaml")
		if c.old != "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.old), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		changed, err := writeSettings(path, "n2", files, endpoint)
		got, _ := os.ReadFile(path)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) || string(got) != c.old {
				t.Errorf("%s: %v, want %q; the file is %q", name, err, c.fails, got)
			}
			continue
		}
		if err != nil || !changed || string(got) != c.want {
			t.Errorf("%s: %v, %v, %q, want %q", name, changed, err, got, c.want)
		}
		if changed, err := writeSettings(path, "n2", files, endpoint); err != nil || changed {
			t.Errorf("%s, again: %v, %v", name, changed, err)
		}
		if cfg, err := config.Load(path); err != nil || cfg.NodeName != "n2" || cfg.Store.CertFile != files.Cert {
			t.Errorf("%s: as the agent reads it: %+v, %v", name, cfg.Store, err)
		}
	}
}

// TestStoreFromFiles: what tortie join has set up counts, if nobody says anything else.
func TestStoreFromFiles(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("TORTIE_STORE", "")
	if err := os.MkdirAll(adminDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	files := join.FilesIn(adminDir(), "admin")
	if err := os.WriteFile(filepath.Join(adminDir(), clientFile), []byte(files.StoreBlock("https://192.0.2.1:2379")), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := func(args ...string) *storeFlags {
		s := &storeFlags{endpoints: []string{"unix:///run/tortie/store.sock"}}
		root := rootCommand()
		root.ResetFlags()
		s.register(root.PersistentFlags())
		if err := root.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if c, ok := flags().fromFiles(); !ok || c.Endpoints[0] != "https://192.0.2.1:2379" || c.KeyFile != files.Key {
		t.Errorf("nothing said: %+v, %v", c, ok)
	}
	if c, ok := flags("--store", "unix:///x").fromFiles(); ok {
		t.Errorf("with --store: %+v", c)
	}
	t.Setenv("TORTIE_STORE", "unix:///x")
	if c, ok := flags().fromFiles(); ok {
		t.Errorf("with TORTIE_STORE: %+v", c)
	}
}

func TestJoinUsage(t *testing.T) {
	for _, args := range [][]string{
		{"join"}, {"join", "a", "b"}, {"join", "hello"}, {"join", "--renew", "tortie1.AAAA"}, {"store", "token", "revoke"}, {"store", "expel"},
		{"store", "members", "-o", "xml"}, {"store", "snapshot", "save"}, {"store", "--listen", "http://0.0.0.0:1"},
	} {
		if !hasStore && args[0] == "store" {
			continue
		}
		root := rootCommand()
		root.SetArgs(args)
		root.SetOut(&bytes.Buffer{})
		root.SetErr(&bytes.Buffer{})
		if err := root.ExecuteContext(t.Context()); ctl.ExitCode(err) != ctl.ExitUsage {
			t.Errorf("tortie %s: %v", strings.Join(args, " "), err)
		}
	}
}
