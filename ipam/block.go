package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/tortie/tortie/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// block is a range of addresses and who has them, as stored or as it will be. One that has been stored is not changed:
// edit makes a copy.
type block struct {
	obj    *api.IPAMBlock
	prefix netip.Prefix
}

func readBlock(o *api.IPAMBlock) (*block, error) {
	p, err := api.ParsePrefix(o.Spec.CIDR)
	if err != nil {
		return nil, fmt.Errorf("block %s: %w", o.Name, err)
	}
	if len(o.Spec.Allocations) != blockLen(p) {
		return nil, fmt.Errorf("block %s: %d allocations for %s", o.Name, len(o.Spec.Allocations), p)
	}
	return &block{obj: o, prefix: p}, nil
}

// newBlock makes a block whose addresses are all free, and that is nobody's.
func newBlock(p netip.Prefix) *block {
	o := &api.IPAMBlock{ObjectMeta: metav1.ObjectMeta{Name: blockName(p)}}
	o.Spec = api.IPAMBlockSpec{CIDR: p.String(), Attributes: []api.AllocationAttribute{}}
	for i := range blockLen(p) {
		o.Spec.Allocations = append(o.Spec.Allocations, api.Free)
		o.Spec.Unallocated = append(o.Spec.Unallocated, i)
	}
	return &block{obj: o, prefix: p}
}

// edit copies b for one more write.
func (b *block) edit() *block {
	o := *b.obj
	s := &o.Spec
	s.Allocations = slices.Clone(s.Allocations)
	s.Unallocated = slices.Clone(s.Unallocated)
	s.Attributes = slices.Clone(s.Attributes) // whose maps are replaced, never changed
	s.SequenceNumberForAllocation = maps.Clone(s.SequenceNumberForAllocation)
	s.SequenceNumber++
	return &block{obj: &o, prefix: b.prefix}
}

// attribute is that of an ordinal that is allocated or cools down; nil for a free one.
func (b *block) attribute(ordinal int) *api.AllocationAttribute {
	at := b.obj.Spec.Allocations[ordinal]
	if at == api.Free {
		return nil
	}
	return &b.obj.Spec.Attributes[at]
}

// handle is who holds an ordinal; ok is false if nobody does.
func (b *block) handle(ordinal int) (handle string, ok bool) {
	at := b.attribute(ordinal)
	if at == nil || at.ReleasedAt != nil {
		return "", false
	}
	return at.HandleID, true
}

func (b *block) owner(ordinal int) api.Owner {
	return api.OwnerOf(b.attribute(ordinal).Secondary, b.obj.Spec.Affinity)
}

// heldBy returns the ordinals that a handle holds.
func (b *block) heldBy(handle string) []int {
	var held []int
	for i := range b.obj.Spec.Allocations {
		if h, ok := b.handle(i); ok && h == handle {
			held = append(held, i)
		}
	}
	return held
}

// token names one allocation of an ordinal: numbers never repeat in a block, and a block that is made again has another
// uid, whatever clocks say.
func (b *block) token(ordinal int) string {
	return fmt.Sprintf("%s/%d", b.obj.UID, b.obj.Spec.SequenceNumberForAllocation[strconv.Itoa(ordinal)])
}

// stamp gives an allocation a new token. An old release then misses it, whoever sends it.
func (b *block) stamp(ordinal int) {
	s := &b.obj.Spec
	if s.SequenceNumberForAllocation == nil {
		s.SequenceNumberForAllocation = map[string]uint64{}
	}
	s.SequenceNumberForAllocation[strconv.Itoa(ordinal)] = s.SequenceNumber
}

// cooled says whether an address that was released may be given again. A release further in the future than the
// cooldown was stamped by a clock that has been set back since.
func cooled(released *metav1.Time, now time.Time, cooldown time.Duration) bool {
	age := now.Sub(released.Time)
	return age >= cooldown || -age > cooldown
}

// thawed is what has cooled down, the longest first.
func (b *block) thawed(now time.Time, cooldown time.Duration) []int {
	var done []int
	for i := range b.obj.Spec.Allocations {
		if at := b.attribute(i); at != nil && at.ReleasedAt != nil && cooled(at.ReleasedAt, now, cooldown) {
			done = append(done, i)
		}
	}
	slices.SortStableFunc(done, func(x, y int) int {
		return b.attribute(x).ReleasedAt.Compare(b.attribute(y).ReleasedAt.Time)
	})
	return done
}

// thaw frees what has cooled down, the longest first. b is an edited copy.
func (b *block) thaw(now time.Time, cooldown time.Duration) {
	done := b.thawed(now, cooldown)
	for _, i := range done {
		b.obj.Spec.Allocations[i] = api.Free
		b.obj.Spec.Unallocated = append(b.obj.Spec.Unallocated, i)
	}
	if len(done) > 0 {
		b.compact()
	}
}

// next is the ordinal to give next: that which has been free the longest. Reserved addresses are passed over. What has
// cooled down counts, since thaw comes before each take.
func (b *block) next(reserved func(netip.Addr) bool, now time.Time, cooldown time.Duration) (ordinal int, ok bool) {
	for _, i := range b.obj.Spec.Unallocated {
		if !reserved(nth(b.prefix, i)) {
			return i, true
		}
	}
	for _, i := range b.thawed(now, cooldown) {
		if !reserved(nth(b.prefix, i)) {
			return i, true
		}
	}
	return 0, false
}

// take gives an ordinal, which nobody holds, to a handle. b is an edited copy.
func (b *block) take(ordinal int, handle string, owner api.Owner) {
	s := &b.obj.Spec
	s.Unallocated = slices.DeleteFunc(s.Unallocated, func(i int) bool { return i == ordinal })
	s.Allocations[ordinal] = len(s.Attributes)
	s.Attributes = append(s.Attributes, api.AllocationAttribute{HandleID: handle, Secondary: owner.Attributes(s.Affinity)})
	b.stamp(ordinal)
	b.compact()
}

// renew makes an allocation that a handle has already one of this write.
func (b *block) renew(ordinal int, owner api.Owner) {
	b.attribute(ordinal).Secondary = owner.Attributes(b.obj.Spec.Affinity)
	b.stamp(ordinal)
}

// give takes an ordinal back. It comes last in the queue of those to give next, or after a cooldown. b is an edited copy.
func (b *block) give(ordinal int, now time.Time, cooldown time.Duration) {
	s := &b.obj.Spec
	delete(s.SequenceNumberForAllocation, strconv.Itoa(ordinal))
	if cooldown > 0 {
		// Times are stored in whole seconds: the next one, or the cooldown would be too short.
		at := metav1.NewTime(now.UTC().Add(time.Second - 1).Truncate(time.Second))
		s.Allocations[ordinal] = len(s.Attributes)
		s.Attributes = append(s.Attributes, api.AllocationAttribute{ReleasedAt: &at})
	} else {
		s.Allocations[ordinal] = api.Free
		s.Unallocated = append(s.Unallocated, ordinal)
	}
	b.compact()
}

// compact drops attributes of nobody and keeps one of each time of release.
func (b *block) compact() {
	s := &b.obj.Spec
	place := make([]int, len(s.Attributes)) // new index + 1
	times := map[int64]int{}
	kept := make([]api.AllocationAttribute, 0, len(s.Attributes))
	for i, at := range s.Allocations {
		if at == api.Free {
			continue
		}
		if place[at] == 0 {
			a := s.Attributes[at]
			released := a.ReleasedAt
			if released == nil || times[released.Unix()] == 0 {
				kept = append(kept, a)
				place[at] = len(kept)
				if released != nil {
					times[released.Unix()] = len(kept)
				}
			} else {
				place[at] = times[released.Unix()]
			}
		}
		s.Allocations[i] = place[at] - 1
	}
	s.Attributes = kept
}

// setAffinity makes b a node's, or nobody's. Owners on the node, who did without saying so, keep their node.
func (b *block) setAffinity(affinity string, now time.Time) {
	s := &b.obj.Spec
	if s.Affinity == affinity {
		return
	}
	for i := range s.Attributes {
		if a := &s.Attributes[i]; a.ReleasedAt == nil {
			a.Secondary = reattribute(a.Secondary, s.Affinity, affinity)
		}
	}
	s.Affinity, s.AffinityClaimTime = affinity, nil
	if affinity != "" {
		at := metav1.NewTime(now.UTC().Truncate(time.Second))
		s.AffinityClaimTime = &at
	}
}

// reattribute keeps what is not ours to understand.
func reattribute(m map[string]string, from, to string) map[string]string {
	owner := api.OwnerOf(m, from)
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	delete(out, "node")
	maps.Copy(out, owner.Attributes(to))
	return out
}

// held is how many addresses somebody has, and cooling how many nobody may have yet.
func (b *block) held(now time.Time, cooldown time.Duration) (held, cooling int) {
	for i := range b.obj.Spec.Allocations {
		at := b.attribute(i)
		switch {
		case at == nil:
		case at.ReleasedAt == nil:
			held++
		case !cooled(at.ReleasedAt, now, cooldown):
			cooling++
		}
	}
	return held, cooling
}

// empty says whether b can be removed without anybody's loss.
func (b *block) empty(now time.Time, cooldown time.Duration) bool {
	held, cooling := b.held(now, cooldown)
	return held == 0 && cooling == 0
}

// usedOn says whether somebody on a node has an address of b.
func (b *block) usedOn(node string) bool {
	for i := range b.obj.Spec.Allocations {
		if _, ok := b.handle(i); ok && b.owner(i).Node == node {
			return true
		}
	}
	return false
}
