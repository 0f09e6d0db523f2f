package install

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/tortie/tortie/internal/agentapi"
)

// place is an agent's files and the directories of a runtime.
type place struct {
	t         *testing.T
	bin, conf string
	i         *Installer
	ready     atomic.Bool
	log       bytes.Buffer
}

func newPlace(t *testing.T, c Conf) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{t: t, bin: filepath.Join(dir, "opt", "cni", "bin"), conf: filepath.Join(dir, "etc", "cni", "net.d")}
	source := filepath.Join(dir, "plugin")
	p.write(source, "first", 0o600)
	if c.Network == "" {
		c.Network = "tortie"
	}
	if c.Socket == "" {
		c.Socket, c.NotesDir = agentapi.DefaultSocket, agentapi.DefaultNotesDir
	}
	p.i = New(Options{Source: source, BinDir: p.bin, ConfDir: p.conf, ConfName: "10-tortie.conflist", Ready: p.ready.Load, Conf: c,
		PodCIDRs: func() []string { return []string{"fd00:1::/64", "10.244.3.0/24"} }, Log: slog.New(slog.NewTextHandler(&p.log, nil))})
	return p
}

func (p *place) write(path, text string, mode os.FileMode) {
	p.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) read(path string) string {
	p.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *place) look(ready bool) {
	p.t.Helper()
	if err := p.i.look(ready); err != nil {
		p.t.Fatal(err)
	}
}

// list is the configuration as a runtime reads it.
func (p *place) list() *libcni.NetworkConfigList {
	p.t.Helper()
	files, err := libcni.ConfFiles(p.conf, []string{".conflist"})
	if err != nil || len(files) == 0 {
		p.t.Fatalf("%v %v", files, err)
	}
	l, err := libcni.ConfListFromFile(files[len(files)-1])
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

func TestInstall(t *testing.T) {
	p := newPlace(t, Conf{})
	p.look(false)
	plugin := filepath.Join(p.bin, "tortie-cni")
	if st, err := os.Stat(plugin); err != nil || st.Mode().Perm() != 0o755 || p.read(plugin) != "first" {
		t.Fatalf("%v %v", st, err)
	}
	if _, err := os.Stat(p.conf); !os.IsNotExist(err) {
		t.Error("there is configuration before the agent is ready")
	}
	p.look(true)
	l := p.list()
	if l.Name != "tortie" || len(l.Plugins) != 1 || l.Plugins[0].Network.Type != "tortie-cni" || l.Plugins[0].Network.IPAM.Type != "tortie" {
		t.Errorf("%s", l.Bytes)
	}
	if st, err := os.Stat(filepath.Join(p.conf, "10-tortie.conflist")); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", st, err)
	}
	if len(p.i.Problems()) > 0 {
		t.Error(p.i.Problems())
	}

	// What is right is not written again; what is not right is replaced, never written into: who runs it keeps it.
	before, err := os.Stat(plugin)
	if err != nil {
		t.Fatal(err)
	}
	p.i.plugin = nil // as after a restart
	p.look(true)
	if now, err := os.Stat(plugin); err != nil || !os.SameFile(before, now) {
		t.Errorf("the same plugin was installed again: %v", err)
	}
	open, err := os.Open(plugin)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	p.write(p.i.o.Source, "second", 0o600)
	p.i.plugin = nil
	p.look(true)
	old := make([]byte, 9)
	n, _ := open.Read(old)
	if p.read(plugin) != "second" || string(old[:n]) != "first" {
		t.Errorf("%q, and who has it open reads %q", p.read(plugin), old[:n])
	}
	for path, text := range map[string]string{plugin: "broken", filepath.Join(p.conf, "10-tortie.conflist"): "{}"} {
		want := p.read(path)
		p.write(path, text, 0o600)
		if err := os.Chtimes(path, time.Now(), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		p.look(true)
		if p.read(path) != want {
			t.Errorf("%s was not mended", path)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		p.look(true)
		if p.read(path) != want {
			t.Errorf("%s did not come back", path)
		}
	}
	for _, dir := range []string{p.bin, p.conf} {
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("%v %v", files, err)
		}
	}
}

func TestChained(t *testing.T) {
	p := newPlace(t, Conf{})
	p.write(filepath.Join(p.bin, "portmap"), "x", 0o755)
	p.write(filepath.Join(p.bin, "bandwidth"), "x", 0o644) // can't be run
	p.look(true)
	l := p.list()
	if len(l.Plugins) != 2 || l.Plugins[1].Network.Type != "portmap" || !l.Plugins[1].Network.Capabilities["portMappings"] {
		t.Errorf("%s", l.Bytes)
	}
	if err := os.Chmod(filepath.Join(p.bin, "bandwidth"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.look(true)
	if l = p.list(); len(l.Plugins) != 3 || !l.Plugins[2].Network.Capabilities["bandwidth"] {
		t.Errorf("%s", l.Bytes)
	}
}

func TestConf(t *testing.T) {
	parse := func(text string) (m map[string]any) {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	c := Conf{Network: "k8s", Socket: "/x/agent.sock", NotesDir: "/x/notes",
		IPAM: parse(`{"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]], "dataDir": "/d"}`)}
	p := newPlace(t, c)
	p.look(true)
	var got struct {
		Name    string
		Plugins []struct {
			Socket, NotesDir string
			IPAM             struct {
				Ranges  [][]struct{ Subnet string }
				DataDir string
			}
		}
	}
	if err := json.Unmarshal(p.list().Bytes, &got); err != nil {
		t.Fatal(err)
	}
	if x := got.Plugins[0]; got.Name != "k8s" || x.Socket != "/x/agent.sock" || x.NotesDir != "/x/notes" || x.IPAM.DataDir != "/d" ||
		x.IPAM.Ranges[0][0].Subnet != "10.244.3.0/24" || x.IPAM.Ranges[1][0].Subnet != "fd00:1::/64" {
		t.Errorf("%+v", got)
	}
	p.i.o.PodCIDRs = func() []string { return []string{"10.244.3.0/24"} }
	if err := p.i.look(true); err == nil || !strings.Contains(err.Error(), "podCIDRs") {
		t.Errorf("without a range of IPv6: %v", err)
	}
	if problems := p.i.Problems(); len(problems) != 1 {
		t.Errorf("%v", problems)
	}
}

// TestAnotherInFront: a runtime takes the first of what it finds.
func TestAnotherInFront(t *testing.T) {
	p := newPlace(t, Conf{})
	p.write(filepath.Join(p.conf, "05-notes.txt"), "", 0o644)
	p.write(filepath.Join(p.conf, "20-later.conf"), "", 0o644)
	p.look(true)
	if problems := p.i.Problems(); len(problems) > 0 {
		t.Errorf("%v", problems)
	}
	p.write(filepath.Join(p.conf, "10-calico.conflist"), "", 0o644)
	for range 2 {
		p.look(true)
	}
	if problems := p.i.Problems(); len(problems) != 1 || !strings.Contains(problems[0].Error(), "10-calico.conflist") {
		t.Errorf("%v", problems)
	}
	if n := strings.Count(p.log.String(), "10-calico"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// TestRun: the configuration comes when the agent is ready, and what can't be done is tried again.
func TestRun(t *testing.T) {
	p := newPlace(t, Conf{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.i.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
		if _, err := os.Stat(filepath.Join(p.conf, "10-tortie.conflist")); err != nil {
			t.Errorf("gone with the agent: %v", err)
		}
	}()
	until(t, "the plugin", func() bool { _, err := os.Stat(filepath.Join(p.bin, "tortie-cni")); return err == nil })
	if _, err := os.Stat(p.conf); !os.IsNotExist(err) {
		t.Error("configuration before the agent is ready")
	}
	p.ready.Store(true)
	until(t, "the configuration", func() bool { _, err := os.Stat(filepath.Join(p.conf, "10-tortie.conflist")); return err == nil })
}

func TestSourceIsMissing(t *testing.T) {
	p := newPlace(t, Conf{})
	p.i.o.Source += "-gone"
	if err := p.i.look(true); err == nil {
		t.Error("installed")
	}
	if _, err := os.Stat(p.conf); !os.IsNotExist(err) {
		t.Error("there is configuration of a plugin that is not there")
	}
}

func until(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !fn(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s has not come", what)
		}
	}
}
