package kube

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
)

// failover returns a wrapper of a transport that sends all requests to one of servers: the same one until it can't be
// dialled, then the next.
func failover(servers []*url.URL) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &turns{next: next, servers: servers} }
}

type turns struct {
	next    http.RoundTripper
	servers []*url.URL
	at      atomic.Uint32 // counts moves: its remainder is the present server
}

// RoundTrip implements http.RoundTripper.
func (t *turns) RoundTrip(req *http.Request) (*http.Response, error) {
	var errs []error
	for range t.servers {
		at := t.at.Load()
		res, err := t.next.RoundTrip(to(req, t.servers[int(at)%len(t.servers)]))
		if err == nil || !undialled(err) || req.Context().Err() != nil {
			return res, err
		}
		errs = append(errs, err)
		t.at.CompareAndSwap(at, at+1) // others may have moved on already
		if !rewind(req) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// WrappedRoundTripper lets client-go find the transport inside.
func (t *turns) WrappedRoundTripper() http.RoundTripper { return t.next }

func to(req *http.Request, server *url.URL) *http.Request {
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host, out.Host = server.Scheme, server.Host, ""
	return out
}

// undialled says that no connection was made: the server has seen nothing of the request.
func undialled(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// rewind makes a request ready to be sent once more.
func rewind(req *http.Request) bool {
	if req.Body == nil || req.Body == http.NoBody {
		return true
	}
	if req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	if err != nil {
		return false
	}
	req.Body = body
	return true
}
