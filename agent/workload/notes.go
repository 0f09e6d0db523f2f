package workload

import (
	"context"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// noted returns the attachments that clients noted down as to be detached while no agent listened.
func (w *Workloads) noted() map[drivers.EndpointID]bool {
	if w.o.NotesDir == "" {
		return nil
	}
	notes, err := agentapi.ReadNotes(w.o.NotesDir)
	if err != nil {
		w.o.Log.Error("reading the notes of what to detach", "err", err)
	}
	out := map[drivers.EndpointID]bool{}
	for _, n := range notes {
		out[drivers.EndpointID{Kind: drivers.Workload, Sandbox: n.Sandbox, Interface: n.Interface}] = true
	}
	return out
}

// settle does what a note about id says, if there is one, and removes it. The caller holds the lock of id: an attachment
// that comes later must not meet a note about an earlier one.
func (w *Workloads) settle(ctx context.Context, id drivers.EndpointID) error {
	if w.o.NotesDir == "" {
		return nil
	}
	there, err := agentapi.HasNote(w.o.NotesDir, id.Sandbox, id.Interface)
	if err != nil || !there {
		return err
	}
	if err := w.clear(ctx, id); err != nil {
		return err
	}
	w.o.Log.Info("detached what was noted while no agent listened", "sandbox", id.Sandbox, "interface", id.Interface)
	return w.dropNote(id)
}

func (w *Workloads) dropNote(id drivers.EndpointID) error {
	if w.o.NotesDir == "" {
		return nil
	}
	return agentapi.RemoveNote(w.o.NotesDir, id.Sandbox, id.Interface)
}

// settleAll does what notes say, and reports whether some are left.
func (w *Workloads) settleAll(ctx context.Context) (left bool) {
	if w.o.NotesDir != "" {
		if err := agentapi.SweepNotes(w.o.NotesDir); err != nil {
			w.o.Log.Error("removing unfinished notes", "err", err)
		}
	}
	for id := range w.noted() {
		if ctx.Err() != nil {
			return true
		}
		if err := w.settleOne(ctx, id); err != nil {
			w.o.Log.Debug("a noted detach is not finished yet", "sandbox", id.Sandbox, "err", err)
			left = true
		}
	}
	return left
}

func (w *Workloads) settleOne(ctx context.Context, id drivers.EndpointID) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	unlock, err := w.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return w.settle(ctx, id)
}

// closeNoted marks the ledger's entries that notes speak of as on their way out, before anybody hears of them. It returns
// those that it could not mark; Run tries them again.
func (w *Workloads) closeNoted(ctx context.Context) (left map[drivers.EndpointID]bool, err error) {
	left = map[drivers.EndpointID]bool{}
	for id := range w.noted() {
		err := w.ifPlugged(ctx, id, func(e ledger.Entry) error {
			e.Phase = ledger.Detaching
			if err := w.o.Ledger.Put(e); err != nil {
				left[id] = true
				w.o.Log.Error("marking a workload as one to detach: it is closed, and that is tried again", "sandbox", e.Sandbox, "err", err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return left, nil
}
