package revkv

import (
	"context"
	"errors"
)

// ErrCompacted says that a revision is no longer there.
var ErrCompacted = errors.New("the revision has been compacted")

// Backend is an ordered key-value store with revisions, shaped after etcd's. It is safe for concurrent use. Errors wrap
// those of package datastore, or ErrCompacted.
type Backend interface {
	// Get returns the values of keys at one revision, the newest, in the order of keys. One that is not there has Mod 0.
	Get(ctx context.Context, keys ...string) ([]Entry, error)
	// Page returns a part of a range, in the order of keys.
	Page(ctx context.Context, r PageRequest) (Page, error)
	// Commit does all of writes in one revision if all of guards hold. If not, it does nothing and Result.Current has
	// the values of the guarded keys, in order. After an error that wraps datastore.ErrUnavailable it is not known
	// whether it was done.
	Commit(ctx context.Context, guards []Guard, writes []Write) (Result, error)
	// Follow streams the changes of a range from a revision on, in order, until ctx ends.
	Follow(ctx context.Context, r Range, from int64) (Stream, error)
	Close() error
}

// Range is the keys >= From and < To.
type Range struct{ From, To string }

// Entry is a key and what is stored there.
type Entry struct {
	Key   string
	Value []byte
	Mod   int64 // revision of the last write
}

// Position is a place in the history of one store. Cluster and Term tell stores and their lives apart: a store that was
// restored from a backup has another Cluster, or a Term that is lower than before.
type Position struct {
	Cluster, Term uint64
	Rev           int64
}

// PageRequest asks for up to Limit entries of a range as of revision At; 0 is the newest, and then the answer is
// linearizable.
type PageRequest struct {
	Range
	At       int64
	Limit    int
	KeysOnly bool
}

// Page is a part of a range.
type Page struct {
	Entries []Entry
	More    bool
	Now     Position // of the store when it answered
}

// Guard holds if the last write of Key was at revision Mod; 0: if there is no such key.
type Guard struct {
	Key string
	Mod int64
}

// Write stores Value, or deletes Key if Value is nil.
type Write struct {
	Key   string
	Value []byte
}

// Result is what a Commit did.
type Result struct {
	OK      bool
	Rev     int64   // of the writes, if OK
	Current []Entry // if not OK
}

// Stream is changes as they come.
type Stream interface {
	// Recv waits for the next changes. It is called by one goroutine.
	Recv() (Changes, error)
	// Ping asks for an answer, which may have no changes, once all changes so far have been received. It may be called
	// beside Recv. An answer is not promised while the stream is behind.
	Ping() error
}

// Changes are all changes of the range up to Rev since the last Changes; with Part there are more at Rev to come.
type Changes struct {
	Rev     int64
	Entries []Entry // Value is nil of those that were deleted
	Part    bool
}
