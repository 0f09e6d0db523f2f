package store

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/storage/mvcc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
)

// What a node may do to a block:
//
//	its own, or nobody's    anything, but give or take an address of another node, or hand it to another node
//	another node's          give back its own addresses; and, if the operator lets nodes share blocks, take free ones for
//	                        itself, and remove the block when it has been empty for a while
//
// The operator lets nodes share by an IPAMConfiguration that says strictAffinity: false. Without one they don't.

// minReclaimAge is package ipam's MinReclaimAge.
const minReclaimAge = time.Minute

var nameOfPrefix = strings.NewReplacer(".", "-", ":", "-", "/", "-")

// blockName is what the IPAMBlock of a prefix is called: see package ipam.
func blockName(p netip.Prefix) string {
	name := nameOfPrefix.Replace(p.String())
	if name[0] == '-' {
		name = "0" + name
	}
	return name
}

// sharing is what the IPAMConfiguration says.
type sharing struct {
	allowed  bool
	cooldown time.Duration
}

// sharing reads it; what can't be read allows nothing.
func (g *guard) sharing(ctx context.Context) sharing {
	key := dataPrefix + "IPAMConfiguration//" + api.IPAMConfigurationName
	r, err := g.kv.Range(ctx, []byte(key), nil, mvcc.RangeOptions{})
	if err != nil || len(r.KVs) == 0 {
		return sharing{}
	}
	o, problems, err := api.DecodeStored("IPAMConfiguration", r.KVs[0].Value)
	c, ok := o.(*api.IPAMConfiguration)
	if err != nil || !ok || len(problems) > 0 {
		return sharing{}
	}
	return sharing{!c.Spec.StrictAffinity, time.Duration(c.Spec.IPCooldownSeconds) * time.Second}
}

// slot is one address of a block.
type slot struct {
	handle   string
	owner    api.Owner
	seq      uint64
	released *metav1.Time // it cools down
	held     bool         // somebody has it
}

func (s slot) same(o slot) bool {
	if s.held != o.held || (s.released == nil) != (o.released == nil) || s.released != nil && !s.released.Equal(o.released) {
		return false
	}
	return !s.held || s.handle == o.handle && s.owner == o.owner && s.seq == o.seq
}

// slotOf reads an ordinal; a block that was decoded has no index that is out of range.
func slotOf(b *api.IPAMBlockSpec, i int) slot {
	at := b.Allocations[i]
	if at == api.Free {
		return slot{}
	}
	a := b.Attributes[at]
	if a.ReleasedAt != nil {
		return slot{released: a.ReleasedAt}
	}
	return slot{handle: a.HandleID, owner: api.OwnerOf(a.Secondary, b.Affinity), held: true,
		seq: b.SequenceNumberForAllocation[strconv.Itoa(i)]}
}

// block judges a write of a block.
func (t *trial) block(w *intent) error {
	old, _ := w.old.(*api.IPAMBlock)
	now, _ := w.new.(*api.IPAMBlock)
	var err error
	switch {
	case old == nil && now == nil:
	case now == nil:
		err = t.removeBlock(&old.Spec)
	case old == nil:
		err = t.makeBlock(w.name, &now.Spec)
	default:
		err = t.changeBlock(old, now)
	}
	if err != nil {
		return refuse("node %s may not write %s: %v", t.node, w, err)
	}
	return nil
}

// mine says whether a node may rule over a block with that affinity.
func (t *trial) mine(affinity string) bool { return affinity == "" || affinity == "host:"+t.node }

func another(affinity string) error {
	return fmt.Errorf("it is that of %s", strings.Replace(affinity, "host:", "node ", 1))
}

const howToShare = "unless an IPAMConfiguration says strictAffinity: false (tortie ipam configure --strict-affinity=false)"

func (t *trial) makeBlock(name string, s *api.IPAMBlockSpec) error {
	p, err := api.ParsePrefix(s.CIDR)
	if err != nil || blockName(p) != name {
		return fmt.Errorf("it says that it is %s", s.CIDR)
	}
	if !t.mine(s.Affinity) {
		return another(s.Affinity)
	}
	for i := range s.Allocations {
		if at := slotOf(s, i); at.held && at.owner.Node != t.node {
			return fmt.Errorf("it gives an address to node %q", at.owner.Node)
		}
	}
	return nil
}

func (t *trial) removeBlock(s *api.IPAMBlockSpec) error {
	share := sharing{allowed: true}
	if !t.mine(s.Affinity) {
		share = t.g.sharing(t.ctx)
		if !share.allowed || !strings.HasPrefix(s.Affinity, "host:") {
			return fmt.Errorf("%w, which others leave alone even if it is empty, %s", another(s.Affinity), howToShare)
		}
		if at := s.AffinityClaimTime; at != nil && t.g.now().Sub(at.Time) < minReclaimAge {
			return fmt.Errorf("%w, which has not had it for long", another(s.Affinity))
		}
	}
	for i := range s.Allocations {
		at := slotOf(s, i)
		switch {
		case at.held && (at.owner.Node != t.node || !t.mine(s.Affinity)):
			return fmt.Errorf("node %q has an address of it", at.owner.Node)
		case at.released != nil && !t.mine(s.Affinity) && t.g.now().Sub(at.released.Time) < share.cooldown:
			return fmt.Errorf("an address of it cools down")
		}
	}
	return nil
}

func (t *trial) changeBlock(old, now *api.IPAMBlock) error {
	o, n := &old.Spec, &now.Spec
	if o.CIDR != n.CIDR || old.UID != now.UID || len(o.Allocations) != len(n.Allocations) {
		return fmt.Errorf("it becomes another one")
	}
	foreign := !t.mine(o.Affinity)
	var share sharing
	if foreign {
		if err := t.keepForeign(old, now); err != nil {
			return err
		}
		share = t.g.sharing(t.ctx)
	} else if !t.mine(n.Affinity) {
		return fmt.Errorf("it hands it to %s", n.Affinity)
	}
	for i := range o.Allocations {
		a, b := slotOf(o, i), slotOf(n, i)
		if a.same(b) {
			continue
		}
		if err := t.changeSlot(o, a, b, foreign, share); err != nil {
			return fmt.Errorf("address %d of it: %w", i, err)
		}
	}
	return nil
}

// keepForeign keeps what is another node's of its block.
func (t *trial) keepForeign(old, now *api.IPAMBlock) error {
	o, n := &old.Spec, &now.Spec
	claimed := o.AffinityClaimTime.Equal(n.AffinityClaimTime)
	switch {
	case o.Affinity != n.Affinity || !claimed || o.StrictAffinity != n.StrictAffinity || o.Deleted != n.Deleted:
		return another(o.Affinity)
	case n.SequenceNumber != o.SequenceNumber+1:
		return fmt.Errorf("its sequence number goes from %d to %d", o.SequenceNumber, n.SequenceNumber)
	case len(n.Attributes) > len(n.Allocations):
		return fmt.Errorf("it has more attributes than addresses")
	case !maps.Equal(old.Labels, now.Labels) || !maps.Equal(old.Annotations, now.Annotations):
		return fmt.Errorf("its labels and annotations are not for other nodes")
	}
	return nil
}

// changeSlot judges what becomes of an address.
func (t *trial) changeSlot(block *api.IPAMBlockSpec, a, b slot, foreign bool, share sharing) error {
	switch {
	case a.held && a.owner.Node != t.node && a.owner.Node != "":
		return fmt.Errorf("node %s has it", a.owner.Node)
	case a.held && foreign && a.owner.Node != t.node:
		return another(block.Affinity)
	case b.held && b.owner.Node != t.node:
		return fmt.Errorf("it is given to node %q", b.owner.Node)
	case !foreign:
		return nil
	case a.held: // given back, or renewed
		return nil
	case b.held && !share.allowed:
		return fmt.Errorf("%w, of which others take none, %s", another(block.Affinity), howToShare)
	case b.held && a.released != nil && t.g.now().Sub(a.released.Time) < share.cooldown:
		return fmt.Errorf("it cools down")
	case b.held:
		return nil
	case a.released != nil && b.released == nil && t.g.now().Sub(a.released.Time) >= share.cooldown:
		return nil // it has cooled down
	}
	return another(block.Affinity)
}
