package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	// bootAnnotation is the boot of the node in which its agent has enforced policy.
	bootAnnotation = "tortie.io/boot-id"
	// Reasons of the condition NetworkUnavailable. The agent has others.
	reasonRebooted  = "NodeRebooted"
	reasonUp        = "TortieIsUp"
	reasonElsewhere = "TortieIsNotHere"
	reasonStarting  = "TortieIsStarting" // the agent's
)

// boots says that nodes have no network from their boot on until their agent enforces policy: kube-controller-manager
// taints them by the condition. The agent sets it, too, but only once it runs. Nodes that no agent is to run on are another
// plugin's: of their conditions only one of ours is changed.
type boots struct {
	nodes  corev1client.NodesGetter
	agents labels.Selector // the nodes that agents run on
	config *config
	store  cache.Store
	run    func(ctx context.Context) // follows the nodes until ctx ends
	synced func() bool
}

// newBoots makes what calls changed when there is something to do. Agents run on all nodes if agents is nil.
func newBoots(nodes corev1client.NodesGetter, agents labels.Selector, c *config, changed func()) *boots {
	if agents == nil {
		agents = labels.Everything()
	}
	b := &boots{nodes: nodes, agents: agents, config: c}
	look := func(o any) {
		if n, ok := o.(*corev1.Node); ok && b.judge(n) != nil {
			changed()
		}
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return nodes.Nodes().List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return nodes.Nodes().Watch(ctx, o)
		},
	}, nodes)
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: &corev1.Node{}, Transform: slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: look, UpdateFunc: func(_, o any) { look(o) },
		},
	})
	b.store, b.synced = store, controller.HasSynced
	b.run = controller.RunWithContext
	return b
}

func (b *boots) part() part {
	return part{
		name: "boots", step: b.step, every: b.config.every,
		needs: func() error {
			if !b.synced() {
				return errBlind
			}
			return nil
		},
	}
}

// slim keeps what judge reads.
func slim(o any) (any, error) {
	n, ok := o.(*corev1.Node)
	if !ok {
		return o, nil
	}
	s := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, Labels: n.Labels}}
	if id, ok := n.Annotations[bootAnnotation]; ok {
		s.Annotations = map[string]string{bootAnnotation: id}
	}
	s.Status.NodeInfo.BootID, s.Status.NodeInfo.OperatingSystem = n.Status.NodeInfo.BootID, n.Status.NodeInfo.OperatingSystem
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			s.Status.Conditions = []corev1.NodeCondition{c}
		}
	}
	return s, nil
}

// judge returns the condition that a node should have instead of its own; nil if that one is right.
func (b *boots) judge(n *corev1.Node) *corev1.NodeCondition {
	booted := n.Status.NodeInfo.BootID
	if booted == "" || n.Status.NodeInfo.OperatingSystem != "linux" {
		return nil // no agent of ours is there
	}
	var now corev1.NodeCondition
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			now = c
		}
	}
	if !b.agents.Matches(labels.Set(n.Labels)) {
		if now.Status == corev1.ConditionTrue && (now.Reason == reasonRebooted || now.Reason == reasonStarting) {
			// It was said when agents ran there, and no agent will take it back.
			return &corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: reasonElsewhere,
				Message: "tortie-agent is not to run on the node"}
		}
		return nil
	}
	switch up := n.Annotations[bootAnnotation] == booted; {
	case !up && now.Status != corev1.ConditionTrue:
		return &corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue, Reason: reasonRebooted,
			Message: "the node has booted, and tortie-agent does not enforce policy on it yet"}
	case up && now.Status == corev1.ConditionTrue && now.Reason == reasonRebooted:
		// The agent was faster than this part's look at the node.
		return &corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: reasonUp,
			Message: "tortie-agent enforces policy"}
	}
	return nil
}

func (b *boots) step(ctx context.Context) error {
	var errs []error
	for _, o := range b.store.List() {
		n, ok := o.(*corev1.Node)
		if !ok {
			continue
		}
		if c := b.judge(n); c != nil {
			errs = append(errs, b.set(ctx, n, c))
		}
	}
	return errors.Join(errs...)
}

// set writes the condition if the node still is as it was seen: the agent must not be overruled by an old look.
func (b *boots) set(ctx context.Context, n *corev1.Node, c *corev1.NodeCondition) error {
	at := metav1.NewTime(time.Now())
	c.LastHeartbeatTime, c.LastTransitionTime = at, at
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": n.UID, "resourceVersion": n.ResourceVersion},
		"status":   map[string]any{"conditions": []*corev1.NodeCondition{c}},
	})
	if err != nil {
		return err
	}
	_, err = b.nodes.Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !kerrors.IsConflict(err) && !kerrors.IsNotFound(err) {
		return fmt.Errorf("setting %s of node %s: %w", c.Type, n.Name, err)
	}
	return nil
}
