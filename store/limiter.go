package store

import (
	"sync"
	"time"
)

// maxHosts are remembered by the limiter: more than that ask at a time only if somebody makes addresses up.
const maxHosts = 4096

// limiter lets so many requests pass, of each host and of all: buckets that fill slowly.
type limiter struct {
	now func() time.Time

	mu    sync.Mutex
	all   bucket
	hosts map[string]bucket
}

// bucket is full at a time: each request makes that later.
type bucket struct{ full time.Time }

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, hosts: map[string]bucket{}}
}

// take says whether there is something in a bucket of size burst that gets one more each every.
func (b bucket) take(now time.Time, burst int, every time.Duration) (bucket, bool) {
	if b.full.Before(now) {
		b.full = now
	}
	if b.full.Sub(now) > time.Duration(burst-1)*every {
		return b, false
	}
	b.full = b.full.Add(every)
	return b, true
}

func (l *limiter) allow(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	mine, ok := l.hosts[host].take(now, joinBurstHost, joinEveryHost)
	if !ok {
		return false
	}
	all, ok := l.all.take(now, joinBurst, joinEvery)
	if !ok {
		return false
	}
	if len(l.hosts) >= maxHosts {
		for h, b := range l.hosts {
			if !now.Before(b.full) {
				delete(l.hosts, h)
			}
		}
		if len(l.hosts) >= maxHosts {
			return false
		}
	}
	l.all, l.hosts[host] = all, mine
	return true
}
