package linux

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/tortie/tortie/drivers"
)

// opKind is what an op does to one object of a table.
type opKind uint8

const (
	opAddTable opKind = iota
	opDelTable
	opAddSet
	opDelElems
	opAddElems
	opAddChain
	opFlushChain
	opAddRule
	opFlushSet
	opDelSet
	opDelChain
)

// op is one write: one object of a table made, filled or deleted.
type op struct {
	kind  opKind
	table Table
	chain *Chain
	rule  int // index in chain.Rules
	set   *SetObject
	elems []Elem
	blame *drivers.ObjectRef // the object of the State that it is about; nil = the chain's, or the set's
}

// kernel is where programs go.
type kernel interface {
	// commit does all of ops, or, with an error, none. A *refusedOps says which of them are to blame. A dry one only
	// finds out whether it would be refused.
	commit(ops []op, dry bool) error
	// read gives what our tables hold. An object that is as want has it is want's own; one that differs, or that want
	// does not have, is a stand-in of the same name: a chain with an unknown rule, a set with the kernel's elements. A table
	// with an object that can only be mended by making the table anew is in remake, without its objects.
	read(want *Program) (*tables, error)
	// readSets reads some sets of want that the tables hold, and puts what they have in them into have. A set that it
	// cannot read as one of its kind is an error.
	readSets(want *Program, have *tables, keys []Key) error
	close() error
}

// refusedOps is a transaction that did not happen. ops names those to blame, by index; it is empty if the kernel blamed
// the transaction as a whole.
type refusedOps struct {
	ops map[int]error
	err error

	owners   map[drivers.ObjectRef]error // of ops, those that can be put on stand-ins
	suspects []drivers.ObjectRef         // all such objects of the transaction
}

func (r *refusedOps) Error() string {
	for _, err := range r.ops {
		return "a transaction was refused: " + err.Error()
	}
	return "a transaction was refused: " + r.err.Error()
}

func (r *refusedOps) Unwrap() error {
	for _, err := range r.ops {
		return err
	}
	return r.err
}

// errShort is a transaction that failed for want of something: memory, or time. It says nothing of what was in it.
var errShort = errors.New("the kernel has no room or no time")

// orShort is r, or, if one of its errors says nothing of the objects in the transaction, an error that blames none.
func (r *refusedOps) orShort() error {
	for i, err := range r.ops {
		if passing(err) {
			return fmt.Errorf("%w: op %d: %w", errShort, i, err)
		}
	}
	if passing(r.err) {
		return fmt.Errorf("%w: %w", errShort, r.err)
	}
	return r
}

// passing reports whether an error is about the moment and not about what was asked.
func passing(err error) bool {
	return slices.ContainsFunc([]error{syscall.ENOMEM, syscall.ENOBUFS, syscall.EINTR, syscall.EAGAIN}, func(target error) bool {
		return errors.Is(err, target)
	})
}
