package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// tries is how often a write is repeated when somebody else changes the same object at the same time.
const tries = 5

// named gives each violation the name of its object.
func named(o api.Object, problems field.ErrorList) error {
	errs := make([]error, 0, len(problems))
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("%s: %w", api.KeyOf(o), p))
	}
	return errors.Join(errs...)
}

// warn tells of fields that are taken and have no effect.
func (env *Env) warn(objects ...api.Object) {
	for _, o := range objects {
		for _, p := range api.Warnings(o) {
			fmt.Fprintf(env.Err, "warning: %s: %v\n", api.KeyOf(o), p)
		}
	}
}

// replaceStored writes o over old, which is what the store holds. The status stays as it is: it belongs to those who
// report. o says which version of old it is meant for.
func replaceStored(ctx context.Context, s datastore.Store, old, o api.Object) (changed bool, err error) {
	api.CopyStatus(o, old)
	if err := named(o, api.ValidateUpdate(old, o)); err != nil {
		return false, err
	}
	now, err := s.Update(ctx, o)
	return err == nil && now.GetResourceVersion() != old.GetResourceVersion(), err
}

// modify changes one stored object by fn, which gets a copy of it. It starts anew when somebody else was faster.
func modify(ctx context.Context, s datastore.Store, key api.Key, fn func(api.Object) (api.Object, error)) (changed bool, err error) {
	for range tries {
		old, err := s.Get(ctx, key)
		if err != nil {
			return false, err
		}
		o, err := fn(api.DeepCopy(old))
		if err != nil {
			return false, err
		}
		if now := api.KeyOf(o); now != key {
			return false, usage("this would make %s out of %s: what an object is called can't be changed; make a new one and delete this one", now, key)
		}
		if err := prepare(o, key.Namespace); err != nil {
			return false, err
		}
		based := o.GetResourceVersion() != old.GetResourceVersion()
		changed, err = replaceStored(ctx, s, old, o)
		if !errors.Is(err, datastore.ErrConflict) || based {
			return changed, err
		}
	}
	return false, fmt.Errorf("%s: %w, %d times in a row", key, datastore.ErrConflict, tries)
}

// keyFrom reads the KIND NAME of a command line; KIND/NAME is as good.
func keyFrom(kind, name, namespace string) (api.Key, error) {
	k, err := kindOf(kind)
	if err != nil {
		return api.Key{}, err
	}
	return api.Key{Kind: k.Kind, Namespace: namespaceFor(k, namespace), Name: name}, nil
}

// bare is o as a person would write it: without what belongs to the store and to those who report.
func bare(o api.Object) api.Object {
	o = api.DeepCopy(o)
	k, ok := api.KindByName(o.GetKind())
	if !ok {
		return o
	}
	api.CopyStatus(o, k.New())
	o.SetResourceVersion("")
	o.SetUID("")
	o.SetGeneration(0)
	o.SetCreationTimestamp(k.New().GetCreationTimestamp())
	o.SetManagedFields(nil)
	o.SetSelfLink("")
	return o
}

// bareYAML gives the text that people edit and compare.
func bareYAML(o api.Object) (string, error) {
	b, err := api.EncodeYAML(bare(o))
	return string(b), err
}

// comment makes each line a comment.
func comment(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString(strings.TrimRight("# "+line, " ") + "\n")
	}
	return b.String()
}

// nearest returns the one of names that word is probably a misspelling of; "" if none is near.
func nearest(word string, names []string) string {
	best, at := "", 3
	for _, n := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(n)); d < at && d < len(word) {
			best, at = n, d
		}
	}
	return best
}

// distance is how many letters have to be added, removed or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
		}
	}
	return row[len(b)]
}
