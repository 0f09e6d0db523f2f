//go:build linux

package containerd

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
)

const imageName = "tortie.test/pause:1"

// writeImage writes an OCI archive of an image that holds one static program, and runs it.
func writeImage(path, program string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	layer, err := archive(file{"pause", 0o755, binary})
	if err != nil {
		return err
	}
	config := encode(object{
		"architecture": runtime.GOARCH, "os": "linux", "config": object{"Entrypoint": []string{"/pause"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	manifest := encode(object{
		"schemaVersion": 2, "mediaType": mediaPrefix + "manifest.v1+json",
		"config": descriptor("config.v1+json", config, nil),
		"layers": []object{descriptor("layer.v1.tar", layer, nil)},
	})
	index := encode(object{"schemaVersion": 2, "manifests": []object{
		descriptor("manifest.v1+json", manifest, object{"io.containerd.image.name": imageName}),
	}})
	image, err := archive(file{"oci-layout", 0o644, encode(object{"imageLayoutVersion": "1.0.0"})}, file{"index.json", 0o644, index},
		blob(layer), blob(config), blob(manifest))
	if err != nil {
		return err
	}
	return os.WriteFile(path, image, 0o600)
}

const mediaPrefix = "application/vnd.oci.image."

type object = map[string]any

func encode(o object) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // of the test's own making
	}
	return b
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func descriptor(media string, b []byte, annotations object) object {
	return object{"mediaType": mediaPrefix + media, "digest": digest(b), "size": len(b), "annotations": annotations}
}

type file struct {
	name string
	mode int64
	data []byte
}

func blob(b []byte) file { return file{fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(b)), 0o644, b} }

func archive(files ...file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}
