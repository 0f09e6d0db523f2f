package cni

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/tortie/tortie/internal/agentapi"
)

// Check says what is not as Add has made it.
func (p *Plugin) Check(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData, false)
	if err != nil {
		return err
	}
	at := attachmentOf(args)
	prev, err := c.previous()
	if err != nil {
		return err
	}
	if prev == nil {
		return invalid("prevResult is missing: a CHECK comes with what ADD has returned")
	}
	addrs, ok := addressesIn(prev, at)
	if c.Chained {
		addrs, ok = addressesBefore(prev, at), true
	}
	if !ok || len(addrs) == 0 {
		return types.NewError(CodeDiffers, fmt.Sprintf("prevResult gives interface %s of %s no address", at.iface, at.netns), "")
	}
	ns, err := openNetns(at.netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	ctx, cancel := within(detachTime)
	defer cancel()
	ag := p.dial(c.Socket)
	short, done := context.WithTimeout(ctx, min(answerTime, c.Timeout))
	defer done()
	if _, err := ready(short, ag, at); err != nil {
		return c.asked("checking interface "+at.iface, err)
	}
	r := agentapi.CheckRequest{Sandbox: at.sandbox, Interface: at.iface, Addresses: addrs, TimeoutMS: agentTime(ctx)}
	if err := ag.Check(ctx, r, ns); err != nil {
		return c.asked("checking interface "+at.iface, err)
	}
	if c.delegated() {
		return c.ipamError("checking", invoke.DelegateCheck(ctx, c.IPAM.Type, args.StdinData, p.exec))
	}
	return nil
}

// Status says whether an ADD would be served.
func (p *Plugin) Status(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData, false)
	if err != nil {
		return err
	}
	ctx, cancel := within(min(answerTime, c.Timeout))
	defer cancel()
	st, err := p.dial(c.Socket).Status(ctx, agentapi.StatusRequest{})
	switch {
	case err != nil:
		asked := c.asked("the network is not available", err)
		var e *types.Error
		if errors.As(asked, &e) {
			return types.NewError(codeUnavailable, e.Msg, e.Details)
		}
		return asked
	case !st.Ready && st.Apply.Error != "": // what is plugged in has policy of before
		return types.NewError(codeUnavailableLimited, "the network is not available, and policy of containers may be out of date", st.Apply.Error)
	case !st.Ready:
		return types.NewError(codeUnavailable, "the network is not available: the Tortie agent is not ready",
			"it waits for "+strings.Join(st.NotReady, ", "))
	}
	if c.delegated() {
		return c.ipamError("the network is not available", invoke.DelegateStatus(ctx, c.IPAM.Type, args.StdinData, p.exec))
	}
	return nil
}

// GC unplugs what is plugged into the network and not in the list of what is still valid. It does as much as it can.
func (p *Plugin) GC(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData, true)
	if err != nil {
		return err
	}
	valid := map[types.GCAttachment]bool{}
	for _, a := range c.Valid {
		valid[a] = true
	}
	ctx, cancel := within(min(answerTime, c.Timeout))
	defer cancel()
	ag := p.dial(c.Socket)
	var listed agentapi.ListResponse
	err = untilDone(ctx, func(ctx context.Context) (err error) {
		listed, err = ag.List(ctx, agentapi.ListRequest{Network: c.Name})
		return err
	})
	var errs []error
	if err != nil {
		errs = append(errs, c.asked("collecting garbage", err))
	}
	for _, a := range listed.Attachments {
		if a.Detaching || valid[types.GCAttachment{ContainerID: a.Sandbox, IfName: a.Interface}] {
			continue
		}
		if err := ask(ag, attachment{sandbox: a.Sandbox, iface: a.Interface}, detachTime); err != nil {
			errs = append(errs, c.asked(fmt.Sprintf("collecting interface %s of container %s", a.Interface, a.Sandbox), err))
		}
	}
	if c.delegated() {
		ctx, cancel := within(detachTime)
		defer cancel()
		if err := invoke.DelegateGC(ctx, c.IPAM.Type, args.StdinData, p.exec); err != nil {
			errs = append(errs, c.ipamError("collecting garbage", err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return withDetails(errs[0], errs[1:]...)
}
