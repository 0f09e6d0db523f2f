package drivers

import (
	"iter"
	"slices"
)

// chunkLen is how many keys a chunk holds at most; a change copies the chunks that it touches, and the list of chunks.
const chunkLen = 256

// keys is an immutable sorted list of distinct keys in chunks.
type keys[K any] struct {
	n      int
	chunks [][]K // none is empty
}

// find returns the chunk that holds, or would hold, k.
func (s keys[K]) find(k K, cmp func(a, b K) int) int {
	i, found := slices.BinarySearchFunc(s.chunks, k, func(c []K, k K) int { return cmp(c[0], k) })
	if !found && i > 0 {
		i--
	}
	return i
}

func (s keys[K]) has(k K, cmp func(a, b K) int) bool {
	if s.n == 0 {
		return false
	}
	_, ok := slices.BinarySearchFunc(s.chunks[s.find(k, cmp)], k, cmp)
	return ok
}

// floor returns the largest key that is not above k.
func (s keys[K]) floor(k K, cmp func(a, b K) int) (K, bool) {
	var zero K
	if s.n == 0 {
		return zero, false
	}
	c := s.chunks[s.find(k, cmp)]
	i, ok := slices.BinarySearchFunc(c, k, cmp)
	if ok {
		return c[i], true
	}
	if i == 0 {
		return zero, false
	}
	return c[i-1], true
}

// from yields the keys that are not below k, in order.
func (s keys[K]) from(k K, cmp func(a, b K) int) iter.Seq[K] {
	return func(yield func(K) bool) {
		if s.n == 0 {
			return
		}
		first := s.find(k, cmp)
		i, _ := slices.BinarySearchFunc(s.chunks[first], k, cmp)
		for _, c := range s.chunks[first:] {
			for _, x := range c[i:] {
				if !yield(x) {
					return
				}
			}
			i = 0
		}
	}
}

// with returns s with the keys of add and without those of del that are not in add; count is told of each key that
// really came (+1) or went (-1). add and del are sorted in place.
func (s keys[K]) with(add, del []K, cmp func(a, b K) int, count func(k K, d int)) keys[K] {
	if len(add) == 0 && len(del) == 0 {
		return s
	}
	slices.SortFunc(add, cmp)
	slices.SortFunc(del, cmp)
	out := keys[K]{chunks: make([][]K, 0, len(s.chunks)+len(add)/chunkLen+1)}
	if s.n == 0 {
		return out.fill(add, del, cmp, count)
	}
	for i, c := range s.chunks {
		na, nd := len(add), len(del)
		if i+1 < len(s.chunks) { // keys below the next chunk's first belong here
			next := s.chunks[i+1][0]
			na, _ = slices.BinarySearchFunc(add, next, cmp)
			nd, _ = slices.BinarySearchFunc(del, next, cmp)
		}
		if na == 0 && nd == 0 {
			out.chunks = append(out.chunks, c)
			out.n += len(c)
			continue
		}
		out.push(mergeKeys(c, add[:na], del[:nd], cmp, count))
		add, del = add[na:], del[nd:]
	}
	return out
}

func (s keys[K]) fill(add, del []K, cmp func(a, b K) int, count func(k K, d int)) keys[K] {
	s.push(mergeKeys(nil, add, del, cmp, count))
	return s
}

// push appends sorted keys, cut into chunks of like size.
func (s *keys[K]) push(ks []K) {
	s.n += len(ks)
	for parts := (len(ks) + chunkLen - 1) / chunkLen; parts > 0; parts-- {
		n := len(ks) / parts
		if last := len(s.chunks) - 1; parts == 1 && last >= 0 && len(s.chunks[last])+n <= chunkLen/4 {
			s.chunks[last] = slices.Concat(s.chunks[last], ks[:n])
		} else {
			s.chunks = append(s.chunks, slices.Clip(ks[:n]))
		}
		ks = ks[n:]
	}
}

// mergeKeys merges three sorted lists into a new one.
func mergeKeys[K any](old, add, del []K, cmp func(a, b K) int, count func(k K, d int)) []K {
	out := make([]K, 0, len(old)+len(add))
	for len(old) > 0 || len(add) > 0 {
		switch {
		case len(add) == 0 || len(old) > 0 && cmp(old[0], add[0]) < 0:
			k := old[0]
			old = old[1:]
			for len(del) > 0 && cmp(del[0], k) < 0 {
				del = del[1:]
			}
			if len(del) > 0 && cmp(del[0], k) == 0 {
				count(k, -1)
				continue
			}
			out = append(out, k)
		default:
			k := add[0]
			fresh := len(old) == 0 || cmp(old[0], k) != 0
			if !fresh {
				old = old[1:]
			}
			for len(add) > 0 && cmp(add[0], k) == 0 {
				add = add[1:]
			}
			if fresh {
				count(k, +1)
			}
			out = append(out, k)
		}
	}
	return out
}
