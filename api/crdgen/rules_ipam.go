package crdgen

func ipamFields() map[string]tweak {
	modes := all(enum("Never", "Always", "CrossSubnet", ""), defaultTo("Never"))
	return map[string]tweak{
		"IPPoolSpec.cidr":              network(),
		"IPPoolSpec.vxlanMode":         modes,
		"IPPoolSpec.ipipMode":          modes,
		"IPPoolSpec.nodeSelector":      all(oneSelector(), defaultTo("all()")),
		"IPPoolSpec.namespaceSelector": oneSelector(),
		"IPPoolSpec.allowedUses":       all(set(enum("Workload", "Tunnel", "LoadBalancer")), defaultTo([]string{"Workload", "Tunnel"})),
		"IPPoolSpec.assignmentMode":    all(enum("Automatic", "Manual", ""), defaultTo("Automatic")),

		"BlockAffinitySpec.state":   enum("pending", "confirmed", "pendingDeletion"),
		"BlockAffinitySpec.node":    notEmpty(),
		"BlockAffinitySpec.type":    all(enum("host", "virtual", ""), defaultTo("host")),
		"BlockAffinitySpec.cidr":    network(),
		"BlockAffinitySpec.deleted": enum("true", "false", ""),

		"IPReservationSpec.reservedCIDRs": items(prefixes()),

		"IPAMConfigurationSpec.autoAllocateBlocks":           defaultTo(true),
		"IPAMConfigurationSpec.maxBlocksPerHost":             atLeast(0),
		"IPAMConfigurationSpec.ipCooldownSeconds":            between(0, 1200),
		"IPAMConfigurationSpec.kubeVirtVMAddressPersistence": onOff(),

		"IPAMBlockSpec.cidr":        network(),
		"IPAMBlockSpec.affinity":    pattern(`^(?:(?:host|virtual):[a-zA-Z0-9._-]+)?$`),
		"IPAMBlockSpec.allocations": all(maxItems(4096), items(atLeast(0))),
		"IPAMBlockSpec.unallocated": all(maxItems(4096), items(atLeast(0))),

		"IPAMHandleSpec.handleID": notEmpty(),
		"IPAMHandleSpec.block":    func(s *Schema) { atLeast(1)(s.AdditionalProperties) },
	}
}

// six is an expression: the range is of IPv6.
const six = "self.cidr.contains(':')"

func ipPool() tweak {
	const size = "(has(self.blockSize) && self.blockSize != 0 ? self.blockSize : (" + six + " ? 122 : 26))"
	const oldSize = "(has(oldSelf.blockSize) && oldSelf.blockSize != 0 ? oldSelf.blockSize : (oldSelf.cidr.contains(':') ? 122 : 26))"
	const ipip = "has(self.ipipMode) && !(self.ipipMode in ['', 'Never'])"
	const vxlan = "has(self.vxlanMode) && !(self.vxlanMode in ['', 'Never'])"
	const balancer = "has(self.allowedUses) && 'LoadBalancer' in self.allowedUses"
	overlaps := func(linkLocal string) tweak {
		return cel("overlaps the link-local range "+linkLocal,
			"!isCIDR(self.cidr) || cidr(self.cidr).ip().family() != cidr('%s').ip().family() || !cidr(self.cidr).containsCIDR('%[1]s') && !cidr('%[1]s').containsCIDR(self.cidr)", linkLocal)
	}
	return all(required("cidr"),
		overlaps("169.254.0.0/16"), overlaps("fe80::/10"),
		cel("blockSize must be between 20 and 32, or 116 and 128 of IPv6", six+" ? "+size+" >= 116 && "+size+" <= 128 : "+size+" >= 20 && "+size+" <= 32"),
		cel("blocks are larger than the pool; give a blockSize", "!isCIDR(self.cidr) || "+size+" >= cidr(self.cidr).prefixLength()"),
		cel("IPIP carries IPv4 only", "!("+ipip+") || !"+six),
		cel("ipipMode can't be combined with vxlanMode", "!("+ipip+") || !("+vxlan+")"),
		cel("LoadBalancer can't be combined with other uses, ipipMode or vxlanMode",
			"!("+balancer+") || size(self.allowedUses) == 1 && !("+ipip+") && !("+vxlan+")"),
		cel("nodeSelector must be all() in a pool for LoadBalancer",
			"!("+balancer+") || !has(self.nodeSelector) || self.nodeSelector.matches(%s)", literal(allAlone)),
		cel("cidr can't be changed; make a new pool", "self.cidr == oldSelf.cidr"),
		cel("blockSize can't be changed; make a new pool", size+" == "+oldSize))
}

// ipamBlock checks little: address management alone writes blocks, and each ADD of a workload waits for it.
func ipamBlock() tweak {
	const bits = "((" + six + " ? 128 : 32) - cidr(self.cidr).prefixLength())"
	return all(required("cidr", "allocations"),
		cel("is larger than blocks may be: /20, or /116 of IPv6", "!isCIDR(self.cidr) || "+bits+" <= 12"),
		cel("allocations must have one item for each address of cidr", "!isCIDR(self.cidr) || "+bits+" > 12 || "+
			"size(self.allocations) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]["+bits+"]"))
}
