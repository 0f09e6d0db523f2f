package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// namer gives sets of ends names that a person can read: "shop/web-*", "shop/*", "every workload". A name with a star
// stands for exactly the ends of the set: there is no other that it fits.
type namer struct {
	ends        []*end
	byNamespace map[string][]int
	kinds       [3][]int
}

func newNamer(ends []*end) *namer {
	n := &namer{ends: ends, byNamespace: map[string][]int{}}
	for i, e := range ends {
		n.kinds[e.kind] = append(n.kinds[e.kind], i)
		if e.kind == workloadEnd {
			n.byNamespace[e.namespace] = append(n.byNamespace[e.namespace], i)
		}
	}
	return n
}

// maxNames is how many names are listed of a set.
const maxNames = 4

// name describes a set of ends.
func (n *namer) name(set []int) string {
	names := n.names(set)
	if len(names) > maxNames {
		return strings.Join(names[:maxNames-1], ", ") + fmt.Sprintf(" and %d more", len(names)-maxNames+1)
	}
	return strings.Join(names, ", ")
}

// names covers a set of ends with patterns and names.
func (n *namer) names(set []int) []string {
	var kinds [3][]int
	for _, i := range set {
		kinds[n.ends[i].kind] = append(kinds[n.ends[i].kind], i)
	}
	var out []string
	if w := kinds[workloadEnd]; len(w) == len(n.kinds[workloadEnd]) && len(n.byNamespace) > 1 {
		out = append(out, "every workload")
	} else {
		spaces := map[string][]int{}
		for _, i := range w {
			spaces[n.ends[i].namespace] = append(spaces[n.ends[i].namespace], i)
		}
		for _, ns := range slices.Sorted(maps.Keys(spaces)) {
			out = append(out, n.inNamespace(ns, spaces[ns])...)
		}
	}
	if h := kinds[hostEnd]; len(h) > 1 && len(h) == len(n.kinds[hostEnd]) {
		out = append(out, "every node")
	} else {
		out = append(out, n.each(h)...)
	}
	return append(out, n.each(kinds[outsideEnd])...)
}

func (n *namer) each(set []int) []string {
	sorted := slices.SortedFunc(slices.Values(set), func(a, b int) int { return compareEnds(n.ends[a], n.ends[b]) })
	var out []string
	for _, i := range sorted {
		out = append(out, n.ends[i].String())
	}
	return out
}

// inNamespace covers workloads of one namespace: the whole of it, those with a label, or beginnings of names and names.
func (n *namer) inNamespace(ns string, set []int) []string {
	all := n.byNamespace[ns]
	switch {
	case len(set) == 1:
		return n.each(set)
	case len(set) == len(all):
		return []string{ns + "/*"}
	}
	patterns := n.stems(ns, set)
	if len(patterns) > 1 {
		if label := n.label(set, all); label != "" {
			return []string{ns + "/{" + label + "}"}
		}
	}
	return patterns
}

// stems covers a set with beginnings of names that no other workload of the namespace has: "web-*".
func (n *namer) stems(ns string, set []int) []string {
	inSet := map[int]bool{}
	for _, i := range set {
		inSet[i] = true
	}
	left := maps.Clone(inSet)
	var out []string
	sorted := slices.SortedFunc(slices.Values(set), func(a, b int) int { return compareEnds(n.ends[a], n.ends[b]) })
	for _, i := range sorted {
		if !left[i] {
			continue
		}
		best, members := "", []int(nil)
		for _, stem := range stemsOf(n.ends[i].name) {
			var fits []int
			exact := true
			for _, j := range n.byNamespace[ns] {
				if strings.HasPrefix(n.ends[j].name, stem) {
					fits = append(fits, j)
					exact = exact && inSet[j]
				}
			}
			if exact && len(fits) > 1 && len(fits) > len(members) {
				best, members = stem, fits
			}
		}
		if best == "" {
			out = append(out, n.ends[i].String())
			continue
		}
		out = append(out, ns+"/"+best+"*")
		for _, j := range members {
			delete(left, j)
		}
	}
	return slices.Compact(out)
}

// stemsOf are the beginnings of a name that end where people see a joint: "web-7f9c-x2" has "web-" and "web-7f9c-".
func stemsOf(name string) []string {
	var out []string
	for i, r := range name {
		if r == '-' || r == '.' {
			out = append(out, name[:i+1])
		}
	}
	if stem, number := cutNumber(name); number != "" && stem != "" {
		out = append(out, stem)
	}
	return out
}

// label finds a label that all of set has and nobody else of all.
func (n *namer) label(set, all []int) string {
	candidates := n.ends[set[0]].labels
	for _, k := range slices.Sorted(maps.Keys(candidates)) {
		v := candidates[k]
		count := 0
		for _, i := range all {
			if have, ok := n.ends[i].labels[k]; ok && have == v {
				count++
			}
		}
		common := !slices.ContainsFunc(set, func(i int) bool { return n.ends[i].labels[k] != v })
		if common && count == len(set) {
			return k + "=" + v
		}
	}
	return ""
}

// rectangle is some sources, each with each of some destinations.
type rectangle struct {
	from, to []int // units
	pairs    int   // without those that are free
}

// rectangles covers pairs of units, given by source, with few rectangles: sources with the same destinations are
// taken together, or destinations with the same sources. A pair for which free holds may be in a rectangle or not.
func (a *answer) rectangles(pairs map[int][]int, free func(u, v int) bool) []rectangle {
	turned := map[int][]int{}
	for u, vs := range pairs {
		for _, v := range vs {
			turned[v] = append(turned[v], u)
		}
	}
	out, byTo := merge(pairs, free), merge(turned, func(v, u int) bool { return free(u, v) })
	if len(byTo) < len(out) {
		out = byTo
		for i := range out {
			out[i].from, out[i].to = out[i].to, out[i].from
		}
	}
	for i := range out {
		r := &out[i]
		r.drop(free)
		for _, u := range r.from {
			for _, v := range r.to {
				if slices.Contains(pairs[u], v) {
					r.pairs += a.pairsOf(u, v)
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y rectangle) int { return cmp.Or(slices.Compare(x.from, y.from), slices.Compare(x.to, y.to)) })
	return out
}

// merge takes those with the same partners together. Free pairs fill gaps.
func merge(pairs map[int][]int, free func(u, v int) bool) []rectangle {
	partners := map[int]bool{}
	for _, vs := range pairs {
		for _, v := range vs {
			partners[v] = true
		}
	}
	rows := map[string]*rectangle{}
	var order []string
	for _, u := range slices.Sorted(maps.Keys(pairs)) {
		has := map[int]bool{}
		for _, v := range pairs[u] {
			has[v] = true
		}
		for v := range partners {
			has[v] = has[v] || free(u, v)
		}
		var to []int
		for v, is := range has {
			if is {
				to = append(to, v)
			}
		}
		slices.Sort(to)
		key := fmt.Sprint(to)
		if rows[key] == nil {
			rows[key] = &rectangle{to: to}
			order = append(order, key)
		}
		rows[key].from = append(rows[key].from, u)
	}
	out := make([]rectangle, 0, len(order))
	for _, key := range order {
		out = append(out, *rows[key])
	}
	return out
}

// drop takes out what is in the rectangle for nothing but free pairs.
func (r *rectangle) drop(free func(u, v int) bool) {
	allFree := func(v int) bool { return !slices.ContainsFunc(r.from, func(u int) bool { return !free(u, v) }) }
	r.to = slices.DeleteFunc(slices.Clone(r.to), allFree)
	r.from = slices.DeleteFunc(slices.Clone(r.from), func(u int) bool {
		return !slices.ContainsFunc(r.to, func(v int) bool { return !free(u, v) })
	})
}

// itself says whether two units are one end, which has no pair with itself.
func (a *answer) itself(u, v int) bool { return u == v && len(a.units[u].members) == 1 }

// members returns the ends of some units.
func (a *answer) members(units []int) []int {
	var out []int
	for _, u := range units {
		out = append(out, a.units[u].members...)
	}
	return out
}
