// Package api holds the resources of projectcalico.org/v3: what users write, what stores hold, and what each of it means
// before a node is in sight.
//
//	file ──► Decode (strict) ──► Default ──► Validate ──► Encode ──► store
//	store ─► DecodeStored (lenient, fails closed, defaults) ──► SubjectSelector, EntitySelector, KubernetesRules ──► graph
//
//	types*.go, numorstring.go  the kinds and their fields (ipam, bgp, cluster: by subject)
//	kinds.go, kinds_about.go   the table of kinds, their names, what they are for
//	builtin.go                 tiers and profiles that exist in every cluster
//	document.go                YAML and JSON as trees that keep lines and repeated keys
//	read.go                    trees into Go values, with the path of everything that does not fit
//	decode.go, stored.go       files; stored values
//	encode.go                  writing and copying
//	defaults*.go               what a user may leave out, and canonical spellings
//	validate*.go               what may be stored (policy, rule, net, ipam, ...: by subject; change: updates, deletions)
//	felix.go, felix_types.go   settings of a FelixConfiguration: how they are held; their types
//	felix_fields*.go           the table of all settings, and what each does
//	felix_settings.go          which of them concern a node, and what they say to its agent
//	effects.go                 fields that nothing follows from
//	convert.go, kubernetes.go  effective selectors; rules of Kubernetes policies
//	net.go                     prefixes, addresses, names of ports
//	selector/                  the language of selectors
package api
