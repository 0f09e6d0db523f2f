package controllers

import (
	"context"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/ipam"
)

// cached is the store as ipam wants it, with lists that come from the watch. Collection finds its suspects in them, and
// reads each anew before it changes anything.
type cached struct {
	datastore.Store
	w *world
}

var _ ipam.Store = cached{}

// List implements ipam.Store.
func (c cached) List(_ context.Context, kind, namespace string) ([]api.Object, error) {
	all, err := c.w.list(kind)
	if namespace == "" {
		return all, err
	}
	out := make([]api.Object, 0, len(all))
	for _, o := range all {
		if o.GetNamespace() == namespace {
			out = append(out, o)
		}
	}
	return out, err
}
