package pump

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tortie/tortie/drivers"
)

// Metrics counts what a pump does. The zero value counts nothing.
type Metrics struct {
	applies  *prometheus.CounterVec
	duration prometheus.Histogram
	failed   prometheus.Gauge
	objects  *prometheus.GaugeVec
	success  prometheus.Gauge
}

// NewMetrics registers the metrics of a pump.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		applies: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tortie_pump_applies_total",
			Help: "Changes of the dataplane, by result: ok, partial (some objects were refused) or error."}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tortie_pump_apply_duration_seconds",
			Help: "How long a change of the dataplane takes.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}),
		failed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tortie_pump_failed_objects",
			Help: "Objects that the dataplane refuses."}),
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tortie_pump_objects",
			Help: "Objects of the State, by kind."}, []string{"kind"}),
		success: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tortie_pump_last_success_timestamp_seconds",
			Help: "When the dataplane was last changed without any error, in seconds since 1970."}),
	}
	for _, c := range []prometheus.Collector{m.applies, m.duration, m.failed, m.objects, m.success} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) applied(r Result, partly *drivers.ApplyError, v *View) {
	if m == nil || m.applies == nil {
		return
	}
	result := "ok"
	switch {
	case partly != nil:
		result = "partial"
	case r.Err != nil:
		result = "error"
	}
	m.applies.WithLabelValues(result).Inc()
	m.duration.Observe(r.Duration.Seconds())
	m.failed.Set(float64(len(v.Failed)))
	if r.Err == nil {
		m.success.Set(float64(r.At.UnixNano()) / 1e9)
	}
	for kind, n := range map[drivers.ObjectKind]int{
		drivers.ObjEndpoint: len(v.Applied.Endpoints), drivers.ObjPolicy: len(v.Applied.Policies), drivers.ObjSet: len(v.Applied.Sets),
		drivers.ObjRoute: len(v.Applied.Routes), drivers.ObjPeer: len(v.Applied.Peers),
	} {
		m.objects.WithLabelValues(string(kind)).Set(float64(n))
	}
}
