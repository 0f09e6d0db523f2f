package fake

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// defaultMTU is the MTU of an attachment that asks for none on a node that has none.
const defaultMTU = 1500

// Attach plugs a workload in.
func (d *Driver) Attach(ctx context.Context, a drivers.Attachment) (drivers.Attached, error) {
	if err := ctx.Err(); err != nil {
		return drivers.Attached{}, fmt.Errorf("attaching %s: %w", a.HostIface, err)
	}
	if a.HostIface == "" || len(a.Addrs) == 0 {
		return drivers.Attached{}, errors.New("attaching: it takes the name of a host interface, and an address")
	}
	w := d.world
	w.mu.Lock()
	defer w.mu.Unlock()
	a = w.complete(a)
	if has, ok := w.links[a.HostIface]; !ok || differs(has, a) != nil {
		w.links[a.HostIface] = a
		w.announce()
	}
	return drivers.Attached{HostIface: a.HostIface, MAC: a.MAC, MTU: a.MTU, Gateways: gateways(a.Addrs)}, nil
}

// complete fills in what an attachment leaves to the driver: always the same for the same workload.
func (w *World) complete(a drivers.Attachment) drivers.Attachment {
	if a.MAC == (drivers.MAC{}) {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s\x00%s", a.ID.Sandbox, a.ID.Interface)
		copy(a.MAC[:], h.Sum(nil))
		a.MAC[0] = a.MAC[0]&^1 | 2 // locally administered, unicast
	}
	if a.MTU == 0 {
		a.MTU = w.held.Node.MTU
	}
	if a.MTU == 0 {
		a.MTU = defaultMTU
	}
	a.Addrs = slices.Clone(a.Addrs)
	return a
}

func gateways(addrs []netip.Addr) []netip.Addr {
	var gs []netip.Addr
	for _, g := range []netip.Addr{netip.AddrFrom4([4]byte{169, 254, 1, 1}), netip.MustParseAddr("fe80::1")} {
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() == g.Is4() }) {
			gs = append(gs, g)
		}
	}
	return gs
}

// Detach unplugs a workload.
func (d *Driver) Detach(ctx context.Context, a drivers.Attachment) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("detaching %s: %w", a.HostIface, err)
	}
	d.world.mu.Lock()
	defer d.world.mu.Unlock()
	if has, ok := d.world.links[a.HostIface]; ok && has.ID == a.ID {
		delete(d.world.links, a.HostIface)
		d.world.announce()
	}
	return nil
}

// Check says what differs from what Attach would make.
func (d *Driver) Check(ctx context.Context, a drivers.Attachment) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("checking %s: %w", a.HostIface, err)
	}
	d.world.mu.Lock()
	defer d.world.mu.Unlock()
	has, ok := d.world.links[a.HostIface]
	if !ok {
		return fmt.Errorf("interface %s: %w", a.HostIface, fs.ErrNotExist)
	}
	return differs(has, d.world.complete(a))
}

func differs(has, want drivers.Attachment) error {
	var errs []error
	diff := func(what string, has, want any, same bool) {
		if !same {
			errs = append(errs, fmt.Errorf("interface %s: %s is %v, not %v", want, what, has, want))
		}
	}
	diff("workload", has.ID, want.ID, has.ID == want.ID)
	diff("MAC", has.MAC, want.MAC, has.MAC == want.MAC)
	diff("MTU", has.MTU, want.MTU, has.MTU == want.MTU)
	diff("addresses", has.Addrs, want.Addrs, slices.Equal(has.Addrs, want.Addrs))
	return errors.Join(errs...)
}

// WatchHost calls fn with the interfaces of the World, now and whenever they have changed.
func (d *Driver) WatchHost(ctx context.Context, fn func([]drivers.HostIface)) error {
	for {
		d.world.mu.Lock()
		ifaces, moved := d.world.inventory(), d.world.moved
		d.world.mu.Unlock()
		fn(ifaces)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

func (w *World) inventory() []drivers.HostIface {
	ifaces := slices.Clone(w.host)
	for i, name := range slices.Sorted(maps.Keys(w.links)) {
		ifaces = append(ifaces, drivers.HostIface{Name: name, Index: 1000 + i, MTU: w.links[name].MTU, Up: true})
	}
	slices.SortFunc(ifaces, func(a, b drivers.HostIface) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return ifaces
}

// Counters yields the rules that packets have met.
func (d *Driver) Counters(context.Context) iter.Seq2[drivers.RuleID, drivers.Count] {
	d.world.mu.Lock()
	defer d.world.mu.Unlock()
	return maps.All(maps.Clone(d.world.counts))
}

// CutFlows notes the addresses; the World has no flows of its own.
func (d *Driver) CutFlows(ctx context.Context, addrs []netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("cutting flows: %w", err)
	}
	d.world.mu.Lock()
	defer d.world.mu.Unlock()
	d.world.cut = append(d.world.cut, addrs...)
	return nil
}

// Clean removes all that is ours but the workloads' interfaces, which Detach removes.
func (d *Driver) Clean(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("cleaning: %w", err)
	}
	a := &apply{w: d.world, features: d.features, want: drivers.NewState(), failed: map[drivers.ObjectRef]error{}}
	if err := a.run(ctx, nil); err != nil {
		return fmt.Errorf("cleaning: %w", err)
	}
	if len(a.failed) > 0 {
		return fmt.Errorf("cleaning: %w", &drivers.ApplyError{Failed: a.failed})
	}
	return nil
}
