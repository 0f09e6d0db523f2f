package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/test/bench/load"
)

// rateRow: connections per second to a pod with many rules, of which the last decides, against one with 10.
func rateRow(ctx context.Context, m *measurement) error {
	for _, s := range []struct {
		name, what string
		rules      func(n int) []api.Object
		budget     Budget
	}{
		{"S1", "distinct ports", shapePorts, AtLeast(0.8)},
		{"S2", "one port, 100 sets, all Allow", shapeSets, AtLeast(0.8)},
		{"S3", "Allow and Deny in turn, overlapping sets", shapeMixed, Budget{}},
	} {
		rates, err := m.shape(ctx, s.rules)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		m.add(Result{Name: s.name + " 10", What: fmt.Sprintf("TCP connects, 10 rules, %s (%s)", s.name, s.what), Unit: "/s", Spread: Summarize(rates[0])})
		m.add(Result{Name: s.name + " many", What: fmt.Sprintf("TCP connects, %d rules, %s", m.Size.Rules, s.name), Unit: "/s", Spread: Summarize(rates[1])})
		m.add(Result{Name: s.name + " ratio", What: fmt.Sprintf("%d rules against 10, %s", m.Size.Rules, s.name), Unit: "x",
			Spread: Summarize(Ratios(rates[1], rates[0])), Budget: s.budget, Scaled: m.Size.Rules < 10_000})
	}
	return nil
}

// shape measures two servers of the client's node: one has 10 rules of a shape, the other many. The pair's own policy of
// servers is away meanwhile, so that the last rule of the shape decides.
func (m *measurement) shape(ctx context.Context, rules func(n int) []api.Object) (rates [][]float64, err error) {
	few, many := rules(10), rules(m.Size.Rules)
	p := m.bed.pair
	servers := []way{{name: "10 rules", from: p.client.Host, to: p.server.Host}, {name: "many rules", from: p.client.Host, to: p.loaded.Host}}
	const deciding = "bench-server"
	was, err := m.bed.store.Get(ctx, api.Key{Kind: "GlobalNetworkPolicy", Name: deciding})
	if err != nil {
		return nil, err
	}
	if err := m.bed.store.Delete(ctx, api.KeyOf(was), ""); err != nil {
		return nil, err
	}
	objects := append(named(few, "few", "role == 'server'"), named(many, "many", "role == 'loaded'")...)
	keys, err := m.bed.put(ctx, objects)
	defer func() {
		_, back := m.bed.put(context.WithoutCancel(ctx), []api.Object{fresh(was)})
		err = errors.Join(err, back, m.bed.drop(ctx, keys))
	}()
	if err != nil {
		return nil, err
	}
	if err := settled(ctx, m.bed.lab.Nodes[0], policiesIn(objects)); err != nil {
		return nil, err
	}
	return Interleave(m.Size.Rounds, len(servers), func(i int) (float64, error) {
		r, err := m.rate(ctx, servers[i], load.Connect)
		return r.PerSecond, err
	})
}

// fresh is an object to be created anew.
func fresh(o api.Object) api.Object {
	o = api.DeepCopy(o)
	o.SetResourceVersion("")
	o.SetUID("")
	return o
}

func policiesIn(objects []api.Object) (n int) {
	for _, o := range objects {
		if o.GetKind() == "GlobalNetworkPolicy" {
			n++
		}
	}
	return n
}

// named gives the objects of a shape names of their own, and its policies a selector.
func named(objects []api.Object, suffix, selector string) []api.Object {
	for _, o := range objects {
		o.SetName(o.GetName() + "-" + suffix)
		if p, ok := o.(*api.GlobalNetworkPolicy); ok {
			p.Spec.Selector = selector
		}
		if s, ok := o.(*api.GlobalNetworkSet); ok {
			s.Labels["for"] = suffix
		}
	}
	return objects
}

// perPolicy is how many rules of a shape are in one policy.
const perPolicy = 100

// inPolicies puts rules into policies, in their order.
func inPolicies(rules []api.Rule) (out []api.Object) {
	for i := 0; i < len(rules); i += perPolicy {
		out = append(out, policy(fmt.Sprintf("shape-%d", i), 1000+float64(i), "all()", rules[i:min(i+perPolicy, len(rules))], nil))
	}
	return out
}

// shapePorts (S1): each rule allows one port; the last that of the server.
func shapePorts(n int) []api.Object {
	var rules []api.Rule
	for i := range n {
		at := 10000 + i
		if i == n-1 {
			at = crrPort
		}
		rules = append(rules, api.Rule{Action: api.Allow, Protocol: &tcp, Destination: api.EntityRule{Ports: port(at)}})
	}
	return inPolicies(rules)
}

// shapeSets (S2): each rule allows one of 100 sets to reach the server's port; the last one's is all clients.
func shapeSets(n int) []api.Object { return bySets(n, func(int) api.Action { return api.Allow }, 10) }

// shapeMixed (S3): allows and denies in turn, of sets of which each overlaps the next ones; the last one's allows all clients.
func shapeMixed(n int) []api.Object {
	return bySets(n, func(i int) api.Action {
		if (n-1-i)%2 == 0 {
			return api.Allow
		}
		return api.Deny
	}, 5)
}

// bySets are n rules about sets in turn. The addresses of two sets that follow each other are so far apart; a set has 10.
func bySets(n int, action func(i int) api.Action, step int) []api.Object {
	const sets = 99 // and that of the clients
	var out []api.Object
	for i := range min(n, sets) {
		out = append(out, netset(fmt.Sprintf("set-%d", i), i*step, 10))
	}
	var rules []api.Rule
	for i := range n {
		r := api.Rule{Action: action(i), Protocol: &tcp, Destination: api.EntityRule{Ports: port(crrPort)},
			Source: api.EntityRule{Selector: inNet(fmt.Sprintf("set-%d", i%sets))}}
		if i == n-1 {
			r.Source.Selector = "role == 'client'"
		}
		rules = append(rules, r)
	}
	return append(out, inPolicies(rules)...)
}
