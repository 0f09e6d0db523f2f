package persist

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/backoff"
)

// ease is how many times as long as the last write took the Saver leaves the disk alone: a large State that changes all
// the time must not keep a core busy.
const ease = 50

// SaverOptions is what NewSaver takes.
type SaverOptions struct {
	Path   string
	Header Header // Written is filled in
	Delay  time.Duration
	// Snapshot returns a State that no one changes any more.
	Snapshot func() *drivers.State
	Log      *slog.Logger
	Writer   durable.Writer
}

// Saver writes the State some time after it has changed. It is safe for concurrent use.
type Saver struct {
	o     SaverOptions
	dirty chan struct{}

	mu     sync.Mutex
	status Status
}

// Status is how the last write went.
type Status struct {
	Last  time.Time // of the last write that succeeded
	Bytes int64
	Err   error // of the last write
}

// NewSaver returns a Saver that does nothing before Run.
func NewSaver(o SaverOptions) *Saver { return &Saver{o: o, dirty: make(chan struct{}, 1)} }

// Touch says that the State has changed. Never blocks.
func (s *Saver) Touch() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// Status returns how the last write went.
func (s *Saver) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run writes until ctx ends, and what has changed by then.
func (s *Saver) Run(ctx context.Context) {
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	delay := s.o.Delay
	for {
		select {
		case <-ctx.Done():
			select {
			case <-s.dirty:
				s.save()
			default:
			}
			return
		case <-s.dirty:
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		select {
		case <-s.dirty: // it is in the snapshot
		default:
		}
		took, err := s.save()
		if err == nil {
			retry.Reset()
			delay = max(s.o.Delay, ease*took)
			continue
		}
		s.Touch()
		if retry.Sleep(ctx) != nil {
			return // it was tried
		}
	}
}

func (s *Saver) save() (time.Duration, error) {
	start := time.Now()
	h := s.o.Header
	h.Written = start.UTC()
	n, err := Save(s.o.Writer, s.o.Path, h, s.o.Snapshot())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.status.Err == nil || s.status.Err.Error() != err.Error() {
			s.o.Log.Error("persisting the State", "err", err)
		}
	} else {
		if s.status.Err != nil {
			s.o.Log.Info("the State is persisted again", "path", s.o.Path)
		}
		s.status.Last, s.status.Bytes = start, n
	}
	s.status.Err = err
	return time.Since(start), err
}
