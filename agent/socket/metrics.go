package socket

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tortie/tortie/internal/agentapi"
)

// Metrics counts what a server answers. A nil one counts nothing.
type Metrics struct {
	duration *prometheus.HistogramVec
}

// NewMetrics registers the metrics of a server.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tortie_socket_request_duration_seconds",
		Help: "How long requests on the agent's socket take, by verb and result.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)},
		[]string{"verb", "result"})}
	return m, reg.Register(m.duration)
}

func (m *Metrics) served(verb agentapi.Verb, err error, d time.Duration) {
	if m == nil {
		return
	}
	switch verb {
	case agentapi.VerbAttach, agentapi.VerbDetach, agentapi.VerbStatus, agentapi.VerbExplain, agentapi.VerbState:
	default:
		verb = "unknown" // a client must not make up labels
	}
	result := "ok"
	if err != nil {
		if result = string(agentapi.CodeOf(err)); result == "" {
			result = string(agentapi.CodeInternal)
		}
	}
	m.duration.WithLabelValues(string(verb), result).Observe(d.Seconds())
}
