package api

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateUpdate returns what of a change from one valid object to another is not allowed.
func ValidateUpdate(from, to Object) field.ErrorList {
	c := &checker{}
	spec := field.NewPath("spec")
	switch to := to.(type) {
	case *IPPool:
		if from, ok := from.(*IPPool); ok {
			c.immutable(from.Spec.CIDR == to.Spec.CIDR, spec.Child("cidr"))
			c.immutable(from.Spec.BlockSize == to.Spec.BlockSize, spec.Child("blockSize"))
		}
	case *ClusterInformation:
		if from, ok := from.(*ClusterInformation); ok && from.Spec.ClusterGUID != "" {
			c.immutable(from.Spec.ClusterGUID == to.Spec.ClusterGUID, spec.Child("clusterGUID"))
		}
	}
	return c.errs
}

func (c *checker) immutable(same bool, p *field.Path) {
	if !same {
		c.forbidden(p, "can't be changed; make a new object")
	}
}

// ValidateDelete says why an object can't be deleted; nil if it can.
func ValidateDelete(o Object) field.ErrorList {
	c := &checker{}
	name := field.NewPath("metadata", "name")
	switch o := o.(type) {
	case *Tier:
		if builtinTierNamed(o.Name) != nil {
			c.forbidden(name, "the tier %s is in every cluster", o.Name)
		}
	case *Profile:
		if o.Name == DefaultAllowProfile {
			c.forbidden(name, "the profile %s is in every cluster", o.Name)
		}
	}
	return c.errs
}
