package ctl

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// question asks what may talk to what, in one world or in two that are to be compared.
type question struct {
	worlds   []*world
	outside  []netip.Addr
	from, to func(*end) bool       // nil = all
	pair     func(x, y *end) bool  // nil = all; asked about kinds and namespaces only
	narrow   func([]probe) []probe // nil = all
	tag      func(*end) string     // ends of different tags are never taken together; nil = by kind and namespace
	uplink   string                // by which nodes reach each other and the world
	limit    int                   // of decisions
	progress func(what string, done, total int)
}

const (
	maxOutside = 12        // prefixes that are tried without having been asked for
	maxUnits   = 2000      // groups of ends
	maxAsked   = 2_000_000 // decisions, unless the question says otherwise
)

// answer says it for units: ends that are treated alike. Every pair of ends is in it, unless Sampled says otherwise.
type answer struct {
	worlds []*world
	probes []probe
	ends   []*end // as the last world that has them knows them
	units  []unit
	cells  []cell
	at     [][]int32 // index of a cell, by source and destination unit; -1 = nobody asked
	pairs  int       // that the cells speak for
	all    int       // pairs that there are
	asked  int       // decisions
	notes  []string
}

// unit is ends on one node that no policy and no route tells apart.
type unit struct {
	class    int32
	tag      string
	nodes    []int // by world; -1 = outside, or not there
	members  []int // indexes of ends
	from, to bool
	seen     [][]int32 // by world and node: how that node sees the members
	calm     bool      // of two worlds: nothing about the members changes
	matters  []bool    // by probe: their policies mention it
}

// cell is what is so between two units.
type cell struct {
	x, y    int      // ends that were asked about in place of all others
	tried   []bool   // by probe: both ends have addresses of its family
	allowed [][]bool // by world and probe
	changes []change // of two worlds
	calm    bool     // of two worlds: nothing can change, so nobody was asked
	matters []bool   // by probe: the policies of both ends mention it
	asked   int      // decisions
}

// change is a probe whose fate is not the same in both worlds.
type change struct {
	probe   int
	by, was string // what decides, after and before
}

// asking is a question on its way to an answer.
type asking struct {
	question
	*answer
	present [][]*end // by world: the ends as it knows them; nil = it doesn't
	nodes   []string
	index   map[string]int
	rest    []int // of each probe: the one that stands for it where nothing mentions it; -1 = none
}

// ask answers a question.
func ask(ctx context.Context, q question) (*answer, error) {
	if q.progress == nil {
		q.progress = func(string, int, int) {}
	}
	if q.limit <= 0 {
		q.limit = maxAsked
	}
	a := &asking{question: q, answer: &answer{worlds: q.worlds}, index: map[string]int{}}
	a.gatherEnds()
	a.doubtUplinks()
	if a.tag == nil {
		a.tag = func(e *end) string { return fmt.Sprint(e.kind, "/", e.namespace) }
	}
	if a.probes = probesOf(q.worlds); q.narrow != nil {
		a.probes = q.narrow(a.probes)
	}
	a.group()
	a.makeCells()
	err := a.decide(ctx)
	return a.answer, err
}

// doubtUplinks settles by which interface packets leave the nodes, and says where that is a guess that seems wrong.
func (a *asking) doubtUplinks() {
	if a.uplink != "" {
		return
	}
	var doubted []string
	for _, name := range a.nodes {
		for _, w := range a.question.worlds {
			if _, told := w.infos[name]; told {
				continue
			}
			if s := w.states[name]; s != nil && len(strangeUplinks(s)) > 0 && !slices.Contains(doubted, name) {
				doubted = append(doubted, name)
			}
		}
	}
	if len(doubted) > 0 {
		a.notes = append(a.notes, fmt.Sprintf("%s: taken to reach the others through %s, but the host endpoints there are on other interfaces: if packets go by those, say so with --uplink",
			few(doubted), uplinkName))
	}
}

// gatherEnds lists the ends of all worlds, each once.
func (a *asking) gatherEnds() {
	nodes := map[string]bool{}
	byID := map[string]int{}
	add := func(w int, e *end) {
		i, ok := byID[e.id()]
		if !ok {
			i = len(a.ends)
			byID[e.id()] = i
			a.ends = append(a.ends, e)
			for v := range a.present {
				a.present[v] = append(a.present[v], nil)
			}
		}
		a.ends[i], a.present[w][i] = e, e
	}
	a.present = make([][]*end, len(a.question.worlds))
	nameAlike(a.question.worlds)
	for w, world := range a.question.worlds {
		for name := range world.states {
			nodes[name] = true
		}
		for _, e := range world.ends() {
			add(w, e)
		}
	}
	outside, left := outsides(a.question.worlds, present(slices.Concat(a.present...)), a.outside, maxOutside)
	for _, e := range outside {
		for w := range a.question.worlds {
			add(w, e)
		}
	}
	if left > 0 {
		a.notes = append(a.notes, leftOut(left))
	}
	a.nodes = slices.Sorted(maps.Keys(nodes))
	for i, n := range a.nodes {
		a.index[n] = i
	}
}

// endpointOf finds the endpoint of a workload in the State of its node.
func (w *world) endpointOf(e *end) *drivers.Endpoint {
	if e == nil || e.kind != workloadEnd {
		return nil
	}
	key := api.Key{Kind: "WorkloadEndpoint", Namespace: e.namespace, Name: e.resource}
	wep, ok := w.objects[key].(*api.WorkloadEndpoint)
	if !ok {
		return nil
	}
	return w.states[e.node].Endpoints[endpointID(key, wep)]
}

// group puts ends that are treated alike into units.
func (a *asking) group() {
	var ps []*prints
	var views [][]*sights
	for w, world := range a.question.worlds {
		ps = append(ps, newPrints(world, present(a.present[w])))
		var vs []*sights
		for _, n := range a.nodes {
			if s := world.states[n]; s != nil {
				vs = append(vs, newSights(s))
			} else {
				vs = append(vs, newSights(drivers.NewState()))
			}
		}
		views = append(views, vs)
	}
	mentioned := newMentions(a.probes, len(a.question.worlds))
	a.rest = mentioned.rest
	classes, units := map[string]int32{}, map[string]int{}
	see := seeing{views: views, worlds: a.question.worlds, nodes: a.nodes, ids: map[[4]sight]int32{}}
	for i, e := range a.ends {
		a.progress("grouping", i, len(a.ends))
		u := unit{tag: a.tag(e), from: a.from == nil || a.from(e), to: a.to == nil || a.to(e)}
		if !u.from && !u.to {
			continue
		}
		text := fmt.Appendf(nil, "%v %v\n", u.from, u.to)
		u.calm = len(a.question.worlds) == 2
		first := ""
		for w, world := range a.question.worlds {
			print := ps[w].of(a.present[w][i], world.endpointOf(a.present[w][i]))
			if w == 0 {
				first = print
			}
			u.calm = u.calm && print == first
			text = append(text, print...)
		}
		class, ok := classes[string(text)]
		if !ok {
			class = int32(len(classes))
			classes[string(text)] = class
		}
		u.class = class
		key := binary.BigEndian.AppendUint32([]byte(u.tag+"\n"), uint32(class))
		for w := range a.question.worlds {
			node := -1
			if p := a.present[w][i]; p != nil && p.node != "" {
				node = a.index[p.node]
			}
			u.nodes = append(u.nodes, node)
			u.seen = append(u.seen, see.from(w, a.present[w][i]))
			key = binary.BigEndian.AppendUint32(key, uint32(node))
			for _, s := range u.seen[w] {
				key = binary.BigEndian.AppendUint32(key, uint32(s))
			}
		}
		if u.calm {
			u.calm = u.nodes[0] == u.nodes[1] && slices.Equal(u.seen[0], u.seen[1])
		}
		at, ok := units[string(key)]
		if !ok {
			at = len(a.units)
			units[string(key)] = at
			u.matters = make([]bool, len(a.probes))
			for w, world := range a.question.worlds {
				if e := a.present[w][i]; e != nil {
					mentioned.mark(u.matters, w, world.states[e.node], world.endpointOf(e))
				}
			}
			a.units = append(a.units, u)
		}
		a.units[at].members = append(a.units[at].members, i)
	}
}

func present(ends []*end) []*end {
	return slices.DeleteFunc(slices.Clone(ends), func(e *end) bool { return e == nil })
}

// seeing numbers the ways in which nodes see ends.
type seeing struct {
	views  [][]*sights // by world and node
	worlds []*world
	nodes  []string
	ids    map[[4]sight]int32
}

// from returns how each node sees an end, and the node that the end is on: its packets may carry that one's address.
func (s *seeing) from(w int, e *end) []int32 {
	out := make([]int32, len(s.nodes))
	if e == nil {
		return out
	}
	var host []netip.Addr
	if st := s.worlds[w].states[e.node]; st != nil {
		host = st.Node.Addresses
	}
	for i, v := range s.views[w] {
		look := [4]sight{v.of(e.addrs[0]), v.of(e.addrs[1])}
		for j, a := range host {
			if j < 2 {
				look[2+j] = v.of(a.Unmap())
			}
		}
		id, ok := s.ids[look]
		if !ok {
			id = int32(len(s.ids) + 1)
			s.ids[look] = id
		}
		out[i] = id
	}
	return out
}

// makeCells makes the cells, one for all pairs of units that can't differ.
func (a *asking) makeCells() {
	total := len(a.units)
	if total > maxUnits {
		a.units = stride(a.units, maxUnits)
		a.notes = append(a.notes, fmt.Sprintf("SAMPLED: there are %s groups of ends that policy treats differently; %s of them were compared", thousands(total), thousands(maxUnits)))
	}
	type key struct {
		from, to int32
		same     [2]bool
		see      [2][2]int32
	}
	n := 0
	a.answer.all = a.countAll()
	index := map[key]int32{}
	for u := range a.units {
		row := make([]int32, len(a.units))
		a.progress("pairing", u, len(a.units))
		for v := range a.units {
			row[v] = -1
			x, y, ok := a.deputies(u, v)
			if !ok {
				continue
			}
			k := key{from: a.units[u].class, to: a.units[v].class}
			for w := range a.question.worlds {
				nu, nv := a.units[u].nodes[w], a.units[v].nodes[w]
				k.same[w] = nu == nv
				if nu >= 0 {
					k.see[w][0] = a.units[v].seen[w][nu]
				}
				if nv >= 0 {
					k.see[w][1] = a.units[u].seen[w][nv]
				}
			}
			at, ok := index[k]
			if !ok {
				at = int32(n)
				n++
				index[k] = at
				a.cells = append(a.cells, a.newCell(u, v, x, y))
			}
			row[v] = at
		}
		a.at = append(a.at, row)
	}
}

// countAll is how many pairs of different ends there are to ask about.
func (a *asking) countAll() int {
	type tagged struct {
		some           *end
		from, to, both int
	}
	tags := map[string]*tagged{}
	for _, e := range a.ends {
		key := fmt.Sprint(e.kind, "/", e.namespace)
		if tags[key] == nil {
			tags[key] = &tagged{some: e}
		}
		f, t := a.from == nil || a.from(e), a.to == nil || a.to(e)
		tags[key].from, tags[key].to, tags[key].both = tags[key].from+number(f), tags[key].to+number(t), tags[key].both+number(f && t)
	}
	n := 0
	for _, x := range tags {
		for _, y := range tags {
			if a.wanted(x.some, y.some) {
				n += x.from * y.to
			}
		}
		if a.wanted(x.some, x.some) {
			n -= x.both
		}
	}
	return n
}

// wanted says whether pairs of such ends are asked about. Two ends that are outside are not ours to judge.
func (a *asking) wanted(x, y *end) bool {
	return (x.kind != outsideEnd || y.kind != outsideEnd) && (a.question.pair == nil || a.question.pair(x, y))
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// deputies returns two ends that stand for all pairs of two units; ok is false if there is no pair to ask about.
func (a *asking) deputies(u, v int) (x, y int, ok bool) {
	from, to := &a.units[u], &a.units[v]
	if !from.from || !to.to {
		return 0, 0, false
	}
	x, y = from.members[0], to.members[0]
	if u == v {
		if len(to.members) < 2 {
			return 0, 0, false
		}
		y = to.members[1]
	}
	return x, y, a.wanted(a.ends[x], a.ends[y])
}

// stride picks n of some things, evenly.
func stride[T any](all []T, n int) []T {
	out := make([]T, 0, n)
	for i := range n {
		out = append(out, all[i*len(all)/n])
	}
	return out
}

// decide evaluates every cell, and every probe in it, in each world.
func (a *asking) decide(ctx context.Context) error {
	var wanted []int
	total := 0
	for i, c := range a.cells {
		if c.calm {
			continue
		}
		wanted = append(wanted, i)
		for k := range a.probes {
			total += number(a.asks(&c, k)) * len(a.question.worlds)
		}
	}
	if total > a.limit {
		n := max(1, int(float64(len(wanted))*float64(a.limit)/float64(total)))
		a.notes = append(a.notes, fmt.Sprintf("SAMPLED: %s of %s kinds of pairs were compared (--limit raises it)", thousands(n), thousands(len(wanted))))
		wanted = stride(wanted, n)
	}
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for i := range work {
				a.evaluate(&a.cells[i])
				done.Add(1)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(work)
		for _, i := range wanted {
			select {
			case work <- i:
				a.progress("comparing", int(done.Load()), len(wanted))
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	a.countPairs()
	return nil
}

func (a *asking) countPairs() {
	for u, row := range a.at {
		for v, at := range row {
			if at < 0 {
				continue
			}
			if a.cells[at].tried == nil && !a.cells[at].calm {
				row[v] = -1
				continue
			}
			a.pairs += a.pairsOf(u, v)
		}
	}
	for _, c := range a.cells {
		a.asked += c.asked
	}
}

// pairsOf is how many pairs of ends there are between two units.
func (a *answer) pairsOf(u, v int) int {
	n := len(a.units[u].members) * len(a.units[v].members)
	if u == v {
		n -= len(a.units[u].members)
	}
	return n
}

// ownNode says whether one of two units is the node that the other is on. What passes between a workload and its own
// node has rules of its own, and does not tell workloads of different nodes apart.
func (a *answer) ownNode(u, v int) bool {
	return a.sameNode(u, v) && (a.kindOf(u) == hostEnd) != (a.kindOf(v) == hostEnd)
}

// sameNode says whether the ends of two units are on one node, in the last world that has them.
func (a *answer) sameNode(u, v int) bool {
	node := func(u int) int {
		at := slices.DeleteFunc(slices.Clone(a.units[u].nodes), func(n int) bool { return n < 0 })
		if len(at) == 0 {
			return -1
		}
		return at[len(at)-1]
	}
	n := node(u)
	return n >= 0 && n == node(v)
}

func (a *answer) kindOf(u int) endKind { return a.ends[a.units[u].members[0]].kind }

// newCell is a cell of two units that x and y stand for.
func (a *asking) newCell(u, v, x, y int) cell {
	c := cell{x: x, y: y, calm: a.units[u].calm && a.units[v].calm, matters: make([]bool, len(a.probes))}
	for i := range c.matters {
		c.matters[i] = a.units[u].matters[i] || a.units[v].matters[i]
	}
	return c
}

// asks says whether a probe has to be asked about, or has the answer of the rest of its protocol.
func (a *asking) asks(c *cell, probe int) bool { return a.rest[probe] < 0 || c.matters[probe] }

func (a *asking) evaluate(c *cell) {
	c.tried = make([]bool, len(a.probes))
	c.allowed = make([][]bool, len(a.question.worlds))
	for w := range c.allowed {
		c.allowed[w] = make([]bool, len(a.probes))
	}
	for i := range a.probes {
		if a.asks(c, i) {
			a.evaluateProbe(c, i)
		}
	}
	ofRest := map[int]change{}
	for _, ch := range c.changes {
		ofRest[ch.probe] = ch
	}
	for i, r := range a.rest {
		if a.asks(c, i) {
			continue
		}
		c.tried[i] = c.tried[r]
		for w := range c.allowed {
			c.allowed[w][i] = c.allowed[w][r]
		}
		if ch, ok := ofRest[r]; ok {
			ch.probe = i
			c.changes = append(c.changes, ch)
		}
	}
}

func (a *asking) evaluateProbe(c *cell, i int) {
	p := a.probes[i]
	var traces [2]*drivers.PathTrace
	for w, world := range a.question.worlds {
		x, y := a.present[w][c.x], a.present[w][c.y]
		if x == nil || y == nil || !x.addrs[p.family].IsValid() || !y.addrs[p.family].IsValid() {
			continue
		}
		t := world.path(p, x, y, a.uplink)
		traces[w] = &t
		c.tried[i] = true
		c.asked++
		c.allowed[w][i] = t.Verdict == drivers.VerdictAllow
	}
	if len(a.question.worlds) == 2 && c.allowed[0][i] != c.allowed[1][i] {
		by, was := causes(traces[0], traces[1])
		c.changes = append(c.changes, change{probe: i, by: by, was: was})
	}
}

// path follows a flow of one kind from x to y.
func (w *world) path(p probe, x, y *end, uplink string) drivers.PathTrace {
	from, to := w.states[x.node], w.states[y.node]
	if from == nil {
		from, to = to, nil // it comes in from outside
	}
	f := p.flow(x, y)
	f.UplinkA, f.UplinkB = uplink, uplink
	if uplink == "" {
		f.UplinkA, f.UplinkB = cmp.Or(w.between(from, to, p.family), uplinkName), uplinkName
		if to != nil {
			f.UplinkB = cmp.Or(w.between(to, from, p.family), uplinkName)
		}
	}
	return drivers.Path(from, to, f)
}
