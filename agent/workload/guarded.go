package workload

import (
	"maps"
	"sync"
)

// guarded is a map that goroutines share. Its zero value is empty.
type guarded[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]V
}

func (g *guarded[K, V]) put(k K, v V) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m == nil {
		g.m = map[K]V{}
	}
	g.m[k] = v
}

func (g *guarded[K, V]) remove(k K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.m, k)
}

func (g *guarded[K, V]) has(k K) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.m[k]
	return ok
}

// all is a copy of what is in it now.
func (g *guarded[K, V]) all() map[K]V {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.m)
}
