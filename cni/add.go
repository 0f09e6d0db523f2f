package cni

import (
	"context"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// Add plugs a workload in; the result is written once its policy is enforced. Given again, it has the same result.
func (p *Plugin) Add(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData, false)
	if err != nil {
		return err
	}
	a, err := parseArgs(args.Args)
	if err != nil {
		return err
	}
	at := attachmentOf(args)
	req, err := c.request(at, a)
	if err != nil {
		return err
	}
	prev, err := c.previous()
	if err != nil {
		return err
	}
	if c.Chained {
		if err := c.behind(prev, at, &req); err != nil {
			return err
		}
	}
	ns, err := openNetns(at.netns)
	if err != nil {
		return err
	}
	defer ns.Close()

	ag := p.dial(c.Socket)
	c.reached(ag, at, a)
	ctx, cancel := within(c.Timeout)
	defer cancel()
	// First of all the agent: no address is allocated while it is away, nor a second one for what is plugged in.
	had, err := ready(ctx, ag, at)
	if err != nil {
		return c.asked("adding interface "+at.iface, err)
	}
	addReady.Hit()
	var ipam *current.Result
	switch {
	case !c.delegated():
	case had != nil:
		req.Addresses = had.Addresses
	default:
		if ipam, req.Addresses, err = p.allocate(ctx, c, args.StdinData); err != nil {
			return err
		}
		addAllocated.Hit()
	}
	resp, err := attach(ctx, ag, req, ns)
	if err == nil {
		addAttached.Hit()
		var out types.Result
		if out, err = c.result(at, resp, prev, ipam).GetAsVersion(c.CNIVersion); err == nil {
			err = out.PrintTo(p.out)
		}
		if err == nil {
			addTold.Hit()
			return nil
		}
		err = types.NewError(types.ErrIOFailure, "telling the result", err.Error())
	} else {
		err = c.asked("adding interface "+at.iface, err)
	}
	if had != nil {
		return err // it is plugged in as before
	}
	return withDetails(err, p.takeBack(ctx, c, ag, at, args.StdinData))
}

// takeBack undoes an ADD that has failed. An address is released after nobody has it any more, or else not at all: the
// DEL that follows will.
func (p *Plugin) takeBack(ctx context.Context, c *conf, ag agent, at attachment, stdin []byte) error {
	if err := detach(c, ag, at); err != nil {
		return fmt.Errorf("taking it back: %w", err)
	}
	if !c.delegated() {
		return nil
	}
	if err := p.release(ctx, c, stdin); err != nil {
		return fmt.Errorf("taking it back: %w", err)
	}
	return nil
}
