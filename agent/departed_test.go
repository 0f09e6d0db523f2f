package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/drivers"
)

// TestDeparted: flows are cut once the dataplane has forgotten the addresses, many at a time, and again if that fails.
func TestDeparted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &pump.View{Merged: 6, Unapplied: map[drivers.ObjectRef]struct{}{}}
		var mu sync.Mutex // of v, cuts and fails
		var cuts []string
		fails := 1
		d := &departed{log: slog.New(slog.DiscardHandler), wake: make(chan struct{}, 1), addrs: map[netip.Addr]struct{}{}}
		d.wait = func(ctx context.Context, fn func(*pump.View) bool) error {
			ok := func() bool {
				mu.Lock()
				defer mu.Unlock()
				return fn(v)
			}
			for !ok() {
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		}
		d.cut = func(_ context.Context, addrs []netip.Addr) error {
			mu.Lock()
			defer mu.Unlock()
			if fails--; fails == 0 {
				return errors.New("busy")
			}
			slices.SortFunc(addrs, netip.Addr.Compare)
			cuts = append(cuts, fmt.Sprint(addrs))
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			d.run(ctx)
		}()
		so := func(fn func()) {
			mu.Lock()
			defer mu.Unlock()
			fn()
		}
		a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
		d.add([]netip.Addr{a}, 7)
		time.Sleep(5 * time.Second)
		so(func() {
			if len(cuts) > 0 || fails != 1 {
				t.Errorf("cut before the dataplane knows: %v", cuts)
			}
			v.Merged = 7
		})
		time.Sleep(100 * time.Millisecond)
		d.add([]netip.Addr{b, c}, 7)
		d.add([]netip.Addr{c}, 7)
		time.Sleep(5 * time.Second)
		so(func() {
			if want := "[[10.0.0.1 10.0.0.2 10.0.0.3]]"; fmt.Sprint(cuts) != want {
				t.Errorf("%v, want %s", cuts, want)
			}
		})
		d.add([]netip.Addr{a}, 9) // a dataplane that is stuck: in the end all the same
		time.Sleep(departPatience + time.Second)
		cancel()
		<-ended
		if len(cuts) != 2 {
			t.Errorf("%v", cuts)
		}
	})
}
