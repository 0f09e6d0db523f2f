package ociimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	amd64 = Image{Arch: "amd64", Config: Config{Entrypoint: []string{"/cat"}, Env: []string{"PATH=/"}},
		Files: []File{{"tail", 0o755, []byte("swish")}, {"cat", 0o755, []byte("meow")}}}
	arm64 = Image{Arch: "arm64", Config: amd64.Config, Files: []File{{"cat", 0o755, []byte("miaou")}}}
)

func written(t *testing.T, names []string, images ...Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, names, images); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReadBack follows an archive from its names to the files, and checks every digest and size on the way.
func TestReadBack(t *testing.T) {
	names := []string{"ghcr.io/a/cat:v2", "localhost:5000/cat:v1"}
	l := readLayout(t, written(t, names, arm64, amd64))
	var top Index
	l.decode(l.files["index.json"], &top)
	var got []string
	for _, d := range top.Manifests {
		got = append(got, d.Annotations["io.containerd.image.name"]+" "+d.Annotations["org.opencontainers.image.ref.name"])
		if d.Digest != top.Manifests[0].Digest || d.MediaType != mediaIndex {
			t.Errorf("%+v is not what the others are", d)
		}
	}
	if d := cmp.Diff([]string{"ghcr.io/a/cat:v2 v2", "localhost:5000/cat:v1 v1"}, got); d != "" {
		t.Error(d)
	}
	var index Index
	l.decode(l.blob(top.Manifests[0]), &index)
	want := map[string]map[string]string{"amd64": {"cat": "meow", "tail": "swish"}, "arm64": {"cat": "miaou"}}
	for _, d := range index.Manifests {
		if diff := cmp.Diff(want[d.Platform.Architecture], l.image(d)); diff != "" {
			t.Errorf("%s: %s", d.Platform.Architecture, diff)
		}
		delete(want, d.Platform.Architecture)
	}
	if len(want) != 0 {
		t.Errorf("missing: %v", want)
	}
	for name := range l.files {
		if !l.seen[name] && name != "index.json" && name != "oci-layout" {
			t.Errorf("nothing leads to %s", name)
		}
	}
}

// TestReproducible: the order in which things are given does not matter, and nothing else gets in.
func TestReproducible(t *testing.T) {
	one := written(t, []string{"r/b:1", "r/a:1", "r/a:1"}, amd64, arm64)
	turned := amd64
	turned.Files = slices.Clone(amd64.Files)
	slices.Reverse(turned.Files)
	two := written(t, []string{"r/a:1", "r/b:1"}, arm64, turned)
	if !bytes.Equal(one, two) {
		t.Error("the same images made two archives")
	}
	other := amd64
	other.Files = []File{{"cat", 0o755, []byte("purr")}}
	if bytes.Equal(one, written(t, []string{"r/a:1", "r/b:1"}, arm64, other)) {
		t.Error("other images made the same archive")
	}
}

func TestWriteErrors(t *testing.T) {
	full := errors.New("disk full")
	for _, c := range []struct {
		w      io.Writer
		names  []string
		images []Image
		want   string
	}{
		{io.Discard, nil, []Image{amd64}, "needs a name"},
		{io.Discard, []string{"r/a:1"}, nil, "needs a name and an image"},
		{io.Discard, []string{"localhost:5000/cat"}, []Image{amd64}, "want REPOSITORY:TAG"},
		{io.Discard, []string{"r/a:"}, []Image{amd64}, "want REPOSITORY:TAG"},
		{io.Discard, []string{"r/a:1"}, []Image{{Arch: "amd64", Files: []File{{Name: "b\x00d"}}}}, "image for amd64: b\x00d"},
		{failing{full}, []string{"r/a:1"}, []Image{amd64}, full.Error()},
	} {
		if err := Write(c.w, c.names, c.images); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// layout is an archive, read.
type layout struct {
	t     *testing.T
	files map[string][]byte
	seen  map[string]bool
}

func readLayout(t *testing.T, b []byte) layout {
	t.Helper()
	l := layout{t, untar(t, bytes.NewReader(b)), map[string]bool{}}
	if got := string(l.files["oci-layout"]); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %s", got)
	}
	return l
}

func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%+v: want root's, and no time", h)
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func (l layout) decode(b []byte, v any) {
	l.t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		l.t.Fatalf("%s: %v", b, err)
	}
}

// blob is what d points to, and nothing else.
func (l layout) blob(d Descriptor) []byte {
	l.t.Helper()
	name := "blobs/" + strings.Replace(d.Digest, ":", "/", 1)
	b, ok := l.files[name]
	if !ok || digest(b) != d.Digest || int64(len(b)) != d.Size {
		l.t.Fatalf("%+v: %d bytes, %s", d, len(b), digest(b))
	}
	l.seen[name] = true
	return b
}

// image is the files of an image.
func (l layout) image(d Descriptor) map[string]string {
	l.t.Helper()
	var m Manifest
	l.decode(l.blob(d), &m)
	var r runnable
	l.decode(l.blob(m.Config), &r)
	if r.Architecture != d.Platform.Architecture || r.OS != "linux" || !cmp.Equal(r.Config, amd64.Config) || len(m.Layers) != 1 {
		l.t.Fatalf("%+v, %+v", r, m)
	}
	z, err := gzip.NewReader(bytes.NewReader(l.blob(m.Layers[0])))
	if err != nil {
		l.t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil || len(r.RootFS.DiffIDs) != 1 || digest(plain) != r.RootFS.DiffIDs[0] {
		l.t.Fatalf("%v: the layer is not that of %+v", err, r)
	}
	files := map[string]string{}
	for name, b := range untar(l.t, bytes.NewReader(plain)) {
		files[name] = string(b)
	}
	return files
}
