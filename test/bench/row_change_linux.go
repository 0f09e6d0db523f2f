package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/test/bench/load"
	"github.com/tortie/tortie/test/lab"
)

// gate is a policy that lets datagrams of one workload reach another, or does not.
type gate struct {
	policy   *api.GlobalNetworkPolicy
	from, to *lab.Workload
	prober   *load.Prober // while there are turns
}

const (
	gatePort = 9000
	// gateSide lets the prober out, whatever other policies are on it.
	gateSide = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: prober}
spec: {order: 1, selector: role == 'prober', types: [Egress], egress: [{action: Allow, protocol: UDP}]}
`
)

// openGate plugs a prober and its server in on the first node, and writes the policies between them.
func (b *bed) openGate(ctx context.Context, extra map[string]string) error {
	if _, err := b.apply(ctx, gateSide); err != nil {
		return err
	}
	g := &gate{policy: policy("gate", 1, "role == 'gate'", []api.Rule{{Action: api.Allow, Protocol: &udp, Source: api.EntityRule{Selector: "role == 'prober'"},
		Destination: api.EntityRule{Ports: port(gatePort)}}}, nil)}
	if _, err := b.put(ctx, []api.Object{g.policy}); err != nil {
		return err
	}
	for role, w := range map[string]**lab.Workload{"prober": &g.from, "gate": &g.to} {
		l := map[string]string{"role": role}
		maps.Copy(l, extra)
		var err error
		if *w, err = b.lab.AddWorkload(ctx, lab.WorkloadSpec{Name: role, Namespace: "bench", Node: 1, Labels: l}); err != nil {
			return err
		}
	}
	b.gate = g
	return shortFlows(b.lab.Nodes[0].Host)
}

// probe starts the prober. stop ends it.
func (g *gate) probe(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if g.prober, err = load.StartProber(load.Probing{From: g.from.Host, To: g.to.Host, Dest: netip.AddrPortFrom(g.to.Addr(4), gatePort)}); err != nil {
		return nil, err
	}
	if _, err := g.prober.AwaitOpen(ctx); err != nil {
		g.prober.Stop()
		return nil, fmt.Errorf("with the gate open: %w", err)
	}
	return g.prober.Stop, nil
}

// shortFlows makes a node forget flows soon: a client or prober that uses a port again, as it must after some seconds, must
// be judged again.
func shortFlows(h *lab.Host) error {
	return h.Do(func() error {
		const dir = "/proc/sys/net/netfilter/"
		return errors.Join(os.WriteFile(dir+"nf_conntrack_udp_timeout", []byte("2"), 0o644),
			os.WriteFile(dir+"nf_conntrack_tcp_timeout_close", []byte("1"), 0o644))
	})
}

// turn opens or shuts the gate, and returns how long after the write's return (and after its begin) the first new flow
// met the new policy, in milliseconds.
func (b *bed) turn(ctx context.Context, open bool) (sinceReturn, sinceBegin float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	action, await := api.Deny, b.gate.prober.AwaitShut
	if open {
		action, await = api.Allow, b.gate.prober.AwaitOpen
	}
	p := api.DeepCopy(b.gate.policy).(*api.GlobalNetworkPolicy)
	p.Spec.Ingress[0].Action = action
	b.gate.prober.Mark()
	begun := time.Now()
	if _, err := b.store.Update(ctx, p); err != nil {
		return 0, 0, err
	}
	returned := time.Now()
	at, err := await(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("after the gate's policy has become %s: %w", action, err)
	}
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
	return ms(at.Sub(returned)), ms(at.Sub(begun)), nil
}

// turns opens and shuts the gate again and again.
func (b *bed) turns(ctx context.Context, n int) (deny, allow, all []float64, err error) {
	for range n {
		for _, open := range []bool{false, true} {
			// Not in step with anything else that is periodic.
			if err := pause(ctx, 5*time.Millisecond+rand.N(20*time.Millisecond)); err != nil {
				return nil, nil, nil, err
			}
			since, begun, err := b.turn(ctx, open)
			if err != nil {
				return nil, nil, nil, err
			}
			if open {
				allow = append(allow, since)
			} else {
				deny = append(deny, since)
			}
			all = append(all, begun)
		}
	}
	return deny, allow, all, nil
}

// addTurns measures turns and notes the figures. while is said in the table.
func (m *measurement) addTurns(ctx context.Context, name, while string, scaled bool) error {
	stop, err := m.bed.gate.probe(ctx)
	if err != nil {
		return err
	}
	defer stop()
	deny, allow, begun, err := m.bed.turns(ctx, m.Size.Changes)
	if err != nil {
		return err
	}
	for _, r := range []struct {
		name    string
		samples []float64
		budget  Budget
	}{{"deny", deny, AtMost(10)}, {"allow", allow, AtMost(10)}, {"from begin of write", begun, Budget{}}} {
		what := "policy changed to " + r.name + ", write returned to first effect"
		if r.budget.Op == "" {
			what = "policy changed, begin of the write to first effect"
		}
		m.add(quantile(name+" "+r.name+" p50", what+while, "ms", r.samples, 0.5, Budget{}, scaled))
		m.add(quantile(name+" "+r.name+" p99", what+while, "ms", r.samples, 0.99, r.budget, scaled))
	}
	return nil
}

// quantile is a result whose figure is a quantile of all samples.
func quantile(name, what, unit string, samples []float64, q float64, b Budget, scaled bool) Result {
	s := Summarize(samples)
	s.Median = Quantile(samples, q)
	return Result{Name: name, What: fmt.Sprintf("%s: p%.0f", what, 100*q), Unit: unit, Spread: s, Budget: b, Scaled: scaled}
}

const large = "large"

// newLargeBed is a node with many workloads, all of which have many policies.
func newLargeBed(ctx context.Context, m *measurement) (_ *bed, err error) {
	b, err := newBed(ctx, m, lab.Options{Nodes: 1}, func(b *bed) error {
		_, err := b.apply(ctx, poolsYAML)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.down())
		}
	}()
	m.say("plugging in %d workloads", m.Size.Locals)
	if err := b.plugIn(ctx, m.Size.Locals, func(int) map[string]string { return map[string]string{large: ""} }); err != nil {
		return nil, err
	}
	if err := b.openGate(ctx, map[string]string{large: ""}); err != nil {
		return nil, err
	}
	m.say("writing %d policies and their sets", m.Size.Policies)
	if _, err := b.put(ctx, manyPolicies("has(large)", m.Size.Policies)); err != nil {
		return nil, err
	}
	return b, settled(ctx, b.lab.Nodes[0], m.Size.Policies)
}

// plugIn attaches workloads without servers to the first node, a few at once.
func (b *bed) plugIn(ctx context.Context, n int, labels func(n int) map[string]string) error {
	var ws []*lab.Workload
	for i := range n {
		w, err := b.lab.NewWorkload(lab.WorkloadSpec{Name: fmt.Sprintf("w%d", i), Namespace: "bench", Node: 1, Labels: labels(i)})
		if err != nil {
			return err
		}
		ws = append(ws, w)
	}
	return atOnce(8, len(ws), func(i int) error { return ws[i].Attach(ctx) })
}

// atOnce calls fn for 0 to n-1, from some goroutines.
func atOnce(workers, n int, fn func(i int) error) error {
	var wg sync.WaitGroup
	work := make(chan int)
	errs := make([]error, workers)
	for k := range workers {
		wg.Go(func() {
			for i := range work {
				if errs[k] == nil {
					errs[k] = fn(i)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}

// fasterResync makes rounds of comparing the whole dataplane take a minute, so that some part is always being compared.
const fasterResync = `
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {nftablesRefreshInterval: 60s, routeRefreshInterval: 60s, ipsetsRefreshInterval: 60s}
`

// smallerNode says that the large node is smaller than the one that budgets speak of.
func (s Size) smallerNode() bool { return s.Policies < 10_000 || s.Locals < 250 }

// changeRow: a policy changed on the large node.
func changeRow(ctx context.Context, m *measurement) error {
	return m.addTurns(ctx, "quiet", fmt.Sprintf(", %d policies on each of %d workloads", m.Size.Policies, m.Size.Locals), m.Size.smallerNode())
}

// resyncRow: the same with many more members, while the agent compares them with the kernel's, round and round.
func resyncRow(ctx context.Context, m *measurement) error {
	s := m.Size
	if _, err := m.bed.put(ctx, moreMembers(s.Policies, s.Members-s.Policies*perSet)); err != nil {
		return err
	}
	n := m.bed.lab.Nodes[0]
	if err := poll(ctx, 100*time.Millisecond, func() error {
		st, err := status(ctx, n)
		if err == nil && (st.Counts.Members < s.Members || st.Apply.Pending > 0) {
			err = fmt.Errorf("the agent has %d of %d members, and %d objects on their way", st.Counts.Members, s.Members, st.Apply.Pending)
		}
		return err
	}); err != nil {
		return err
	}
	if _, err := m.bed.apply(ctx, fasterResync); err != nil {
		return err
	}
	return m.addTurns(ctx, "resync", fmt.Sprintf(", %d members compared with the kernel's, a round a minute", s.Members), s.smallerNode() || s.Members < 1_000_000)
}

// programmingRow: the agent of the large node starts, and finds nothing of ours in the kernel.
func programmingRow(ctx context.Context, m *measurement) error {
	n := m.bed.lab.Nodes[0]
	var applied, all []float64
	rules := 0
	for range m.Size.FirstProgrammings {
		n.Agent.Kill()
		if err := wipe(n.Host); err != nil {
			return err
		}
		began := time.Now()
		if err := n.StartAgent(); err != nil {
			return err
		}
		var longest float64
		if err := poll(ctx, 20*time.Millisecond, func() error {
			st, err := status(ctx, n)
			if err != nil {
				return err
			}
			longest = max(longest, st.Apply.DurationMS/1e3)
			if !st.Ready || st.Apply.Success.IsZero() || st.Counts.Policies < m.Size.Policies || st.Apply.Pending > 0 {
				return fmt.Errorf("the agent has applied %d of %d policies", st.Counts.Policies, m.Size.Policies)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("programming an empty kernel: %w", err)
		}
		all, applied = append(all, time.Since(began).Seconds()), append(applied, longest)
		var err error
		if rules, err = countRules(n.Host); err != nil {
			return err
		}
	}
	scaled := m.Size.smallerNode()
	size := fmt.Sprintf("%d workloads with all of %d policies", m.Size.Locals, m.Size.Policies)
	m.add(Result{Name: "apply", What: "first programming of an empty kernel, " + size, Unit: "s", Spread: Summarize(applied), Budget: AtMost(10), Scaled: scaled})
	m.add(Result{Name: "start", What: "the same from the agent's start, the store read", Unit: "s", Spread: Summarize(all)})
	m.add(Result{Name: "rules", What: "rules in the kernel then", Unit: "rules", Spread: Summarize([]float64{float64(rules)}), Budget: AtMost(60_000), Scaled: scaled})
	return nil
}

// wipe empties a namespace of nftables.
func wipe(h *lab.Host) error {
	_, err := inside(h.Namespace(), "nft", "flush ruleset")
	return err
}

// newSmallBed is a small cluster: a node with few workloads, and others that only the store knows.
func newSmallBed(ctx context.Context, m *measurement) (_ *bed, err error) {
	locals := min(20, m.Size.SmallPods/2)
	b, err := newBed(ctx, m, lab.Options{Nodes: 1}, func(b *bed) error {
		objects := append(namespaces(), markerPolicies(m.Size.SmallPolicies)...)
		for i := range m.Size.SmallPods - locals {
			objects = append(objects, remote(i, labels(i)))
		}
		if _, err := b.put(ctx, objects); err != nil {
			return err
		}
		_, err := b.apply(ctx, poolsYAML)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.down())
		}
	}()
	if err := b.plugIn(ctx, locals, labels); err != nil {
		return nil, err
	}
	if err := b.openGate(ctx, nil); err != nil {
		return nil, err
	}
	return b, settled(ctx, b.lab.Nodes[0], 1)
}

// changeSmallRow: a policy changed in a small cluster.
func changeSmallRow(ctx context.Context, m *measurement) error {
	return m.addTurns(ctx, "small", fmt.Sprintf(", %d policies and %d workloads in the cluster", m.Size.SmallPolicies, m.Size.SmallPods),
		m.Size.SmallPolicies < 1000 || m.Size.SmallPods < 2000)
}
