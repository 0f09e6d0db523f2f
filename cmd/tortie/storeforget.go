//go:build !noembed

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/ipam"
)

// forgotten is what was removed of a node.
type forgotten struct {
	Endpoints, Addresses, Blocks int
	Left                         []string // blocks that other nodes have addresses of
}

// forgetNode removes what the store holds of a node that can't write any more. It may be run again.
func forgetNode(ctx context.Context, s datastore.Store, node string) (forgotten, error) {
	var gone forgotten
	endpoints, err := s.List(ctx, "WorkloadEndpoint", "")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return gone, err
	}
	for _, o := range endpoints {
		if w, ok := o.(*api.WorkloadEndpoint); ok && w.Spec.Node == node {
			if err := removed(s.Delete(ctx, api.KeyOf(o), o.GetResourceVersion())); err != nil {
				return gone, err
			}
			gone.Endpoints++
		}
	}
	if gone.Addresses, err = releaseOf(ctx, s, node); err != nil {
		return gone, fmt.Errorf("releasing its addresses: %w", err)
	}
	if err := removeBlocks(ctx, s, node, &gone); err != nil {
		return gone, fmt.Errorf("removing its blocks: %w", err)
	}
	return gone, removed(s.Delete(ctx, api.Key{Kind: "Node", Name: node}, ""))
}

// removed takes what is gone already for removed.
func removed(err error) error {
	if errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	return err
}

// releaseOf releases what workloads of a node have, in whoever's blocks.
func releaseOf(ctx context.Context, s datastore.Store, node string) (int, error) {
	blocks, err := s.List(ctx, "IPAMBlock", "")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return 0, err
	}
	var addrs []netip.Addr
	for _, o := range blocks {
		b, ok := o.(*api.IPAMBlock)
		if !ok {
			continue
		}
		for a, owner := range b.Owners() {
			if owner.Node == node {
				addrs = append(addrs, a)
			}
		}
	}
	if len(addrs) == 0 {
		return 0, nil
	}
	done, err := ipam.New(ipam.Config{Store: s, Node: node}).ReleaseAddrs(ctx, addrs...)
	return len(done), err
}

// removeBlocks removes the blocks of a node that nobody has an address of, with their affinities. Each goes by itself, if
// it still is what was read.
func removeBlocks(ctx context.Context, s datastore.Store, node string, gone *forgotten) error {
	affinities, err := s.List(ctx, "BlockAffinity", "")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return err
	}
	blocks, err := s.List(ctx, "IPAMBlock", "")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return err
	}
	of := map[string][]datastore.Op{} // by range: what removes the affinity
	for _, o := range affinities {
		if f, ok := o.(*api.BlockAffinity); ok && f.Spec.Node == node && f.Spec.Type != "virtual" {
			of[f.Spec.CIDR] = append(of[f.Spec.CIDR], datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(o), Revision: o.GetResourceVersion()})
		}
	}
	for _, o := range blocks {
		b, ok := o.(*api.IPAMBlock)
		if !ok || b.Spec.Affinity != "host:"+node {
			continue
		}
		ops := append(of[b.Spec.CIDR], datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(o), Revision: o.GetResourceVersion()})
		delete(of, b.Spec.CIDR)
		if inUse(b) {
			gone.Left = append(gone.Left, b.Spec.CIDR)
			continue
		}
		if err := s.Txn(ctx, ops...); err != nil {
			return err
		}
		gone.Blocks++
	}
	for _, ops := range of { // without a block
		if err := removed(s.Txn(ctx, ops...)); err != nil {
			return err
		}
	}
	return nil
}

func inUse(b *api.IPAMBlock) bool {
	for range b.Owners() {
		return true
	}
	return false
}
