package api

// Default fills in what a user may leave out, and gives prefixes and protocols their canonical spelling. What can't be
// read is left as it is, for Validate to report. It is idempotent.
//
// A tier without an order stays without one and comes after all that have one, as in Calico's own CRDs; Calico's
// aggregated API server would write 1,000,000.
func Default(o Object) {
	switch o := o.(type) {
	case *Tier:
		defaultTier(o)
	case *NetworkPolicy:
		defaultNetworkPolicy(&o.Spec)
		labelTier(o, o.Spec.Tier)
	case *GlobalNetworkPolicy:
		defaultGlobalNetworkPolicy(&o.Spec)
		labelTier(o, o.Spec.Tier)
	case *StagedNetworkPolicy:
		defaultStaged(&o.Spec.StagedAction, &o.Spec.Tier, func() { defaultNetworkPolicy(&o.Spec.NetworkPolicySpec) })
		labelTier(o, o.Spec.Tier)
	case *StagedGlobalNetworkPolicy:
		defaultStaged(&o.Spec.StagedAction, &o.Spec.Tier, func() { defaultGlobalNetworkPolicy(&o.Spec.GlobalNetworkPolicySpec) })
		labelTier(o, o.Spec.Tier)
	case *StagedKubernetesNetworkPolicy:
		tier := DefaultTier
		defaultStaged(&o.Spec.StagedAction, &tier, func() { defaultKubernetes(&o.Spec) })
	case *Profile:
		defaultRules(o.Spec.Ingress)
		defaultRules(o.Spec.Egress)
	case *NetworkSet:
		canonicalPrefixes(o.Spec.Nets)
	case *GlobalNetworkSet:
		canonicalPrefixes(o.Spec.Nets)
	case *HostEndpoint:
		canonicalAddrs(o.Spec.ExpectedIPs)
		defaultPorts(o.Spec.Ports)
	case *WorkloadEndpoint:
		canonicalHostPrefixes(o.Spec.IPNetworks)
		canonicalPrefixes(o.Spec.AllowSpoofedSourcePrefixes)
		defaultNATs(o.Spec.IPNATs)
		defaultPorts(o.Spec.Ports)
	case *IPPool:
		defaultIPPool(&o.Spec)
	case *BlockAffinity:
		setIfEmpty(&o.Spec.Type, "host")
	default:
		defaultIPAM(o)
		defaultCluster(o)
	}
}

func setIfEmpty(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func defaultTier(t *Tier) {
	end := Deny
	if b := builtinTierNamed(t.Name); b != nil {
		end = *b.Spec.DefaultAction
		if t.Spec.Order == nil {
			t.Spec.Order = b.Spec.Order
		}
	}
	if t.Spec.DefaultAction == nil {
		t.Spec.DefaultAction = &end
	}
}

// defaultStaged leaves a policy that stages a deletion empty.
func defaultStaged(action *StagedAction, tier *string, rest func()) {
	if *action == "" {
		*action = StagedSet
	}
	setIfEmpty(tier, DefaultTier)
	if *action != StagedDelete {
		rest()
	}
}

func defaultNetworkPolicy(s *NetworkPolicySpec) {
	setIfEmpty(&s.Tier, DefaultTier)
	s.Types = defaultTypes(s.Types, s.Ingress, s.Egress)
	defaultRules(s.Ingress)
	defaultRules(s.Egress)
}

func defaultGlobalNetworkPolicy(s *GlobalNetworkPolicySpec) {
	setIfEmpty(&s.Tier, DefaultTier)
	s.Types = defaultTypes(s.Types, s.Ingress, s.Egress)
	defaultRules(s.Ingress)
	defaultRules(s.Egress)
}

// defaultTypes: a policy governs the directions that it has rules for; one without rules governs ingress.
func defaultTypes(types []PolicyType, ingress, egress []Rule) []PolicyType {
	switch {
	case len(types) > 0:
		return types
	case len(egress) == 0:
		return []PolicyType{Ingress}
	case len(ingress) == 0:
		return []PolicyType{Egress}
	}
	return []PolicyType{Ingress, Egress}
}

func defaultKubernetes(s *StagedKubernetesNetworkPolicySpec) {
	if len(s.PolicyTypes) == 0 {
		s.PolicyTypes = kubernetesTypes(s)
	}
}

// labelTier lets users list the policies of a tier by a label.
func labelTier(o Object, tier string) {
	labels := map[string]string{LabelTier: tier}
	for k, v := range o.GetLabels() {
		if k != LabelTier {
			labels[k] = v
		}
	}
	o.SetLabels(labels)
}

func defaultRules(rules []Rule) {
	for i := range rules {
		r := &rules[i]
		for _, p := range []*Protocol{r.Protocol, r.NotProtocol} {
			if p != nil {
				*p = canonicalProtocol(*p)
			}
		}
		for _, e := range []*EntityRule{&r.Source, &r.Destination} {
			canonicalPrefixes(e.Nets)
			canonicalPrefixes(e.NotNets)
		}
	}
}

func defaultPorts(ports []EndpointPort) {
	for i := range ports {
		ports[i].Protocol = canonicalProtocol(ports[i].Protocol)
	}
}

func defaultNATs(nats []IPNAT) {
	for i := range nats {
		pair := []string{nats[i].InternalIP, nats[i].ExternalIP}
		canonicalAddrs(pair)
		nats[i].InternalIP, nats[i].ExternalIP = pair[0], pair[1]
	}
}

func defaultIPPool(s *IPPoolSpec) {
	setIfEmpty(&s.VXLANMode, "Never")
	setIfEmpty(&s.IPIPMode, "Never")
	setIfEmpty(&s.NodeSelector, "all()")
	setIfEmpty(&s.AssignmentMode, "Automatic")
	if len(s.AllowedUses) == 0 {
		s.AllowedUses = []string{"Workload", "Tunnel"}
	}
	if p, err := parsePrefix(s.CIDR); err == nil && s.BlockSize == 0 {
		s.BlockSize = 26
		if p.Addr().Is6() {
			s.BlockSize = 122
		}
	}
}

func canonicalPrefixes(nets []string) {
	for i, s := range nets {
		if p, err := ParsePrefix(s); err == nil {
			nets[i] = p.String()
		}
	}
}

// canonicalHostPrefixes keeps the bits behind the length: an address with a shorter one is an error.
func canonicalHostPrefixes(nets []string) {
	for i, s := range nets {
		if p, err := parsePrefix(s); err == nil {
			nets[i] = p.String()
		}
	}
}

func canonicalAddrs(addrs []string) {
	for i, s := range addrs {
		if a, err := ParseAddr(s); err == nil {
			addrs[i] = a.String()
		}
	}
}
