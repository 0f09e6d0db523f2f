package ctl

import (
	"fmt"
	"maps"
	"slices"
)

// partition is units in blocks, refined until the units of a block have the same kinds of links to each block.
type partition struct {
	c     *connectivity
	units []int
	block map[int]int // of a unit
	words map[string]int
	cell  []int // number of what a cell allows
}

func newPartition(c *connectivity, units []int) *partition {
	p := &partition{c: c, units: units, block: map[int]int{}, words: map[string]int{}, cell: make([]int, len(c.cells))}
	for i := range c.cells {
		if c.cells[i].tried != nil {
			p.cell[i] = p.number(c.words(int32(i)))
		}
	}
	tags := map[string]int{}
	for _, u := range units {
		tag := p.tag(u)
		if _, ok := tags[tag]; !ok {
			tags[tag] = len(tags)
		}
		p.block[u] = tags[tag]
	}
	return p
}

// tag is what units of one block have in common.
func (p *partition) tag(u int) string {
	unit := &p.c.units[u]
	return fmt.Sprint(unit.tag, unit.from, unit.to)
}

func (p *partition) number(words string) int {
	n, ok := p.words[words]
	if !ok {
		n = len(p.words) + 1
		p.words[words] = n
	}
	return n
}

// link is the number of what u may send to v; 0 = nobody asked.
func (p *partition) link(u, v int) int {
	if at := p.c.at[u][v]; at >= 0 {
		return p.cell[at]
	}
	return 0
}

func (p *partition) count() int {
	seen := map[int]bool{}
	for _, b := range p.block {
		seen[b] = true
	}
	return len(seen)
}

func (p *partition) refine() {
	for n := p.count(); ; {
		next, keys := map[int]int{}, map[string]int{}
		for u, key := range p.signatures() {
			if _, ok := keys[key]; !ok {
				keys[key] = len(keys)
			}
			next[u] = keys[key]
		}
		p.block = next
		now := p.count()
		if now == n {
			return
		}
		n = now
	}
}

// towards is links of a unit, or of those of a block, to a block.
type towards struct{ from, to int }

// signatures gives each unit its block and the kinds of links that it has to each block. A unit that has none to a block,
// since the only ones there are itself and what is on its own node, fits with those of its own block.
func (p *partition) signatures() map[int]string {
	blocks := map[int]bool{}
	ofUnit, ofBlock := map[towards]map[string]bool{}, map[towards]map[string]bool{}
	add := func(m map[towards]map[string]bool, k towards, link string) {
		if m[k] == nil {
			m[k] = map[string]bool{}
		}
		m[k][link] = true
	}
	for _, u := range p.units {
		blocks[p.block[u]] = true
		for _, v := range p.units {
			out, in := p.link(u, v), p.link(v, u)
			if out == 0 && in == 0 || p.c.ownNode(u, v) {
				continue
			}
			link := fmt.Sprint(out, ".", in)
			add(ofUnit, towards{u, p.block[v]}, link)
			add(ofBlock, towards{p.block[u], p.block[v]}, link)
		}
	}
	order := slices.Sorted(maps.Keys(blocks))
	out := map[int]string{}
	for _, u := range p.units {
		text := fmt.Sprint(p.block[u], ":")
		for _, b := range order {
			links := ofUnit[towards{u, b}]
			if links == nil {
				links = ofBlock[towards{p.block[u], b}]
			}
			text += fmt.Sprint(" ", b, slices.Sorted(maps.Keys(links)))
		}
		out[u] = text
	}
	return out
}

func (p *partition) blocks() [][]int {
	by := map[int][]int{}
	for _, u := range p.units {
		by[p.block[u]] = append(by[p.block[u]], u)
	}
	var out [][]int
	for _, u := range p.units {
		if b := by[p.block[u]]; b[0] == u {
			out = append(out, b)
		}
	}
	return out
}

// splitMixed takes one unit out of a block whose links to some block are mixed, other than by the node.
func (p *partition) splitMixed() bool {
	blocks := p.blocks()
	for _, from := range blocks {
		for _, to := range blocks {
			if !p.c.linkBetween(from, to).mixed {
				continue
			}
			for _, b := range [][]int{from, to} {
				if len(b) > 1 {
					p.block[b[0]] = len(p.units) + len(blocks)
					return true
				}
			}
		}
	}
	return false
}

// join takes two blocks together that fit. Refining may have told them apart by links to ends that are apart by now, of
// which some are nowhere but on one unit's own node.
func (p *partition) join() bool {
	blocks := p.blocks()
	if len(blocks) > maxSplit {
		return false
	}
	for i, a := range blocks {
		for _, b := range blocks[i+1:] {
			if p.tag(a[0]) == p.tag(b[0]) && p.fit(slices.Concat(a, b), blocks) {
				for _, u := range b {
					p.block[u] = p.block[a[0]]
				}
				return true
			}
		}
	}
	return false
}

// fit says whether the units of a block that is to be have the same link to every other, and to each other.
func (p *partition) fit(merged []int, blocks [][]int) bool {
	if !p.uniform(merged, merged) {
		return false
	}
	for _, b := range blocks {
		if !slices.Contains(merged, b[0]) && !(p.uniform(merged, b) && p.uniform(b, merged)) {
			return false
		}
	}
	return true
}

func (p *partition) uniform(from, to []int) bool {
	var seen [2]int // [1]: between a node and what is on it
	for _, u := range from {
		for _, v := range to {
			link, own := p.link(u, v), number(p.c.ownNode(u, v))
			switch {
			case link == 0:
			case seen[own] == 0:
				seen[own] = link
			case seen[own] != link:
				return false
			}
		}
	}
	return true
}
