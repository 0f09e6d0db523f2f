package cni

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/tortie/tortie/internal/agentapi"
)

// Del unplugs a workload. One that isn't there is no error, nor is a network namespace that is gone.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData, true)
	if err != nil {
		return err
	}
	at := attachmentOf(args)
	if ownNetns(at.netns) {
		// As a path by the id of a process that is gone may be by now. The container has no namespace any more, then; the
		// library, and IPAM plugins that use it, would fail the DEL when all is done.
		args.Netns = ""
		if err := os.Unsetenv("CNI_NETNS"); err != nil {
			return err
		}
	}
	delBegun.Hit()
	if err := detach(c, p.dial(c.Socket), at); err != nil {
		return err
	}
	delDetached.Hit()
	if c.delegated() {
		// Last of all, when no packet comes or goes by the address any more.
		ctx, cancel := within(detachTime)
		defer cancel()
		if err := p.release(ctx, c, args.StdinData); err != nil {
			return err
		}
		delReleased.Hit()
	}
	return nil
}

// detach asks the agent, or leaves a note for the next one if there is none.
func detach(c *conf, ag agent, at attachment) error {
	what := fmt.Sprintf("deleting interface %s", at.iface)
	err := ask(ag, at, detachTime)
	if err == nil {
		return nil
	}
	if answered(err) {
		return c.asked(what, err)
	}
	n := agentapi.Note{Sandbox: at.sandbox, Interface: at.iface, Network: c.Name, Written: time.Now().UTC()}
	if nErr := agentapi.WriteNote(c.NotesDir, n); nErr != nil {
		return types.NewError(types.ErrIOFailure, what+": no Tortie agent answers, and no note could be left for the next one",
			errors.Join(nErr, err).Error())
	}
	delNoted.Hit()
	// An agent that has started meanwhile may have read its notes before this one was there.
	if ask(ag, at, lastLook) == nil {
		if err := agentapi.RemoveNote(c.NotesDir, at.sandbox, at.iface); err != nil {
			return types.NewError(types.ErrIOFailure, what, err.Error())
		}
	}
	return nil
}

func ask(ag agent, at attachment, patience time.Duration) error {
	ctx, cancel := within(patience)
	defer cancel()
	return ag.Detach(ctx, agentapi.DetachRequest{Sandbox: at.sandbox, Interface: at.iface, TimeoutMS: agentTime(ctx)})
}
