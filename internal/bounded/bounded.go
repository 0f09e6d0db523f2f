// Package bounded reads what may be larger than it should: files and streams that somebody else has filled.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrTooLarge says that there is more than may be read.
var ErrTooLarge = errors.New("too large")

// ReadFile is os.ReadFile of a regular file of at most max bytes. Anything else at path (a pipe, which could hold the
// reader up for good, or a device that never ends) is an error.
func ReadFile(path string, max int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := ReadAll(f, max)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

// ReadAll is io.ReadAll of at most max bytes; if there are more, the error wraps ErrTooLarge.
func ReadAll(r io.Reader, max int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, max+1))
	if err == nil && int64(len(b)) > max {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, max)
	}
	return b, err
}
