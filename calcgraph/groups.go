package calcgraph

// group is a distinct list of profiles that things inherit labels from. All pods of a namespace and service account
// share one.
type group struct {
	key      string
	profiles []*profileLabels
	labels   []label // inherited: a key's first profile that has it wins
	members  posting // things
	dirty    bool
}

// profileLabels is the labels of one profile, which need not exist for a group to name it.
type profileLabels struct {
	name   string
	labels []label // nil if there is no such profile
	groups map[*group]struct{}
}

// groups holds the inheritance of labels: profile -> group -> things.
type groups struct {
	labels   *labels
	profiles map[string]*profileLabels
	byKey    map[string]*group
	dirty    []*group // a profile of theirs has changed
	keyBuf   []byte
}

func newGroups(l *labels) *groups {
	return &groups{labels: l, profiles: map[string]*profileLabels{}, byKey: map[string]*group{}}
}

// get returns the group of a list of profiles, nil for none.
func (g *groups) get(profiles []string) *group {
	if len(profiles) == 0 {
		return nil
	}
	g.keyBuf = g.keyBuf[:0]
	for _, p := range profiles {
		g.keyBuf = append(append(g.keyBuf, p...), 0)
	}
	if gr := g.byKey[string(g.keyBuf)]; gr != nil {
		return gr
	}
	gr := &group{key: string(g.keyBuf)}
	for _, name := range profiles {
		p := g.profile(name)
		if _, twice := p.groups[gr]; !twice {
			gr.profiles = append(gr.profiles, p)
			p.groups[gr] = struct{}{}
		}
	}
	g.byKey[gr.key] = gr
	gr.labels = g.inherited(gr)
	return gr
}

func (g *groups) profile(name string) *profileLabels {
	p := g.profiles[name]
	if p == nil {
		p = &profileLabels{name: name, groups: map[*group]struct{}{}}
		g.profiles[name] = p
	}
	return p
}

// inherited holds and returns the labels that gr's members inherit now.
func (g *groups) inherited(gr *group) []label {
	var ls []label
	for _, p := range gr.profiles {
		if len(p.labels) > 0 {
			ls = mergeLabels(nil, ls, p.labels)
		}
	}
	for _, l := range ls {
		g.labels.pairInfo[l.pair].refs++
		g.labels.keyUses[l.key]++
	}
	return ls
}

// join adds a thing to gr, which may be nil.
func (g *groups) join(gr *group, thing uint32) {
	if gr != nil {
		gr.members.add(thing)
	}
}

// leave takes a thing out of gr, which dies with its last member.
func (g *groups) leave(gr *group, thing uint32) {
	if gr == nil {
		return
	}
	gr.members.remove(thing)
	if gr.members.len() > 0 {
		return
	}
	g.labels.dropAll(gr.labels)
	gr.labels, gr.dirty = nil, false
	delete(g.byKey, gr.key)
	for _, p := range gr.profiles {
		delete(p.groups, gr)
		g.prune(p)
	}
}

func (g *groups) prune(p *profileLabels) {
	if len(p.groups) == 0 && p.labels == nil {
		delete(g.profiles, p.name)
	}
}

// setProfile says what labels a profile gives; nil if it gives none or is not there. Its groups learn of it by relabel.
func (g *groups) setProfile(name string, toApply map[string]string) {
	p := g.profiles[name]
	if p == nil && len(toApply) == 0 {
		return
	}
	p = g.profile(name)
	old := p.labels
	p.labels = g.labels.holdAll(toApply)
	g.labels.dropAll(old)
	if len(diffLabels(nil, old, p.labels)) > 0 {
		for gr := range p.groups {
			if !gr.dirty {
				gr.dirty = true
				g.dirty = append(g.dirty, gr)
			}
		}
	}
	g.prune(p)
}

// relabel calls fn for each group whose labels have changed, with the labels before; both are held until it returns.
func (g *groups) relabel(fn func(gr *group, old []label)) {
	for _, gr := range g.dirty {
		if !gr.dirty {
			continue
		}
		old := gr.labels
		gr.labels, gr.dirty = g.inherited(gr), false
		if len(diffLabels(nil, old, gr.labels)) > 0 {
			fn(gr, old)
		}
		g.labels.dropAll(old)
	}
	clear(g.dirty)
	g.dirty = g.dirty[:0]
}
