package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tortie/tortie/agent/feed"
	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/agent/socket"
	"github.com/tortie/tortie/agent/workload"
)

// metrics is those of the parts.
type metrics struct {
	pump   *pump.Metrics
	feed   *feed.Metrics
	socket *socket.Metrics
	attach *workload.Metrics
}

func newMetrics(reg prometheus.Registerer) (m metrics, err error) {
	if m.pump, err = pump.NewMetrics(reg); err != nil {
		return m, err
	}
	if m.feed, err = feed.NewMetrics(reg); err != nil {
		return m, err
	}
	if m.attach, err = workload.NewMetrics(reg); err != nil {
		return m, err
	}
	m.socket, err = socket.NewMetrics(reg)
	return m, err
}

// gauges registers what is read when it is asked for.
func (a *agent) gauges() error {
	for _, g := range []struct {
		name, help string
		fn         func() float64
	}{
		{"tortie_agent_ready", "1 if the agent is ready.", func() float64 {
			return b2f(len(a.missing()) == 0)
		}},
		{"tortie_agent_store_connected", "1 if the store answers.", func() float64 { return b2f(a.link.Status().Connected) }},
		{"tortie_agent_endpoints_not_enforced", "Endpoints whose policy is not in the dataplane as it must be.", func() float64 {
			n := 0
			for _, e := range a.tracker.Endpoints() {
				if !e.Enforced {
					n++
				}
			}
			return float64(n)
		}},
		{"tortie_agent_store_backlog", "WorkloadEndpoints of workloads that are gone which wait for the store.", func() float64 { return float64(a.workloads.Backlog()) }},
		{"tortie_agent_foreign_problems", "Foreign rules on this host that are in the way of what policy allows.", func() float64 {
			found, _ := a.inspector.last()
			return float64(len(found))
		}},
	} {
		if err := a.d.Registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.fn)); err != nil {
			return err
		}
	}
	return nil
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
