package calcgraph

import (
	"cmp"
	"math"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// lastOrder is the order of a tier or policy that has none. It can be written as JSON, unlike infinity.
const lastOrder = math.MaxFloat64

// tier is a tier that exists, or that a policy names.
type tier struct {
	name     string
	exists   bool // a missing tier comes after all that exist, and ends in Deny
	order    float64
	def      drivers.Action
	policies int
}

func compareTiers(a, b *tier) int {
	if a.exists != b.exists {
		if a.exists {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.name, b.name))
}

type tiers struct {
	byName  map[string]*tier
	changed bool
}

// newTiers begins with the built-in tiers, which are there also if the store has no objects for them.
func newTiers() *tiers {
	t := &tiers{byName: map[string]*tier{}}
	for _, b := range api.BuiltinTiers() {
		t.byName[b.Name] = readTier(b)
	}
	return t
}

func readTier(o *api.Tier) *tier {
	t := &tier{name: o.Name, exists: true, order: lastOrder}
	if o.Spec.Order != nil {
		t.order = min(*o.Spec.Order, lastOrder)
	}
	if d := o.Spec.DefaultAction; d != nil && *d == api.Pass {
		t.def = drivers.Pass
	}
	return t
}

func builtinTier(name string) *tier {
	for _, b := range api.BuiltinTiers() {
		if b.Name == name {
			return readTier(b)
		}
	}
	return nil
}

// get returns a tier for one more policy.
func (t *tiers) get(name string) *tier {
	tr := t.byName[name]
	if tr == nil {
		tr = &tier{name: name, order: lastOrder}
		t.byName[name] = tr
	}
	tr.policies++
	return tr
}

func (t *tiers) letGo(tr *tier) {
	tr.policies--
	t.prune(tr)
}

func (t *tiers) prune(tr *tier) {
	if tr.policies == 0 && !tr.exists {
		delete(t.byName, tr.name)
	}
}

// set takes in a tier, nil if it is gone, and returns what is wrong with it.
func (t *tiers) set(key api.Key, o *api.Tier) []Problem {
	p := problems{key: key}
	want := tier{name: key.Name, order: lastOrder}
	builtin := builtinTier(key.Name)
	if o != nil {
		want = *readTier(o)
		if d := o.Spec.DefaultAction; d != nil && *d != api.Pass && *d != api.Deny {
			p.add("spec.defaultAction", "%q is neither Deny nor Pass; the tier ends in Deny", *d)
		}
		if builtin != nil && (o.Spec.Order != nil && want.order != builtin.order || o.Spec.DefaultAction != nil && want.def != builtin.def) {
			p.add("spec", "a built-in tier can't be changed; it keeps its own values")
		}
	}
	if builtin != nil {
		return p.list
	}
	tr := t.byName[key.Name]
	if tr == nil {
		if o == nil {
			return nil
		}
		tr = &tier{name: key.Name}
		t.byName[key.Name] = tr
	}
	want.policies = tr.policies
	if *tr != want {
		*tr = want
		t.changed = true
	}
	t.prune(tr)
	return p.list
}
