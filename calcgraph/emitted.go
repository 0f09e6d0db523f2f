package calcgraph

// emitted is what the State holds of one kind, and what is to be said at the next flush: at most one thing of each key,
// and nothing of what is equal to what it was.
type emitted[K comparable, V any] struct {
	now    map[K]*V
	staged map[K]*V // nil = gone
	equal  func(a, b *V) bool
}

func newEmitted[K comparable, V any](equal func(a, b *V) bool) emitted[K, V] {
	return emitted[K, V]{now: map[K]*V{}, staged: map[K]*V{}, equal: equal}
}

// stage says what the value of a key is to be, nil for none.
func (e *emitted[K, V]) stage(k K, v *V) { e.staged[k] = v }

// flush puts what is different into to.
func (e *emitted[K, V]) flush(to map[K]*V) {
	for k, v := range e.staged {
		old := e.now[k]
		if old == v || old != nil && v != nil && e.equal(old, v) {
			continue
		}
		to[k] = v
		if v == nil {
			delete(e.now, k)
		} else {
			e.now[k] = v
		}
	}
	clear(e.staged)
}
