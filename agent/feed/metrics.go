package feed

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what a feed does. A nil one counts nothing.
type Metrics struct {
	taken    prometheus.Counter
	duration prometheus.Histogram
}

// NewMetrics registers the metrics of a feed.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		taken: prometheus.NewCounter(prometheus.CounterOpts{Name: "tortie_feed_store_events_total", Help: "Changes of resources that were taken in."}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tortie_feed_flush_duration_seconds",
			Help: "How long the graph takes to compute what a batch of changes means.", Buckets: prometheus.ExponentialBuckets(0.00005, 4, 10)}),
	}
	for _, c := range []prometheus.Collector{m.taken, m.duration} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) events(n int) {
	if m != nil {
		m.taken.Add(float64(n))
	}
}

func (m *Metrics) flush() (stop func()) {
	if m == nil {
		return func() {}
	}
	start := time.Now()
	return func() { m.duration.Observe(time.Since(start).Seconds()) }
}
