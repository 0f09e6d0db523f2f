//go:build linux

package containerd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tortie/tortie/internal/ociimage"
)

const (
	imageName = "tortie.test/pause:1"
	otherName = "tortie.test/pause:latest"
)

// writeImage writes an archive of an image that holds one static program, and runs it, in the way in which Tortie's own
// image is written: for two architectures, under two names. (The program is this machine's in both.)
func writeImage(path, program string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var images []ociimage.Image
	for _, arch := range []string{"amd64", "arm64"} {
		images = append(images, ociimage.Image{Arch: arch, Files: []ociimage.File{{Name: "pause", Mode: 0o755, Data: binary}},
			Config: ociimage.Config{Entrypoint: []string{"/pause"}}})
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return ociimage.Write(f, []string{imageName, otherName}, images)
}

// image checks what the runtime has made of the archive: one image, with both names and both architectures. That it runs is
// what all the other tests stand on.
func (b *bed) image(t *testing.T) {
	var ids []string
	for _, name := range []string{imageName, otherName} {
		s, err := b.kubelet.images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.Image.GetId())
	}
	if ids[0] == "" || ids[0] != ids[1] {
		t.Errorf("the two names are of the images %q", ids)
	}
	out, err := b.ctr(t.Context(), "images", "list", "name=="+imageName)
	if err != nil || !strings.Contains(out, "linux/amd64,linux/arm64") {
		t.Errorf("%v\n%s", err, out)
	}
}

// ctr runs containerd's own command line on its machine.
func (b *bed) ctr(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", b.path("containerd.sock"), "--namespace", "k8s.io"}, args...)...)
	cmd.Dir = b.dir
	var says strings.Builder
	cmd.Stdout, cmd.Stderr = &says, &says
	if err := b.machine.Run(cmd); err != nil {
		return says.String(), fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, &says)
	}
	return says.String(), nil
}
