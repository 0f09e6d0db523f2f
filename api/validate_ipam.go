package api

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// IPAMConfigurationName is what the only IPAMConfiguration is called.
const IPAMConfigurationName = "default"

const maxCooldown = 1200 // seconds

// defaultIPAM fills in what may be left out of the kinds of address management.
func defaultIPAM(o Object) {
	switch o := o.(type) {
	case *IPAMBlock:
		// Lists that must be there, also empty.
		if o.Spec.Allocations == nil {
			o.Spec.Allocations = Allocations{}
		}
		if o.Spec.Unallocated == nil {
			o.Spec.Unallocated = []int{}
		}
		if o.Spec.Attributes == nil {
			o.Spec.Attributes = []AllocationAttribute{}
		}
	case *IPAMHandle:
		if o.Spec.Block == nil {
			o.Spec.Block = map[string]int{}
		}
	case *IPAMConfiguration:
		if o.Spec.AutoAllocateBlocks == nil {
			auto := true
			o.Spec.AutoAllocateBlocks = &auto
		}
	case *IPReservation:
		canonicalPrefixes(o.Spec.ReservedCIDRs)
	}
}

// ipam checks the kinds of address management.
func (c *checker) ipam(o Object, spec *field.Path) {
	switch o := o.(type) {
	case *IPAMBlock:
		c.ipamBlock(&o.Spec, spec)
	case *IPAMHandle:
		c.ipamHandle(&o.Spec, spec)
	case *IPAMConfiguration:
		if o.Name != IPAMConfigurationName {
			c.invalid(field.NewPath("metadata", "name"), o.Name, "there is one IPAMConfiguration, named %s", IPAMConfigurationName)
		}
		c.ipamConfiguration(&o.Spec, spec)
	case *IPReservation:
		c.prefixes(o.Spec.ReservedCIDRs, spec.Child("reservedCIDRs"))
	}
}

func (c *checker) ipamConfiguration(s *IPAMConfigurationSpec, p *field.Path) {
	if !s.StrictAffinity && s.AutoAllocateBlocks != nil && !*s.AutoAllocateBlocks {
		c.invalid(p.Child("autoAllocateBlocks"), false, "nodes that take no blocks need strictAffinity")
	}
	if s.MaxBlocksPerHost < 0 {
		c.invalid(p.Child("maxBlocksPerHost"), s.MaxBlocksPerHost, "must not be negative")
	}
	c.between(p.Child("ipCooldownSeconds"), s.IPCooldownSeconds, 0, maxCooldown)
	oneOf(c, p.Child("kubeVirtVMAddressPersistence"), s.KubeVirtVMAddressPersistence, "Enabled", "Disabled", "")
}

func (c *checker) ipamHandle(s *IPAMHandleSpec, p *field.Path) {
	if s.HandleID == "" {
		c.required(p.Child("handleID"), "what the addresses are held by")
	}
	for _, cidr := range slices.Sorted(maps.Keys(s.Block)) {
		at := p.Child("block").Key(cidr)
		c.network(cidr, at)
		if n := s.Block[cidr]; n < 1 {
			c.invalid(at, n, "must be at least 1")
		}
	}
}

func (c *checker) ipamBlock(s *IPAMBlockSpec, p *field.Path) {
	if kind, node, ok := strings.Cut(s.Affinity, ":"); s.Affinity != "" && (!ok || kind != "host" && kind != "virtual" || !isNodeName(node)) {
		c.invalid(p.Child("affinity"), s.Affinity, "must be host:<node> or virtual:<name>")
	}
	cidr, ok := c.network(s.CIDR, p.Child("cidr"))
	if !ok {
		return
	}
	size, ok := blockLen(cidr)
	if !ok {
		c.invalid(p.Child("cidr"), s.CIDR, "is larger than blocks may be: /20, or /116 of IPv6")
		return
	}
	if len(s.Allocations) != size {
		c.invalid(p.Child("allocations"), len(s.Allocations), "must have %d items, one for each address of %s", size, cidr)
		return
	}
	for i, at := range s.Allocations {
		if at != Free && (at < 0 || at >= len(s.Attributes)) {
			c.invalid(p.Child("allocations").Index(i), at, "must be null or the index of one of %d attributes", len(s.Attributes))
		}
	}
	c.unallocated(s, p.Child("unallocated"))
	var odd []string
	for key := range s.SequenceNumberForAllocation {
		if n, err := strconv.Atoi(key); err != nil || n < 0 || n >= size || strconv.Itoa(n) != key {
			odd = append(odd, key)
		}
	}
	slices.Sort(odd)
	for _, key := range odd {
		c.invalid(p.Child("sequenceNumberForAllocation").Key(key), key, "must be the ordinal of an address, 0 to %d", size-1)
	}
}

// unallocated makes sure that each address is either somebody's or free: one that is both would be given twice, one
// that is neither never again.
func (c *checker) unallocated(s *IPAMBlockSpec, p *field.Path) {
	free := make([]bool, len(s.Allocations))
	for i, n := range s.Unallocated {
		switch {
		case n < 0 || n >= len(s.Allocations):
			c.invalid(p.Index(i), n, "must be the ordinal of an address, 0 to %d", len(s.Allocations)-1)
		case s.Allocations[n] != Free:
			c.invalid(p.Index(i), n, "is allocated")
		case free[n]:
			c.errs = append(c.errs, field.Duplicate(p.Index(i), n))
		default:
			free[n] = true
		}
	}
	for n, at := range s.Allocations {
		if at == Free && !free[n] {
			c.invalid(p, s.Unallocated, "%d is neither here nor allocated", n)
			return
		}
	}
}

// blockLen is the number of addresses of a block; ok is false if it is too large.
func blockLen(p netip.Prefix) (n int, ok bool) {
	bits := p.Addr().BitLen() - p.Bits()
	if bits > 12 {
		return 0, false
	}
	return 1 << bits, true
}

func isNodeName(s string) bool {
	return s != "" && !slices.ContainsFunc([]byte(s), func(b byte) bool {
		return !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '.' || b == '-' || b == '_')
	})
}
