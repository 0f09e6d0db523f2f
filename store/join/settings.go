package join

import (
	"fmt"
	"strconv"
	"strings"
)

// SetBlock puts lines ("key: ..." and what is indented below it) in the place of a top-level key of a YAML text, or at
// its end. Everything else stays, comments too.
func SetBlock(text, key, lines string) string {
	var out []string
	done, inside := false, false
	for _, l := range strings.SplitAfter(text, "\n") {
		if l == "" {
			continue
		}
		if inside && (strings.TrimSpace(l) == "" || strings.ContainsAny(l[:1], " \t-")) {
			continue
		}
		if inside = strings.HasPrefix(l, key+":"); !inside {
			out = append(out, l)
		} else if !done {
			out, done = append(out, lines), true
		}
	}
	whole := strings.Join(out, "")
	if done {
		return whole
	}
	if whole != "" && !strings.HasSuffix(whole, "\n") {
		whole += "\n"
	}
	return whole + lines
}

// StoreBlock is how the agent's settings name the store.
func (f Files) StoreBlock(endpoint string) string {
	return fmt.Sprintf("store:\n  endpoints: [%s]\n  caFile: %s\n  certFile: %s\n  keyFile: %s\n",
		strconv.Quote(endpoint), strconv.Quote(f.CA), strconv.Quote(f.Cert), strconv.Quote(f.Key))
}
