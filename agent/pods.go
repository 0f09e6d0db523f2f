package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tortie/tortie/agent/feed"
	"github.com/tortie/tortie/agent/workload"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// accountPatience is how long an attach waits for the profile of a pod's service account: a pod may outlive its account.
const accountPatience = 2 * time.Second

// pods is what the API server tells of the pods of this node: their WorkloadEndpoints, which the feed knows, and the
// profiles that these name.
type pods struct {
	feed *feed.Feed

	mu       sync.Mutex
	profiles map[string]map[string]string // their annotations
	changed  chan struct{}                // closed when there is another profile
}

func newPods(f *feed.Feed) *pods {
	return &pods{feed: f, profiles: map[string]map[string]string{}, changed: make(chan struct{})}
}

// take takes in what the graph has been told.
func (p *pods) take(b datastore.Batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	more := false
	for _, e := range b.Events {
		if e.Key.Kind != "Profile" {
			continue
		}
		if o, ok := e.Object.(*api.Profile); ok {
			p.profiles[e.Key.Name] = o.Annotations
			more = true
		} else {
			delete(p.profiles, e.Key.Name)
		}
	}
	if more {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// WaitPod waits until the graph knows the pod with this UID, and the profiles of its namespace and service account: without
// the first its namespace's annotations are not known, without the second policy that selects by account would pass it by.
func (p *pods) WaitPod(ctx context.Context, key api.Key, uid string) (workload.Pod, error) {
	w, err := p.feed.WaitEndpoint(ctx, key, func(o *api.WorkloadEndpoint) bool { return string(o.UID) == uid })
	switch {
	case err != nil && w != nil:
		return workload.Pod{}, fmt.Errorf("the API server has told of one with UID %s, not yet of that with UID %s: %w", w.UID, uid, err)
	case err != nil:
		return workload.Pod{}, fmt.Errorf("the API server has told of none on this node, with UID %s or another: %w", uid, err)
	}
	pod := workload.Pod{Annotations: w.Annotations}
	for _, name := range w.Spec.Profiles {
		namespace := strings.HasPrefix(name, api.NamespaceProfilePrefix)
		annotations, err := p.waitProfile(ctx, name, namespace)
		if err != nil {
			return workload.Pod{}, err
		}
		if namespace {
			pod.Namespace = annotations
		}
	}
	return pod, nil
}

// waitProfile waits for a profile; for one that the pod can do without not for long.
func (p *pods) waitProfile(ctx context.Context, name string, must bool) (map[string]string, error) {
	wait := ctx
	if !must {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, accountPatience)
		defer cancel()
	}
	for {
		p.mu.Lock()
		annotations, there := p.profiles[name]
		changed := p.changed
		p.mu.Unlock()
		if there {
			return annotations, nil
		}
		select {
		case <-changed:
		case <-wait.Done():
			if ctx.Err() == nil {
				return nil, nil
			}
			return nil, fmt.Errorf("the API server has not told of its profile %s yet: %w", name, ctx.Err())
		}
	}
}

// WaitMember waits until the graph has been told that a pod has addrs.
func (p *pods) WaitMember(ctx context.Context, key api.Key, uid string, addrs []netip.Addr) error {
	want := make([]string, 0, len(addrs))
	for _, a := range addrs {
		want = append(want, netip.PrefixFrom(a, a.BitLen()).String())
	}
	w, err := p.feed.WaitEndpoint(ctx, key, func(o *api.WorkloadEndpoint) bool {
		return string(o.UID) != uid || !slices.ContainsFunc(want, func(a string) bool { return !slices.Contains(o.Spec.IPNetworks, a) })
	})
	if err == nil && string(w.UID) != uid {
		return errors.New("there is another pod of that name now")
	}
	return err
}
