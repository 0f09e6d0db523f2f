package store

import (
	"log/slog"
	"sync"
	"time"
)

// tellEvery bounds the log: who is refused tries on for ever.
const tellEvery = 10 * time.Minute

// complaints logs what members were refused: of each member and kind now and then. Only bearers of certificates that we
// have issued get this far, so there are not many.
type complaints struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[complaint]*tally
}

type complaint struct {
	who  identity
	what string
}

type tally struct {
	at   time.Time
	more int // since then
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, told: map[complaint]*tally{}}
}

func (c *complaints) tell(what string, who identity, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.told[complaint{who, what}]
	if t == nil {
		t = &tally{}
		c.told[complaint{who, what}] = t
	}
	if now := time.Now(); now.Sub(t.at) < tellEvery {
		t.more++
	} else {
		c.log.Warn(what, "name", who.label(), "err", err, "times_since_last", t.more)
		*t = tally{at: now}
	}
}
