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
}

func (w way) target(port uint16) string { return target(w.to.Addr(4), port) }

// ways are those of the pair. The plain one of the same length is said beside each.
func (p *pair) ways() []way {
	return []way{
		{"plain, same node", p.plainClient, p.plainServer}, {"plain, across nodes", p.plainClient, p.plainFar},
		{"same node", p.client.Host, p.server.Host}, {"across nodes", p.client.Host, p.far.Host},
	}
}

// connectRow: connections that carry one request.
func connectRow(ctx context.Context, m *measurement) (err error) {
	p := m.bed.pair
	ways := append(p.ways(), way{"same node, many policies on the pod", p.client.Host, p.loaded.Host},
		way{"across nodes, many policies on the pod", p.client.Host, p.farLoaded.Host})
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
		r, err := m.rate(ctx, ways[i], "crr")
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
	} {
		m.add(Result{Name: "ratio " + ways[r.num].name, What: "the same against plain routed veth: " + ways[r.num].name, Unit: "x",
			Spread: Summarize(Ratios(p50[r.num], p50[r.den])), Budget: r.budget, Scaled: r.scaled})
	}
	return nil
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

// rate runs a client on one of the ways; a connection that failed is an error.
func (m *measurement) rate(ctx context.Context, w way, client string) (load.Rated, error) {
	var r load.Rated
	err := m.bed.client(ctx, w.from, &r, client, w.target(crrPort), m.Size.Time.String())
	if err == nil && r.Failed > 0 {
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
