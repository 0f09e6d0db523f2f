package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	pageSize    = 500
	listTimeout = 30 * time.Second
	// A list that expires while it is read starts again: this often before it counts as trouble.
	listTries = 3
	// A read whose connection breaks is tried again, once the connection had a moment to come back.
	readTries = 3
	retryWait = 60 * time.Millisecond
)

// checkKey says what is wrong with a key.
func (s *Store) checkKey(k api.Key) error {
	info, ok := s.kinds[k.Kind]
	var why string
	switch {
	case !ok:
		why = "there is no such kind"
	case k.Name == "" || strings.Contains(k.Name, "/") || k.Name == "." || k.Name == "..":
		why = "that is no name"
	case !info.Namespaced && k.Namespace != "":
		why = "the kind has no namespace"
	case info.Namespaced && (k.Namespace == "" || strings.Contains(k.Namespace, "/")):
		why = "that is no namespace"
	default:
		return nil
	}
	return fmt.Errorf("%v: %w: %s", k, datastore.ErrInvalid, why)
}

// Get implements datastore.Store.
func (s *Store) Get(ctx context.Context, key api.Key) (api.Object, error) {
	if err := s.checkKey(key); err != nil {
		return nil, err
	}
	ctx, cancel, err := s.bounded(ctx)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", key, err)
	}
	defer cancel()
	for _, src := range s.sources {
		if src.kind != key.Kind {
			continue
		}
		for _, from := range src.names(key) {
			it, err := s.getItem(ctx, src, from)
			if errors.Is(err, datastore.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%v: %w", key, err)
			}
			if it.none() || it.key != key {
				continue
			}
			if it.pod != nil {
				return s.joined(ctx, it)
			}
			return it.obj, it.err
		}
	}
	return nil, fmt.Errorf("%v: %w", key, datastore.ErrNotFound)
}

// names are the objects of src that may have become key.
func (src *source) names(key api.Key) []string {
	switch src.name {
	case pods:
		if pod := podOf(key.Name); pod != "" {
			return []string{key.Namespace + "/" + pod}
		}
		return nil
	case namespaces:
		if ns, ok := strings.CutPrefix(key.Name, api.NamespaceProfilePrefix); ok && ns != "" {
			return []string{ns}
		}
		return nil
	case serviceAccounts:
		rest, ok := strings.CutPrefix(key.Name, api.ServiceAccountProfilePrefix)
		if ns, name, dot := strings.Cut(rest, "."); ok && dot && ns != "" && name != "" {
			return []string{ns + "/" + name}
		}
		return nil
	case policies, clusterPolicies:
		if from, ok := nativeOf(key); ok {
			return []string{from}
		}
		return nil
	}
	return []string{srcKey(&metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name})}
}

// podOf finds the pod in the name of its WorkloadEndpoint.
func podOf(name string) string {
	const mark = "\x00" // a dash of a part, which is doubled
	parts := strings.Split(strings.ReplaceAll(name, "--", mark), "-")
	if len(parts) != 4 {
		return ""
	}
	return strings.ReplaceAll(parts[2], mark, "-")
}

// getItem reads one object.
func (s *Store) getItem(ctx context.Context, src *source, from string) (*item, error) {
	ns, name, ok := strings.Cut(from, "/")
	if !ok {
		ns, name = "", from
	}
	var o runtime.Object
	err := s.retry(ctx, func() (err error) {
		o, err = s.request(src, "GET", ns).Name(name).MaxRetries(0).Do(ctx).Get()
		return err
	})
	if err != nil {
		return nil, translate(ctx, err)
	}
	return src.convert(o), nil
}

// retry makes a read, again if its connection breaks, or if the server is busy. Whoever calls translates the error.
func (s *Store) retry(ctx context.Context, call func() error) error {
	for try := 1; ; try++ {
		err := call()
		var status apierrors.APIStatus
		answered := errors.As(err, &status) && !apierrors.IsTooManyRequests(err)
		if err == nil || answered || ctx.Err() != nil || try == readTries {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(retryWait * time.Duration(try*try))):
		}
	}
}

// joined returns the WorkloadEndpoint of a pod with its addresses.
func (s *Store) joined(ctx context.Context, it *item) (api.Object, error) {
	j, err := s.joiner(ctx)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", it.key, err)
	}
	j.pod(it.src, it.pod)
	return j.pods[it.src].object()
}

// joiner returns a joiner that knows who holds which addresses.
func (s *Store) joiner(ctx context.Context) (*joiner, error) {
	j := newJoiner()
	for _, src := range s.sources {
		if src.name != blocks && src.name != pools {
			continue
		}
		items, err := s.listItems(ctx, src, "")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", src.name, err)
		}
		for _, it := range items {
			if src.name == blocks {
				j.block(it.src, it.cidr, it.leases)
			} else {
				j.pool(it.src, it.pool)
			}
		}
	}
	return j, nil
}

// List implements datastore.Store.
func (s *Store) List(ctx context.Context, kind, namespace string) ([]api.Object, error) {
	info, ok := s.kinds[kind]
	if !ok {
		return nil, fmt.Errorf("listing: %w: there is no kind %q", datastore.ErrInvalid, kind)
	}
	if !info.Namespaced && namespace != "" {
		return nil, fmt.Errorf("listing: %w: a %s has no namespace", datastore.ErrInvalid, kind)
	}
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("listing %s: %w", kind, errClosed)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, listTimeout)
		defer cancel()
	}
	l := lists{found: map[api.Key]api.Object{}}
	for _, src := range s.sources {
		if src.kind != kind {
			continue
		}
		if err := s.listInto(ctx, src, namespace, &l); err != nil {
			return nil, fmt.Errorf("listing %s: %w", kind, err)
		}
	}
	objects := make([]api.Object, 0, len(l.found))
	for _, o := range l.found {
		objects = append(objects, o)
	}
	slices.SortFunc(objects, func(a, b api.Object) int { return compareKeys(api.KeyOf(a), api.KeyOf(b)) })
	return objects, errors.Join(l.bad...)
}

// lists is what a list has found in one source after the other: those of Kubernetes' own come first, and win.
type lists struct {
	found map[api.Key]api.Object
	bad   []error
}

func (s *Store) listInto(ctx context.Context, src *source, namespace string, l *lists) error {
	items, err := s.listItems(ctx, src, namespace)
	if err != nil {
		return err
	}
	var j *joiner
	if src.name == pods && len(items) > 0 {
		if j, err = s.joiner(ctx); err != nil {
			return err
		}
	}
	for _, it := range items {
		switch {
		case it.err != nil:
			l.bad = append(l.bad, it.err)
		case it.pod != nil:
			j.pod(it.src, it.pod)
			w, err := j.pods[it.src].object()
			if err != nil {
				return err
			}
			l.found[it.key] = w
		case it.obj != nil && l.found[it.key] != nil:
			l.bad = append(l.bad, fmt.Errorf("%v: %w: %s", it.key, datastore.ErrUnreadable, collision(it.key).Reason))
		case it.obj != nil:
			l.found[it.key] = it.obj
		}
	}
	return nil
}

// listItems reads a source as of one revision; nothing if it is not served.
func (s *Store) listItems(ctx context.Context, src *source, namespace string) ([]*item, error) {
	for try := 1; ; try++ {
		items, err := s.listOnce(ctx, src, namespace)
		switch {
		case err == nil:
			return items, nil
		case unserved(err):
			return nil, nil
		case !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) || try == listTries:
			return nil, translate(ctx, err)
		}
	}
}

func (s *Store) listOnce(ctx context.Context, src *source, namespace string) ([]*item, error) {
	var items []*item
	o := metav1.ListOptions{Limit: pageSize}
	for {
		l := src.newList()
		err := s.retry(ctx, func() error {
			return s.request(src, "GET", namespace).SpecificallyVersionedParams(options(&o)).MaxRetries(0).Do(ctx).Into(l)
		})
		if err != nil {
			return nil, err
		}
		err = meta.EachListItem(l, func(o runtime.Object) error {
			items = append(items, src.convert(o))
			return nil
		})
		if err != nil {
			return nil, err
		}
		m, err := meta.ListAccessor(l)
		if err != nil {
			return nil, err
		}
		if o.Continue = m.GetContinue(); o.Continue == "" {
			return items, nil
		}
	}
}
