package linux

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
)

const (
	// inventoryDelay is how long changes are gathered before the inventory is read again.
	inventoryDelay = 50 * time.Millisecond
	// inventoryRetry is how long a broken watch waits before it is begun anew.
	inventoryRetry = time.Second
)

// inventory tells what interfaces and addresses the node has. It implements drivers.Inventory.
type inventory struct {
	net *linuxnet.Conn
	log *slog.Logger
}

func newInventory(net *linuxnet.Conn, log *slog.Logger) *inventory {
	return &inventory{net: net, log: log}
}

// WatchHost calls fn with the whole inventory, at the start and after each change, until ctx ends. A watch that breaks
// is begun anew, with a new reading.
func (v *inventory) WatchHost(ctx context.Context, fn func([]drivers.HostIface)) error {
	var last []drivers.HostIface
	first := true
	for {
		err := v.watch(ctx, func(now []drivers.HostIface) {
			if first || !slices.EqualFunc(last, now, equalIface) {
				first, last = false, now
				fn(now)
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.log.Warn("watch of the host's interfaces is begun anew", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(inventoryRetry):
		}
	}
}

// watch calls fn with the inventory at the start and after each burst of changes, until the watch breaks.
func (v *inventory) watch(ctx context.Context, fn func([]drivers.HostIface)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	ended, err := v.net.Watch(ctx, func(e linuxnet.Event) {
		if e.Kind == linuxnet.RouteEvent {
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	for {
		now, err := v.list()
		if err != nil {
			return err
		}
		fn(now)
		select {
		case err := <-ended:
			return err
		case <-changed:
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(inventoryDelay):
		}
		// What came meanwhile is in the reading that follows.
		select {
		case <-changed:
		default:
		}
	}
}

// list reads the inventory.
func (v *inventory) list() ([]drivers.HostIface, error) {
	links, err := v.net.Links()
	if err != nil {
		return nil, err
	}
	addrs, err := v.net.Addrs(0)
	if err != nil {
		return nil, err
	}
	return inventoryOf(links, addrs), nil
}

func inventoryOf(links []linuxnet.Link, addrs []linuxnet.Addr) []drivers.HostIface {
	names, of := map[int]string{}, map[int][]netip.Prefix{}
	for _, l := range links {
		names[l.Index] = l.Name
	}
	for _, a := range addrs {
		of[a.Link] = append(of[a.Link], a.Prefix)
	}
	out := make([]drivers.HostIface, len(links))
	for i, l := range links {
		h := drivers.HostIface{Name: l.Name, Index: l.Index, MAC: l.MAC, MTU: l.MTU, Up: l.Up, Addrs: of[l.Index]}
		// An index in another namespace names nothing here.
		if l.ParentNs < 0 && l.Parent != l.Index {
			h.Parent = names[l.Parent]
		}
		if l.Master != 0 {
			h.Parent = names[l.Master]
		}
		slices.SortFunc(h.Addrs, netip.Prefix.Compare)
		out[i] = h
	}
	slices.SortFunc(out, func(a, b drivers.HostIface) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func equalIface(a, b drivers.HostIface) bool {
	return a.Name == b.Name && a.Index == b.Index && a.MAC == b.MAC && a.MTU == b.MTU && a.Up == b.Up &&
		a.Parent == b.Parent && slices.Equal(a.Addrs, b.Addrs)
}
