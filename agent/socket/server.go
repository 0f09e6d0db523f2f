// Package socket serves the agent's Unix socket: it reads requests, checks who asks, and writes answers. What the verbs
// do is a Handler's.
package socket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tortie/tortie/internal/agentapi"
)

const (
	// patience is how long the rest of a request may take after its first byte, and a client to take its answer.
	patience = 10 * time.Second
	// maxConns bounds the connections that are served at a time; more wait in the kernel.
	maxConns = 512
	// maxLookers bounds those of clients who may only look: they can't keep root out.
	maxLookers = 64
	// maxStates is how many copies of the State are made and sent at a time: each can take hundreds of megabytes.
	maxStates = 2
	// defaultTimeout and maxTimeout bound a request.
	defaultTimeout = 30 * time.Second
	maxTimeout     = 10 * time.Minute
)

// Handler does what clients ask for. Its methods are called concurrently. An error of type *agentapi.Error is answered
// as it is, others with agentapi.CodeInternal.
type Handler interface {
	// Attach may use netns until it returns; it is nil if the client sent none.
	Attach(ctx context.Context, r agentapi.AttachRequest, netns *os.File) (agentapi.AttachResponse, error)
	Detach(ctx context.Context, r agentapi.DetachRequest) error
	// Check may use netns as Attach does.
	Check(ctx context.Context, r agentapi.CheckRequest, netns *os.File) error
	List(ctx context.Context, r agentapi.ListRequest) (agentapi.ListResponse, error)
	Status(ctx context.Context, r agentapi.StatusRequest) (agentapi.Status, error)
	Explain(ctx context.Context, r agentapi.ExplainRequest) (agentapi.ExplainResponse, error)
	State(ctx context.Context) (json.RawMessage, error)
}

// Options is what Listen takes.
type Options struct {
	Path    string
	Group   uint32 // id of a group whose members may look, beside root, who may do everything; 0 = none
	Handler Handler
	Log     *slog.Logger
	Metrics *Metrics
}

// Server serves a socket.
type Server struct {
	o                      Options
	l                      *net.UnixListener
	slots, lookers, states chan struct{}
	// rights says what the peer of a connection may do; an error says why that is nothing.
	rights func(*net.UnixConn) (rights, error)
}

// rights are what a client may do.
type rights bool

const (
	// mayLook: ask what is there, and why.
	mayLook rights = false
	// mayChange: attach and detach too, and so give any workload any labels, which is to say: any rights in the network.
	mayChange rights = true
)

// changing are the verbs that need mayChange. Check is one of them because it comes with a descriptor to look into.
var changing = map[agentapi.Verb]bool{agentapi.VerbAttach: true, agentapi.VerbDetach: true, agentapi.VerbCheck: true}

// Listen makes the socket. One that an earlier agent left is removed, so the caller must hold the node's lock.
func Listen(o Options) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o755); err != nil {
		return nil, fmt.Errorf("making the socket's directory: %w", err)
	}
	if err := os.Remove(o.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an earlier agent's socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: o.Path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening on the socket: %w", err)
	}
	mode := fs.FileMode(0o600)
	if o.Group != 0 {
		mode = 0o660
		err = os.Chown(o.Path, -1, int(o.Group))
	}
	if err = errors.Join(err, os.Chmod(o.Path, mode)); err != nil {
		return nil, errors.Join(fmt.Errorf("giving the socket its rights: %w", err), l.Close())
	}
	s := &Server{o: o, l: l, slots: make(chan struct{}, maxConns), lookers: make(chan struct{}, maxLookers),
		states: make(chan struct{}, maxStates)}
	s.rights = func(c *net.UnixConn) (rights, error) { return checkPeer(c, o.Group) }
	return s, nil
}

// Serve answers until ctx ends; then it cancels what is asked for and waits for it.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = s.l.Close() }) // Accept fails then
	defer stop()
	for {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := s.l.AcceptUnix()
		if err != nil {
			<-s.slots
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("the agent's socket: %w", err)
			}
			s.o.Log.Warn("accepting a connection", "err", err) // out of descriptors, say: it passes
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		wg.Go(func() {
			defer func() { <-s.slots }()
			s.serve(ctx, c)
		})
	}
}

// message is a request with its descriptor.
type message struct {
	req  agentapi.Request
	file *os.File
	err  error
}

func (m message) close() {
	if m.file != nil {
		_ = m.file.Close() // it was only read from
	}
}

// serve answers the requests of a connection. A reader looks ahead by one, so that a client that hangs up cancels what
// it has asked for.
func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) }) // wakes up the reader
	defer stop()
	may, err := s.rights(c)
	if err != nil {
		s.answer(c, nil, agentapi.Errorf(agentapi.CodeForbidden, "%v", err))
		return
	}
	if may == mayLook {
		select {
		case s.lookers <- struct{}{}:
			defer func() { <-s.lookers }()
		default:
			s.answer(c, nil, agentapi.Errorf(agentapi.CodeUnavailable, "%d others are looking: try again", maxLookers))
			return
		}
	}
	messages := make(chan message)
	go func() {
		defer close(messages)
		defer cancel()
		s.read(ctx, c, messages)
	}()
	for m := range messages {
		if m.err != nil {
			s.answer(c, nil, agentapi.Errorf(agentapi.CodeBadRequest, "%v", m.err))
			break
		}
		if !s.handle(ctx, c, m, may) {
			break
		}
	}
	cancel()
	for m := range messages { // until the reader has ended
		m.close()
	}
}

// handle does what a request asks for, and reports whether the client took the answer.
func (s *Server) handle(ctx context.Context, c *net.UnixConn, m message, may rights) bool {
	defer m.close()
	if m.req.Verb == agentapi.VerbState {
		select {
		case s.states <- struct{}{}:
			defer func() { <-s.states }()
		case <-ctx.Done():
			return false
		}
	}
	body, err := s.do(ctx, m, may)
	return s.answer(c, body, err)
}

// read sends the requests of c; it ends when there are no more, or after one that makes no sense.
func (s *Server) read(ctx context.Context, c *net.UnixConn, to chan<- message) {
	for ctx.Err() == nil {
		var m message
		m.req, m.file, m.err = agentapi.ReadRequest(c, patience)
		if m.err != nil && ctx.Err() != nil {
			return // the agent stops: the client finds that out, and asks the next one
		}
		if m.err != nil && !errors.Is(m.err, agentapi.ErrFrame) && !errors.Is(m.err, os.ErrDeadlineExceeded) {
			if !errors.Is(m.err, io.EOF) && !errors.Is(m.err, io.ErrUnexpectedEOF) {
				s.o.Log.Debug("reading from a client", "err", m.err)
			}
			return
		}
		select {
		case to <- m:
		case <-ctx.Done():
			m.close()
			return
		}
		if m.err != nil {
			return
		}
	}
}

// answer writes a response, and reports whether the client took it.
func (s *Server) answer(c *net.UnixConn, body any, err error) bool {
	r := agentapi.Response{Version: agentapi.Version}
	var e *agentapi.Error
	switch {
	case errors.As(err, &e):
		r.Error = e
	case err != nil:
		r.Error = agentapi.Errorf(agentapi.CodeInternal, "%v", err)
	case body != nil:
		b, mErr := json.Marshal(body)
		if mErr != nil {
			s.o.Log.Error("encoding an answer", "err", mErr)
			r.Error = agentapi.Errorf(agentapi.CodeInternal, "encoding the answer: %v", mErr)
		}
		r.Body = b
	}
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return false
	}
	if err := agentapi.WriteFrame(c, r, agentapi.MaxResponse); err != nil {
		s.o.Log.Debug("answering a client", "err", err)
		return false
	}
	return true
}

// do calls the handler. A panic in it is that request's error, not the agent's end.
func (s *Server) do(ctx context.Context, m message, may rights) (body any, err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			s.o.Log.Error("a request made the agent panic", "verb", m.req.Verb, "panic", p, "stack", string(debug.Stack()))
			body, err = nil, agentapi.Errorf(agentapi.CodeInternal, "the agent met an error of its own, see its log")
		}
		s.o.Metrics.served(m.req.Verb, err, time.Since(start))
	}()
	if v := m.req.Version; v < agentapi.OldestVersion || v > agentapi.Version {
		return nil, agentapi.Errorf(agentapi.CodeVersion, "the agent speaks versions %d to %d of the protocol, not %d",
			agentapi.OldestVersion, agentapi.Version, v)
	}
	if changing[m.req.Verb] && may != mayChange {
		return nil, agentapi.Errorf(agentapi.CodeForbidden, "%s is root's to ask for: members of the agent's socketGroup may look, not change",
			m.req.Verb)
	}
	h := s.o.Handler
	switch m.req.Verb {
	case agentapi.VerbAttach:
		var r agentapi.AttachRequest
		return call(ctx, m, &r, &r.TimeoutMS, func(ctx context.Context) (any, error) { return h.Attach(ctx, r, m.file) })
	case agentapi.VerbDetach:
		var r agentapi.DetachRequest
		return call(ctx, m, &r, &r.TimeoutMS, func(ctx context.Context) (any, error) { return nil, h.Detach(ctx, r) })
	case agentapi.VerbCheck:
		var r agentapi.CheckRequest
		return call(ctx, m, &r, &r.TimeoutMS, func(ctx context.Context) (any, error) { return nil, h.Check(ctx, r, m.file) })
	case agentapi.VerbList:
		var r agentapi.ListRequest
		return call(ctx, m, &r, new(int64), func(ctx context.Context) (any, error) { return h.List(ctx, r) })
	case agentapi.VerbStatus:
		var r agentapi.StatusRequest
		return call(ctx, m, &r, new(int64), func(ctx context.Context) (any, error) { return h.Status(ctx, r) })
	case agentapi.VerbExplain:
		var r agentapi.ExplainRequest
		return call(ctx, m, &r, new(int64), func(ctx context.Context) (any, error) { return h.Explain(ctx, r) })
	case agentapi.VerbState:
		return call(ctx, m, &struct{}{}, new(int64), func(ctx context.Context) (any, error) { return h.State(ctx) })
	}
	return nil, agentapi.Errorf(agentapi.CodeBadRequest, "there is no verb %q", m.req.Verb)
}

// call reads the body into what r points to, and calls fn with a context that ends after timeoutMS.
func call(ctx context.Context, m message, r any, timeoutMS *int64, fn func(context.Context) (any, error)) (any, error) {
	if len(m.req.Body) > 0 {
		if err := agentapi.Unmarshal(m.req.Body, r); err != nil {
			return nil, agentapi.Errorf(agentapi.CodeBadRequest, "%s: %v", m.req.Verb, err)
		}
	}
	timeout := defaultTimeout
	if *timeoutMS < 0 || *timeoutMS > maxTimeout.Milliseconds() {
		return nil, agentapi.Errorf(agentapi.CodeBadRequest, "%s: a timeout of %d ms: want at most %v", m.req.Verb, *timeoutMS, maxTimeout)
	}
	if *timeoutMS > 0 {
		timeout = time.Duration(*timeoutMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return fn(ctx)
}
