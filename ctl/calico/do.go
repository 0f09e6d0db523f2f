package calico

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

var (
	// ErrUnlocked says that Calico may still give addresses away.
	ErrUnlocked = errors.New("agents of Calico may still write: its data is not locked")
	// ErrConflict says that addresses are somebody else's here.
	ErrConflict = errors.New("addresses are somebody else's here")
	// ErrLoss says that something that decides about traffic would be lost.
	ErrLoss = errors.New("not everything that decides about traffic can be brought along")
)

// Consent is what a user says is all right.
type Consent struct {
	Unlocked bool // that Calico may give addresses away meanwhile
	Loss     bool // what Plan.Losses says
}

// Do writes what the plan says, in its order, and tells done of each object. Before it ends it looks once more whether
// Calico is locked.
func (p *Plan) Do(ctx context.Context, from Source, to datastore.Store, consent Consent, done func(Step)) error {
	if !p.Locked && !consent.Unlocked {
		return ErrUnlocked
	}
	if n := p.Count(Conflict); n > 0 {
		return fmt.Errorf("%w: %d blocks", ErrConflict, n)
	}
	if losses := p.Losses(); len(losses) > 0 && !consent.Loss {
		var names []string
		for _, s := range losses {
			names = append(names, s.Kind+"/"+s.From)
		}
		return fmt.Errorf("%w: %s", ErrLoss, strings.Join(names, ", "))
	}
	for _, s := range p.Steps {
		if err := write(ctx, to, s); err != nil {
			return fmt.Errorf("%s %v: %w (what is done is done; run it again for the rest)", s.Action, s.To, err)
		}
		if s.Action == Create || s.Action == Update {
			done(s)
		}
	}
	if consent.Unlocked {
		return nil
	}
	still, err := locked(ctx, from)
	if err == nil && !still {
		err = fmt.Errorf("%w any more: lock it, and run this again", ErrUnlocked)
	}
	return err
}

func write(ctx context.Context, to datastore.Store, s Step) error {
	var err error
	switch s.Action {
	case Create:
		_, err = to.Create(ctx, api.DeepCopy(s.Object))
	case Update:
		_, err = to.Update(ctx, api.DeepCopy(s.Object))
	}
	return err
}
