// Package datastore is where resources live: get, list, compare-and-swap writes, and a resumable stream of a snapshot
// and the changes after it. Back ends: etcd (a remote cluster or `tortie store`) and mem (for tests).
package datastore

import (
	"context"
	"errors"
	"time"

	"github.com/tortie/tortie/api"
)

var (
	// ErrNotFound says that there is no such resource.
	ErrNotFound = errors.New("not found")
	// ErrExists says that a resource of that name is there already.
	ErrExists = errors.New("exists already")
	// ErrConflict says that the resource has changed since it was read: read it again and retry.
	ErrConflict = errors.New("changed since it was read")
	// ErrUnavailable says that the store can't be reached; what it holds is not known.
	ErrUnavailable = errors.New("the store can't be reached")
	// ErrForbidden says that the store refused this client.
	ErrForbidden = errors.New("refused by the store")
	// ErrFull says that the store has no room for writes; deletes make some.
	ErrFull = errors.New("the store is full")
	// ErrInvalid says that a resource, or what was asked for, is not valid.
	ErrInvalid = errors.New("not valid")
	// ErrUnreadable says that a stored value could not be read at all. It can still be replaced and deleted.
	ErrUnreadable = errors.New("what is stored can't be read")
)

// Store holds resources. It is safe for concurrent use. Objects passed in are not kept; objects returned are the
// caller's. metadata.resourceVersion is the revision that compare-and-swap compares; metadata.uid and creationTimestamp
// are the store's. Errors wrap the values above and name the resource.
type Store interface {
	Get(ctx context.Context, key api.Key) (api.Object, error)
	// List returns the resources of a kind, sorted by namespace and name; namespace "" = all. An error that wraps
	// ErrUnreadable names those that are left out; all others are returned beside it.
	List(ctx context.Context, kind, namespace string) ([]api.Object, error)
	// Create writes a new resource and returns it as stored.
	Create(ctx context.Context, o api.Object) (api.Object, error)
	// Update replaces a resource. With a resourceVersion it is compare-and-swap; without, last write wins. An update
	// that changes nothing is not written. metadata.generation counts the changes of spec.
	Update(ctx context.Context, o api.Object) (api.Object, error)
	// Delete removes a resource; with a revision that is not "" only if it is still at that one.
	Delete(ctx context.Context, key api.Key, revision string) error
	// Txn does all of ops or none, in one write (each op as in Create, Update and Delete). A key may be in it once; 100
	// ops are always possible.
	Txn(ctx context.Context, ops ...Op) error

	// Watch sends the resources of kinds to fn: first a snapshot (or, with a Resume token of an earlier Watch, what
	// changed since), then each change, in batches, until ctx ends (it returns ctx's error) or fn returns an error.
	// It survives everything else: a lost connection is dialled again with jittered back-off, compaction causes a
	// relist that is compared with what was sent, so that there are no spurious deletes, and fn is told of trouble
	// by Batch.Status. fn is called by one goroutine; while it runs the stream waits.
	Watch(ctx context.Context, o WatchOptions, fn func(Batch) error) error
	// Close releases the connection.
	Close() error
}

// Op is one write of a Txn.
type Op struct {
	Verb     Verb
	Object   api.Object // Create, Update
	Key      api.Key    // Delete
	Revision string     // Delete
}

// Verb is what an Op does.
type Verb uint8

const (
	Create Verb = iota
	Update
	Delete
)

// WatchOptions says what to watch.
type WatchOptions struct {
	Kinds  []string
	Resume string // Batch.Resume of the last batch that was taken; "" = start with a snapshot
	// Known is the revision (resourceVersion) of each key that the caller holds, with Resume: what a relist is
	// compared with if the revision to resume from is no longer there.
	Known map[api.Key]string
}

// UnreadableError is ErrUnreadable of an object whose UID is known all the same.
type UnreadableError struct {
	UID string
	Err error
}

func (e *UnreadableError) Error() string { return e.Err.Error() }

func (e *UnreadableError) Unwrap() error { return e.Err }

// Event is the new value of a resource. Object is nil if it is gone. Problem says why a stored value could not be read
// at all; then Object is nil too, but the resource is there. Problems are what could not be read of an Object, or is not
// valid.
type Event struct {
	Key      api.Key
	Object   api.Object
	Problem  error
	Problems []api.Problem
}

// Batch is events that came together, in order; a key is in it once.
type Batch struct {
	Events []Event
	// InSync holds from the batch that completes the first snapshot of all kinds on.
	InSync bool
	// Resume continues after this batch.
	Resume string
	// Status is the health of the stream, after this batch.
	Status Status
}

// Status is the health of a stream.
type Status struct {
	Connected bool
	Err       error            // why it is not connected; wraps ErrUnavailable or ErrForbidden
	Since     time.Time        // of the last change between connected and not
	Kinds     map[string]error // kinds that can't be listed; nil if there are none
}
