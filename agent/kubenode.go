package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

const (
	// bootIDAnnotation is the boot of a node in which its agent has come to enforce policy.
	bootIDAnnotation = "tortie.io/boot-id"
	// readyCheck is how often the registrar looks whether policy is enforced, until it is. That asks nobody.
	readyCheck = 500 * time.Millisecond

	// nodeTries is how often an annotation is tried again that somebody else got in the way of.
	nodeTries = 3

	internalIP = "InternalIP"
)

// networkStore is a store whose nodes have a condition that says whether their network is there: while it is not, the
// cluster places no pods on them.
type networkStore interface {
	SetNetworkUnavailable(ctx context.Context, node string, unavailable bool, reason, message string) error
}

// kubeNode is this node's Node where that is Kubernetes' own: the kubelet makes it, and the agent puts annotations and a
// condition at it. What it holds is known from the watch, so that an idle node asks the API server for nothing.
type kubeNode struct {
	bootID string
	ready  func() bool // policy is enforced on this node
	log    *slog.Logger

	mu     sync.Mutex
	inSync bool      // the watch has told all that there is
	node   *api.Node // as the watch has told it; nil = there is none yet
	said   string    // of the network: "", networkStarting, networkUp
}

const (
	networkStarting = "TortieIsStarting"
	networkUp       = "TortieIsUp"
)

// saw takes in this node's Node, nil if there is none, and reports whether there is something new to the registrar in it.
func (k *kubeNode) saw(n *api.Node) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.node
	k.node = n
	if was == nil || n == nil {
		return was != n
	}
	return was.UID != n.UID || !reflect.DeepEqual(was.Spec, n.Spec) || !reflect.DeepEqual(was.Annotations, n.Annotations)
}

// synced says that the watch has told all that there is.
func (k *kubeNode) synced() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inSync = true
}

// missing says why there is no Node.
func (k *kubeNode) missing(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.inSync {
		return fmt.Errorf("%w: it has not told of Node %s yet", datastore.ErrUnavailable, name)
	}
	return fmt.Errorf("the kubelet has not registered node %s in the cluster yet", name)
}

func (k *kubeNode) known() *api.Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.node
}

// podCIDRs are the ranges that the cluster has given this node, where there is such a thing.
func (r *registrar) podCIDRs() []string {
	if r.kube == nil {
		return nil
	}
	if n := r.kube.known(); n != nil {
		return n.Status.PodCIDRs
	}
	return nil
}

// settled reports whether all has been said of the network in this boot.
func (k *kubeNode) settled() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.said == networkUp
}

// register puts at the Node what is to be there, if it is not, and returns the node's addresses.
func (k *kubeNode) register(ctx context.Context, r *registrar) ([]netip.Prefix, error) {
	n := k.known()
	if n == nil {
		return nil, k.missing(r.name)
	}
	addrs, err := k.addresses(r, n)
	if err != nil {
		return nil, err
	}
	s, err := r.store()
	if err != nil {
		return addrs, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	network, _ := s.(networkStore)
	ready := k.ready()
	sameBoot := k.bootID == "" || n.Annotations[bootIDAnnotation] == k.bootID
	if !ready && !sameBoot {
		if err := k.say(ctx, network, n, networkStarting); err != nil {
			return addrs, err
		}
	}
	if err := k.annotate(ctx, s, r, n, addrs); err != nil {
		return addrs, fmt.Errorf("annotating Node %s: %w", r.name, err)
	}
	if ready {
		// After the annotation: who finds the one without the other takes it for a node that has just been booted.
		err = k.say(ctx, network, n, networkUp)
	}
	return addrs, err
}

// annotate writes what is to be at the Node, if it is not there.
func (k *kubeNode) annotate(ctx context.Context, s datastore.Store, r *registrar, n *api.Node, addrs []netip.Prefix) error {
	for try := 0; ; try++ {
		want, changed, err := k.want(r, n, addrs)
		if err != nil || !changed {
			return err
		}
		got, err := s.Update(ctx, want)
		if errors.Is(err, datastore.ErrConflict) && try < nodeTries {
			got, err = s.Get(ctx, api.KeyOf(want)) // the kubelet writes it, too
			n, _ = got.(*api.Node)
			if err == nil && n != nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if o, ok := got.(*api.Node); ok {
			k.saw(o) // before the watch tells it
		}
		k.log.Info("node annotated", "node", r.name, "addresses", addrs)
		return nil
	}
}

// say says how the network is, if that has not been said.
func (k *kubeNode) say(ctx context.Context, s networkStore, n *api.Node, what string) error {
	k.mu.Lock()
	said := k.said
	k.mu.Unlock()
	lost := what == networkUp && k.bootID != "" && n.Annotations[bootIDAnnotation] != k.bootID // the Node has been made anew
	if s == nil || said == what && !lost {
		k.note(what)
		return nil
	}
	message := "policy is enforced on this node"
	if what == networkStarting {
		message = "the node has been booted, and policy is not enforced yet"
	}
	if err := s.SetNetworkUnavailable(ctx, n.Name, what == networkStarting, what, message); err != nil {
		return fmt.Errorf("saying that the network of node %s is there or not: %w", n.Name, err)
	}
	k.note(what)
	return nil
}

func (k *kubeNode) note(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.said = what
}

// want is the Node as it is to be.
func (k *kubeNode) want(r *registrar, n *api.Node, addrs []netip.Prefix) (want *api.Node, changed bool, err error) {
	want, ok := api.DeepCopy(n).(*api.Node)
	if !ok {
		return nil, false, errors.New("copying the Node")
	}
	fresh := nodeResource(r.name, addrs).Spec.BGP
	if want.Spec.BGP == nil {
		want.Spec.BGP = &api.NodeBGPSpec{}
	}
	if want.Spec.BGP.IPv4Address != fresh.IPv4Address || want.Spec.BGP.IPv6Address != fresh.IPv6Address {
		want.Spec.BGP.IPv4Address, want.Spec.BGP.IPv6Address = fresh.IPv4Address, fresh.IPv6Address
		changed = true
	}
	news, err := r.tell(want)
	if err != nil {
		return nil, false, err
	}
	if k.ready() && k.bootID != "" && want.Annotations[bootIDAnnotation] != k.bootID {
		if want.Annotations == nil {
			want.Annotations = map[string]string{}
		}
		want.Annotations[bootIDAnnotation] = k.bootID
		news = true
	}
	return want, changed || news, nil
}

// addresses are the node's: those that the operator has said, or else of each family that which the kubelet has told the
// cluster, or that of the default route.
func (k *kubeNode) addresses(r *registrar, n *api.Node) ([]netip.Prefix, error) {
	if len(r.fixed) > 0 {
		return r.fixed, nil
	}
	var out []netip.Prefix
	has := map[bool]bool{}
	add := func(p netip.Prefix) {
		if is4 := p.Addr().Is4(); p.IsValid() && !has[is4] {
			has[is4] = true
			out = append(out, p)
		}
	}
	for _, a := range n.Spec.Addresses {
		addr, err := netip.ParseAddr(a.Address)
		if a.Type != internalIP || err != nil {
			continue
		}
		p, err := r.prefix(addr.Unmap())
		if err != nil {
			return nil, err
		}
		add(p) // or no interface of the host has it: it may be translated
	}
	if has[true] && has[false] {
		return out, nil
	}
	found, err := r.find()
	if err != nil && len(out) == 0 {
		return nil, err
	}
	for _, p := range found {
		add(p)
	}
	return out, nil
}
