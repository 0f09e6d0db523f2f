// Package ociimage writes container images: static programs and nothing else, for several architectures, in one archive
// that container runtimes import without a registry.
//
// An archive is an OCI image layout in a tar file:
//
//	oci-layout
//	index.json ─► one entry for each name ─► blobs/sha256/…  index
//	                                           ├─► manifest of amd64 ─► config, layer
//	                                           └─► manifest of arm64 ─► config, layer
//
// It depends on what it is made of alone: times are zero, names are sorted. That takes two hundred lines of the standard
// library; the libraries for it bring registries, credentials and Docker's client along.
package ociimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Image is an image of one architecture, for Linux.
type Image struct {
	Arch  string // as Go names it
	Files []File // at the root of its file system
	Config
}

// File is a file of an image.
type File struct {
	Name string
	Mode int64
	Data []byte
}

// Config is what a runtime is told of an image.
type Config struct {
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

const (
	media      = "application/vnd.oci.image."
	mediaIndex = media + "index.v1+json"

	// annotationName is the name that containerd gives to what it imports, annotationTag the part of it that others use.
	annotationName = "io.containerd.image.name"
	annotationTag  = "org.opencontainers.image.ref.name"
)

// Descriptor points to a blob.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *Platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Platform is what an image runs on.
type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// Index lists the manifests of images.
type Index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []Descriptor `json:"manifests"`
}

// Manifest is what an image is made of.
type Manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

// runnable is the configuration of an image, as it is stored.
type runnable struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       Config    `json:"config"`
	RootFS       struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// Write writes an archive of the images, which are the same program for several architectures, under one or more names
// ("ghcr.io/tortie/tortie:v1").
func Write(w io.Writer, names []string, images []Image) error {
	if len(names) == 0 || len(images) == 0 {
		return errors.New("an archive needs a name and an image")
	}
	b := blobs{}
	index := Index{SchemaVersion: 2, MediaType: mediaIndex}
	for _, i := range images {
		d, err := b.image(i)
		if err != nil {
			return fmt.Errorf("image for %s: %w", i.Arch, err)
		}
		index.Manifests = append(index.Manifests, d)
	}
	slices.SortFunc(index.Manifests, func(x, y Descriptor) int {
		return strings.Compare(x.Platform.Architecture, y.Platform.Architecture)
	})
	d, err := b.json(mediaIndex, index)
	if err != nil {
		return err
	}
	top := Index{SchemaVersion: 2, MediaType: mediaIndex}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		slash, colon := strings.LastIndexByte(name, '/'), strings.LastIndexByte(name, ':')
		if colon <= slash || colon == len(name)-1 {
			return fmt.Errorf("%q: want REPOSITORY:TAG", name)
		}
		d.Annotations = map[string]string{annotationName: name, annotationTag: name[colon+1:]}
		top.Manifests = append(top.Manifests, d)
	}
	return b.write(w, top)
}

// blobs are contents by their digest.
type blobs map[string][]byte

func (b blobs) add(mediaType string, content []byte) Descriptor {
	d := digest(content)
	b[d] = content
	return Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func (b blobs) json(mediaType string, v any) (Descriptor, error) {
	content, err := json.Marshal(v)
	return b.add(mediaType, content), err
}

func (b blobs) image(i Image) (Descriptor, error) {
	files := slices.SortedFunc(slices.Values(i.Files), func(x, y File) int { return strings.Compare(x.Name, y.Name) })
	plain := &bytes.Buffer{}
	if err := archive(plain, files); err != nil {
		return Descriptor{}, err
	}
	packed := &bytes.Buffer{}
	z := gzip.NewWriter(packed)
	if _, err := z.Write(plain.Bytes()); err != nil {
		return Descriptor{}, err
	}
	if err := z.Close(); err != nil {
		return Descriptor{}, err
	}
	r := runnable{Created: time.Unix(0, 0).UTC(), Architecture: i.Arch, OS: "linux", Config: i.Config}
	r.RootFS.Type, r.RootFS.DiffIDs = "layers", []string{digest(plain.Bytes())}
	config, err := b.json(media+"config.v1+json", r)
	if err != nil {
		return config, err
	}
	layers := []Descriptor{b.add(media+"layer.v1.tar+gzip", packed.Bytes())}
	const manifest = media + "manifest.v1+json"
	d, err := b.json(manifest, Manifest{SchemaVersion: 2, MediaType: manifest, Config: config, Layers: layers})
	d.Platform = &Platform{Architecture: i.Arch, OS: "linux"}
	return d, err
}

func (b blobs) write(w io.Writer, top Index) error {
	index, err := json.Marshal(top)
	if err != nil {
		return err
	}
	files := []File{{"oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", 0o644, index}}
	for _, d := range slices.Sorted(maps.Keys(b)) {
		files = append(files, File{"blobs/" + strings.Replace(d, ":", "/", 1), 0o644, b[d]})
	}
	return archive(w, files)
}

func archive(w io.Writer, files []File) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := t.WriteHeader(&tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data)), Format: tar.FormatUSTAR}); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		if _, err := t.Write(f.Data); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return t.Close()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
