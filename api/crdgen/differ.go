package crdgen

// A Difference is something that api.Validate refuses and the schema of a CRD can't.
type Difference struct {
	What   string   // it is about
	Why    string   // the schema can't
	Then   string   // what becomes of such an object
	Policy bool     // an admission policy refuses it
	Cases  []string // of api/testdata/validate, by kind and title
}

// Differences returns all of them: nothing else that api.Validate refuses is accepted by an API server.
func Differences() []Difference {
	const ours = "nobody but address management may write it, which checks what it reads"
	return []Difference{
		{
			What:  "parentheses in selectors: whether they match, and how deep they are nested",
			Why:   "a regular expression can't count; everything else about selectors is checked. Outside of rules the number of parentheses is, too",
			Then:  "a rule that allows matches nothing, one that denies does it by its other clauses; agents report it",
			Cases: []string{"NetworkPolicy/bad parenthesis of a rule's selector missing"},
		},
		{
			What: "keys of maps: of the annotations of a rule, of matchLabels, of the labels of host endpoint templates, the blocks of an IPAMHandle",
			Why:  "there is no bound on their length, so that every rule about them is too expensive for the API server",
			Then: "rules as above; no host endpoint is made of such a template; nobody but address management writes IPAMHandles",
			Cases: []string{
				"NetworkPolicy/bad annotation with a space",
				"StagedKubernetesNetworkPolicy/bad bad label name in matchLabels",
				"KubeControllersConfiguration/bad key of a label",
				"IPAMHandle/bad not a block",
				"IPAMHandle/bad bits behind the length",
			},
		},
		{
			What: "`except` outside of its `cidr` in a staged Kubernetes policy",
			Why:  "rules, peers and exceptions multiply to more than the API server lets a rule cost",
			Then: "as above: the rule matches nothing",
			Cases: []string{
				"StagedKubernetesNetworkPolicy/bad exception outside",
				"StagedKubernetesNetworkPolicy/bad exception of all",
			},
		},
		{
			What:  "names of communities in `prefixAdvertisements` that are not defined",
			Why:   "the lists multiply in the same way",
			Then:  "the problem is reported; there is no BGP yet",
			Cases: []string{"BGPConfiguration/bad name that is not defined"},
		},
		{
			What: "whether the addresses of an IPAMBlock are each free or somebody's",
			Why:  "every start of a workload would wait for the check",
			Then: ours,
			Cases: []string{
				"IPAMBlock/bad index of no attributes",
				"IPAMBlock/bad allocated",
				"IPAMBlock/bad given twice",
				"IPAMBlock/bad out of the block",
				"IPAMBlock/bad one is neither free nor allocated",
				"IPAMBlock/bad not a number",
				"IPAMBlock/bad spelled otherwise",
			},
		},
		{
			What:   "the label `projectcalico.org/namespace` on sets and host endpoints",
			Why:    "the schema of a CRD does not see labels",
			Then:   "the admission policy `namespace-label.tortie.io` refuses it",
			Policy: true,
			Cases: []string{
				"NetworkSet/bad label of another namespace",
				"NetworkSet/bad empty label",
				"GlobalNetworkSet/bad label of a namespace",
				"HostEndpoint/bad label of a namespace",
			},
		},
	}
}

func differing() map[string]bool {
	out := map[string]bool{}
	for _, d := range Differences() {
		for _, c := range d.Cases {
			out[c] = true
		}
	}
	return out
}
