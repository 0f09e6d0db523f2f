package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/test/bench/load"
	"github.com/tortie/tortie/test/lab"
)

// way is one of the ways that traffic takes.
type way struct {
	name     string
	from, to *lab.Host
	tracked  bool // by the plain nodes
}

func (w way) target(port uint16) string { return target(w.to.Addr(4), port) }

// ways are those of the pair. The plain one of the same length is said beside each.
func (p *pair) ways() []way {
	return []way{
		{name: "plain, same node", from: p.plainClient, to: p.plainServer}, {name: "plain, across nodes", from: p.plainClient, to: p.plainFar},
		{name: "same node", from: p.client.Host, to: p.server.Host}, {name: "across nodes", from: p.client.Host, to: p.far.Host},
	}
}

// connectRow: connections that carry one request.
func connectRow(ctx context.Context, m *measurement) (err error) {
	p := m.bed.pair
	ways := append(p.ways(),
		way{name: fmt.Sprintf("same node, %d policies on the pod", m.Size.PodLoad), from: p.client.Host, to: p.loaded.Host},
		way{name: fmt.Sprintf("across nodes, %d policies on the pod", m.Size.PodLoad), from: p.client.Host, to: p.farLoaded.Host},
		way{name: "plain with connection tracking, same node", from: p.plainClient, to: p.plainServer, tracked: true},
		way{name: "plain with connection tracking, across nodes", from: p.plainClient, to: p.plainFar, tracked: true})
	defer func() { err = errors.Join(err, p.track(false)) }()
	keys, err := m.bed.put(ctx, podLoad(m.Size.PodLoad))
	defer func() { err = errors.Join(err, m.bed.drop(ctx, keys)) }()
	if err != nil {
		return err
	}
	for _, n := range m.bed.lab.Nodes {
		if err := settled(ctx, n, m.Size.PodLoad); err != nil {
			return err
		}
	}
	p50, err := Interleave(m.Size.Rounds, len(ways), func(i int) (float64, error) {
		if err := p.track(ways[i].tracked); err != nil {
			return 0, err
		}
		r, err := m.rate(ctx, ways[i], load.Request)
		return r.P50, err
	})
	if err != nil {
		return err
	}
	for i, w := range ways {
		m.add(Result{Name: w.name, What: "connect, request, close: p50, " + w.name, Unit: "us", Spread: Summarize(p50[i])})
	}
	for _, r := range []struct {
		num, den int
		budget   Budget
		scaled   bool
	}{
		{2, 0, AtMost(1.10), false}, {3, 1, AtMost(1.15), false},
		{4, 0, AtMost(1.10), m.Size.PodLoad < 1000}, {5, 1, AtMost(1.15), m.Size.PodLoad < 1000},
		{6, 0, Budget{}, false}, {7, 1, Budget{}, false},
	} {
		m.add(Result{Name: "ratio " + ways[r.num].name, What: "the same against plain routed veth: " + ways[r.num].name, Unit: "x",
			Spread: Summarize(Ratios(p50[r.num], p50[r.den])), Budget: r.budget, Scaled: r.scaled})
	}
	return nil
}

// track makes the plain nodes track connections, as the least that a stateful firewall in the kernel costs, or not.
func (p *pair) track(on bool) error {
	rules := "flush ruleset"
	if on {
		rules += "; add table inet plain; add chain inet plain forward { type filter hook forward priority 0; };" +
			"add rule inet plain forward ct state established,related accept"
	}
	var errs []error
	for _, n := range p.plainNodes {
		_, err := inside(n.Namespace(), "nft", rules)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// podLoad is n policies on the loaded servers that come ahead of the one that decides, and the network sets that they
// select.
func podLoad(n int) []api.Object {
	var out []api.Object
	const sets = 100
	for i := range min(n, sets) {
		out = append(out, netset(fmt.Sprintf("pod-%d", i), i*10, 10))
	}
	for i := range n {
		out = append(out, policy(fmt.Sprintf("pod-%d", i), 1000+float64(i), "role == 'loaded'", []api.Rule{{Action: api.Allow, Protocol: &tcp,
			Source: api.EntityRule{Selector: inNet(fmt.Sprintf("pod-%d", i%sets))}, Destination: api.EntityRule{Ports: port(20000 + i)}}}, nil))
	}
	return out
}

// rate runs a client on one of the ways. One connection in a thousand may fail: more say that something else is measured.
func (m *measurement) rate(ctx context.Context, w way, client load.Client) (load.Rated, error) {
	var r load.Rated
	err := m.bed.client(ctx, w.from, &r, string(client), w.target(crrPort), m.Size.Time.String())
	if err == nil && r.Failed > 1+r.N/1000 {
		err = fmt.Errorf("%d of %d connections failed: %s", r.Failed, r.Failed+r.N, r.FirstErr)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", w.name, err)
	}
	return r, nil
}

// throughputRow: one stream.
func throughputRow(ctx context.Context, m *measurement) error {
	ways := m.bed.pair.ways()
	gbit, err := Interleave(m.Size.Rounds, len(ways), func(i int) (float64, error) {
		var perSecond float64
		err := m.bed.client(ctx, ways[i].from, &perSecond, "stream", ways[i].target(sinkPort), m.Size.Time.String())
		return perSecond * 8 / 1e9, err
	})
	if err != nil {
		return err
	}
	for i, w := range ways {
		m.add(Result{Name: w.name, What: "one TCP stream, " + w.name, Unit: "Gbit/s", Spread: Summarize(gbit[i])})
	}
	for i := 2; i < 4; i++ {
		m.add(Result{Name: "ratio " + ways[i].name, What: "the same against plain routed veth: " + ways[i].name, Unit: "x",
			Spread: Summarize(Ratios(gbit[i], gbit[i-2])), Budget: AtLeast(0.9)})
	}
	return nil
}
