package workload

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics says how long each step of an attach takes. A nil one counts nothing.
type Metrics struct {
	steps *prometheus.HistogramVec
}

// NewMetrics registers the metrics of workloads.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tortie_workload_attach_step_duration_seconds",
		Help: "How long each step of plugging a workload in takes.", Buckets: prometheus.ExponentialBuckets(0.0002, 2, 16)}, []string{"step"})}
	if err := reg.Register(m.steps); err != nil {
		return nil, fmt.Errorf("registering metrics of workloads: %w", err)
	}
	return m, nil
}

// Steps of an attach, in their order. What goes on during others counts from when they are done.
const (
	stepPod      = "pod"      // the API server tells of the pod; only where it is the store
	stepWait     = "wait"     // for the ledger's lock on this workload, and notes about it
	stepIntent   = "intent"   // the ledger: addresses are being allocated
	stepAllocate = "allocate" // addresses and WorkloadEndpoint into the store
	stepLedger   = "ledger"
	stepLink     = "link"
	stepCut      = "cut"     // flows of earlier owners, and of what was open before
	stepGraph    = "graph"   // told of it
	stepStore    = "store"   // the WorkloadEndpoint, if it is not there yet
	stepSeen     = "seen"    // the store's watch tells of it
	stepEnforce  = "enforce" // its policy is in the dataplane
	stepNote     = "note"    // the ledger: nothing is left to do
)

// watch is a stopwatch for the steps of one attach.
type watch struct {
	last  time.Time
	steps []any // names and durations, for the log
	m     *Metrics
}

func (m *Metrics) start() *watch { return &watch{last: time.Now(), m: m} }

// done says that a step has come to its end, which the next one begins with.
func (s *watch) done(step string) {
	now := time.Now()
	d := now.Sub(s.last)
	s.last = now
	s.steps = append(s.steps, slog.Duration(step, d))
	if s.m != nil {
		s.m.steps.WithLabelValues(step).Observe(d.Seconds())
	}
}

func (s *watch) log(l *slog.Logger, sandbox string, err error) {
	if l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("attach", "sandbox", sandbox, "err", err, slog.Group("took", s.steps...))
	}
}
