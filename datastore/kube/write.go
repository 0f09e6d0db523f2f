package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A write without a revision that meets others' writes reads again: this often before it counts as trouble.
const updateTries = 20

// writable fails for what is made of Kubernetes' own objects: those are to be written instead.
func (s *Store) writable(key api.Key) error {
	if err := s.checkKey(key); err != nil {
		return err
	}
	var what, how string
	native, reserved := nativeOf(key)
	switch {
	case key.Kind == "WorkloadEndpoint":
		what, how = "it is made of a pod", fmt.Sprintf("kubectl -n %s edit pod %s", key.Namespace, podOf(key.Name))
	case key.Kind == "Profile":
		what, how = "it is made of a namespace or a service account", "kubectl label namespace ..."
	case key.Kind == "Node":
		what, how = "nodes come and go with their kubelets", "kubectl delete node "+key.Name
	case key.Kind == "EndpointSlice":
		what, how = "it is Kubernetes' own", fmt.Sprintf("kubectl -n %s edit endpointslice %s", key.Namespace, key.Name)
	case reserved && key.Kind == "NetworkPolicy":
		_, name, _ := strings.Cut(native, "/")
		what, how = "it is made of a NetworkPolicy of Kubernetes' own", fmt.Sprintf("kubectl -n %s edit networkpolicies.networking.k8s.io %s", key.Namespace, name)
	case reserved:
		what, how = "it is made of a ClusterNetworkPolicy", "kubectl edit clusternetworkpolicies "+native
	default:
		return nil
	}
	return fmt.Errorf("%v: %w: %s: %s", key, datastore.ErrInvalid, what, how)
}

// stored returns the source of a kind of our own.
func (s *Store) stored(kind string) *source {
	for _, src := range s.sources {
		if src.kind == kind && !src.native {
			return src
		}
	}
	return nil
}

// prepare returns o as it may be written, defaulted and valid, without what is the server's.
func prepare(o api.Object) (api.Object, error) {
	key := api.KeyOf(o)
	o = api.DeepCopy(o)
	o.SetManagedFields(nil)
	o.SetSelfLink("")
	o.SetCreationTimestamp(metav1.Time{})
	o.SetDeletionTimestamp(nil)
	o.SetDeletionGracePeriodSeconds(nil)
	o.SetGeneration(0)
	api.Default(o)
	if errs := api.Validate(o); len(errs) > 0 {
		return nil, fmt.Errorf("%v: %w: %w", key, datastore.ErrInvalid, errs.ToAggregate())
	}
	return o, nil
}

// Create implements datastore.Store.
func (s *Store) Create(ctx context.Context, o api.Object) (api.Object, error) {
	key := api.KeyOf(o)
	if err := s.writable(key); err != nil {
		return nil, err
	}
	o, err := prepare(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel, err := s.bounded(ctx)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", key, err)
	}
	defer cancel()
	o.SetUID("")
	o.SetResourceVersion("")
	out, err := s.send(ctx, "POST", "", o)
	if err == nil {
		return s.writeStatus(ctx, o, out)
	}
	if unserved(err) {
		return nil, fmt.Errorf("%v: %w: the cluster has no CustomResourceDefinition %s: install those of Tortie", key, datastore.ErrInvalid, s.stored(key.Kind).name)
	}
	if err = translate(ctx, err); errors.Is(err, datastore.ErrNotFound) {
		return nil, fmt.Errorf("%v: %w: %w", key, datastore.ErrInvalid, err) // its namespace
	}
	return nil, fmt.Errorf("%v: %w", key, err)
}

// Update implements datastore.Store. A status is written if the object has one.
func (s *Store) Update(ctx context.Context, o api.Object) (api.Object, error) {
	key := api.KeyOf(o)
	if n, ok := o.(*api.Node); ok {
		return s.updateNode(ctx, n)
	}
	if err := s.writable(key); err != nil {
		return nil, err
	}
	o, err := prepare(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel, err := s.bounded(ctx)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", key, err)
	}
	defer cancel()
	if err := checkRevision(o.GetResourceVersion()); err != nil {
		return nil, fmt.Errorf("%v: %w", key, err)
	}
	last := o.GetResourceVersion() == ""
	for try := 1; ; try++ {
		if last {
			if err := s.adopt(ctx, o); err != nil {
				return nil, fmt.Errorf("%v: %w", key, err)
			}
		}
		out, err := s.send(ctx, "PUT", "", o)
		if err == nil {
			return s.writeStatus(ctx, o, out)
		}
		if err = translate(ctx, err); !last || !errors.Is(err, datastore.ErrConflict) || try == updateTries {
			return nil, fmt.Errorf("%v: %w", key, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(time.Millisecond << min(try, 6))):
		}
	}
}

// checkRevision fails for what was never the revision of anything here.
func checkRevision(rev string) error {
	if _, err := strconv.ParseUint(rev, 10, 64); rev != "" && err != nil {
		return fmt.Errorf("%w: revision %q is not of this store", datastore.ErrConflict, rev)
	}
	return nil
}

// adopt gives o the revision that is stored now, which it may replace if it is not another one's.
func (s *Store) adopt(ctx context.Context, o api.Object) error {
	src := s.stored(o.GetKind())
	var now *rawObject
	err := s.retry(ctx, func() error {
		got, err := s.request(src, "GET", o.GetNamespace()).Name(o.GetName()).MaxRetries(0).Do(ctx).Get()
		now, _ = got.(*rawObject)
		return err
	})
	if err != nil {
		return translate(ctx, err)
	}
	if now == nil {
		return fmt.Errorf("%w: the server answers with something else", datastore.ErrUnavailable)
	}
	if uid := o.GetUID(); uid != "" && uid != now.UID {
		return fmt.Errorf("%w: it is another one of that name (uid %s, not %s)", datastore.ErrConflict, now.UID, uid)
	}
	o.SetResourceVersion(now.ResourceVersion)
	return nil
}

// lossy are the kinds that agents write while a cluster is upgraded: a field that an older CustomResourceDefinition does not
// know is dropped. Of all others that is refused, since a rule that loses a field may allow more.
var lossy = []string{"IPAMBlock", "IPAMHandle", "BlockAffinity"}

// send writes o; sub is "" or "status".
func (s *Store) send(ctx context.Context, verb, sub string, o api.Object) (*rawObject, error) {
	body, err := api.Encode(o)
	if err != nil {
		return nil, err
	}
	r := s.request(s.stored(o.GetKind()), verb, o.GetNamespace()).Param("fieldManager", "tortie").Body(body)
	if !slices.Contains(lossy, o.GetKind()) {
		r = r.Param("fieldValidation", metav1.FieldValidationStrict)
	}
	if verb == "PUT" {
		r = r.Name(o.GetName())
	}
	if sub != "" {
		r = r.SubResource(sub)
	}
	out := &rawObject{}
	return out, r.Do(ctx).Into(out)
}

// writeStatus writes the status of o too, if the server keeps it apart, and returns what is stored then.
func (s *Store) writeStatus(ctx context.Context, o api.Object, out *rawObject) (api.Object, error) {
	key := api.KeyOf(o)
	if want := member(o, "status"); len(want) > 0 && !sameJSON(want, status(out)) {
		o.SetResourceVersion(out.ResourceVersion)
		o.SetUID(out.UID)
		now, err := s.send(ctx, "PUT", "status", o)
		switch {
		case err == nil:
			out = now
		case !unserved(err):
			return nil, fmt.Errorf("%v: its status: %w", key, translate(ctx, err))
		}
	}
	it := stored(key.Kind, out)
	return it.obj, it.err
}

func member(o api.Object, name string) json.RawMessage {
	data, err := api.Encode(o)
	if err != nil {
		return nil
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(data, &m) != nil {
		return nil
	}
	return m[name]
}

func status(o *rawObject) json.RawMessage {
	var m struct {
		Status json.RawMessage `json:"status"`
	}
	if json.Unmarshal(o.data, &m) != nil {
		return nil
	}
	return m.Status
}

func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// Delete implements datastore.Store.
func (s *Store) Delete(ctx context.Context, key api.Key, revision string) error {
	if err := s.writable(key); err != nil {
		return err
	}
	ctx, cancel, err := s.bounded(ctx)
	if err != nil {
		return fmt.Errorf("%v: %w", key, err)
	}
	defer cancel()
	o := metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}}
	if revision != "" {
		o.Preconditions = &metav1.Preconditions{ResourceVersion: &revision}
	}
	body, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("%v: %w", key, err)
	}
	err = s.request(s.stored(key.Kind), "DELETE", key.Namespace).Name(key.Name).Body(body).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("%v: %w", key, translate(ctx, err))
	}
	return nil
}

// Txn implements datastore.Store for one op: the API server has no transactions.
func (s *Store) Txn(ctx context.Context, ops ...datastore.Op) (err error) {
	switch {
	case len(ops) == 0:
		return nil
	case len(ops) > 1:
		return fmt.Errorf("%w: the Kubernetes API has no transactions: %d writes are to be done one by one", datastore.ErrInvalid, len(ops))
	}
	switch op := ops[0]; op.Verb {
	case datastore.Create:
		_, err = s.Create(ctx, op.Object)
	case datastore.Update:
		_, err = s.Update(ctx, op.Object)
	case datastore.Delete:
		err = s.Delete(ctx, op.Key, op.Revision)
	default:
		err = fmt.Errorf("%w: verb %d", datastore.ErrInvalid, op.Verb)
	}
	return err
}
