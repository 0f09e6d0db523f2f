package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/backoff"
)

const (
	// nodeCheck is how often the Node resource is looked at without a reason.
	nodeCheck = time.Hour
	// hostWait is how long the first look waits for the host's interfaces, so that all is written in one go.
	hostWait = 5 * time.Second
)

// registrar keeps this node's Node resource at the node's addresses, and at what others need to know to compute its State.
type registrar struct {
	name  string
	fixed []netip.Prefix // that the operator has said
	info  func(host []drivers.HostIface) calcgraph.NodeInfo
	store func() (datastore.Store, error)
	find  func() ([]netip.Prefix, error)
	// prefix returns an address with the length of its network; zero if this host has no such address.
	prefix func(netip.Addr) (netip.Prefix, error)
	kube   *kubeNode // nil = the Node is the agent's own to make
	log    *slog.Logger
	kick   chan struct{}

	mu    sync.Mutex
	addrs []netip.Prefix
	err   error               // of the last try
	told  *calcgraph.NodeInfo // what there is to tell; nil = the host's interfaces are not known yet
}

// saw takes in the host's interfaces. It makes the registrar look if there is something else to tell of them: workloads'
// come and go all the time.
func (r *registrar) saw(host []drivers.HostIface) {
	info := r.info(host)
	r.mu.Lock()
	same := r.told != nil && reflect.DeepEqual(*r.told, info)
	r.told = &info
	r.mu.Unlock()
	if !same {
		r.Kick()
	}
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
	for start := time.Now(); !r.knowsHost() && time.Since(start) < hostWait && ctx.Err() == nil; {
		r.sleep(ctx, hostWait-time.Since(start))
	}
	for ctx.Err() == nil {
		addrs, err := r.register(ctx)
		r.note(addrs, err)
		wait := nodeCheck
		switch {
		case err != nil:
			wait = retry.Next()
		case r.kube != nil && !r.kube.settled():
			wait = readyCheck
		default:
			retry.Reset()
		}
		r.sleep(ctx, wait)
	}
}

// sleep waits for a Kick, but no longer than d.
func (r *registrar) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.kick:
	case <-t.C:
	case <-ctx.Done():
	}
}

func (r *registrar) knowsHost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told != nil
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
	if r.kube != nil {
		return r.kube.register(ctx, r)
	}
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
	if _, err := r.tell(want); err != nil {
		return addrs, err
	}
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
	moved := n.Spec.BGP.IPv4Address != want.Spec.BGP.IPv4Address || n.Spec.BGP.IPv6Address != want.Spec.BGP.IPv6Address
	if news, err := r.tell(n); !moved && (!news || err != nil) {
		return addrs, err
	}
	n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address = want.Spec.BGP.IPv4Address, want.Spec.BGP.IPv6Address
	if _, err := s.Update(ctx, n); err != nil {
		return addrs, fmt.Errorf("updating Node %s: %w", r.name, err)
	}
	if moved {
		r.log.Info("node addresses changed", "node", r.name, "addresses", addrs)
	}
	return addrs, nil
}

// tell puts at n what others need to know, and reports whether that is news.
func (r *registrar) tell(n *api.Node) (news bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		return false, nil
	}
	return r.told.WriteTo(n)
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
