package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/kube/convert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// updateNode writes what of a Node is in annotations of Kubernetes' node. All else of it is the kubelet's.
func (s *Store) updateNode(ctx context.Context, n *api.Node) (api.Object, error) {
	key := api.KeyOf(n)
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	if errs := api.Validate(n); len(errs) > 0 {
		return nil, fmt.Errorf("%v: %w: %w", key, datastore.ErrInvalid, errs.ToAggregate())
	}
	if err := checkRevision(n.ResourceVersion); err != nil {
		return nil, fmt.Errorf("%v: %w", key, err)
	}
	ctx, cancel, err := s.bounded(ctx)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", key, err)
	}
	defer cancel()
	old, err := s.node(ctx, n.Name)
	if err == nil {
		old, err = s.annotate(ctx, old, n)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", key, err)
	}
	out, _ := convert.Node(old)
	return out, nil
}

func (s *Store) node(ctx context.Context, name string) (*corev1.Node, error) {
	out := &corev1.Node{}
	err := s.retry(ctx, func() error {
		return s.typed.Get().AbsPath("/api/v1").Resource("nodes").Name(name).MaxRetries(0).Do(ctx).Into(out)
	})
	return out, translate(ctx, err)
}

// annotate has old say what n does, and returns it.
func (s *Store) annotate(ctx context.Context, old *corev1.Node, n *api.Node) (*corev1.Node, error) {
	if n.ResourceVersion != "" && n.ResourceVersion != old.ResourceVersion {
		return nil, fmt.Errorf("%w: it is at revision %s", datastore.ErrConflict, old.ResourceVersion)
	}
	if n.UID != "" && n.UID != old.UID {
		return nil, fmt.Errorf("%w: it is another one of that name (uid %s, not %s)", datastore.ErrConflict, old.UID, n.UID)
	}
	want := convert.ChangeNode(old, n)
	if len(want) == 0 {
		return old, nil
	}
	meta := map[string]any{"annotations": want, "uid": old.UID}
	if n.ResourceVersion != "" {
		meta["resourceVersion"] = n.ResourceVersion
	}
	return s.patchNode(ctx, n.Name, "", types.MergePatchType, map[string]any{"metadata": meta})
}

// SetNetworkUnavailable sets the condition NetworkUnavailable of a node, which keeps pods away from it until its network
// works.
func (s *Store) SetNetworkUnavailable(ctx context.Context, node string, unavailable bool, reason, message string) error {
	now := metav1.NewTime(time.Now())
	c := corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		LastTransitionTime: now, LastHeartbeatTime: now}
	if unavailable {
		c.Status = corev1.ConditionTrue
	}
	// The list of conditions is merged by type.
	_, err := s.patchNode(ctx, node, "status", types.StrategicMergePatchType,
		map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{c}}})
	if err != nil {
		return fmt.Errorf("condition NetworkUnavailable of node %s: %w", node, err)
	}
	return nil
}

func (s *Store) patchNode(ctx context.Context, name, sub string, how types.PatchType, patch any) (*corev1.Node, error) {
	ctx, cancel, err := s.bounded(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	r := s.typed.Patch(how).AbsPath("/api/v1").Resource("nodes").Name(name).Param("fieldManager", "tortie").Body(body)
	if sub != "" {
		r = r.SubResource(sub)
	}
	out := &corev1.Node{}
	if err := r.Do(ctx).Into(out); err != nil {
		return nil, translate(ctx, err)
	}
	return out, nil
}
