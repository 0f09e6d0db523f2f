package calico

import (
	"context"
	"errors"
	"fmt"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

var (
	// ErrUnlocked says that Calico may still give addresses away.
	ErrUnlocked = errors.New("agents of Calico may still write: its data is not locked")
	// ErrConflict says that addresses are somebody else's here.
	ErrConflict = errors.New("addresses are somebody else's here")
)

// Do writes what the plan says, in its order, and tells done of each object. Before it ends it looks once more whether
// Calico is locked. With force it does not ask for that.
func (p *Plan) Do(ctx context.Context, from Source, to datastore.Store, force bool, done func(Step)) error {
	if !p.Locked && !force {
		return ErrUnlocked
	}
	if n := p.Count(Conflict); n > 0 {
		return fmt.Errorf("%w: %d blocks", ErrConflict, n)
	}
	for _, s := range p.Steps {
		if err := write(ctx, to, s); err != nil {
			return fmt.Errorf("%s %v: %w (what is done is done; run it again for the rest)", s.Action, s.To, err)
		}
		if s.Action == Create || s.Action == Update {
			done(s)
		}
	}
	if force {
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
