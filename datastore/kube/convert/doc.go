// Package convert turns objects of Kubernetes into api objects. It is pure: no I/O, no clock, no state; the same object
// gives the same result, and what it is given is not changed or kept.
//
//	Pod                   -> WorkloadEndpoint <node>-k8s-<pod>-eth0          pod.go
//	Namespace             -> Profile kns.<namespace>                         profile.go
//	ServiceAccount        -> Profile ksa.<namespace>.<name>                  profile.go
//	Node                  -> Node (and back, as annotations)                 node.go
//	EndpointSlice         -> EndpointSlice                                   slice.go
//	NetworkPolicy         -> NetworkPolicy knp.default.<name>                networkpolicy.go
//	ClusterNetworkPolicy  -> GlobalNetworkPolicy kcnp.admin.<name> or kcnp.baseline.<name>   clusterpolicy.go
//
// Policies come as JSON, so that a field that this release does not know is seen, and closes the rule that it is in:
// an Allow then allows nothing, a Deny or Pass denies. Everything that is taken less of than it says is a Problem.
package convert
