package convert

import (
	"github.com/tortie/tortie/api"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Namespace returns the profile that the pods of a namespace have: it allows everything that no policy decides, and gives
// them the namespace's labels. Annotations about addresses are kept.
func Namespace(n *corev1.Namespace) *api.Profile {
	p := profile(&n.ObjectMeta, api.NamespaceProfilePrefix+n.Name)
	p.Annotations = only(n.Annotations, cniAnnotations)
	p.Spec = api.ProfileSpec{
		Ingress: []api.Rule{{Action: api.Allow}}, Egress: []api.Rule{{Action: api.Allow}},
		LabelsToApply: inherited(api.NamespaceLabelPrefix, n.Name, n.Labels),
	}
	return p
}

// ServiceAccount returns the profile that gives pods the labels of their service account. It has no rules.
func ServiceAccount(a *corev1.ServiceAccount) *api.Profile {
	p := profile(&a.ObjectMeta, serviceAccountProfile(a.Namespace, a.Name))
	p.Spec.LabelsToApply = inherited(api.ServiceAccountLabelPrefix, a.Name, a.Labels)
	return p
}

func serviceAccountProfile(namespace, name string) string {
	return api.ServiceAccountProfilePrefix + namespace + "." + name
}

// profile returns an empty profile. The labels of what it is made from are in labelsToApply.
func profile(from *metav1.ObjectMeta, name string) *api.Profile {
	p := &api.Profile{TypeMeta: typed(api.GroupVersion, "Profile"), ObjectMeta: objectMeta(from, name)}
	p.Namespace, p.Labels = "", nil
	return p
}
