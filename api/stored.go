package api

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// DecodeStored reads an object of the given kind from what a store holds, and defaults it. It is lenient, so that one
// odd field does not take a whole policy away, and it fails closed, so that a field that this release does not know
// never lets more through:
//
//   - unknown fields of metadata and status mean nothing. Everything else that is unknown, repeated, of the wrong type
//     or not valid is among the problems, with its path.
//   - Inside a rule it marks that rule with Rule.Unreadable; elsewhere in the spec of a policy or profile it marks every
//     rule. A rule without a readable action is a Deny, a list of rules that is none becomes one Deny of everything, and
//     a policy whose types can't be read governs both directions.
//   - A tier with a problem ends in Deny. A rule of a BGPFilter with one rejects every route; a problem elsewhere in its
//     spec rejects all. A BGPPeer with one is nobody's peer.
//   - A setting of a FelixConfiguration that is not valid does not count: see FelixSettings.
//   - What gives addresses to sets (network sets, endpoints, EndpointSlices) says in Partial what of them can't be read, so
//     that no rule is taken to know all of them.
//   - Of other kinds, what has the wrong type is left out: an item of a list alone, but labels and profiles as a whole,
//     since half of them could lead an endpoint into the wrong policies.
//
// An error means that the object can't be used at all: a policy or tier whose selectors, tier or order can't be read, or
// a thing without what identifies it.
func DecodeStored(kind string, data []byte) (Object, []Problem, error) {
	k, ok := KindByName(kind)
	if !ok {
		return nil, nil, fmt.Errorf("kind %q is not known", kind)
	}
	o, problems, err := readStored(k, data)
	if err != nil {
		return nil, nil, err
	}
	problems, err = closeStored(k.Kind, o, problems)
	if err != nil {
		return nil, problems, err
	}
	return o, problems, nil
}

// closeStored defaults what has been read with problems, and takes them out on it, with those that Validate finds. An error
// means that it can't be used at all.
func closeStored(kind string, o Object, problems []Problem) ([]Problem, error) {
	vital, typed := identity(o)
	fatal := fatalProblems(problems, append(typed, vital...))
	dropHalf(o, problems)
	Default(o)
	unfit := invalid(o)
	fatal = append(fatal, fatalProblems(unfit, vital)...)
	problems = append(problems, unfit...)
	if len(fatal) > 0 {
		return problems, fmt.Errorf("decoding a stored %s: %w", kind, errors.Join(fatal...))
	}
	failClosed(o, problems)
	return problems, nil
}

func fatalProblems(problems []Problem, fields []string) []error {
	var errs []error
	for _, p := range problems {
		if under(p.Path, fields...) || p.Path == "metadata" || p.Path == "spec" {
			errs = append(errs, p)
		}
	}
	return errs
}

// readStored decodes in one pass what has no problem, which is nearly everything, and the rest slowly with its paths.
func readStored(k KindInfo, data []byte) (Object, []Problem, error) {
	if len(data) > MaxInput {
		return nil, nil, fmt.Errorf("value of %d bytes is larger than %d", len(data), MaxInput)
	}
	o := k.New()
	// A null item of a list would come out as one without any content: a Kubernetes rule that allows everything.
	// In a block it stands for a free address.
	if k.Kind == "IPAMBlock" || !bytes.Contains(data, []byte("null")) {
		if strict, err := kjson.UnmarshalStrict(data, o); err == nil && len(strict) == 0 && sameType(o, k) {
			return o, nil, nil
		}
	}
	v, err := parseJSON(data)
	if err != nil {
		return nil, nil, fmt.Errorf("decoding a stored %s: %w", k.Kind, err)
	}
	if v.kind != objectValue {
		return nil, nil, fmt.Errorf("decoding a stored %s: it is %s", k.Kind, v)
	}
	if kind := v.get("kind"); kind != nil && kind.str() != k.Kind {
		return nil, nil, fmt.Errorf("decoding a stored %s: its kind is %s", k.Kind, kind)
	}
	var problems []Problem
	if version := v.get("apiVersion"); version != nil && version.str() != k.APIVersion {
		problems = append(problems, Problem{"apiVersion", clip(fmt.Sprintf("%s is not %s", version, k.APIVersion))})
	}
	o, found := readObject(k, v)
	for _, p := range found {
		problems = append(problems, p.Problem)
	}
	return o, problems, nil
}

func sameType(o Object, k KindInfo) bool {
	t, ok := o.(interface{ GetObjectKind() schema.ObjectKind })
	if !ok {
		return false
	}
	version, kind := t.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	return version == k.APIVersion && kind == k.Kind
}

// invalid returns what Validate finds, but for limits on how much there is: what is stored is understood all the same.
func invalid(o Object) []Problem {
	var problems []Problem
	for _, e := range Validate(o) {
		if e.Type != field.ErrorTypeTooMany && e.Type != field.ErrorTypeTooLong {
			problems = append(problems, Problem{clip(e.Field), clip(e.ErrorBody())})
		}
	}
	return problems
}

// under says whether path is one of fields, or below one.
func under(path string, fields ...string) bool {
	return slices.ContainsFunc(fields, func(f string) bool {
		rest, ok := strings.CutPrefix(path, f)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// dropHalf gives what could be read in part only its closed form. It comes before defaulting, which looks at the rules.
func dropHalf(o Object, problems []Problem) {
	lists := rulesOf(o)
	for _, p := range problems {
		switch {
		case under(p.Path, "metadata.labels"):
			o.SetLabels(nil)
		case under(p.Path, "spec.profiles"):
			dropProfiles(o)
		case lists.ingress == nil:
		case p.Path == "spec.ingress":
			*lists.ingress = []Rule{{Action: Deny}}
		case p.Path == "spec.egress":
			*lists.egress = []Rule{{Action: Deny}}
		}
	}
}

func dropProfiles(o Object) {
	switch o := o.(type) {
	case *HostEndpoint:
		o.Spec.Profiles = nil
	case *WorkloadEndpoint:
		o.Spec.Profiles = nil
	}
}

// failClosed takes the problems out on o.
func failClosed(o Object, problems []Problem) {
	var meaningful []Problem
	for _, p := range problems {
		if !under(p.Path, "metadata", "status", "spec.performanceHints", "spec.tier", "spec.labelsToApply") {
			meaningful = append(meaningful, p)
		}
	}
	if len(meaningful) == 0 {
		return
	}
	switch o := o.(type) {
	case *Tier:
		end := Deny
		o.Spec.DefaultAction = &end
	case *StagedKubernetesNetworkPolicy:
		markKubernetes(&o.Spec, meaningful)
	case *BGPFilter:
		o.Spec.close(meaningful)
	case *NetworkSet:
		o.Spec.Partial = partly(meaningful)
	case *GlobalNetworkSet:
		o.Spec.Partial = partly(meaningful)
	case *WorkloadEndpoint:
		o.Spec.Partial = partly(meaningful, "spec.ipNetworks", "spec.ports")
	case *HostEndpoint:
		o.Spec.Partial = partly(meaningful, "spec.expectedIPs", "spec.ports")
	case *EndpointSlice:
		o.Partial = partly(meaningful, "addressType", "endpoints", "ports")
	default:
		if lists := rulesOf(o); lists.ingress != nil {
			lists.mark(meaningful)
		}
	}
}

// partly returns the problems that are about fields, or about any if none are given: an unknown field of a network set may
// say more of what is in it.
func partly(problems []Problem, fields ...string) []string {
	var out []string
	for _, p := range problems {
		if len(fields) == 0 || under(p.Path, fields...) {
			out = append(out, p.Error())
		}
	}
	return out
}

// identity returns the fields without which an object can't be used: those that have to be valid, and those that have
// to be of the right type only. A policy in a tier with an odd name, say, is in no tier that allows anything.
func identity(o Object) (valid, typed []string) {
	typed = []string{"metadata.name", "metadata.namespace"}
	switch o := o.(type) {
	case *NetworkPolicy, *GlobalNetworkPolicy, *StagedNetworkPolicy, *StagedGlobalNetworkPolicy:
		valid = []string{"spec.selector", "spec.namespaceSelector", "spec.serviceAccountSelector"}
		typed = append(typed, "spec.tier", "spec.order")
	case *StagedKubernetesNetworkPolicy:
		valid = []string{"spec.podSelector"}
	case *Tier:
		if builtinTierNamed(o.Name) != nil {
			valid = []string{"spec"}
		}
		typed = append(typed, "spec.order")
	case *Profile:
		typed = append(typed, "spec.labelsToApply")
	case *HostEndpoint:
		typed = append(typed, "spec.node", "spec.interfaceName")
	case *WorkloadEndpoint:
		typed = append(typed, "spec.node")
	case *IPPool:
		valid = []string{"spec.cidr"}
	case *BlockAffinity:
		valid = []string{"spec.cidr", "spec.node", "spec.state", "spec.deleted"}
	case *IPAMBlock:
		// An address that counts as free without being so would be given twice.
		valid = []string{"spec.cidr", "spec.affinity", "spec.allocations", "spec.unallocated", "spec.attributes",
			"spec.sequenceNumber", "spec.sequenceNumberForAllocation", "spec.deleted"}
	case *IPAMHandle:
		valid = []string{"spec.handleID", "spec.block"}
	case *IPAMConfiguration:
		valid = []string{"spec.strictAffinity", "spec.autoAllocateBlocks", "spec.maxBlocksPerHost", "spec.ipCooldownSeconds"}
	case *BGPPeer:
		valid = []string{"spec"} // a peer without its password or filters is another peer
	case *FelixConfiguration:
		valid = []string{"spec.nodeSelector"}
	case *CalicoNodeStatus:
		valid = []string{"spec.node"}
	case *IPReservation:
		valid = []string{"spec.reservedCIDRs"} // half of it would give addresses that are reserved
	}
	return valid, typed
}

// ruleLists are the rules of a policy or profile. types is nil for a profile.
type ruleLists struct {
	ingress, egress *[]Rule
	types           *[]PolicyType
}

func rulesOf(o Object) ruleLists {
	switch o := o.(type) {
	case *NetworkPolicy:
		return ruleLists{&o.Spec.Ingress, &o.Spec.Egress, &o.Spec.Types}
	case *StagedNetworkPolicy:
		return ruleLists{&o.Spec.Ingress, &o.Spec.Egress, &o.Spec.Types}
	case *GlobalNetworkPolicy:
		return ruleLists{&o.Spec.Ingress, &o.Spec.Egress, &o.Spec.Types}
	case *StagedGlobalNetworkPolicy:
		return ruleLists{&o.Spec.Ingress, &o.Spec.Egress, &o.Spec.Types}
	case *Profile:
		return ruleLists{ingress: &o.Spec.Ingress, egress: &o.Spec.Egress}
	}
	return ruleLists{}
}

func (l ruleLists) mark(problems []Problem) {
	for _, p := range problems {
		if l.types != nil && under(p.Path, "spec.types") {
			*l.types = []PolicyType{Ingress, Egress}
		}
		markRules(*l.ingress, "spec.ingress", p)
		markRules(*l.egress, "spec.egress", p)
	}
}

func markRules(rules []Rule, list string, p Problem) {
	for i := range rules {
		if concerns(p.Path, list, i) {
			rules[i].Unreadable = append(rules[i].Unreadable, p.Error())
			switch rules[i].Action {
			case Allow, Deny, Pass, Log:
			default:
				rules[i].Action = Deny
			}
		}
	}
}

// markKubernetes marks rules that can only allow: a policy that stages them is never enforced, but it should not be
// shown to allow more than it says.
func markKubernetes(s *StagedKubernetesNetworkPolicySpec, problems []Problem) {
	for _, p := range problems {
		if under(p.Path, "spec.policyTypes") || p.Path == "spec.egress" {
			s.PolicyTypes = []PolicyType{Ingress, Egress}
		}
		for i := range s.Ingress {
			if concerns(p.Path, "spec.ingress", i) {
				s.Ingress[i].Unreadable = append(s.Ingress[i].Unreadable, p.Error())
			}
		}
		for i := range s.Egress {
			if concerns(p.Path, "spec.egress", i) {
				s.Egress[i].Unreadable = append(s.Egress[i].Unreadable, p.Error())
			}
		}
	}
}

// close has rules that are not understood reject everything, and lists in which something else is wrong.
func (s *BGPFilterSpec) close(problems []Problem) {
	for _, p := range problems {
		if s.closeRule(p) {
			continue
		}
		lists := s.lists()
		somewhere := slices.ContainsFunc(lists, func(l filterList) bool { return under(p.Path, "spec."+l.name) })
		for _, l := range lists {
			if !somewhere || under(p.Path, "spec."+l.name) {
				*l.rules = []BGPFilterRule{{Action: "Reject", Unreadable: []string{p.Error()}}}
			}
		}
	}
}

// closeRule says whether a problem was one of a single rule.
func (s *BGPFilterSpec) closeRule(p Problem) bool {
	for _, l := range s.lists() {
		for i := range *l.rules {
			if under(p.Path, "spec."+l.name+"["+strconv.Itoa(i)+"]") {
				(*l.rules)[i] = BGPFilterRule{Action: "Reject", Unreadable: append((*l.rules)[i].Unreadable, p.Error())}
				return true
			}
		}
	}
	return false
}

// concerns says whether a problem at path is one of rule i of list: it is in the rule, or in no rule.
func concerns(path, list string, i int) bool {
	if under(path, list+"["+strconv.Itoa(i)+"]") {
		return true
	}
	return !strings.HasPrefix(path, "spec.ingress[") && !strings.HasPrefix(path, "spec.egress[")
}
