package netns_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

func TestDoEntersAndLeaves(t *testing.T) {
	before, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	ns := netnstest.New(t)
	for range 100 {
		if err := ns.Do(func() error {
			in, err := netns.Current()
			if err != nil {
				return err
			}
			defer in.Close()
			if same, err := in.Same(ns); err != nil || !same {
				return fmt.Errorf("in the namespace: %v, %v", same, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		after, err := netns.Current()
		if err != nil {
			t.Fatal(err)
		}
		same, err := after.Same(before)
		after.Close()
		if err != nil || !same {
			t.Fatalf("back from the namespace: same %v, %v", same, err)
		}
	}
	boom := errors.New("boom")
	if err := ns.Do(func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("error of the function: %v", err)
	}
}

func TestNamed(t *testing.T) {
	ns := netnstest.NewNamed(t)
	if _, err := netns.Create(ns.Name()); !errors.Is(err, os.ErrExist) {
		t.Errorf("creating a name again: %v", err)
	}
	again, err := netns.OpenNamed(ns.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if same, err := ns.Same(again); err != nil || !same {
		t.Errorf("opened by name: same %v, %v", same, err)
	}
	byPath, err := netns.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer byPath.Close()
	if same, err := ns.Same(byPath); err != nil || !same {
		t.Errorf("opened by path: same %v, %v", same, err)
	}
	if _, err := netns.Open("/proc/self/ns/uts"); err == nil {
		t.Error("a namespace of another type was opened")
	}
	if err := netns.Delete("tortietest-there-is-none"); err != nil {
		t.Errorf("deleting what is missing: %v", err)
	}
}

// TestSweep leaves namespaces behind as a killed process does, beside one of a process that lives.
func TestSweep(t *testing.T) {
	const prefix = "tortiesweep"
	netnstest.NeedRoot(t)
	if name := os.Getenv("TORTIE_TEST_LEAVE_NETNS"); name != "" {
		ns, err := netns.Create(netns.UniqueName(name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("left=%s\n", ns.Name())
		return
	}
	mine, err := netns.Create(netns.UniqueName(prefix))
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	t.Cleanup(func() { netns.Delete(mine.Name()) })

	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSweep$", "-test.v")
	cmd.Env = append(os.Environ(), "TORTIE_TEST_LEAVE_NETNS="+prefix)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	_, left, ok := strings.Cut(string(out), "left=")
	left, _, _ = strings.Cut(left, "\n")
	if !ok || left == "" {
		t.Fatalf("child says %s", out)
	}
	t.Cleanup(func() { netns.Delete(left) })
	swept, err := netns.Sweep(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(swept, left) || slices.Contains(swept, mine.Name()) {
		t.Errorf("swept %v, want %s and not %s", swept, left, mine.Name())
	}
	if _, err := netns.OpenNamed(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the sweep: %v", err)
	}
}

func TestAnonymousPathIsForOthers(t *testing.T) {
	ns := netnstest.New(t)
	var want string
	if err := ns.Do(func() (err error) {
		want, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nsenter", "--net="+ns.Path(), "readlink", "/proc/self/ns/net").CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != want {
		t.Errorf("a child of that path is in %s, want %s (%v)", got, want, err)
	}
}
