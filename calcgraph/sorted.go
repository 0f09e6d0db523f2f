package calcgraph

import (
	"iter"
	"slices"
)

// chunkLen is how many values a chunk of a sorted list holds at most.
const chunkLen = 256

// sorted is a sorted list of distinct values in chunks: insert and remove move at most a chunk.
type sorted[T any] struct {
	cmp    func(a, b T) int
	n      int
	chunks [][]T // none is empty
}

// find returns the chunk that holds, or would hold, v, and the place in it.
func (s *sorted[T]) find(v T) (chunk, at int, found bool) {
	chunk, found = slices.BinarySearchFunc(s.chunks, v, func(c []T, v T) int { return s.cmp(c[0], v) })
	if !found && chunk > 0 {
		chunk--
	}
	if chunk < len(s.chunks) {
		at, found = slices.BinarySearchFunc(s.chunks[chunk], v, s.cmp)
	}
	return chunk, at, found
}

func (s *sorted[T]) has(v T) bool {
	_, _, found := s.find(v)
	return found
}

// insert reports whether v is new.
func (s *sorted[T]) insert(v T) bool {
	i, at, found := s.find(v)
	if found {
		return false
	}
	s.n++
	if len(s.chunks) == 0 {
		s.chunks = [][]T{{v}}
		return true
	}
	if c := s.chunks[i]; len(c) == chunkLen {
		// What comes in ascending order fills its chunks.
		cut := len(c) / 2
		if at == len(c) {
			cut = len(c)
		}
		s.chunks[i] = c[:cut]
		s.chunks = slices.Insert(s.chunks, i+1, append(make([]T, 0, chunkLen), c[cut:]...))
		if at >= cut {
			i, at = i+1, at-cut
		}
	}
	s.chunks[i] = slices.Insert(s.chunks[i], at, v)
	return true
}

// remove reports whether v was there.
func (s *sorted[T]) remove(v T) bool {
	i, at, found := s.find(v)
	if !found {
		return false
	}
	s.n--
	s.chunks[i] = slices.Delete(s.chunks[i], at, at+1)
	if len(s.chunks[i]) == 0 {
		s.chunks = slices.Delete(s.chunks, i, i+1)
	}
	return true
}

// from yields the values that are not below v, in order. The list must not change meanwhile.
func (s *sorted[T]) from(v T) iter.Seq[T] {
	return func(yield func(T) bool) {
		i, at, _ := s.find(v)
		if i >= len(s.chunks) {
			return
		}
		for _, c := range s.chunks[i:] {
			for _, x := range c[at:] {
				if !yield(x) {
					return
				}
			}
			at = 0
		}
	}
}
