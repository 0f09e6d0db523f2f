package mem

import (
	"slices"

	"github.com/tortie/tortie/datastore/internal/revkv"
)

// Fail makes every call return err from now on, and cuts the watches' streams; nil ends that.
func (s *Store) Fail(err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.err, s.c.uses, s.c.countdown = err, -1, 0
	if err != nil {
		s.c.life++
	}
	s.c.notify()
}

// FailNth makes n calls to the key-value store return err, after skip that are as usual. A read is one call for each
// 1,000 resources; a write is one or two.
func (s *Store) FailNth(skip, n int, err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.err, s.c.countdown, s.c.uses = err, skip, n
}

// LoseAnswers makes the next n writes come to pass but look as if the connection had broken.
func (s *Store) LoseAnswers(n int) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.lose = n
}

// Stall makes calls and streams hang, until release is called (once) or their contexts end.
func (s *Store) Stall() (release func()) {
	stalled := make(chan struct{})
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.stalled = stalled
	s.c.notify()
	return func() {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		if s.c.stalled == stalled {
			s.c.stalled = nil
		}
		close(stalled)
	}
}

// Cut breaks the watches' connections once.
func (s *Store) Cut() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.life++
	s.c.notify()
}

// Compact forgets the history: a watch that has yet to see a part of it must start over.
func (s *Store) Compact() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	// What is there counts as written at the floor, so that lists of later revisions find it.
	base := revision{rev: s.c.now.Rev, entries: slices.Clone(s.c.entries)}
	s.c.floor = s.c.now.Rev
	s.c.history = []revision{base}
	s.c.notify()
}

// Backup returns what puts the store back to how it is now, as restoring a backup does: revisions go back, and watches
// lose their connections. With anew the store counts as another one, as `tortie store` does it; without, only its
// revision tells.
func (s *Store) Backup() (restore func(anew bool)) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	now, entries, history, floor := s.c.now, slices.Clone(s.c.entries), slices.Clone(s.c.history), s.c.floor
	return func(anew bool) {
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		s.c.now, s.c.entries, s.c.history, s.c.floor = now, slices.Clone(entries), slices.Clone(history), floor
		if anew {
			s.c.now.Cluster++
		}
		s.c.data.life++
		s.c.notify()
	}
}

var _ revkv.Backend = (*client)(nil)
