package kube

import (
	"math/rand/v2"
	"time"
)

// pace is how patient a store is; tests have less of it.
type pace struct {
	minBackoff, maxBackoff time.Duration // between tries, before jitter
	answer                 time.Duration // until a list has come, or a watch has begun
	steady                 time.Duration // a session that lasted this long was a good one
	absent                 time.Duration // between looks for a resource that is not served
	definition             time.Duration // of a watch for its definition
	refused                time.Duration // at most, between tries of what is refused
	resume                 time.Duration // a watch that was away for longer begins anew
	busy                   time.Duration // a server that says for longer that it is can't
	confirm                int           // answers in a row until one that was served is believed to be gone
}

func usualPace() pace {
	return pace{minBackoff: 100 * time.Millisecond, maxBackoff: 10 * time.Second, answer: 30 * time.Second, steady: 5 * time.Second,
		absent: 45 * time.Second, definition: 20 * time.Minute, refused: 30 * time.Second, resume: 10 * time.Second,
		busy: 10 * time.Second, confirm: 4}
}

// jitter returns between two thirds and four thirds of d.
func jitter(d time.Duration) time.Duration { return d*2/3 + rand.N(d*2/3+1) }
