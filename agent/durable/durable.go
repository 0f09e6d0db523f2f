// Package durable writes small files that survive a crash: a file is there whole or not at all, and damage shows.
package durable

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tortie/tortie/internal/faultpoint"
)

var (
	// ErrDamaged says that a file is not what was written.
	ErrDamaged = errors.New("damaged")
	// ErrVersion says that a file was written by a version that this one can't read.
	ErrVersion = errors.New("of another version")
)

const (
	// tempSuffix ends the names of files that are being written.
	tempSuffix = ".tmp"
	// badSuffix and a time end the names of files that were set aside.
	badSuffix = ".bad-"
)

// Where tests have the process die.
var (
	writeSynced  = faultpoint.New("write:synced")
	writeRenamed = faultpoint.New("write:renamed")
)

// Writer writes files. Step, if it is set, is called before each thing that a crash could come between; an error stops
// the Writer right there, as a crash would (for tests).
//
// Mode is that of the files; 0 = 0600.
type Writer struct {
	Step func(name string) error
	Mode os.FileMode
}

func (w Writer) step(name string) error {
	if w.Step == nil {
		return nil
	}
	return w.Step(name)
}

// WriteFile puts data into path. When it returns nil the file is on the disk; when it doesn't, the
// file is there as before or with data, never with a part of it. One goroutine at a time for each path.
func (w Writer) WriteFile(path string, data []byte) error {
	tmp := path + tempSuffix
	if err := w.writeTemp(tmp, data); err != nil {
		return err
	}
	if err := w.step("rename"); err != nil {
		return err
	}
	writeSynced.Hit()
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	writeRenamed.Hit()
	return w.syncDir(path)
}

func (w Writer) writeTemp(tmp string, data []byte) (err error) {
	if err := w.step("create"); err != nil {
		return err
	}
	// What is at tmp was left by a crash, or put there by somebody: it is not written through, wherever it leads.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	crashed := false
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil && !crashed {
			_ = os.Remove(tmp) // the first error is the one to tell; Sweep takes what is left
		}
	}()
	if err := w.step("write"); err != nil {
		crashed = true
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if w.Mode != 0 {
		if err := f.Chmod(w.Mode); err != nil { // whatever the umask is
			return err
		}
	}
	if err := w.step("sync"); err != nil {
		crashed = true
		return err
	}
	return f.Sync()
}

// Remove removes path; a missing one is no error. When it returns nil the file will not come back.
func (w Writer) Remove(path string) error {
	if err := w.step("remove"); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return w.syncDir(path)
}

func (w Writer) syncDir(path string) error {
	if err := w.step("sync directory"); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Sweep removes what crashed writes have left in dir.
func Sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*"+tempSuffix))
	if err != nil {
		return err
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

// SetAside renames path so that a person can look at it, and returns the new name. Of earlier ones it keeps a few.
func SetAside(path string, now time.Time) (string, error) {
	const keep = 5
	older, err := filepath.Glob(path + badSuffix + "*") // sorted, so the oldest come first
	if err != nil {
		return "", err
	}
	for i := 0; i < len(older)-keep+1; i++ {
		if err := os.Remove(older[i]); err != nil {
			return "", err
		}
	}
	to := path + badSuffix + now.UTC().Format("20060102T150405.000000000")
	if err := os.Rename(path, to); err != nil {
		return "", err
	}
	return to, syncDir(filepath.Dir(path))
}

// Leftovers are what there is of path beside the file itself: what a crashed write has left, and what was set aside.
func Leftovers(path string) (paths []string, err error) {
	dir, name := filepath.Split(path)
	files, err := os.ReadDir(filepath.Clean(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range files {
		if f.Name() == name+tempSuffix || strings.HasPrefix(f.Name(), name+badSuffix) {
			paths = append(paths, dir+f.Name())
		}
	}
	return paths, nil
}

// Seal returns payload behind a line that says what it is: kind, version, length and checksum.
func Seal(kind string, version int, payload []byte) []byte {
	head := fmt.Sprintf("%s %d %d %s\n", kind, version, len(payload), checksum(kind, version, payload))
	return append([]byte(head), payload...)
}

func checksum(kind string, version int, payload []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d\n", kind, version)
	h.Write(payload)
	return hex.EncodeToString(h.Sum(nil))
}

// Open returns the payload and the version of what Seal made. Its errors wrap ErrDamaged.
func Open(kind string, b []byte) (payload []byte, version int, err error) {
	head, payload, ok := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(head))
	if !ok || len(f) != 4 || f[0] != kind {
		return nil, 0, fmt.Errorf("%w: it doesn't begin as a %s does", ErrDamaged, kind)
	}
	version, err1 := strconv.Atoi(f[1])
	length, err2 := strconv.Atoi(f[2])
	if err1 != nil || err2 != nil {
		return nil, 0, fmt.Errorf("%w: its first line can't be read", ErrDamaged)
	}
	if length != len(payload) {
		return nil, 0, fmt.Errorf("%w: %d bytes long, want %d", ErrDamaged, len(payload), length)
	}
	if checksum(kind, version, payload) != f[3] {
		return nil, 0, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	return payload, version, nil
}
