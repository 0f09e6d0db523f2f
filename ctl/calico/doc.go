// Package calico brings along what Calico has stored in Kubernetes: objects of crd.projectcalico.org/v1 become those of
// projectcalico.org/v3 that Tortie reads. It never writes to Calico's.
//
//	Source --> Make: a Plan --> Do
//	cluster    what is done about each object,
//	or files   and why some stay behind
//
// A plan is made of what both sides hold now, and doing it twice is doing it once: what is there already is left alone. It
// may be killed anywhere and run again. Blocks come first and pools last: without a pool nobody takes an address that
// somebody has.
//
//	source.go   where Calico's objects come from; files
//	plan.go     Plan and what becomes of each kind
//	object.go   one object: metadata, names
//	blocks.go   blocks of addresses, and whose those are
//	do.go       the writes
package calico
