package mem_test

import (
	"fmt"
	"testing"

	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/datastore/storetest"
)

func TestConformance(t *testing.T) {
	for _, anew := range []bool{true, false} {
		t.Run(fmt.Sprintf("anew=%v", anew), func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) *storetest.Harness {
				s := mem.New()
				other := s.Client()
				t.Cleanup(func() {
					s.Close()
					other.Close()
				})
				return &storetest.Harness{
					Store: s, Other: other,
					SetRaw:  s.SetRaw,
					Compact: s.Compact,
					Cut:     s.Cut,
					Down:    func() { s.Fail(datastore.ErrUnavailable) },
					Up:      func() { s.Fail(nil) },
					Backup: func() func() {
						restore := s.Backup()
						return func() { restore(anew) }
					},
				}
			})
		})
	}
}
