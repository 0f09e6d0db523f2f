package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/backoff"
)

// nodeCheck is how often the Node resource is looked at without a reason.
const nodeCheck = time.Hour

// registrar keeps this node's Node resource at the node's addresses.
type registrar struct {
	name  string
	fixed []netip.Prefix // that the operator has said
	store func() (datastore.Store, error)
	find  func() ([]netip.Prefix, error)
	log   *slog.Logger
	kick  chan struct{}

	mu    sync.Mutex
	addrs []netip.Prefix
	err   error // of the last try
}

// Kick makes it look now. Never blocks.
func (r *registrar) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// status returns the node's addresses, and why the Node resource is not as it should be.
func (r *registrar) status() ([]netip.Prefix, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addrs, r.err
}

func (r *registrar) run(ctx context.Context) {
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	for ctx.Err() == nil {
		addrs, err := r.register(ctx)
		r.note(addrs, err)
		wait := nodeCheck
		if err != nil {
			wait = retry.Next()
		} else {
			retry.Reset()
		}
		t := time.NewTimer(wait)
		select {
		case <-r.kick:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (r *registrar) note(addrs []netip.Prefix, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && (r.err == nil || r.err.Error() != err.Error()) && !errors.Is(err, datastore.ErrUnavailable) {
		r.log.Warn("registering the node", "err", err)
	}
	if addrs != nil {
		r.addrs = addrs
	}
	r.err = err
}

// register writes the Node resource if it is not as it should be, and returns the node's addresses.
func (r *registrar) register(ctx context.Context) ([]netip.Prefix, error) {
	addrs := r.fixed
	if len(addrs) == 0 {
		var err error
		if addrs, err = r.find(); err != nil {
			return nil, err
		}
		if old, _ := r.status(); fmt.Sprint(old) != fmt.Sprint(addrs) {
			r.log.Info("node addresses found at the default route", "addresses", addrs)
		}
	}
	s, err := r.store()
	if err != nil {
		return addrs, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	want := nodeResource(r.name, addrs)
	got, err := s.Get(ctx, api.KeyOf(want))
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		if _, err := s.Create(ctx, want); err != nil {
			return addrs, fmt.Errorf("creating Node %s: %w", r.name, err)
		}
		r.log.Info("node registered", "node", r.name, "addresses", addrs)
		return addrs, nil
	case err != nil:
		return addrs, fmt.Errorf("reading Node %s: %w", r.name, err)
	}
	n, ok := got.(*api.Node)
	if !ok {
		return addrs, fmt.Errorf("reading Node %s: the store answers with a %T", r.name, got)
	}
	if n.Spec.BGP == nil {
		n.Spec.BGP = &api.NodeBGPSpec{}
	}
	if n.Spec.BGP.IPv4Address == want.Spec.BGP.IPv4Address && n.Spec.BGP.IPv6Address == want.Spec.BGP.IPv6Address {
		return addrs, nil
	}
	n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address = want.Spec.BGP.IPv4Address, want.Spec.BGP.IPv6Address
	if _, err := s.Update(ctx, n); err != nil {
		return addrs, fmt.Errorf("updating Node %s: %w", r.name, err)
	}
	r.log.Info("node addresses changed", "node", r.name, "addresses", addrs)
	return addrs, nil
}

func nodeResource(name string, addrs []netip.Prefix) *api.Node {
	n := &api.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       api.NodeSpec{BGP: &api.NodeBGPSpec{}},
	}
	for _, a := range addrs {
		if a.Addr().Is4() {
			n.Spec.BGP.IPv4Address = a.String()
		} else {
			n.Spec.BGP.IPv6Address = a.String()
		}
	}
	return n
}

// defaultRouteAddresses returns the addresses by which this host talks to far ones, with the prefix lengths of their
// interfaces. It asks the system's source address selection: connecting a UDP socket sends nothing.
func defaultRouteAddresses() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // documentation prefixes: nobody's
		c, err := net.Dial("udp", far)
		if err != nil {
			continue // no route of this family
		}
		at, ok := c.LocalAddr().(*net.UDPAddr)
		if err := c.Close(); err != nil || !ok {
			continue
		}
		p, err := prefixOf(at.AddrPort().Addr().Unmap())
		if err != nil {
			return nil, err
		}
		if p.IsValid() {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("this host has no default route to find its address by: set nodeAddresses")
	}
	return out, nil
}

// prefixOf returns a with the length of its network; zero if no interface has it, or it is of no use to other nodes.
func prefixOf(a netip.Addr) (netip.Prefix, error) {
	if a.IsLoopback() || a.IsLinkLocalUnicast() {
		return netip.Prefix{}, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("listing this host's addresses: %w", err)
	}
	for _, x := range all {
		n, ok := x.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if ones, _ := n.Mask.Size(); ok && ip.Unmap() == a {
			return netip.PrefixFrom(a, ones), nil
		}
	}
	return netip.Prefix{}, nil
}
