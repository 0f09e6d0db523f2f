package convert

import (
	"github.com/tortie/tortie/api"
	corev1 "k8s.io/api/core/v1"
)

// Node returns the Node of a Kubernetes node. What Kubernetes has no field for is in annotations.
func Node(n *corev1.Node) *api.Node { return &api.Node{} }

// NodeAnnotations returns the annotations of a Kubernetes node that say what n does; nil for one that is not to be. Node
// reads them again.
func NodeAnnotations(n *api.Node) map[string]*string { return nil }
