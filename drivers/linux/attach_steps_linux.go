package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/faultpoint"
	"github.com/tortie/tortie/internal/linuxnet"
)

// addPair is where tests have the process die: the pair is there, and nobody can see yet whose it is.
var addPair = faultpoint.New("add:pair")

// link is the link between one workload and the node while it is made or looked at.
type link struct {
	a        drivers.Attachment // complete: MAC and MTU are set
	host, in *linuxnet.Conn
	h, w     linuxnet.Link // the node's end and the workload's, once the pair is known to be there
	// second says, for IPv4 and IPv6, that the workload has a default route by another interface. This one then has a
	// routing table of its own, for packets from its addresses: answers leave by the way that questions came.
	second4, second6 bool
}

func (l *link) close() {
	l.in.Close()
	l.in.Ns().Close()
}

// findPair looks for both ends and remembers them; false = there is neither. Anything else than both ends of one pair
// or nothing is an error.
func (l *link) findPair() (bool, error) {
	h, herr := l.host.Link(l.a.HostIface)
	w, werr := l.in.Link(l.a.ID.Interface)
	noHost, noIn := errors.Is(herr, os.ErrNotExist), errors.Is(werr, os.ErrNotExist)
	switch {
	case noHost && noIn:
		return false, nil
	case herr != nil && !noHost:
		return false, herr
	case werr != nil && !noIn:
		return false, werr
	case noHost:
		return false, fmt.Errorf("the sandbox has an interface %s (%s) already", w.Name, w.Type)
	}
	id, err := l.host.NsID(l.in.Ns())
	if err != nil {
		return false, err
	}
	if noIn || h.Type != "veth" || h.Parent != w.Index || h.ParentNs != id || w.Parent != h.Index {
		return false, notOurs(h)
	}
	l.h, l.w = h, w
	return true, nil
}

// makePair makes the pair unless it is there, and says whether it did. An old link of the same workload to another
// namespace is replaced.
func (l *link) makePair() (bool, error) {
	paired, err := l.findPair()
	if err != nil {
		h, herr := l.host.Link(l.a.HostIface)
		if herr != nil || h.Type != "veth" || h.Alias != alias(l.a.ID) {
			return false, err
		}
		if err := l.host.DeleteLink(h.Name); err != nil {
			return false, err
		}
		if paired, err = l.findPair(); err != nil {
			return false, err
		}
	}
	if paired {
		return false, nil
	}
	// The kernel makes both ends at once, each in its namespace under its name, or nothing.
	err = l.host.AddVeth(linuxnet.Veth{
		Name: l.a.HostIface, MAC: hostMAC, Peer: l.a.ID.Interface, PeerMAC: l.a.MAC, PeerNs: l.in.Ns(), MTU: l.a.MTU,
	})
	if err != nil {
		return false, err
	}
	addPair.Hit()
	if _, err = l.findPair(); err != nil {
		return true, err
	}
	return true, nil
}

// mend goes through the steps and mends what differs.
func (l *link) mend(ctx context.Context) error {
	if err := l.survey(); err != nil {
		return err
	}
	for _, s := range l.steps() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		diff := "?"
		if !s.compares {
			diff, err = s.diff()
		}
		if err == nil && diff != "" {
			err = s.mend()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// step is one thing that a link must have.
type step struct {
	what string
	diff func() (string, error) // how it differs from what it should be; "" = it does not
	mend func() error
	// compares says that mend looks at what is there by itself, and leaves alone what is right.
	compares bool
	lax      bool // plugins that are chained behind Attach may change it: no matter to Check
}

// survey finds out whether the workload has default routes by other interfaces.
func (l *link) survey() error {
	rs, err := l.in.Routes(0)
	if err != nil {
		return err
	}
	const loopback = 1 // where the kernel hangs IPv6 routes that lead nowhere
	for _, r := range rs {
		if r.Dst.Bits() == 0 && r.Link > loopback && r.Link != l.w.Index {
			l.second4 = l.second4 || r.Dst.Addr().Is4()
			l.second6 = l.second6 || r.Dst.Addr().Is6()
		}
	}
	return nil
}

// steps lists everything but the pair itself, in the order in which it is to be made.
func (l *link) steps() []step {
	host, in, h, w := l.host, l.in, l.h, l.w
	plain := func(what string, diff func() (string, error), mend func() error) step {
		return step{what: what, diff: diff, mend: mend}
	}
	// portmap sets it, so that a port of 127.0.0.1 leads to a workload.
	localnet := sysctls(host, conf("ipv4", h.Name, "route_localnet=0"))
	localnet.lax = true
	steps := []step{
		plain("alias of "+h.Name, same(h.Alias, alias(l.a.ID)), func() error { return host.SetAlias(h.Index, alias(l.a.ID)) }),
		sysctls(host, l.hostSysctls()),
		localnet,
		sysctls(in, l.inSysctls()),
		plain("MAC of "+h.Name, same(fmtMAC(h.MAC), fmtMAC(hostMAC)), func() error { return host.SetMAC(h.Index, hostMAC) }),
		plain("MTU of "+h.Name, same(h.MTU, l.a.MTU), func() error { return host.SetMTU(h.Index, l.a.MTU) }),
		plain("MAC of "+w.Name, same(fmtMAC(w.MAC), fmtMAC(l.a.MAC)), func() error { return in.SetMAC(w.Index, l.a.MAC) }),
		plain("MTU of "+w.Name, same(w.MTU, l.a.MTU), func() error { return in.SetMTU(w.Index, l.a.MTU) }),
		plain(h.Name+" being up", same(h.Up, true), func() error { return host.SetUp(h.Index) }),
		plain(w.Name+" being up", same(w.Up, true), func() error { return in.SetUp(w.Index) }),
		addresses(host, h, l.hostAddrs()),
		addresses(in, w, l.inAddrs()),
	}
	for _, gw := range l.gateways() {
		n := linuxnet.Neigh{Link: w.Index, Addr: gw, MAC: hostMAC}
		steps = append(steps, plain("neighbour "+gw.String(), func() (string, error) {
			return missing(n, func() ([]linuxnet.Neigh, error) { return in.Neighs(w.Index) })
		}, func() error { return in.SetNeigh(n) }))
	}
	for _, r := range l.routes() {
		steps = append(steps, plain("route "+r.Dst.String(), func() (string, error) {
			return missing(r, func() ([]linuxnet.Route, error) { return in.RoutesOf(r.Table, r.Protocol) })
		}, func() error { return in.AddRoute(r) }))
	}
	for _, r := range l.rules() {
		steps = append(steps, plain(fmt.Sprintf("rule to table %d", r.Table), func() (string, error) {
			return missing(r, func() ([]linuxnet.Rule, error) { return in.Rules(r.Priority) })
		}, func() error { return in.AddRule(r) }))
	}
	return steps
}

func (l *link) has(v6 bool) bool {
	return slices.ContainsFunc(l.a.Addrs, func(a netip.Addr) bool { return a.Is6() == v6 })
}

// gateways are the next hops of the workload's default routes.
func (l *link) gateways() []netip.Addr {
	var gs []netip.Addr
	if l.has(false) {
		gs = append(gs, gateway4)
	}
	if l.has(true) {
		gs = append(gs, gateway6)
	}
	return gs
}

// hostSysctls are for the node's end. Whether a source may be used is for the policy rules to say, not for rp_filter:
// its answer changes with the routes.
func (l *link) hostSysctls() []linuxnet.Sysctl {
	s := conf("ipv4", l.h.Name, "forwarding=1", "rp_filter=0", "accept_local=0", "proxy_arp=0",
		"accept_redirects=0", "send_redirects=0", "accept_source_route=0")
	if l.has(true) {
		// No address but the gateway's: fe80::1 alone.
		s = append(s, conf("ipv6", l.h.Name, "disable_ipv6=0", "addr_gen_mode=1", "forwarding=1", "accept_ra=0",
			"accept_redirects=0", "accept_source_route=0", "accept_dad=0", "proxy_ndp=0")...)
	}
	return s
}

// inSysctls are for the workload's end: many runtimes turn IPv6 off in a new namespace.
func (l *link) inSysctls() []linuxnet.Sysctl {
	if !l.has(true) {
		return nil
	}
	return conf("ipv6", l.w.Name, "disable_ipv6=0", "accept_ra=0", "accept_dad=0")
}

func conf(family, iface string, settings ...string) []linuxnet.Sysctl {
	out := make([]linuxnet.Sysctl, len(settings))
	for i, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		out[i] = linuxnet.Sysctl{Path: family + "/conf/" + iface + "/" + name, Value: value}
	}
	return out
}

func (l *link) hostAddrs() []linuxnet.Addr {
	var as []linuxnet.Addr
	if l.has(false) {
		as = append(as, linuxnet.Addr{Link: l.h.Index, Prefix: netip.PrefixFrom(gateway4, 32), Scope: linuxnet.ScopeHost})
	}
	if l.has(true) {
		as = append(as, linuxnet.Addr{Link: l.h.Index, Prefix: netip.PrefixFrom(gateway6, 64), Scope: linuxnet.ScopeLink})
	}
	return as
}

func (l *link) inAddrs() []linuxnet.Addr {
	as := make([]linuxnet.Addr, len(l.a.Addrs))
	for i, a := range l.a.Addrs {
		as[i] = linuxnet.Addr{Link: l.w.Index, Prefix: netip.PrefixFrom(a, a.BitLen())}
	}
	return as
}

// routes are the workload's. They are marked as an administrator's: a workload may run a Tortie node of its own, which
// would sweep what bears our mark.
func (l *link) routes() []linuxnet.Route {
	const rtprotStatic, metric6 = 4, 1024
	var rs []linuxnet.Route
	if l.has(false) {
		rs = append(rs,
			linuxnet.Route{Dst: netip.PrefixFrom(gateway4, 32), Link: l.w.Index, Scope: linuxnet.ScopeLink, Protocol: rtprotStatic},
			linuxnet.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Link: l.w.Index, Via: gateway4, Protocol: rtprotStatic})
	}
	if l.has(true) {
		rs = append(rs, linuxnet.Route{
			Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Link: l.w.Index, Via: gateway6, Metric: metric6, Protocol: rtprotStatic,
		})
	}
	for i, r := range rs {
		if r.Dst.Addr().Is4() && l.second4 || r.Dst.Addr().Is6() && l.second6 {
			rs[i].Table = l.table()
		}
	}
	return rs
}

// table is the routing table of a workload's second interface: no other has it while the interface is there.
func (l *link) table() int { return tableBase + l.w.Index }

// rules send to that table what comes from the interface's addresses, or is meant for the interface by name.
func (l *link) rules() []linuxnet.Rule {
	var rs []linuxnet.Rule
	for _, v6 := range []bool{false, true} {
		if !l.has(v6) || !l.second4 && !v6 || !l.second6 && v6 {
			continue
		}
		for _, a := range l.a.Addrs {
			if a.Is6() == v6 {
				rs = append(rs, linuxnet.Rule{From: netip.PrefixFrom(a, a.BitLen()), V6: v6, Table: l.table(), Priority: rulePriority})
			}
		}
		rs = append(rs, linuxnet.Rule{OutName: l.w.Name, V6: v6, Table: l.table(), Priority: rulePriority})
	}
	return rs
}

// same is the diff of a value that is known already.
func same[T comparable](got, want T) func() (string, error) {
	return func() (string, error) {
		if got == want {
			return "", nil
		}
		return fmt.Sprintf("is %v, should be %v", got, want), nil
	}
}

func missing[T comparable](want T, list func() ([]T, error)) (string, error) {
	got, err := list()
	if err != nil || slices.Contains(got, want) {
		return "", err
	}
	return "is missing", nil
}

func sysctls(c *linuxnet.Conn, want []linuxnet.Sysctl) step {
	explain := func(err error) error {
		if errors.Is(err, os.ErrNotExist) && !c.HasIPv6() {
			return linuxnet.ErrNoIPv6
		}
		return err
	}
	return step{
		what: "sysctls",
		diff: func() (string, error) {
			diff, err := c.DiffSysctls(want)
			return join(diff), explain(err)
		},
		mend:     func() error { return explain(c.SetSysctls(want)) },
		compares: true,
	}
}

// addresses is the step that gives an interface exactly want, link-local addresses that the kernel chose aside.
func addresses(c *linuxnet.Conn, on linuxnet.Link, want []linuxnet.Addr) step {
	compare := func() (add, del []linuxnet.Addr, err error) {
		got, err := c.Addrs(on.Index)
		if err != nil {
			return nil, nil, err
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				add = append(add, w)
			}
		}
		for _, g := range got {
			if !slices.Contains(want, g) && !g.Prefix.Addr().IsLinkLocalUnicast() {
				del = append(del, g)
			}
		}
		return add, del, nil
	}
	return step{
		what:     "addresses of " + on.Name,
		compares: true,
		diff: func() (string, error) {
			add, del, err := compare()
			var parts []string
			for _, a := range add {
				parts = append(parts, a.Prefix.String()+" is missing")
			}
			for _, a := range del {
				parts = append(parts, a.Prefix.String()+" should not be there")
			}
			return strings.Join(parts, ", "), err
		},
		mend: func() error {
			add, del, err := compare()
			for _, a := range del {
				err = errors.Join(err, c.DeleteAddr(a))
			}
			for _, a := range add {
				err = errors.Join(err, c.SetAddr(a))
			}
			return err
		},
	}
}

func fmtMAC(m drivers.MAC) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func join(ss []linuxnet.Sysctl) string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = s.String()
	}
	return strings.Join(out, " ")
}
