package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tortie/tortie/api"
)

// podReader asks the API server.
type podReader struct{ core corev1client.PodsGetter }

// lives implements pods. A finished pod has no sandbox any more, and never gets one again.
func (r *podReader) lives(ctx context.Context, o api.Owner) (bool, error) {
	p, err := r.core.Pods(o.Namespace).Get(ctx, o.Pod, metav1.GetOptions{})
	if kerrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading pod %s/%s: %w", o.Namespace, o.Pod, err)
	}
	return isOf(p, o), nil
}

// isOf says whether an address with that owner is the pod's, and the pod still may use it. The kubelet knows a static pod
// by another UID than the API server, which has it in an annotation.
func isOf(p *corev1.Pod, o api.Owner) bool {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return false
	}
	if o.UID == "" {
		return p.Spec.NodeName == o.Node
	}
	return string(p.UID) == o.UID || p.Annotations[corev1.MirrorPodAnnotationKey] == o.UID
}
