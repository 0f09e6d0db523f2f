package controllers

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/ipam"
)

// stepMetrics says how the parts fare.
type stepMetrics struct {
	seconds *prometheus.HistogramVec
	errs    *prometheus.CounterVec
	leading prometheus.Gauge
	bad     prometheus.Gauge
}

// addressMetrics has the names that users of Calico chart.
type addressMetrics struct {
	inUse, borrowed, candidates, blocks *prometheus.GaugeVec
	reclaimed                           *prometheus.CounterVec
}

type metrics struct {
	steps     *stepMetrics
	addresses *addressMetrics
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	perNode := []string{"node", "ippool"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, perNode)
	}
	m := &metrics{
		steps: &stepMetrics{
			seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tortie_controllers_step_seconds",
				Help: "How long the steps of each part took.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10)}, []string{"part"}),
			errs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tortie_controllers_step_errors_total",
				Help: "Steps that ended early."}, []string{"part"}),
			leading: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tortie_controllers_leading", Help: "1 if this process leads."}),
			bad: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tortie_controllers_policies_degraded",
				Help: "Policies of which a part, or all, can't be enforced as it is written."}),
		},
		addresses: &addressMetrics{
			inUse:      gauge("ipam_allocations_in_use", "Addresses that somebody has, by the node that they are used on."),
			borrowed:   gauge("ipam_allocations_borrowed", "Addresses that somebody has from blocks of other nodes."),
			candidates: gauge("ipam_allocations_gc_candidates", "Addresses that nobody seems to use, and that are taken back after the grace."),
			blocks:     gauge("ipam_blocks", "Blocks, by the node that has them."),
			reclaimed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ipam_allocations_gc_reclamations",
				Help: "Addresses that were taken back, since this process leads."}, perNode),
		},
	}
	a, s := m.addresses, m.steps
	for _, c := range []prometheus.Collector{s.seconds, s.errs, s.leading, s.bad, a.inUse, a.borrowed, a.candidates, a.blocks, a.reclaimed} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics of the controllers: %w", err)
		}
	}
	return m, nil
}

func (m *stepMetrics) note(part string, d time.Duration, err error) {
	m.seconds.WithLabelValues(part).Observe(d.Seconds())
	if err != nil && !errors.Is(err, errBlind) {
		m.errs.WithLabelValues(part).Inc()
	}
}

// noNode is the label of blocks that are no node's.
const noNode = "no_affinity"

// count sets the gauges to what there is.
func (m *addressMetrics) count(blocks []*api.IPAMBlock, pools []*api.IPPool, done ipam.Collected) {
	for _, g := range []*prometheus.GaugeVec{m.inUse, m.borrowed, m.candidates, m.blocks} {
		g.Reset()
	}
	name := poolNames(pools)
	for _, b := range blocks {
		pool, home := name(b.Spec.CIDR), homeOf(b)
		m.blocks.WithLabelValues(home, pool).Inc()
		for _, o := range b.Owners() {
			node := o.Node
			if node == "" {
				node = noNode
			}
			m.inUse.WithLabelValues(node, pool).Inc()
			if node != home {
				m.borrowed.WithLabelValues(node, pool).Inc()
			}
		}
	}
	for _, l := range done.Candidates {
		m.candidates.WithLabelValues(l.Owner.Node, l.Pool).Inc()
	}
	for _, l := range done.Released {
		m.reclaimed.WithLabelValues(l.Owner.Node, l.Pool).Inc()
	}
}

func homeOf(b *api.IPAMBlock) string {
	if isHost(b) && b.Spec.Affinity != "" {
		return b.Spec.Affinity[len("host:"):]
	}
	return noNode
}

// poolNames returns what finds the smallest pool that a block is in.
func poolNames(pools []*api.IPPool) func(cidr string) string {
	type pool struct {
		name   string
		prefix netip.Prefix
	}
	var known []pool
	for _, o := range pools {
		if p, err := api.ParsePrefix(o.Spec.CIDR); err == nil {
			known = append(known, pool{o.Name, p})
		}
	}
	return func(cidr string) string {
		b, err := api.ParsePrefix(cidr)
		best := pool{name: "no_ippool"}
		for _, p := range known {
			if err == nil && p.prefix.Overlaps(b) && p.prefix.Bits() <= b.Bits() && (!best.prefix.IsValid() || p.prefix.Bits() > best.prefix.Bits()) {
				best = p
			}
		}
		return best.name
	}
}
