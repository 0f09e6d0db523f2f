package durable

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var errCrash = errors.New("crash")

// crashAt returns a Writer that crashes before its n-th step, and says whether it got that far.
func crashAt(n int) (Writer, *bool) {
	crashed, steps := new(bool), 0
	return Writer{Step: func(string) error {
		if steps++; steps > n {
			*crashed = true
			return errCrash
		}
		return nil
	}}, crashed
}

func TestWriteFileIsAllOrNothing(t *testing.T) {
	for n := 0; ; n++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		if err := (Writer{}).WriteFile(path, []byte("old")); err != nil {
			t.Fatal(err)
		}
		w, crashed := crashAt(n)
		err := w.WriteFile(path, []byte("new"))
		got, readErr := os.ReadFile(path)
		if readErr != nil {
			t.Fatalf("crash at step %d: %v", n, readErr)
		}
		if !*crashed {
			if err != nil || string(got) != "new" {
				t.Errorf("without a crash: %q, %v", got, err)
			}
			if n < 5 {
				t.Errorf("only %d steps", n)
			}
			break
		}
		if s := string(got); !errors.Is(err, errCrash) || s != "old" && s != "new" {
			t.Errorf("crash at step %d: %q, %v", n, s, err)
		}
		if err := Sweep(dir); err != nil {
			t.Fatal(err)
		}
		if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
			t.Errorf("crash at step %d leaves %v, %v", n, es, err)
		}
	}
}

func TestWriteFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := (Writer{}).WriteFile(path, nil); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := (Writer{}).Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := (Writer{}).Remove(path); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	if err := (Writer{}).WriteFile(filepath.Join(path, "no", "such"), nil); err == nil {
		t.Error("a missing directory is no error")
	}
}

func TestOpenFindsDamage(t *testing.T) {
	good := Seal("tortie-test", 3, []byte("some payload\nof two lines"))
	p, v, err := Open("tortie-test", good)
	if err != nil || v != 3 || string(p) != "some payload\nof two lines" {
		t.Fatalf("%q %d %v", p, v, err)
	}
	for n := range good {
		if _, _, err := Open("tortie-test", good[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, _, err := Open("tortie-other", good); !errors.Is(err, ErrDamaged) {
		t.Errorf("of another kind: %v", err)
	}
	for i := range good {
		flipped := append([]byte(nil), good...)
		flipped[i] ^= 1
		if _, _, err := Open("tortie-test", flipped); !errors.Is(err, ErrDamaged) {
			t.Errorf("a flipped bit in byte %d: %v", i, err)
		}
	}
}

func TestSetAsideKeepsAFew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for i := range 9 {
		if err := os.WriteFile(path, []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
		to, err := SetAside(path, time.Unix(int64(i), 0))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(to); err != nil || b[0] != byte(i) {
			t.Fatalf("%v %v", b, err)
		}
	}
	left, err := filepath.Glob(path + "*")
	if err != nil || len(left) != 5 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestLeftovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with [x]*")
	path := filepath.Join(dir, "f")
	if left, err := Leftovers(path); left != nil || err != nil {
		t.Errorf("no such folder: %v, %v", left, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "f.bad", "f.tmp.x", "g", "g.tmp", "g.bad-1", "xf.bad-1", "f.badly"} { // none of them
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, _ := crashAt(2)
	if err := w.WriteFile(path, nil); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	aside, err := SetAside(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	left, err := Leftovers(path)
	if err != nil || !slices.Equal(left, []string{aside, path + tempSuffix}) {
		t.Errorf("%v, %v", left, err)
	}
}
