package ipam

import "errors"

var (
	// ErrNoPool says that no pool may serve a request.
	ErrNoPool = errors.New("no pool")
	// ErrFull says that pools may, but have no address left.
	ErrFull = errors.New("no address left")
	// ErrTaken says that somebody else has the address that was asked for.
	ErrTaken = errors.New("taken")
	// ErrBusy says that others wrote the same blocks again and again: worth another try.
	ErrBusy = errors.New("too many others allocate at the same time")
	// ErrInvalid says that a request makes no sense.
	ErrInvalid = errors.New("not a valid request")
)
