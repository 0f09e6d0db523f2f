package drivertest

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// FuzzParseCase reads case files that are cut, mixed and nonsense. Errors name the file; what can be read can be judged
// by the oracle.
func FuzzParseCase(f *testing.F) {
	err := fs.WalkDir(testdata, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(testdata, path)
		if len(b) < 2000 {
			f.Add(b)
		}
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCase("x.txtar", b)
		if err != nil {
			var joined interface{ Unwrap() []error }
			if errors.As(err, &joined) {
				for _, e := range joined.Unwrap() {
					if !strings.HasPrefix(e.Error(), "x.txtar:") {
						t.Fatalf("an error without a place: %v", e)
					}
				}
			}
			return
		}
		_ = CheckOracle(c) // its verdicts may be wrong
	})
}
