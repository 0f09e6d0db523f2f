package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/ipam"
)

// uses knows which addresses somebody uses.
//
// A workload's address is in use while its WorkloadEndpoint has it. In Kubernetes that is made of the pod and the blocks,
// joined by the pod's UID: a pod that has finished, or another one of the same name, uses nothing. What no object here
// speaks of is taken for used: addresses that have neither a pod nor a purpose, while there is a node that they are on,
// and those of blocks that belong to no host (a load balancer's).
type uses struct {
	w     *world
	store datastore.Store
	pods  pods // nil outside of Kubernetes
}

// pods reads pods, past every cache.
type pods interface {
	// lives says whether there is a pod that is whose an address is, and that has not finished.
	lives(ctx context.Context, o api.Owner) (bool, error)
}

// list is what the watch knows of; see ipam.AuditOptions.
func (u *uses) list(context.Context) ([]ipam.Use, error) {
	endpoints, err := listed[*api.WorkloadEndpoint](u.w, "WorkloadEndpoint")
	if err != nil {
		return nil, err // one that can't be read might use any
	}
	nodes, err := listed[*api.Node](u.w, "Node")
	if err != nil {
		return nil, err
	}
	blocks, err := listed[*api.IPAMBlock](u.w, "IPAMBlock")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return nil, err
	}
	var out []ipam.Use
	for _, e := range endpoints {
		for _, a := range e.Spec.IPNetworks {
			if p, err := api.ParsePrefix(a); err == nil {
				out = append(out, ipam.Use{Addr: p.Addr(), By: api.KeyOf(e).String()})
			}
		}
	}
	there := map[string]bool{}
	for _, n := range nodes {
		there[n.Name] = true
		for _, a := range tunnelAddresses(n) {
			out = append(out, ipam.Use{Addr: a, By: api.KeyOf(n).String()})
		}
	}
	for _, b := range blocks {
		for a, o := range b.Owners() {
			if by := u.unspoken(b, o, there); by != "" {
				out = append(out, ipam.Use{Addr: a, By: by})
			}
		}
	}
	return out, nil
}

// unspoken says who may use an address that no object speaks of; "" for those of which one would.
func (u *uses) unspoken(b *api.IPAMBlock, o api.Owner, nodes map[string]bool) string {
	switch {
	case !isHost(b):
		return b.Spec.Affinity
	case u.pods != nil && o.Pod == "" && o.Type == "" && nodes[o.Node]:
		return "node " + o.Node
	}
	return ""
}

func isHost(b *api.IPAMBlock) bool {
	return b.Spec.Affinity == "" || len(b.Spec.Affinity) > 5 && b.Spec.Affinity[:5] == "host:"
}

func tunnelAddresses(n *api.Node) []netip.Addr {
	texts := []string{n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr}
	if n.Spec.BGP != nil {
		texts = append(texts, n.Spec.BGP.IPv4IPIPTunnelAddr)
	}
	if n.Spec.Wireguard != nil {
		texts = append(texts, n.Spec.Wireguard.InterfaceIPv4Address, n.Spec.Wireguard.InterfaceIPv6Address)
	}
	return addresses(texts...)
}

// addresses reads addresses, with or without the length of their networks; "" and what is none is left out.
func addresses(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			out = append(out, p.Addr().Unmap())
		} else if a, err := netip.ParseAddr(t); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// confirmer looks at the store itself. One is good for one collection.
type confirmer struct {
	*uses
	used map[netip.Addr]bool // by WorkloadEndpoints, outside of Kubernetes; nil = not read yet
}

// unused says whether nobody uses an address that collection is about to take back; see ipam.CollectOptions.
func (c *confirmer) unused(ctx context.Context, l ipam.Allocation) (bool, error) {
	if l.Owner.Type != "" {
		return c.noTunnel(ctx, l)
	}
	if c.pods != nil {
		switch {
		case l.Owner.Pod == "" && l.Owner.Node == "":
			return true, nil // no object could speak for it
		case l.Owner.Pod == "":
			n, err := c.node(ctx, l.Owner.Node)
			return err == nil && n == nil, err
		}
		lives, err := c.pods.lives(ctx, l.Owner)
		return err == nil && !lives, err
	}
	if c.used == nil {
		if err := c.readEndpoints(ctx); err != nil {
			return false, err
		}
	}
	return !c.used[l.Addr], nil
}

// node reads a node; nil if there is none.
func (c *confirmer) node(ctx context.Context, name string) (*api.Node, error) {
	o, err := c.store.Get(ctx, api.Key{Kind: "Node", Name: name})
	if errors.Is(err, datastore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n, ok := o.(*api.Node)
	if !ok {
		return nil, fmt.Errorf("node %s is a %s", name, o.GetKind())
	}
	return n, nil
}

func (c *confirmer) noTunnel(ctx context.Context, l ipam.Allocation) (bool, error) {
	n, err := c.node(ctx, l.Owner.Node)
	if err != nil || n == nil {
		return err == nil, err
	}
	for _, a := range tunnelAddresses(n) {
		if a == l.Addr {
			return false, nil
		}
	}
	return true, nil
}

func (c *confirmer) readEndpoints(ctx context.Context) error {
	objects, err := c.store.List(ctx, "WorkloadEndpoint", "")
	if err != nil {
		return err
	}
	c.used = map[netip.Addr]bool{}
	for _, o := range objects {
		if e, ok := o.(*api.WorkloadEndpoint); ok {
			for _, a := range addresses(e.Spec.IPNetworks...) {
				c.used[a] = true
			}
		}
	}
	return nil
}
