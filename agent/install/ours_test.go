package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const cloud = `{"cniVersion": "1.0.0", "name": "cloud", "plugins": [{"type": "ptp", "note": "<&>"}, {"type": "portmap"}]}`

// TestChainAfterARename: the file of an earlier cni.confName is not taken for the other plugin's, wherever it sorts, and goes.
func TestChainAfterARename(t *testing.T) {
	for _, names := range [][2]string{{"00-tortie.conflist", "05-tortie.conflist"}, {"05-tortie.conflist", "00-tortie.conflist"}} {
		p := newPlace(t, Conf{ChainTo: "cloud"})
		p.write(filepath.Join(p.conf, "10-cloud.conflist"), cloud, 0o644)
		p.i.o.ConfName = names[0]
		p.look(true)
		want := p.read(filepath.Join(p.conf, names[0]))
		p.i.o.ConfName = names[1]
		p.look(true)
		if got := p.read(filepath.Join(p.conf, names[1])); got != want || strings.Count(got, PluginName) != 1 {
			t.Errorf("%v: %s", names, got)
		}
		if d := cmp.Diff([]string{names[1], "10-cloud.conflist"}, ls(t, p.conf)); d != "" {
			t.Errorf("%v: %s", names, d)
		}
		if len(p.i.Problems()) != 0 {
			t.Errorf("%v: %v", names, p.i.Problems())
		}
	}
}

// TestChainToOursAlone: where the other's own file is gone, ours is no stand-in for it.
func TestChainToOursAlone(t *testing.T) {
	p := newPlace(t, Conf{ChainTo: "cloud"})
	p.write(filepath.Join(p.conf, "00-old.conflist"), `{"name": "cloud", "plugins": [{"type": "ptp"}, {"type": "tortie-cni"}]}`, 0o644)
	if err := p.i.look(true); err == nil || !strings.Contains(err.Error(), "00-old.conflist (cloud, with tortie-cni in it)") {
		t.Errorf("%v", err)
	}
}

// TestStaleFile: what the agent wrote under another name goes once the new file is there; what differs from it stays, be it
// of others or of a person who calls our plugin, and so do links.
func TestStaleFile(t *testing.T) {
	p := newPlace(t, Conf{})
	p.look(true)
	old := filepath.Join(p.conf, "10-tortie.conflist")
	text := p.read(old)
	p.write(filepath.Join(p.conf, "30-mine.conflist"), strings.Replace(text, `"tortie"`, `"mine"`, 1), 0o644)
	p.write(filepath.Join(p.conf, "40-copy.txt"), text, 0o644)
	p.write(filepath.Join(p.conf, "50-cloud.conflist"), cloud, 0o644)
	if err := os.Symlink("20-tortie.conflist", filepath.Join(p.conf, "60-link.conflist")); err != nil {
		t.Fatal(err)
	}
	p.i.o.ConfName = "20-tortie.conflist"
	p.look(false)
	if p.read(old) != text {
		t.Error("the old file has gone before there is another")
	}
	for range 2 {
		p.look(true)
		want := []string{"20-tortie.conflist", "30-mine.conflist", "40-copy.txt", "50-cloud.conflist", "60-link.conflist"}
		if d := cmp.Diff(want, ls(t, p.conf)); d != "" {
			t.Error(d)
		}
	}
	if n := strings.Count(p.log.String(), "removed"); n != 1 {
		t.Errorf("%d files removed: %s", n, p.log.String())
	}
}

// TestCalling: whose a configuration is, is judged by what is in it.
func TestCalling(t *testing.T) {
	p := newPlace(t, Conf{})
	p.write(filepath.Join(p.bin, "portmap"), "x", 0o755)
	p.look(true)
	behind := newPlace(t, Conf{ChainTo: "cloud", Socket: "/x/agent.sock", NotesDir: "/x/notes"})
	behind.write(filepath.Join(behind.conf, "10-cloud.conflist"), cloud, 0o644)
	behind.i.o.ConfName = "00-tortie.conflist"
	behind.look(true)
	for text, want := range map[string]string{
		p.read(filepath.Join(p.conf, "10-tortie.conflist")):                                                           "own",
		behind.read(filepath.Join(behind.conf, "00-tortie.conflist")):                                                 "own",
		`{"name": "x", "type": "tortie-cni"}`:                                                                         "own",
		`{"name": "x", "plugins": [{"type": "tortie-cni"}, {"type": "tuning"}]}`:                                      "own",
		strings.Replace(cloud, `}]}`, `}, {"type": "tortie-cni", "chained": true}]}`, 1):                              "others",
		`{"name": "x", "plugins": [{"type": "ptp"}, {"type": "tortie-cni", "chained": true}, {"type": "bandwidth"}]}`: "others",
		cloud:                          "",
		`{"name": "x", "type": "ptp"}`: "",
		`{"name": "tortie-cni", "type": "multus", "delegates": [{"type": "tortie-cni"}]}`: "",
		`{"name": "x", "plugins": [{"type": "ptp", "ipam": {"type": "tortie-cni"}}]}`:     "",
		``:                                "",
		`{`:                               "",
		`null`:                            "",
		`"tortie-cni"`:                    "",
		`{"plugins": "tortie-cni"}`:       "",
		`{"plugins": [7, "tortie-cni"]}`:  "",
		`{"type": "tortie-cni"} and more`: "",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "87-any.conflist")
		p.write(path, text, 0o644)
		own, others, err := Calling(dir)
		got := ""
		switch {
		case cmp.Equal(own, []string{path}) && others == nil:
			got = "own"
		case cmp.Equal(others, []string{path}) && own == nil:
			got = "others"
		case own != nil || others != nil:
			got = "both"
		}
		if err != nil || got != want {
			t.Errorf("%q, %v, want %q:\n%s", got, err, want, text)
		}
	}
}

// TestCallingOddFiles: what no runtime reads is nobody's.
func TestCallingOddFiles(t *testing.T) {
	p := newPlace(t, Conf{})
	if own, others, err := Calling(p.conf); own != nil || others != nil || err != nil {
		t.Errorf("no such folder: %v %v %v", own, others, err)
	}
	const text = `{"name": "x", "type": "tortie-cni"}`
	p.write(filepath.Join(p.conf, "10-x.conflist.bak"), text, 0o644)
	p.write(filepath.Join(p.conf, "folder.conf", "10-x.conflist"), text, 0o644)
	p.write(filepath.Join(p.conf, "large.conf"), text+strings.Repeat(" ", maxConf), 0o644)
	if err := os.Symlink("nowhere", filepath.Join(p.conf, "link.conf")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.conf", "b.json", "c.conflist"} {
		p.write(filepath.Join(p.conf, name), text, 0o644)
	}
	own, others, err := Calling(p.conf)
	want := []string{filepath.Join(p.conf, "a.conf"), filepath.Join(p.conf, "b.json"), filepath.Join(p.conf, "c.conflist")}
	if d := cmp.Diff(want, own); d != "" || others != nil || err != nil {
		t.Errorf("%v %v: %s", others, err, d)
	}
}

func ls(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}
