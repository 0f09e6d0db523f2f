package linux

// stages cuts a plan into the transactions that it takes for packets under way to be judged by the old rules or by the new
// ones. A packet walks the rules that were in force when it entered its base chain. But what it finds in sets and maps is
// what is in force when it asks: if a transaction comes in between, an old rule asks a new map, or a set that was emptied.
//
//	first    chains that are new, if an element of a map that is there leads to one, and what they need: nothing leads to
//	         them yet, and when something does they have their rules, whatever the packet began with
//	second   all else
//	third    what nothing refers to any more: an old rule may still ask
//
// No stage but the second changes what becomes of a packet. If a later one fails what is left over is harmless, and known.
func stages(ops []op, want *Program, have *tables) [][]op {
	for i := range ops {
		if ops[i].kind == opAddTable || ops[i].kind == opDelTable {
			return [][]op{ops}
		}
	}
	leads := false
	for i := range ops {
		o := &ops[i]
		leads = leads || o.kind == opAddElems && have.Sets[o.set.Key] != nil && o.leadsTo(func(k Key) bool { return have.Chains[k] == nil })
	}
	var first, second, third []op
	for i := range ops {
		switch o := &ops[i]; {
		case leads && o.makes(have):
			first = append(first, *o)
		case o.removes(want):
			third = append(third, *o)
		default:
			second = append(second, *o)
		}
	}
	var out [][]op
	for _, s := range [][]op{first, second, third} {
		if len(s) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// leadsTo reports whether one of the elements leads to such a chain.
func (o *op) leadsTo(is func(Key) bool) bool {
	for _, e := range o.elems {
		if e.Chain != "" && is(Key{o.table, e.Chain}) {
			return true
		}
	}
	return false
}

// makes reports whether the op is about a set, or a chain other than a base chain, that have does not have.
func (o *op) makes(have *tables) bool {
	if o.chain != nil {
		return o.chain.Hook == nil && have.Chains[o.chain.Key] == nil
	}
	return o.set != nil && have.Sets[o.set.Key] == nil
}

// removes reports whether the op is about a set, or a chain other than a base chain, that is not wanted any more.
func (o *op) removes(want *Program) bool {
	if o.chain != nil {
		return o.chain.Hook == nil && want.Chains[o.chain.Key] == nil
	}
	return o.set != nil && want.Sets[o.set.Key] == nil
}

// opKeys names what ops are about.
func opKeys(ops []op) map[Key]struct{} {
	ks := map[Key]struct{}{}
	for i := range ops {
		switch o := &ops[i]; {
		case o.chain != nil:
			ks[o.chain.Key] = struct{}{}
		case o.set != nil:
			ks[o.set.Key] = struct{}{}
		}
	}
	return ks
}
