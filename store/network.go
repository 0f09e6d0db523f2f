package store

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/tortie/tortie/store/join"
)

// network is who may use the store, beside root on its own host.
type network struct {
	client    *clientv3.Client // of the etcd in this process
	authority *authority
	registry  *registry
	access    *access
	conns     *conns
	life      time.Duration // of certificates
	addrs     []string      // host:port, for tokens; none if the store is not on the network
	log       *slog.Logger
	complain  *complaints
	now       func() time.Time
}

// openNetwork switches authentication on and brings users and roles up to date. Nobody is served yet. Whatever it was
// interrupted at, the next start does it.
func openNetwork(ctx context.Context, srv *etcdserver.EtcdServer, cfg Config) (*network, error) {
	n := &network{client: v3client.New(srv), life: cfg.CertLife, log: cfg.Log, complain: newComplaints(cfg.Log), now: time.Now}
	n.access = &access{auth: n.client.Auth, state: srv.AuthStore()}
	n.registry = &registry{kv: n.client.KV, now: n.now}
	n.conns = newConns(n.now)
	if err := n.access.enable(ctx); err != nil {
		return nil, err
	}
	var err error
	if n.addrs, err = advertised(cfg); err != nil {
		return nil, err
	}
	var names []string
	for _, a := range n.addrs {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return nil, err
		}
		names = append(names, host)
	}
	if n.authority, err = openAuthority(asRoot(ctx), n.client.KV, names); err != nil {
		return nil, err
	}
	members, err := n.registry.members(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading who has joined: %w", err)
	}
	return n, n.access.reconcile(ctx, members)
}

// advertised is where other hosts find the store: what the operator says, or else where it listens.
func advertised(cfg Config) ([]string, error) {
	if len(cfg.Advertise) > 0 {
		var out []string
		for _, a := range cfg.Advertise {
			at, err := parseAdvertise(a, cfg.Listen)
			if err != nil {
				return nil, err
			}
			out = append(out, at)
		}
		return out, nil
	}
	var out []string
	for _, l := range cfg.Listen {
		u, err := url.Parse(l)
		if err != nil || u.Scheme != "https" {
			continue
		}
		at, err := netip.ParseAddrPort(u.Host)
		if err != nil {
			return nil, err
		}
		if !at.Addr().IsUnspecified() {
			out = append(out, at.String())
			continue
		}
		all, err := hostAddrs(at.Addr())
		if err != nil {
			return nil, err
		}
		for _, a := range all {
			out = append(out, netip.AddrPortFrom(a, at.Port()).String())
		}
	}
	return slices.Compact(out), nil
}

// hostAddrs are this host's addresses that others may reach it by, for a listener on all of them.
func hostAddrs(any netip.Addr) ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing this host's addresses: %w", err)
	}
	var out []netip.Addr
	for _, x := range all {
		n, ok := x.(*net.IPNet)
		if !ok {
			continue
		}
		a, ok := netip.AddrFromSlice(n.IP)
		a = a.Unmap()
		if ok && !a.IsLoopback() && !a.IsLinkLocalUnicast() && (any.Is6() || a.Is4()) {
			out = append(out, a)
		}
	}
	const most = 8 // a host with more has bridges and tunnels among them: the operator says which count
	return out[:min(len(out), most)], nil
}

// parseAdvertise reads host or host:port; the port is that of the first network listener unless it is said.
func parseAdvertise(s string, listen []string) (string, error) {
	if host, port, err := net.SplitHostPort(s); err == nil && host != "" && port != "" {
		return s, nil
	}
	for _, l := range listen {
		if u, err := url.Parse(l); err == nil && u.Scheme == "https" {
			return net.JoinHostPort(s, u.Port()), nil
		}
	}
	return "", fmt.Errorf("advertise %q: the store does not listen on the network: --listen https://address:port", s)
}

// expel ends a membership: its certificates count no more, its user is gone, its connections are cut.
func (n *network) expel(ctx context.Context, who identity) (Expelled, error) {
	var out Expelled
	var err error
	if out.Revoked, err = n.registry.remove(ctx, who); err != nil {
		return out, fmt.Errorf("%s: %w", who.label(), err)
	}
	if err := n.access.withdraw(ctx, who.String()); err != nil {
		return out, err
	}
	out.Cut = n.conns.cut(who)
	n.conns.forget(who)
	n.log.Info("expelled", "name", who.label(), "connections_cut", out.Cut, "tokens_revoked", len(out.Revoked))
	return out, nil
}

// token makes a token that a host can use as it is.
func (n *network) token(ctx context.Context, q TokenRequest) (NewToken, error) {
	if len(n.addrs) == 0 {
		return NewToken{}, fmt.Errorf("the store is only on its Unix socket: nobody could join. " +
			"Start it with --listen https://ADDRESS:2379")
	}
	rec, t, err := n.registry.newToken(ctx, q)
	if err != nil {
		return NewToken{}, err
	}
	t.Role, t.Addrs, t.CA = rec.Role, n.addrs, join.FingerprintOf(n.authority.cert)
	rec.Hash = nil
	n.log.Info("token made", "token", rec.ID, "role", rec.Role, "uses", rec.Uses, "expires", rec.Expires)
	return NewToken{Token: rec, Text: t.String(), CA: t.CA.String(), Addrs: t.Addrs}, nil
}
