package linuxnet_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// batch runs commands of `ip` inside ns.
func batch(ns *netns.Ns, commands []string) error {
	return ns.Do(func() error {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip: %w: %s", err, out)
		}
		return nil
	})
}

// TestWatchOverrun: a watcher that is slow while more happens than the kernel keeps for it hears that it has missed
// something, and then what comes.
func TestWatchOverrun(t *testing.T) {
	ns := netnstest.New(t)
	c := open(t, ns)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	release, seen, lost := make(chan struct{}), 0, 0
	last := netip.MustParsePrefix("10.9.9.0/24")
	found := make(chan struct{}, 1)
	done, err := c.Watch(ctx, func(e linuxnet.Event) {
		<-release
		switch {
		case e.Kind == linuxnet.LostEvent:
			lost++
		case e.Kind == linuxnet.RouteEvent && e.Dst == last:
			select { // it may come several times, as the route is made until it is heard of
			case found <- struct{}{}:
			default:
			}
		default:
			seen++
		}
	})
	must(t, err)
	const routes = 40_000
	commands := make([]string, routes)
	for i := range commands {
		commands[i] = fmt.Sprintf("route add blackhole 10.%d.%d.%d/32 proto %d", 16+i>>16, i>>8&255, i&255, protocol)
	}
	must(t, batch(ns, commands))
	close(release)
	// The kernel keeps nothing more for a socket that has overflowed until it has been read empty, so this is repeated.
	again := linuxnet.Route{Dst: last, Blackhole: true, Metric: 7, Protocol: protocol}
	for heard := false; !heard; {
		must(t, c.AddRoute(again))
		select {
		case <-found:
			heard = true
		case <-ctx.Done():
			t.Fatal("nothing is heard after an overrun")
		case <-time.After(50 * time.Millisecond):
			must(t, c.DeleteRoute(again))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the watch ended: %v", err)
	}
	if lost == 0 || seen >= routes {
		t.Errorf("%d of %d events were seen, and %d times it was told that some were lost", seen, routes, lost)
	}
	t.Logf("%d of %d events were seen before and after %d losses", seen, routes, lost)
}

// TestDumpsWhileRoutesChange reads routes while somebody else changes them as fast as the kernel lets him, so that dumps
// are interrupted. What stays must be in each, and none may fail for good.
func TestDumpsWhileRoutesChange(t *testing.T) {
	ns := netnstest.New(t)
	c := open(t, ns)
	var commands []string
	for i := range 3000 { // several messages of a dump
		commands = append(commands, fmt.Sprintf("route add blackhole 10.1.%d.%d/32 proto %d", i>>8, i&255, protocol))
	}
	must(t, batch(ns, commands))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	changes := 0
	wg.Go(func() {
		other, err := linuxnet.Open(ns)
		if err != nil {
			t.Error(err)
			return
		}
		defer other.Close()
		r := linuxnet.Route{Dst: netip.MustParsePrefix("10.200.0.0/24"), Blackhole: true, Protocol: 99}
		for ; ctx.Err() == nil; changes++ {
			if err := errors.Join(other.AddRoute(r), other.DeleteRoute(r)); err != nil {
				t.Error(err)
				return
			}
			// A world that never stands still can't be read; one that moves all the time can.
			<-time.After(2 * time.Millisecond)
		}
	})
	for i := range 50 {
		rs, err := c.Routes(protocol)
		if err != nil {
			t.Fatalf("dump %d: %v", i, err)
		}
		if len(rs) != 3000 {
			t.Fatalf("dump %d has %d routes, want 3000", i, len(rs))
		}
	}
	cancel()
	wg.Wait()
	t.Logf("50 dumps of 3000 routes, %d changes meanwhile", changes)
}
