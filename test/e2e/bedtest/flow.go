//go:build linux

package bedtest

import (
	"sync"
	"sync/atomic"
	"time"
)

// Flow is traffic that goes on while something happens: a connection that stays open, new ones all the time, and, by
// somebody else, attempts that must not come through.
type Flow struct {
	*Scene
	Kept, Fresh, Leaked Tally
	stop                chan struct{}
	wg                  sync.WaitGroup
}

// Tally counts exchanges.
type Tally struct {
	OK, Failed atomic.Int64
	Late       atomic.Int64 // of those that came through: so late that a packet may have been sent again
	first      atomic.Pointer[failure]
}

type failure struct {
	at  time.Time
	err error
}

// every is the pause between two exchanges.
const every = 20 * time.Millisecond

// patience outlasts four losses of one SYN.
const patience = 20 * time.Second

// Flow is one in which nothing is exchanged yet.
func (s *Scene) Flow() *Flow { return &Flow{Scene: s, stop: make(chan struct{})} }

// StartFlow has the client ask the server, and the stranger try.
func (s *Scene) StartFlow() *Flow {
	s.Helper()
	return s.startFlow(answer)
}

// StartPatientFlow has them go on while so much is done that an answer can be late: only what is lost for good is a failure.
func (s *Scene) StartPatientFlow() *Flow {
	s.Helper()
	return s.startFlow(patience)
}

func (s *Scene) startFlow(within time.Duration) *Flow {
	s.Helper()
	f := s.Flow()
	c, err := Dial(s.Client.Inside, s.Server.Server())
	if err != nil {
		s.Fatal(err)
	}
	f.Loop(&f.Kept, func() error { return c.AskWithin(within) })
	f.Loop(&f.Fresh, func() error { return TryWithin(s.Client.Inside, s.Server.Server(), within) })
	f.Loop(&f.Leaked, func() error { return Try(s.Stranger.Inside, s.Server.Server()) })
	s.Cleanup(func() { c.Close() })
	return f
}

// Loop exchanges something all the time, until the flow ends.
func (f *Flow) Loop(t *Tally, exchange func() error) {
	f.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
			}
			start := time.Now()
			if err := exchange(); err != nil {
				t.Failed.Add(1)
				t.first.CompareAndSwap(nil, &failure{time.Now(), err})
			} else {
				t.OK.Add(1)
				if time.Since(start) > answer {
					t.Late.Add(1)
				}
			}
		}
	})
}

// Lossless ends the flow, and says whether all that may come through did, and nothing else.
func (f *Flow) Lossless() {
	f.Helper()
	close(f.stop)
	f.wg.Wait()
	for name, t := range map[string]*Tally{"the connection that stayed": &f.Kept, "new connections": &f.Fresh} {
		if n := t.Failed.Load(); n > 0 || t.OK.Load() == 0 {
			at := ""
			var err error
			if first := t.first.Load(); first != nil {
				at, err = first.at.UTC().Format("15:04:05.000"), first.err
			}
			f.Errorf("%s: %d of %d exchanges failed, the first at %s: %v", name, n, n+t.OK.Load(), at, err)
		}
	}
	f.sealed()
	f.Logf("exchanges: %d in one connection (%d late), %d in new ones (%d late); %d tries of a stranger",
		f.Kept.OK.Load(), f.Kept.Late.Load(), f.Fresh.OK.Load(), f.Fresh.Late.Load(), f.Leaked.Failed.Load())
}

// Sealed ends a flow of which nothing may come through.
func (f *Flow) Sealed() {
	f.Helper()
	close(f.stop)
	f.wg.Wait()
	f.sealed()
}

func (f *Flow) sealed() {
	f.Helper()
	if n := f.Leaked.OK.Load(); n > 0 || f.Leaked.Failed.Load() == 0 {
		f.Errorf("a stranger came through %d times in %d", n, n+f.Leaked.Failed.Load())
	}
}
