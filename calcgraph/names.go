package calcgraph

// names gives numbers to names that many things have, of namespaces and nodes, until nobody has them.
type names struct {
	numbers map[string]uint32
	texts   []string
	refs    []int
	free    []uint32
}

func newNames() *names {
	return &names{numbers: map[string]uint32{}, texts: []string{""}, refs: []int{0}}
}

// hold returns the number of a name, above 0, held once more.
func (n *names) hold(text string) uint32 {
	i, ok := n.numbers[text]
	if !ok {
		if last := len(n.free) - 1; last >= 0 {
			i, n.free = n.free[last], n.free[:last]
			n.texts[i] = text
		} else {
			i = uint32(len(n.texts))
			n.texts, n.refs = append(n.texts, text), append(n.refs, 0)
		}
		n.numbers[text] = i
	}
	n.refs[i]++
	return i
}

func (n *names) drop(i uint32) {
	if n.refs[i]--; n.refs[i] == 0 {
		delete(n.numbers, n.texts[i])
		n.texts[i] = ""
		n.free = append(n.free, i)
	}
}

// find returns the number of a name, 0 if nobody holds it.
func (n *names) find(text string) uint32 { return n.numbers[text] }

func (n *names) name(i uint32) string { return n.texts[i] }
