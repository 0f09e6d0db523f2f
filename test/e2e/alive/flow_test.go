//go:build e2e && linux

package alive

import (
	"sync"
	"sync/atomic"
	"time"
)

// flow is traffic that goes on while something happens: a connection that stays open, new ones all the time, and, by
// somebody else, attempts that must not come through.
type flow struct {
	*scene
	kept, fresh, leaked tally
	stop                chan struct{}
	wg                  sync.WaitGroup
}

type tally struct {
	ok, failed atomic.Int64
	first      atomic.Pointer[failure]
}

type failure struct {
	at  time.Time
	err error
}

// every is the pause between two exchanges.
const every = 20 * time.Millisecond

func (s *scene) startFlow() *flow {
	s.Helper()
	f := &flow{scene: s, stop: make(chan struct{})}
	c, err := dial(s.client.inside, s.server.server())
	if err != nil {
		s.Fatal(err)
	}
	f.loop(&f.kept, c.ask)
	f.loop(&f.fresh, func() error { return try(s.client.inside, s.server.server()) })
	f.loop(&f.leaked, func() error { return try(s.stranger.inside, s.server.server()) })
	s.Cleanup(func() { c.Close() })
	return f
}

func (f *flow) loop(t *tally, exchange func() error) {
	f.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
			}
			if err := exchange(); err != nil {
				t.failed.Add(1)
				t.first.CompareAndSwap(nil, &failure{time.Now(), err})
			} else {
				t.ok.Add(1)
			}
		}
	})
}

// lossless ends the flow, and says whether all that may come through did, and nothing else.
func (f *flow) lossless() {
	f.Helper()
	close(f.stop)
	f.wg.Wait()
	for name, t := range map[string]*tally{"the connection that stayed": &f.kept, "new connections": &f.fresh} {
		if n := t.failed.Load(); n > 0 || t.ok.Load() == 0 {
			at := ""
			var err error
			if first := t.first.Load(); first != nil {
				at, err = first.at.UTC().Format("15:04:05.000"), first.err
			}
			f.Errorf("%s: %d of %d exchanges failed, the first at %s: %v", name, n, n+t.ok.Load(), at, err)
		}
	}
	if n := f.leaked.ok.Load(); n > 0 || f.leaked.failed.Load() == 0 {
		f.Errorf("a stranger came through %d times in %d", n, n+f.leaked.failed.Load())
	}
	f.Logf("exchanges: %d in one connection, %d in new ones; %d of a stranger, all dropped", f.kept.ok.Load(), f.fresh.ok.Load(), f.leaked.failed.Load())
}
