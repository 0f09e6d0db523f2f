package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
)

// Clean removes our tables and routes, also what an earlier process left.
func (d *Driver) Clean(ctx context.Context) error {
	have, err := d.kernel.read(&Program{})
	if err != nil {
		return fmt.Errorf("cleaning: %w", err)
	}
	var ops []op
	for _, t := range []Table{Inet, ARP} {
		if have.exist[t] {
			ops = append(ops, op{kind: opDelTable, table: t})
		}
	}
	d.have, d.comp = nil, newCompiler()
	clear(d.quarantine)
	d.cutter.follow(drivers.NewState(), nil, false)
	var errs []error
	if len(ops) > 0 {
		errs = append(errs, d.send(ops, false))
	}
	for _, err := range d.routes.apply(ctx, drivers.NewState(), nil) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cleaning: %w", err)
	}
	return nil
}

// CutFlows deletes the flow-table entries that have one of addrs at either end.
func (d *Driver) CutFlows(ctx context.Context, addrs []netip.Addr) error {
	cut := map[netip.Addr]bool{}
	var families [2]bool
	for _, a := range addrs {
		a = a.Unmap()
		cut[a] = true
		families[0], families[1] = families[0] || a.Is4(), families[1] || a.Is6()
	}
	err := d.ns.Do(func() error {
		for i, f := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			if !families[i] || ctx.Err() != nil {
				continue
			}
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, f, flowsOf(cut)); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("cutting flows: %w", err)
	}
	return nil
}

// flowsOf matches flows by any of the addresses in them, those of both directions.
type flowsOf map[netip.Addr]bool

// MatchConntrackFlow reports whether the flow is to be deleted.
func (c flowsOf) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	for _, ip := range [][]byte{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP} {
		if a, ok := netip.AddrFromSlice(ip); ok && c[a.Unmap()] {
			return true
		}
	}
	return false
}
