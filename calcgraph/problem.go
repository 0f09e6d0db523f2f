package calcgraph

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
)

// Problem is an object that the graph ignores, or takes less of than it says.
type Problem struct {
	Key    api.Key
	Field  string // path of the field, "spec.selector"; "" = the object as a whole
	Reason string
}

// String gives "NetworkPolicy/ns/name: spec.selector: reason".
func (p Problem) String() string {
	if p.Field == "" {
		return fmt.Sprintf("%s: %s", p.Key, p.Reason)
	}
	return fmt.Sprintf("%s: %s: %s", p.Key, p.Field, p.Reason)
}

// problems gathers what is wrong with one object as it is read.
type problems struct {
	key  api.Key
	list []Problem
}

func (p *problems) add(field, format string, args ...any) {
	p.list = append(p.list, Problem{Key: p.key, Field: field, Reason: fmt.Sprintf(format, args...)})
}

// unread adds what a lenient decode could not read, as "path: reason".
func (p *problems) unread(partial []string) {
	for _, t := range partial {
		field, reason, _ := strings.Cut(t, ": ")
		p.add(field, "%s", reason)
	}
}

func sortProblems(ps []Problem) []Problem {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(ps)
}

func compareKeys(a, b api.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
