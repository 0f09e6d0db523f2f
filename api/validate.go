package api

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tortie/tortie/api/selector"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits on how much one object may hold.
const (
	MaxRules       = 1024 // in one direction of a policy or profile
	MaxNets        = 256  // in one list of a rule
	MaxPorts       = 50   // in one list of a rule
	MaxSelector    = 1024 // characters
	MaxHTTPMatches = 20   // methods, or paths, of one rule
	MaxHTTPPath    = 1024 // characters
	maxName        = 253
)

// Validate returns everything that is wrong with an object, each with its path; nothing if it may be stored. It expects
// that Default has been called, and does not look at other objects.
func Validate(o Object) field.ErrorList {
	c := &checker{}
	spec := field.NewPath("spec")
	c.metadata(o)
	switch o := o.(type) {
	case *Tier:
		c.tier(o, spec)
	case *NetworkPolicy:
		c.networkPolicy(&o.Spec, spec)
	case *GlobalNetworkPolicy:
		c.globalNetworkPolicy(&o.Spec, spec)
	case *StagedNetworkPolicy:
		c.stagedNetworkPolicy(&o.Spec, spec)
	case *StagedGlobalNetworkPolicy:
		c.stagedGlobalNetworkPolicy(&o.Spec, spec)
	case *StagedKubernetesNetworkPolicy:
		c.stagedKubernetes(&o.Spec, spec)
	case *Profile:
		c.labels(o.Spec.LabelsToApply, spec.Child("labelsToApply"))
		c.rules(o.Spec.Ingress, ruleContext{}, spec.Child("ingress"))
		c.rules(o.Spec.Egress, ruleContext{egress: true}, spec.Child("egress"))
	case *NetworkSet:
		c.prefixes(o.Spec.Nets, spec.Child("nets"))
	case *GlobalNetworkSet:
		c.prefixes(o.Spec.Nets, spec.Child("nets"))
	case *HostEndpoint:
		c.hostEndpoint(&o.Spec, spec)
	case *WorkloadEndpoint:
		c.workloadEndpoint(&o.Spec, spec)
	case *Node:
		c.node(&o.Spec, spec)
	case *IPPool:
		c.ipPool(&o.Spec, spec)
	case *BlockAffinity:
		c.blockAffinity(&o.Spec, spec)
	case *EndpointSlice:
		c.endpointSlice(o)
	case *BGPConfiguration:
		c.bgpConfiguration(o, spec)
	case *BGPPeer:
		c.bgpPeer(&o.Spec, spec)
	case *BGPFilter:
		c.bgpFilter(&o.Spec, spec)
	case *FelixConfiguration:
		c.felix(o, spec)
	case *KubeControllersConfiguration:
		c.kubeControllers(o, spec)
	case *ClusterInformation:
		c.clusterInformation(o, spec)
	case *CalicoNodeStatus:
		c.nodeStatus(&o.Spec, spec)
	default:
		c.ipam(o, spec)
	}
	return shortened(c.errs)
}

// shortened clips what errors repeat of the object.
func shortened(errs field.ErrorList) field.ErrorList {
	for _, e := range errs {
		e.Field, e.Detail = clip(e.Field), clip(e.Detail)
		if v := reflect.ValueOf(e.BadValue); v.Kind() == reflect.String && v.Len() > maxText {
			e.BadValue = clip(v.String())
		}
	}
	return errs
}

// checker gathers errors.
type checker struct {
	errs field.ErrorList
}

func (c *checker) invalid(p *field.Path, value any, format string, args ...any) {
	c.errs = append(c.errs, field.Invalid(p, value, fmt.Sprintf(format, args...)))
}

func (c *checker) forbidden(p *field.Path, format string, args ...any) {
	c.errs = append(c.errs, field.Forbidden(p, fmt.Sprintf(format, args...)))
}

func (c *checker) required(p *field.Path, format string, args ...any) {
	c.errs = append(c.errs, field.Required(p, fmt.Sprintf(format, args...)))
}

// oneOf checks a value that has to be one of a few.
func oneOf[T ~string](c *checker, p *field.Path, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		c.errs = append(c.errs, field.NotSupported(p, value, allowed))
	}
}

// eachOneOf checks a list of such values, of which none may be there twice.
func eachOneOf[T ~string](c *checker, p *field.Path, values []T, allowed ...T) {
	for i, v := range values {
		oneOf(c, p.Index(i), v, allowed...)
		if slices.Contains(values[:i], v) {
			c.errs = append(c.errs, field.Duplicate(p.Index(i), v))
		}
	}
}

// atMost checks a length.
func (c *checker) atMost(p *field.Path, n, limit int) {
	if n > limit {
		c.errs = append(c.errs, field.TooMany(p, n, limit))
	}
}

func (c *checker) between(p *field.Path, n, first, last int) {
	if n < first || n > last {
		c.invalid(p, n, "must be between %d and %d", first, last)
	}
}

// report adds what apimachinery's own checks say about a value.
func (c *checker) report(p *field.Path, value any, reasons []string) {
	for _, r := range reasons {
		c.invalid(p, value, "%s", r)
	}
}

func (c *checker) metadata(o Object) {
	p := field.NewPath("metadata")
	name := p.Child("name")
	if o.GetName() == "" {
		c.required(name, "every object has a name")
	} else {
		c.name(o, name)
	}
	k, _ := KindByName(o.GetKind())
	switch ns := o.GetNamespace(); {
	case !k.Namespaced && ns != "":
		c.forbidden(p.Child("namespace"), "a %s belongs to no namespace", k.Kind)
	case k.Namespaced && ns == "":
		c.required(p.Child("namespace"), "a %s belongs to a namespace", k.Kind)
	case ns != "":
		c.report(p.Child("namespace"), ns, validation.IsDNS1123Label(ns))
	}
	c.labels(o.GetLabels(), p.Child("labels"))
	switch o.(type) {
	case *NetworkSet, *GlobalNetworkSet, *HostEndpoint, *WorkloadEndpoint:
		// The label is what binds a policy to its namespace: nobody gives it to himself.
		if v, ok := o.GetLabels()[LabelNamespace]; ok && (v != o.GetNamespace() || v == "") {
			c.invalid(p.Child("labels").Key(LabelNamespace), v, "is given by the namespace of an object, not by a label")
		}
	}
}

func (c *checker) name(o Object, p *field.Path) {
	name := o.GetName()
	if len(name) > maxName {
		c.errs = append(c.errs, field.TooLong(p, name, maxName))
		return
	}
	switch o.(type) {
	case *Tier:
		if strings.Contains(name, ".") {
			c.invalid(p, name, "the name of a tier has no dots")
			return
		}
		c.report(p, name, validation.IsDNS1123Subdomain(name))
	case *NetworkPolicy, *StagedNetworkPolicy:
		if rest, ok := cutAny(name, "knp.default.", "ossg.default."); ok {
			c.report(p, name, validation.IsDNS1123Subdomain(rest))
			return
		}
		c.policyName(name, p)
	case *GlobalNetworkPolicy, *StagedGlobalNetworkPolicy:
		c.policyName(name, p)
	default:
		c.report(p, name, validation.IsDNS1123Subdomain(name))
	}
}

// policyName lets one dot be: before it, older releases wrote the name of the tier.
func (c *checker) policyName(name string, p *field.Path) {
	if strings.Count(name, ".") > 1 {
		c.invalid(p, name, "the name of a policy has at most one dot")
		return
	}
	c.report(p, name, validation.IsDNS1123Subdomain(name))
}

func cutAny(s string, prefixes ...string) (rest string, ok bool) {
	for _, p := range prefixes {
		if rest, ok = strings.CutPrefix(s, p); ok {
			return rest, true
		}
	}
	return s, false
}

// labels gives errors the path of the label: metadata.labels[a b].
func (c *checker) labels(labels map[string]string, p *field.Path) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		for _, e := range metav1validation.ValidateLabels(map[string]string{k: labels[k]}, p) {
			e.Field = p.Key(k).String()
			c.errs = append(c.errs, e)
		}
	}
}

// selector checks a selector in which global() has no meaning.
func (c *checker) selector(s string, p *field.Path) {
	parsed := c.syntax(s, p)
	if parsed != nil && usesGlobal(parsed) {
		c.invalid(p, s, "%s", globalMisplaced)
	}
}

// ruleNamespaces checks a rule's namespaceSelector.
func (c *checker) ruleNamespaces(s string, p *field.Path) {
	parsed := c.syntax(s, p)
	if parsed == nil || !usesGlobal(parsed) {
		return
	}
	if _, alone := parsed.Root().(selector.Global); !alone {
		c.invalid(p, s, "%s", globalMisplaced)
	}
}

func (c *checker) syntax(s string, p *field.Path) *selector.Selector {
	if utf8.RuneCountInString(s) > MaxSelector {
		c.errs = append(c.errs, field.TooLong(p, "", MaxSelector))
	}
	if s == "" {
		return nil
	}
	parsed, err := selector.Parse(s)
	if err != nil {
		c.invalid(p, s, "%v", err)
		return nil
	}
	return parsed
}
