package revkv

import (
	"testing"

	"github.com/tortie/tortie/api"
)

// FuzzKeys: keys and resume tokens are read back as what they were written from, and nothing else is taken.
func FuzzKeys(f *testing.F) {
	f.Add(DefaultPrefix+"NetworkPolicy/a/b", "1.a.b.7")
	f.Add(DefaultPrefix+"Tier//b", "1.ffffffffffffffff.0.9223372036854775807")
	f.Add(DefaultPrefix+"Tier/a/b", "1...")
	f.Add(DefaultPrefix+"../x", "2.0.0.0")
	s := &Store{prefix: DefaultPrefix, kinds: map[string]api.KindInfo{}}
	for _, k := range api.Kinds() {
		s.kinds[k.Kind] = k
	}
	f.Fuzz(func(t *testing.T, key, token string) {
		if k, ok := s.parseKey(key); ok {
			if again, err := s.key(k); err == nil && again != key {
				t.Fatalf("%q is %v, which is %q", key, k, again)
			}
		}
		if p, err := parseResume(token); err == nil && p != (Position{}) {
			if again, err := parseResume(p.resume()); err != nil || again != p {
				t.Fatalf("%q is %+v, which is %+v (%v)", token, p, again, err)
			}
		}
	})
}
