package revkv

import (
	"fmt"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// DefaultPrefix begins the keys of resources.
const DefaultPrefix = "/tortie/v1/"

// key returns where a resource is stored. It refuses what could not be read back.
func (s *Store) key(k api.Key) (string, error) {
	info, ok := s.kinds[k.Kind]
	switch {
	case !ok:
		return "", fmt.Errorf("%v: %w: there is no kind %q", k, datastore.ErrInvalid, k.Kind)
	case k.Name == "" || strings.ContainsAny(k.Name, "/\x00"):
		return "", fmt.Errorf("%v: %w: a name is needed, without slashes", k, datastore.ErrInvalid)
	case info.Namespaced && (k.Namespace == "" || strings.ContainsAny(k.Namespace, "/\x00")):
		return "", fmt.Errorf("%v: %w: a namespace is needed, without slashes", k, datastore.ErrInvalid)
	case !info.Namespaced && k.Namespace != "":
		return "", fmt.Errorf("%v: %w: a %s has no namespace", k, datastore.ErrInvalid, k.Kind)
	}
	return s.prefix + k.Kind + "/" + k.Namespace + "/" + k.Name, nil
}

// parseKey reads what key writes.
func (s *Store) parseKey(key string) (api.Key, bool) {
	rest, ok := strings.CutPrefix(key, s.prefix)
	if !ok {
		return api.Key{}, false
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 || parts[2] == "" {
		return api.Key{}, false
	}
	info, ok := s.kinds[parts[0]]
	if !ok || info.Namespaced != (parts[1] != "") {
		return api.Key{}, false
	}
	return api.Key{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, true
}

// kindRange is the keys of a kind; of one namespace if that is not "".
func (s *Store) kindRange(kind, namespace string) Range {
	from := s.prefix + kind + "/"
	if namespace != "" {
		from += namespace + "/"
	}
	return Range{From: from, To: prefixEnd(from)}
}

// prefixEnd is the first key after those that begin with prefix, which ends with a slash.
func prefixEnd(prefix string) string {
	return prefix[:len(prefix)-1] + "0" // '0' is '/' + 1
}
