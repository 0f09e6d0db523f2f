package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
)

const (
	// cutGap is the least time from the end of one walk through the flow table to the begin of the next.
	cutGap = 200 * time.Millisecond
	// cutShare bounds what walks take of the time: a long one is followed by a rest of so many times its length.
	cutShare = 4
	// cutRetry is how long after a failed walk the next one comes.
	cutRetry = 5 * time.Second
)

// cutter deletes the flows that a changed State no longer allows, if the State says so (Node.CutEstablished). Apply does
// not wait for it: a goroutine walks through the flow table, and what changes meanwhile is one more walk.
//
// It judges each flow by the direction in which it was opened. Once the entry is gone the flow's packets are judged by
// themselves, as if they opened a flow. That is right for datagrams, and not enough for TCP: policy may allow the other
// end to open connections, and the kernel takes any packet for the middle of one. So TCP connections are noted in the sets
// "severed", ahead of connection tracking. The notes live in the kernel only, each with the flow that it is about: they
// outlast the agent, and the next walk takes back those that policy has come to allow.
type cutter struct {
	net    *linuxnet.Conn
	s      *socket
	log    *slog.Logger
	metric func(name string, delta float64)

	mu    sync.Mutex
	state *drivers.State // what Apply made, in maps of its own; nil = nothing is cut
	dirty bool           // an Apply has failed: it may have changed something nevertheless

	wake chan struct{}
	stop context.CancelFunc // nil before the first walk
	done chan struct{}
}

func newCutter(net *linuxnet.Conn, log *slog.Logger, metric func(string, float64)) (*cutter, error) {
	s, err := dialIn(net.Ns().FD())
	if err != nil {
		return nil, err
	}
	return &cutter{net: net, s: s, log: log, metric: metric, wake: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

// follow takes in what Apply has made. wrote says that it has changed something in the kernel.
func (c *cutter) follow(want *drivers.State, ch *drivers.Changes, wrote bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrote = wrote || c.dirty || c.state == nil
	c.dirty = false
	if !want.Node.CutEstablished {
		c.state = nil
		return
	}
	if c.state == nil || ch == nil {
		c.state = want.Clone()
	} else {
		c.state.Node = want.Node
		followMap(c.state.Endpoints, want.Endpoints, ch.Endpoints)
		followMap(c.state.Policies, want.Policies, ch.Policies)
		followMap(c.state.Sets, want.Sets, ch.Sets)
		followMap(c.state.Routes, want.Routes, ch.Routes)
		followMap(c.state.Peers, want.Peers, ch.Peers)
	}
	if !wrote {
		return
	}
	if c.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		c.stop = cancel
		go c.run(ctx)
	}
	c.nudge()
}

// failed says that an Apply has failed as a whole.
func (c *cutter) failed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = true
}

func followMap[K comparable, V, W any](have, want map[K]*V, touched map[K]W) {
	for k := range touched {
		if v := want[k]; v != nil {
			have[k] = v
		} else {
			delete(have, k)
		}
	}
}

func (c *cutter) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close ends the walk that is under way, and waits for its end.
func (c *cutter) close() {
	c.mu.Lock()
	stop := c.stop
	c.mu.Unlock()
	if stop != nil {
		stop()
		<-c.done
	}
	_ = c.s.close()
}

func (c *cutter) run(ctx context.Context) {
	defer close(c.done)
	told := ""
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		begin := time.Now()
		n, err := c.walk(ctx)
		rest := max(cutGap, cutShare*time.Since(begin))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if rest = max(rest, cutRetry); err.Error() != told {
				c.log.Error("cutting flows that policy no longer allows", "error", err)
			}
			told = err.Error()
			c.nudge()
		default:
			told = ""
		}
		if n > 0 {
			c.log.Info("cut flows that policy no longer allows", "flows", n)
			c.metric("flows_cut", float64(n))
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return
		}
	}
}

// walk cuts what is to be cut now. It returns how many flows it has cut.
func (c *cutter) walk(ctx context.Context) (int, error) {
	c.mu.Lock()
	if c.state == nil {
		c.mu.Unlock()
		return 0, nil
	}
	s := c.state.Clone()
	c.mu.Unlock()
	c.metric("flow_walks", 1)
	addrs, err := c.net.Addrs(0)
	if err != nil {
		return 0, fmt.Errorf("listing the host's addresses: %w", err)
	}
	var own []netip.Addr
	for _, a := range addrs {
		own = append(own, a.Prefix.Addr())
	}
	routes := &routeLookup{net: c.net}
	defer routes.close()
	j := newJudge(s, own, routes.iface)
	if err := errors.Join(c.review(j), routes.err); err != nil {
		return 0, err
	}
	var denied []entry
	err = c.s.eachFlow(func(e *entry) error {
		if j.denied(&e.flow) {
			denied = append(denied, e.clone())
		}
		return ctx.Err()
	})
	if err := errors.Join(err, routes.err); err != nil {
		return 0, err
	}
	if err := c.sever(denied); err != nil {
		return 0, err
	}
	return c.deleteAll(ctx, denied)
}

func (c *cutter) deleteAll(ctx context.Context, es []entry) (int, error) {
	n := 0
	for i := range es {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		gone, err := c.s.deleteFlow(&es[i])
		if err != nil {
			return n, err
		}
		if gone {
			n++
		}
	}
	return n, nil
}

// routeLookup asks the kernel for routes. Most walks have no need of it.
type routeLookup struct {
	net   *linuxnet.Conn
	h     *netlink.Handle
	names map[int]string
	err   error // the first one: then nothing that was said counts
}

func (r *routeLookup) close() {
	if r.h != nil {
		r.h.Close()
	}
}

func (r *routeLookup) open() error {
	if r.h != nil {
		return nil
	}
	links, err := r.net.Links()
	if err != nil {
		return err
	}
	r.names = map[int]string{}
	for _, l := range links {
		r.names[l.Index] = l.Name
	}
	return r.net.Ns().Do(func() (err error) {
		r.h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
}

// iface is a lookup.
func (r *routeLookup) iface(a netip.Addr) (string, bool) {
	if r.err == nil {
		r.err = r.open()
	}
	if r.err != nil {
		return "", false
	}
	rs, err := r.h.RouteGet(a.AsSlice())
	if err != nil || len(rs) != 1 {
		return "", false // unreachable, blackhole, prohibited
	}
	switch rs[0].Type {
	case unix.RTN_LOCAL:
		return "", true
	case unix.RTN_UNICAST:
		name := r.names[rs[0].LinkIndex]
		return name, name != ""
	}
	return "", false
}

// clone copies what belongs to the dump's buffer.
func (e *entry) clone() entry {
	c := *e
	c.tuple = append([]byte(nil), e.tuple...)
	return c
}
