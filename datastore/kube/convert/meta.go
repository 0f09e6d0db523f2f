package convert

import (
	"strings"

	"github.com/tortie/tortie/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// typed says what an object is.
func typed(apiVersion, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: apiVersion, Kind: kind}
}

// objectMeta returns what an object made from another has of its metadata. Labels are shared, annotations are not taken.
func objectMeta(m *metav1.ObjectMeta, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation,
		CreationTimestamp: m.CreationTimestamp, Labels: m.Labels,
	}
}

// Annotations whose keys begin so are kept on what is made from a pod or a namespace.
const (
	cniAnnotations = "cni.projectcalico.org/"
	qosAnnotations = "qos.projectcalico.org/"
)

// only returns the annotations whose keys begin with one of prefixes; nil if there are none.
func only(annotations map[string]string, prefixes ...string) map[string]string {
	var out map[string]string
	for k, v := range annotations {
		for _, p := range prefixes {
			if strings.HasPrefix(k, p) {
				if out == nil {
					out = map[string]string{}
				}
				out[k] = v
			}
		}
	}
	return out
}

// inherited returns the labels that the endpoints of a namespace or service account inherit from it. Its name comes from
// itself, whatever its labels say.
func inherited(prefix, name string, labels map[string]string) map[string]string {
	out := make(map[string]string, len(labels)+1)
	for k, v := range labels {
		out[prefix+k] = v
	}
	out[prefix+api.LabelName] = name
	return out
}
