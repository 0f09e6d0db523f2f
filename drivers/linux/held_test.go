package linux

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/drivers"
)

// owned lists the objects of a program, their rules and elements, that an object of the State is to blame for.
func owned(p Program, o drivers.ObjectRef) []string {
	var all []string
	for k, c := range p.Chains {
		if c.Owner == o {
			all = append(all, k.Name)
		}
		for i, r := range c.Rules {
			if r.Owner != nil && *r.Owner == o || r.Owner == nil && c.Owner == o {
				all = append(all, fmt.Sprintf("rule %d of %s", i, k.Name))
			}
		}
	}
	for k, s := range p.Sets {
		for e := range s.Content.All() {
			if e.Owner != nil && *e.Owner == o || e.Owner == nil && s.Owner == o {
				all = append(all, fmt.Sprintf("%s in %s", s.key(e), k.Name))
			}
		}
	}
	return all
}

// missed counts the rules that deny for want of something.
func missed(p Program) int {
	n := 0
	for _, c := range p.Chains {
		for _, r := range c.Rules {
			if strings.Contains(r.Comment, "missing") {
				n++
			}
		}
	}
	return n
}

// TestHeldIsOut: nothing is left of an object that is held, and nothing else goes; and as it is back, so is all.
func TestHeldIsOut(t *testing.T) {
	t.Parallel()
	seeds, had := uint64(6), 0
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		crowd := newCrowd(seed)
		for i, l := range crowdLimits() {
			c := newCompiler()
			c.limits = l
			c.update(crowd.s.Clone(), nil)
			whole := inFull(c.prog)
			var all []drivers.ObjectRef
			for id := range crowd.s.Policies {
				all = append(all, drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id})
			}
			for id := range crowd.s.Sets {
				all = append(all, drivers.ObjectRef{Kind: drivers.ObjSet, Set: id})
			}
			for id := range crowd.s.Endpoints {
				if id.Kind == drivers.Workload {
					all = append(all, drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id})
				}
			}
			for _, o := range all {
				blame, missing := owned(c.prog, o), missed(c.prog)
				had += len(blame)
				others := 0
				for _, p := range all {
					if p.Kind == drivers.ObjEndpoint && p != o {
						others += len(owned(c.prog, p))
					}
				}
				c.setHold(map[drivers.ObjectRef]bool{o: true})
				c.update(crowd.s.Clone(), drivers.NewChanges())
				if left := owned(c.prog, o); len(left) > 0 {
					t.Fatalf("seed %d, limits %d: %s is held, and there is %v", seed, i, o, left)
				}
				if n := missed(c.prog); n > missing {
					t.Fatalf("seed %d, limits %d: %s is held, and %d rules say that it is missing", seed, i, o, n-missing)
				}
				for _, name := range blame {
					// What is jumped to is there, and denies, as a stand-in would.
					ch := c.prog.Chains[Key{Inet, name}]
					if ch != nil && o.Kind == drivers.ObjPolicy && (len(ch.Rules) != 1 || !slices.Equal(ch.Rules[0].Actions, does(ActDrop))) {
						t.Fatalf("seed %d, limits %d: %s is held, and %s has %v", seed, i, o, name, ch.Rules)
					}
				}
				for _, p := range all {
					if p.Kind == drivers.ObjEndpoint && p != o {
						others -= len(owned(c.prog, p))
					}
				}
				if others != 0 && o.Kind != drivers.ObjEndpoint {
					t.Fatalf("seed %d, limits %d: %s is held, and %d rules of endpoints are gone", seed, i, o, others)
				}
				c.setHold(nil)
				c.update(crowd.s.Clone(), drivers.NewChanges())
				if diff := cmp.Diff(whole, inFull(c.prog)); diff != "" {
					t.Fatalf("seed %d, limits %d: %s is not held any more (-want +got):\n%s", seed, i, o, diff)
				}
			}
		}
	}
	if had < 500 {
		t.Errorf("%d rules and elements: this proves little", had)
	}
}

// TestPoisonedEndpoint: what needs nothing that is refused is as it was, a host's endpoint that is refused is on a stand-in.
func TestPoisonedEndpoint(t *testing.T) {
	t.Parallel()
	s := smallState()
	host := s.Endpoints[drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "h", Interface: "eth0"}]
	c := newCompiler()
	c.update(s.Clone(), nil)
	c.setPoison(map[drivers.ObjectRef]error{refOf(host): errors.New("refused")})
	c.update(s.Clone(), drivers.NewChanges())
	low := s.Clone()
	low.Endpoints[host.ID] = host.StandIn("refused")
	if diff := cmp.Diff(objects(Render(low)), objects(c.prog)); diff != "" {
		t.Errorf("a host's endpoint is refused (-want +got):\n%s", diff)
	}
	c.setPoison(nil)
	c.update(s.Clone(), drivers.NewChanges())
	if diff := cmp.Diff(objects(Render(s)), objects(c.prog)); diff != "" {
		t.Errorf("it is not any more (-want +got):\n%s", diff)
	}
}

// TestHoldsFollow: what is held after another hold is what is held by itself.
func TestHoldsFollow(t *testing.T) {
	t.Parallel()
	crowd := newCrowd(5)
	var all []drivers.ObjectRef
	for id := range crowd.s.Policies {
		all = append(all, drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id})
	}
	for _, id := range crowdSets {
		all = append(all, drivers.ObjectRef{Kind: drivers.ObjSet, Set: id})
	}
	for id := range crowd.s.Endpoints {
		all = append(all, drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id})
	}
	slices.SortFunc(all, func(a, b drivers.ObjectRef) int { return strings.Compare(a.String(), b.String()) })
	c := newCompiler()
	c.limits = mergeAll()
	c.update(crowd.s.Clone(), nil)
	for i := range 40 {
		hold := map[drivers.ObjectRef]bool{}
		for range crowd.IntN(12) {
			hold[choose(crowd, all)] = true
		}
		c.setHold(hold)
		c.update(crowd.s.Clone(), drivers.NewChanges())
		alone := newCompiler()
		alone.limits = mergeAll()
		alone.setHold(hold)
		alone.update(crowd.s.Clone(), nil)
		if diff := cmp.Diff(inFull(alone.prog), inFull(c.prog)); diff != "" {
			t.Fatalf("hold %d of %v (-alone +here):\n%s", i, hold, diff)
		}
	}
}

// TestPoisonWithoutHost: objects may be refused where no endpoint is for all interfaces.
func TestPoisonWithoutHost(t *testing.T) {
	t.Parallel()
	s := smallState()
	delete(s.Endpoints, drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "all", Interface: drivers.AllHostIfaces})
	c := newCompiler()
	c.setPoison(map[drivers.ObjectRef]error{{Kind: drivers.ObjPolicy, Policy: np("gone")}: errors.New("refused")})
	c.update(s.Clone(), nil)
	if diff := cmp.Diff(objects(Render(s)), objects(c.prog)); diff != "" {
		t.Errorf("what nobody needs is refused (-want +got):\n%s", diff)
	}
}

// TestHeldSet: a policy by itself denies, and nothing else, while a set that one of its rules names is held.
func TestHeldSet(t *testing.T) {
	t.Parallel()
	for _, kind := range []drivers.SetKind{drivers.SetNet, drivers.SetPort} {
		s := tierOf(1, func(int) []drivers.Rule {
			r := drivers.Rule{Action: drivers.Allow}
			if kind == drivers.SetNet {
				r.Match.Src.Sets = []drivers.SetID{"s"}
			} else {
				r.Match.Dst.PortSets = []drivers.SetID{"s"}
			}
			return []drivers.Rule{r, {Action: drivers.Allow}}
		})
		s.Sets["s"] = drivers.NewSet(kind)
		c := newCompiler()
		c.setHold(map[drivers.ObjectRef]bool{{Kind: drivers.ObjSet, Set: "s"}: true})
		c.update(s.Clone(), nil)
		ch := c.prog.Chains[policyChain(np("t0"), true, stylePlain)]
		if ch == nil || len(ch.Rules) != 1 || !slices.Equal(ch.Rules[0].Actions, does(ActDrop)) || ch.Owner != nodeRef() {
			t.Errorf("kind %v: %+v", kind, ch)
		}
	}
}
