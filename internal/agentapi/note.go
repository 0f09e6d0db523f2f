package agentapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tortie/tortie/internal/bounded"
)

// DefaultNotesDir is where notes are left unless an agent is told otherwise.
const DefaultNotesDir = "/var/lib/tortie/notes"

const (
	noteSuffix = ".detach"
	tempSuffix = ".tmp"
	badSuffix  = ".bad"

	maxNote = 64 << 10
)

// Note says that an attachment is to be detached. Who finds no agent leaves one; the agent does what it says before it
// attaches anything else of that sandbox and interface. A note is one file, and is there whole or not at all.
//
// A writer asks the agent again once its note is there, and removes the note if it is answered: an agent listens before it
// first reads its notes, so one of the two sees the other.
type Note struct {
	Sandbox   string    `json:"sandbox"`
	Interface string    `json:"interface"`
	Network   string    `json:"network,omitempty"`
	Written   time.Time `json:"written"`
}

func notePath(dir, sandbox, iface string) string {
	sum := sha256.Sum256([]byte(sandbox + "\x00" + iface))
	return filepath.Join(dir, hex.EncodeToString(sum[:16])+noteSuffix)
}

// WriteNote leaves a note in dir, which it makes if it has to. When it returns nil the note is on the disk.
func WriteNote(dir string, n Note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encoding a note: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the directory of notes: %w", err)
	}
	if err := writeNote(dir, notePath(dir, n.Sandbox, n.Interface), b); err != nil {
		return fmt.Errorf("writing a note: %w", err)
	}
	return nil
}

func writeNote(dir, path string, b []byte) error {
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*"+tempSuffix) // of mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// HasNote reports whether there is a note about an attachment. What can't be read may be one: then it is an error.
func HasNote(dir, sandbox, iface string) (bool, error) {
	_, err := os.Lstat(notePath(dir, sandbox, iface))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// RemoveNote removes the note about an attachment, and what a writer of it that was killed has left; a missing one is no
// error. When it returns nil the note won't come back. A writer that is at it meanwhile meets an error.
func RemoveNote(dir, sandbox, iface string) error {
	path := notePath(dir, sandbox, iface)
	left, err := filepath.Glob(path + ".*" + tempSuffix)
	if err != nil {
		return fmt.Errorf("looking for notes: %w", err)
	}
	removed := false
	for _, f := range append(left, path) {
		switch err := os.Remove(f); {
		case err == nil:
			removed = true
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("removing a note: %w", err)
		}
	}
	if !removed {
		return nil
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("removing a note: %w", err)
	}
	return nil
}

// ReadNotes returns the notes in dir. One that makes no sense is set aside, under a name that ends in ".bad", and told of in
// the error; so is one that can't be read now, which stays. The others are returned beside it.
func ReadNotes(dir string) ([]Note, error) {
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading notes: %w", err)
	}
	var notes []Note
	var errs []error
	for _, e := range es {
		if !strings.HasSuffix(e.Name(), noteSuffix) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		n, err := readNote(dir, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.As(err, new(*fs.PathError)): // it may be good, and is read the next time
			errs = append(errs, fmt.Errorf("reading a note: %w", err))
		case err != nil:
			errs = append(errs, fmt.Errorf("note %s: %w", path, errors.Join(err, os.Rename(path, path+badSuffix))))
		default:
			notes = append(notes, n)
		}
	}
	return notes, errors.Join(errs...)
}

func readNote(dir, path string) (Note, error) {
	var n Note
	b, err := bounded.ReadFile(path, maxNote)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return n, err
	}
	if notePath(dir, n.Sandbox, n.Interface) != path {
		return n, fmt.Errorf("it is about interface %q of sandbox %q, and has not the name of such a note", n.Interface, n.Sandbox)
	}
	return n, nil
}

// SweepNotes removes what writers that were killed have left in dir.
func SweepNotes(dir string) error {
	const long = time.Hour // no writer takes that long
	left, err := filepath.Glob(filepath.Join(dir, "*"+tempSuffix))
	if err != nil {
		return err
	}
	for _, f := range left {
		st, err := os.Lstat(f)
		if err != nil || time.Since(st.ModTime()) < long {
			continue
		}
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
