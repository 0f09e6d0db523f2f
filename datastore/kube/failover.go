package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
)

// failover returns a wrapper of a transport that sends all requests to one of servers: the same one until it does not
// work, then the next. A request that a server may have seen is not sent again: it fails, and the next one goes elsewhere.
// The log has it when another server than before answers.
func failover(servers []*url.URL, log *slog.Logger) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &turns{next: next, servers: servers, log: log} }
}

// mostBad is how many answers in a row that it can't make a server one that does not work.
const mostBad = 3

type turns struct {
	next    http.RoundTripper
	servers []*url.URL
	log     *slog.Logger

	mu       sync.Mutex
	at       int   // counts moves: its remainder is the present server
	bad      int   // answers of the present server in a row that it can't
	answerer int   // index of the server that has answered last
	why      error // of the last move
}

// RoundTrip implements http.RoundTripper.
func (t *turns) RoundTrip(req *http.Request) (*http.Response, error) {
	var errs []error
	for range t.servers {
		at := t.present()
		res, err := t.next.RoundTrip(to(req, t.servers[at%len(t.servers)]))
		if err == nil {
			t.answered(at, res.StatusCode)
			return res, nil
		}
		if givenUp(req.Context()) {
			return res, err
		}
		t.leave(at, err)
		if !undialled(err) || req.Context().Err() != nil {
			return res, err
		}
		errs = append(errs, err)
		if !rewind(req) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (t *turns) present() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at
}

// leave goes on to the next server, unless others have done so already: many requests fail at once.
func (t *turns) leave(at int, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.move(at, why)
}

func (t *turns) move(at int, why error) {
	if t.at == at {
		t.at, t.bad, t.why = at+1, 0, why
	}
}

// answered takes in an answer. One alone that a server can't may be about what was asked for; one whose store is away has
// no others. That it is busy, or has yet to come to a revision (or that somebody in between got no answer in time, which
// has the same code), says neither.
func (t *turns) answered(at, code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.at != at || code == http.StatusTooManyRequests || code == http.StatusGatewayTimeout:
	case code < http.StatusInternalServerError:
		t.bad = 0
		if now := at % len(t.servers); now != t.answerer {
			t.log.Warn("another API server answers now", "server", t.servers[now].Host, "instead", t.servers[t.answerer].Host, "err", t.why)
			t.answerer = now
		}
	default:
		if t.bad++; t.bad == mostBad {
			t.move(at, fmt.Errorf("%d answers in a row that it can't, the last with code %d", mostBad, code))
		}
	}
}

// givenUp says that whoever has asked wants no answer any more, as opposed to not having got one in time.
func givenUp(ctx context.Context) bool {
	return errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), errNoAnswer)
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
