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
	pairs    int
}

// rectangles covers pairs of units, given by source, with few rectangles: sources with the same destinations are
// taken together, or destinations with the same sources. An end has no pair with itself, so a unit of one that is
// both in from and in to stands for its pairs with the others.
func (a *answer) rectangles(pairs map[int][]int) []rectangle {
	turned := map[int][]int{}
	for u, vs := range pairs {
		for _, v := range vs {
			turned[v] = append(turned[v], u)
		}
	}
	byFrom, byTo := a.merge(pairs), a.merge(turned)
	if len(byTo) < len(byFrom) {
		byFrom = byTo
		for i := range byFrom {
			byFrom[i].from, byFrom[i].to = byFrom[i].to, byFrom[i].from
		}
	}
	for i := range byFrom {
		r := &byFrom[i]
		for _, u := range r.from {
			for _, v := range r.to {
				r.pairs += a.pairsOf(u, v)
			}
		}
	}
	slices.SortFunc(byFrom, func(x, y rectangle) int {
		return cmp.Or(slices.Compare(x.from, y.from), slices.Compare(x.to, y.to))
	})
	return byFrom
}

func (a *answer) merge(pairs map[int][]int) []rectangle {
	reached := map[int]bool{}
	for _, vs := range pairs {
		for _, v := range vs {
			reached[v] = true
		}
	}
	rows := map[string]*rectangle{}
	var order []string
	for _, u := range slices.Sorted(maps.Keys(pairs)) {
		to := slices.Clone(pairs[u])
		if reached[u] && len(a.units[u].members) == 1 && !slices.Contains(to, u) {
			to = append(to, u)
		}
		slices.Sort(to)
		key := fmt.Sprint(to)
		if rows[key] == nil {
			rows[key] = &rectangle{to: to}
			order = append(order, key)
		}
		rows[key].from = append(rows[key].from, u)
	}
	var out []rectangle
	for _, key := range order {
		r := rows[key]
		if u := r.from[0]; len(r.from) == 1 && len(a.units[u].members) == 1 {
			r.to = slices.DeleteFunc(r.to, func(v int) bool { return v == u })
		}
		out = append(out, *r)
	}
	return out
}

// members returns the ends of some units.
func (a *answer) members(units []int) []int {
	var out []int
	for _, u := range units {
		out = append(out, a.units[u].members...)
	}
	return out
}
