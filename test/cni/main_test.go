//go:build linux

package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tortie/tortie/test/build"
	"github.com/tortie/tortie/test/lab"
)

// debianPlugins is where the distribution has the plugins that the tests chain.
const debianPlugins = "/usr/lib/cni"

// shared is what all tests of a run use: binaries, and one node. The tests run one after another.
var shared sharedBed

type sharedBed struct {
	bin  string // of tortie, tortie-cni, cnitool, testipam
	lab  *lab.Lab
	node *lab.Node
}

func (s *sharedBed) tortie(t testing.TB, args ...string) (string, error) {
	return s.lab.Tortie(t.Context(), s.node, args...)
}

func TestMain(m *testing.M) {
	os.Exit(func() (code int) {
		dir, err := os.MkdirTemp("", "tortie-cni-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		shared.bin = dir
		if err := prepare(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		l, err := lab.New(ctx, lab.Options{Binary: filepath.Join(dir, "tortie"), Nodes: 1, AgentConfig: "persistDelay: 1s\n"})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		shared.lab, shared.node = l, l.Nodes[0]
		defer func() {
			if code != 0 {
				fmt.Fprintf(os.Stderr, "agent:\n%s\n", shared.node.Agent.Tail())
			}
			if err := l.Down(); err != nil {
				fmt.Fprintln(os.Stderr, "taking the lab down:", err)
				code = 1
			}
		}()
		return m.Run()
	}())
}

func prepare(dir string) error {
	for _, p := range []string{"host-local", "bandwidth", "portmap", "tuning"} {
		if _, err := os.Stat(filepath.Join(debianPlugins, p)); err != nil {
			return errors.New("no CNI plugins here: apt-get install containernetworking-plugins (or scripts/deps.sh test)")
		}
	}
	if err := build.Programs(map[string]string{
		filepath.Join(dir, "tortie"): "./cmd/tortie", filepath.Join(dir, "tortie-cni"): "./cmd/tortie-cni",
		filepath.Join(dir, ipamName): "./test/cni/testipam", filepath.Join(dir, "cnitool"): "github.com/containernetworking/cni/cnitool",
	}); err != nil {
		return err
	}
	if _, err := lab.Clean(); err != nil {
		return fmt.Errorf("cleaning up after earlier labs: %w", err)
	}
	return nil
}

// TestPluginIsSmall: it is copied to every node and started for every container.
func TestPluginIsSmall(t *testing.T) {
	st, err := os.Stat(filepath.Join(shared.bin, "tortie-cni"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.2f MB", float64(st.Size())/1e6)
	if st.Size() > 5e6 {
		t.Errorf("the plugin has %d bytes: what does it import?", st.Size())
	}
}
