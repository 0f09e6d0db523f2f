package calcgraph

import (
	"slices"

	"github.com/tortie/tortie/api"
)

// things holds everything that has labels and addresses: workload and host endpoints of the whole cluster, network sets.
// Each has a dense number, which is used again only after the flush of the batch that freed it. Nodes are in a table of
// their own: what selects things must not select them.
type things struct {
	labels *labels
	groups *groups
	names  *names
	ids    map[thingKey]uint32
	all    []thing
	free   []uint32
	freed  []uint32 // since the last flush
	ports  *portLists

	// moved is told of each change, while the thing still is, or already is, in the table.
	moved func(*change)

	change   change
	old, new []label // scratch: what change holds
}

// thingKey is an api.Key in less than half the space: there are as many as there are things.
type thingKey struct {
	name      string
	namespace uint32 // number of its name; 0 for none
	kind      byte
}

type thing struct {
	own   []label
	group *group
	gives gives
	node  uint32 // number of the name of the node, of workloads of other nodes; 0 = none
	local *local // not nil: an endpoint of this node
}

// gives is what a thing contributes to sets.
type gives struct {
	nets  []member // canonical
	ports *portList
	// partial says that some of it can't be read: nobody knows all that the thing gives.
	partial bool
}

// change is a thing before and after something happened to it.
type change struct {
	id           uint32
	was, is      bool // whether it is there
	old, new     []label
	oldGives     gives
	newGives     gives
	givesChanged bool
	lost, gained []member // nets, if it was and is
}

// thingSpec is a thing as the store describes it.
type thingSpec struct {
	labels   map[string]string
	extra    [][2]string // labels that its kind gives it; they override
	profiles []string
	nets     []member // canonical; kept
	ports    []namedPort
	partial  bool // there are nets or ports that can't be read
}

func newThings(l *labels, g *groups) *things {
	return &things{labels: l, groups: g, names: newNames(), ids: map[thingKey]uint32{}, ports: newPortLists()}
}

// thingKinds are the kinds of things; a kind's place is its number.
var thingKinds = [...]string{"WorkloadEndpoint", "HostEndpoint", "NetworkSet", "GlobalNetworkSet", "Node"}

func (t *things) key(key api.Key) thingKey {
	k := thingKey{name: key.Name, kind: byte(slices.Index(thingKinds[:], key.Kind))}
	if key.Namespace != "" {
		if k.namespace = t.names.find(key.Namespace); k.namespace == 0 {
			k.kind = 0xff // a namespace without things
		}
	}
	return k
}

// find returns the number of a thing.
func (t *things) find(key api.Key) (id uint32, there bool) {
	id, there = t.ids[t.key(key)]
	return id, there
}

// set puts a thing in, or changes it.
func (t *things) set(key api.Key, s thingSpec) uint32 {
	id, there := t.find(key)
	if !there {
		id = t.alloc()
		if key.Namespace != "" {
			t.names.hold(key.Namespace)
		}
		t.ids[t.key(key)] = id
	}
	th := &t.all[id]
	own, gr := t.labels.holdAll(s.labels, s.extra...), t.groups.get(s.profiles)
	next := gives{nets: s.nets, ports: t.ports.hold(s.ports), partial: s.partial}
	if there && slices.Equal(th.gives.nets, next.nets) {
		next.nets = th.gives.nets
	}
	c := &t.change
	*c = change{id: id, was: there, is: true, oldGives: th.gives, newGives: next}
	if there {
		t.old = mergeLabels(t.old[:0], th.own, th.labelsOfGroup())
		c.old = t.old
		c.lost, c.gained = diffMembers(th.gives.nets, next.nets)
		c.givesChanged = len(c.lost)+len(c.gained) > 0 || th.gives.ports != next.ports || th.gives.partial != next.partial
	}
	oldOwn, oldGroup, oldPorts := th.own, th.group, th.gives.ports
	if oldGroup != gr {
		t.groups.join(gr, id)
	}
	th.own, th.group, th.gives = own, gr, next
	t.new = mergeLabels(t.new[:0], own, th.labelsOfGroup())
	c.new = t.new
	t.moved(c)
	t.labels.dropAll(oldOwn)
	t.ports.drop(oldPorts)
	if oldGroup != gr {
		t.groups.leave(oldGroup, id)
	}
	return id
}

// remove takes a thing out. It reports whether it was there.
func (t *things) remove(key api.Key) bool {
	k := t.key(key)
	id, there := t.ids[k]
	if !there {
		return false
	}
	th := &t.all[id]
	t.old = mergeLabels(t.old[:0], th.own, th.labelsOfGroup())
	t.change = change{id: id, was: true, old: t.old, oldGives: th.gives}
	t.moved(&t.change)
	t.labels.dropAll(th.own)
	t.ports.drop(th.gives.ports)
	t.groups.leave(th.group, id)
	*th = thing{}
	delete(t.ids, k)
	if k.namespace != 0 {
		t.names.drop(k.namespace)
	}
	t.freed = append(t.freed, id)
	return true
}

func (t *things) alloc() uint32 {
	if n := len(t.free); n > 0 {
		id := t.free[n-1]
		t.free = t.free[:n-1]
		return id
	}
	t.all = append(t.all, thing{})
	return uint32(len(t.all) - 1)
}

// flushed says that the batch is over: the numbers that it freed can be used again.
func (t *things) flushed() {
	t.free = append(t.free, t.freed...)
	t.freed = t.freed[:0]
}

// relabel brings the labels of changed profiles to those who inherit them. cares says whether a change of these labels
// can matter to anybody.
func (t *things) relabel(cares func([]labelDiff) bool) {
	var diff []labelDiff
	t.groups.relabel(func(gr *group, old []label) {
		diff = diffLabels(diff[:0], old, gr.labels)
		if !cares(diff) {
			return
		}
		for id := range gr.members.all() {
			th := &t.all[id]
			t.old = mergeLabels(t.old[:0], th.own, old)
			t.new = mergeLabels(t.new[:0], th.own, gr.labels)
			t.change = change{id: id, was: true, is: true, old: t.old, new: t.new, oldGives: th.gives, newGives: th.gives}
			t.moved(&t.change)
		}
	})
}

// effective appends the labels of a thing, own and inherited, to buf.
func (t *things) effective(buf []label, id uint32) []label {
	th := &t.all[id]
	return mergeLabels(buf, th.own, th.labelsOfGroup())
}

func (t *thing) labelsOfGroup() []label {
	if t.group == nil {
		return nil
	}
	return t.group.labels
}

// namedPort is a port with a name that a thing exposes.
type namedPort struct {
	name  string
	proto uint8
	port  uint16
}

// portList is a distinct list of named ports.
type portList struct {
	key   string
	ports []namedPort
	refs  int
}

// portLists shares equal lists: the pods of a deployment have the same one.
type portLists struct {
	byKey map[string]*portList
	buf   []byte
}

func newPortLists() *portLists { return &portLists{byKey: map[string]*portList{}} }

func (p *portLists) hold(ports []namedPort) *portList {
	if len(ports) == 0 {
		return nil
	}
	p.buf = p.buf[:0]
	for _, n := range ports {
		p.buf = append(append(p.buf, n.name...), 0, n.proto, byte(n.port>>8), byte(n.port))
	}
	l := p.byKey[string(p.buf)]
	if l == nil {
		l = &portList{key: string(p.buf), ports: slices.Clone(ports)}
		p.byKey[l.key] = l
	}
	l.refs++
	return l
}

func (p *portLists) drop(l *portList) {
	if l == nil {
		return
	}
	if l.refs--; l.refs == 0 {
		delete(p.byKey, l.key)
	}
}
