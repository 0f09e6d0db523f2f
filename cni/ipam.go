package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// allocate asks the IPAM plugin of the configuration. What fails leaves nothing behind.
func (p *Plugin) allocate(ctx context.Context, c *conf, stdin []byte) (*current.Result, []netip.Addr, error) {
	res, addrs, err := p.allocateOnce(ctx, c, stdin)
	var e *types.Error
	if err == nil || errors.As(err, &e) && (e.Code == types.ErrTryAgainLater || e.Code == types.ErrIncompatibleCNIVersion) {
		return res, addrs, err
	}
	// An ADD of before, killed on its way, may have left its address, and some plugins refuse to give another. Nothing is
	// plugged in with it: the agent was asked. It has been released by now.
	if res, addrs, again := p.allocateOnce(ctx, c, stdin); again == nil {
		return res, addrs, nil
	}
	return nil, nil, err
}

func (p *Plugin) allocateOnce(ctx context.Context, c *conf, stdin []byte) (*current.Result, []netip.Addr, error) {
	var res *current.Result
	var addrs []netip.Addr
	got, err := invoke.DelegateAdd(ctx, c.IPAM.Type, stdin, p.exec)
	if err == nil {
		res, err = current.NewResultFromResult(got)
	}
	if err == nil {
		addrs, err = addressesOf(res)
	}
	if err != nil {
		return nil, nil, withDetails(c.ipamError("allocating an address", err), p.release(ctx, c, stdin))
	}
	return res, addrs, nil
}

func addressesOf(res *current.Result) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, ip := range res.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, fmt.Errorf("it gave %v, which is no address", ip.Address)
		}
		addrs = append(addrs, a.Unmap())
	}
	if len(addrs) == 0 {
		return nil, types.NewError(CodeNoAddress, "it gave no address", "")
	}
	return addrs, nil
}

// release gives back what the IPAM plugin has allocated. It does not end with the ADD that it is called in.
func (p *Plugin) release(ctx context.Context, c *conf, stdin []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachTime)
	defer cancel()
	return c.ipamError("releasing the address", invoke.DelegateDel(ctx, c.IPAM.Type, stdin, p.exec))
}

// ipamError says whose error it is; its code stays.
func (c *conf) ipamError(doing string, err error) error {
	if err == nil {
		return nil
	}
	code, details := types.ErrInternal, ""
	msg := err.Error()
	var e *types.Error
	if errors.As(err, &e) {
		code, msg, details = e.Code, e.Msg, e.Details
	}
	return types.NewError(code, fmt.Sprintf("%s: IPAM plugin %s: %s", doing, c.IPAM.Type, msg), details)
}
