package controllers

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// podReader asks the API server.
type podReader struct{ core corev1client.PodsGetter }

// lives implements pods. A finished pod has no sandbox any more, and never gets one again. An error wraps ErrUnavailable if
// other pods can't be asked for either.
func (r *podReader) lives(ctx context.Context, o api.Owner) (bool, error) {
	// Without a namespace, the server would not find what it takes for another kind of request.
	if o.Namespace == "" || len(content.IsPathSegmentName(o.Namespace)) > 0 || len(content.IsPathSegmentName(o.Pod)) > 0 {
		return false, fmt.Errorf("reading pod %q of namespace %q: nobody can ask for such names", o.Pod, o.Namespace)
	}
	p, err := r.core.Pods(o.Namespace).Get(ctx, o.Pod, metav1.GetOptions{})
	if kerrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		err = fmt.Errorf("reading pod %s/%s: %w", o.Namespace, o.Pod, err)
		if serverAway(err) {
			err = fmt.Errorf("%w: %w", datastore.ErrUnavailable, err)
		}
		return false, err
	}
	return isOf(p, o), nil
}

// serverAway says that no answer came, or one that is about no request in particular.
func serverAway(err error) bool {
	var status kerrors.APIStatus
	return !errors.As(err, &status) || kerrors.IsTooManyRequests(err) || kerrors.IsServiceUnavailable(err) ||
		kerrors.IsServerTimeout(err) || kerrors.IsTimeout(err)
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
