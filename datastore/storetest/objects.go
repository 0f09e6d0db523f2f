package storetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func netset(namespace, name string, nets ...string) *api.NetworkSet {
	return &api.NetworkSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       api.NetworkSetSpec{Nets: nets},
	}
}

func globalset(name string, nets ...string) *api.GlobalNetworkSet {
	return &api.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.NetworkSetSpec{Nets: nets}}
}

func labelled(o api.Object, name, value string) api.Object {
	o = api.DeepCopy(o)
	o.SetLabels(map[string]string{name: value})
	return o
}

func nets(t *testing.T, o api.Object) []string {
	t.Helper()
	switch o := o.(type) {
	case *api.NetworkSet:
		return o.Spec.Nets
	case *api.GlobalNetworkSet:
		return o.Spec.Nets
	}
	t.Fatalf("unexpected %T", o)
	return nil
}

func create(t *testing.T, s datastore.Store, o api.Object) api.Object {
	t.Helper()
	out, err := s.Create(background(t), o)
	if err != nil {
		t.Fatalf("create %v: %v", api.KeyOf(o), err)
	}
	return out
}

func update(t *testing.T, s datastore.Store, o api.Object) api.Object {
	t.Helper()
	out, err := s.Update(background(t), o)
	if err != nil {
		t.Fatalf("update %v: %v", api.KeyOf(o), err)
	}
	return out
}

func remove(t *testing.T, s datastore.Store, o api.Object) {
	t.Helper()
	if err := s.Delete(background(t), api.KeyOf(o), ""); err != nil {
		t.Fatalf("delete %v: %v", api.KeyOf(o), err)
	}
}

func get(t *testing.T, s datastore.Store, o api.Object) api.Object {
	t.Helper()
	out, err := s.Get(background(t), api.KeyOf(o))
	if err != nil {
		t.Fatalf("get %v: %v", api.KeyOf(o), err)
	}
	return out
}

// fill creates objects, many in one write.
func fill(t *testing.T, s datastore.Store, objects ...api.Object) {
	t.Helper()
	for len(objects) > 0 {
		n := min(len(objects), 100)
		var ops []datastore.Op
		for _, o := range objects[:n] {
			ops = append(ops, datastore.Op{Verb: datastore.Create, Object: o})
		}
		if err := s.Txn(background(t), ops...); err != nil {
			t.Fatal(err)
		}
		objects = objects[n:]
	}
}

// wantError checks that err is want and names the resource.
func wantError(t *testing.T, err, want error, name string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	} else if !strings.Contains(err.Error(), name) {
		t.Errorf("error %q does not name %q", err, name)
	}
}
