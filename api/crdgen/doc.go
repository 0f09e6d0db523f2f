// Package crdgen makes the CustomResourceDefinitions of deploy/crds from the Go types of package api.
//
//	api types ──reflect──► schema ──fields, types, kinds──► CRD ──► deploy/crds/projectcalico.org_<plural>.yaml
//	                       names, Go types  what else must hold
//
//	crd.go       the definitions themselves: names, columns, subresources
//	schema.go    the part of OpenAPI that is used, and what is made of a Go type
//	rules.go     the tables of what must hold beside the type: per field, per type
//	rules_*.go   the same for groups of kinds
//	patterns.go  regular expressions of addresses, numbers and selectors
//	differ.go    what api.Validate refuses and an API server can't: the docs and the tests have it from there
//	comments.go  descriptions, from the comments in the source of package api
//
// go test ./api/crdgen -update writes the files; without -update it compares them.
package crdgen
