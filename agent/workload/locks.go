package workload

import (
	"context"
	"sync"

	"github.com/tortie/tortie/drivers"
)

// locks lets one request at a time work on a workload.
type locks struct {
	mu   *sync.Mutex
	busy map[drivers.EndpointID]chan struct{} // closed when it is free again
}

func newLocks() locks {
	return locks{mu: new(sync.Mutex), busy: map[drivers.EndpointID]chan struct{}{}}
}

// lock waits until id is free, and returns what frees it again.
func (l locks) lock(ctx context.Context, id drivers.EndpointID) (unlock func(), err error) {
	for {
		l.mu.Lock()
		free, busy := l.busy[id]
		if !busy {
			mine := make(chan struct{})
			l.busy[id] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.busy, id)
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l locks) held(id drivers.EndpointID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, busy := l.busy[id]
	return busy
}
