package linux

import (
	"os"
	"testing"

	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestCloseTwice: a driver that is closed once more leaves descriptors alone that somebody else has got meanwhile.
func TestCloseTwice(t *testing.T) {
	d := openDriver(t, netnstest.New(t), nil)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	var mine []*os.File
	for range 16 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		mine = append(mine, w)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, f := range mine {
		if _, err := f.WriteString("x"); err != nil {
			t.Errorf("a descriptor of somebody else: %v", err)
		}
	}
}
