package crdgen

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write deploy/crds and the generated parts of docs/kubernetes-crds.md")

const folder = "../../deploy/crds"

func generated(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := Generate("..")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestFiles(t *testing.T) {
	files := generated(t)
	if *update {
		for name, b := range files {
			if err := os.WriteFile(filepath.Join(folder, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	there, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		name := filepath.Base(path)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, files[name]) {
			t.Errorf("%s is out of date; run go test ./api/crdgen -update", path)
		}
		delete(files, name)
	}
	for name := range files {
		t.Errorf("%s is missing; run go test ./api/crdgen -update", name)
	}
}
