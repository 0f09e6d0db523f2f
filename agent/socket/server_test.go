package socket

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tortie/tortie/internal/agentapi"
)

// desk is a Handler that does what a test says.
type desk struct {
	attach  func(ctx context.Context, r agentapi.AttachRequest, netns *os.File) error
	explain func() error
	state   func()
	asked   atomic.Int32
}

func (d *desk) Attach(ctx context.Context, r agentapi.AttachRequest, netns *os.File) (agentapi.AttachResponse, error) {
	d.asked.Add(1)
	return agentapi.AttachResponse{HostIface: "tort-" + r.Sandbox}, d.attach(ctx, r, netns)
}

func (d *desk) Detach(context.Context, agentapi.DetachRequest) error {
	d.asked.Add(1)
	return errors.New("plain error")
}

func (d *desk) Check(context.Context, agentapi.CheckRequest, *os.File) error {
	d.asked.Add(1)
	return nil
}

func (d *desk) List(_ context.Context, r agentapi.ListRequest) (agentapi.ListResponse, error) {
	d.asked.Add(1)
	return agentapi.ListResponse{Attachments: []agentapi.Attachment{{Sandbox: r.Sandbox}}}, nil
}

func (d *desk) Status(context.Context, agentapi.StatusRequest) (agentapi.Status, error) {
	d.asked.Add(1)
	return agentapi.Status{Node: "node1"}, nil
}

func (d *desk) Explain(context.Context, agentapi.ExplainRequest) (agentapi.ExplainResponse, error) {
	d.asked.Add(1)
	return agentapi.ExplainResponse{}, d.explain()
}

func (d *desk) State(context.Context) (json.RawMessage, error) {
	if d.state != nil {
		d.state()
	}
	return json.RawMessage(`{}`), nil
}

// serve serves d until the test ends.
func serve(t *testing.T, d *desk, change func(*Server)) (path string, reg *prometheus.Registry) {
	t.Helper()
	path, reg = filepath.Join(t.TempDir(), "run", "agent.sock"), prometheus.NewRegistry()
	m, err := NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(Options{Path: path, Handler: d, Log: slog.New(slog.DiscardHandler), Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return path, reg
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

func within(t *testing.T, what string, fn func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !fn() {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestVerbs(t *testing.T) {
	ns, err := os.CreateTemp(t.TempDir(), "ns")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	same := func(f *os.File) bool {
		a, err1 := ns.Stat()
		b, err2 := f.Stat()
		return err1 == nil && err2 == nil && os.SameFile(a, b)
	}
	d := &desk{attach: func(ctx context.Context, r agentapi.AttachRequest, netns *os.File) error {
		until, ok := ctx.Deadline()
		if left := time.Until(until); netns == nil || !same(netns) || !ok || left > 1500*time.Millisecond {
			return fmt.Errorf("netns %v, deadline %v", netns, left)
		}
		return nil
	}, explain: func() error { panic("poison") }}
	path, reg := serve(t, d, nil)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	c, ctx := agentapi.NewClient(path), t.Context()
	if r, err := c.Attach(ctx, agentapi.AttachRequest{Sandbox: "s", TimeoutMS: 1500}, ns); err != nil || r.HostIface != "tort-s" {
		t.Errorf("attach: %v %v", r, err)
	}
	if err := c.Detach(ctx, agentapi.DetachRequest{}); agentapi.CodeOf(err) != agentapi.CodeInternal || err.Error() != "plain error" {
		t.Errorf("detach: %v", err)
	}
	if _, err := c.Explain(ctx, agentapi.ExplainRequest{}); agentapi.CodeOf(err) != agentapi.CodeInternal {
		t.Errorf("a panic: %v", err)
	}
	if st, err := c.Status(ctx, agentapi.StatusRequest{}); err != nil || st.Node != "node1" {
		t.Errorf("status after a panic: %v %v", st, err)
	}
	if b, err := c.State(ctx); err != nil || string(b) != "{}" {
		t.Errorf("state: %s %v", b, err)
	}
	if n, err := testutil.GatherAndCount(reg, "tortie_socket_request_duration_seconds"); err != nil || n != 5 {
		t.Errorf("%d kinds of requests were counted, %v", n, err)
	}
}

func TestRequestsOnOneConnection(t *testing.T) {
	d := &desk{}
	path, _ := serve(t, d, nil)
	c := dial(t, path)
	for i, r := range []agentapi.Request{
		{Version: agentapi.Version, Verb: agentapi.VerbStatus},
		{Version: agentapi.Version + 1, Verb: agentapi.VerbStatus},
		{Version: 0, Verb: agentapi.VerbStatus},
		{Version: agentapi.Version, Verb: "dance"},
		{Version: agentapi.Version, Verb: agentapi.VerbDetach, Body: json.RawMessage(`{"unknown":1}`)},
		{Version: agentapi.Version, Verb: agentapi.VerbDetach, Body: json.RawMessage(`{"timeoutMS":-1}`)},
		{Version: agentapi.Version, Verb: agentapi.VerbStatus},
	} {
		want := []agentapi.Code{"", agentapi.CodeVersion, agentapi.CodeVersion, agentapi.CodeBadRequest, agentapi.CodeBadRequest, agentapi.CodeBadRequest, ""}[i]
		if err := agentapi.WriteRequest(c, r, nil); err != nil {
			t.Fatal(err)
		}
		var resp agentapi.Response
		if err := agentapi.ReadFrame(c, &resp, agentapi.MaxResponse); err != nil {
			t.Fatal(err)
		}
		var got agentapi.Code
		if resp.Error != nil {
			got = resp.Error.Code
		}
		if got != want || resp.Version != agentapi.Version {
			t.Errorf("request %d: %q, want %q (%v)", i, got, want, resp.Error)
		}
	}
	if d.asked.Load() != 2 {
		t.Errorf("the handler was asked %d times", d.asked.Load())
	}
}

func TestStrangerIsRefused(t *testing.T) {
	d := &desk{}
	path, _ := serve(t, d, func(s *Server) {
		s.rights = func(*net.UnixConn) (rights, error) { return mayLook, errors.New("user 1000 may not ask") }
	})
	for range 20 {
		_, err := agentapi.NewClient(path).Status(t.Context(), agentapi.StatusRequest{})
		if agentapi.CodeOf(err) != agentapi.CodeForbidden || !strings.Contains(err.Error(), "user 1000") {
			t.Fatalf("%v", err)
		}
	}
	if d.asked.Load() != 0 {
		t.Error("the handler was asked")
	}
}

// TestLookersKeepNobodyOut: clients who may only look take what they may of the connections, and root is served.
func TestLookersKeepNobodyOut(t *testing.T) {
	var root atomic.Bool
	path, _ := serve(t, &desk{}, func(s *Server) {
		s.rights = func(*net.UnixConn) (rights, error) { return rights(root.Load()), nil }
	})
	look := func() error {
		_, err := agentapi.NewClient(path).Status(t.Context(), agentapi.StatusRequest{})
		return err
	}
	var held []*net.UnixConn
	for range maxLookers {
		c := dial(t, path)
		if err := agentapi.WriteRequest(c, agentapi.Request{Version: agentapi.Version, Verb: agentapi.VerbStatus}, nil); err != nil {
			t.Fatal(err)
		}
		if err := agentapi.ReadFrame(c, &agentapi.Response{}, agentapi.MaxResponse); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if err := look(); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("one more: %v", err)
	}
	root.Store(true)
	if err := look(); err != nil {
		t.Errorf("root: %v", err)
	}
	root.Store(false)
	held[0].Close()
	within(t, "a place is never free again", func() bool { return look() == nil })
}

// TestStatesAreMadeAFewAtATime: many who ask for the whole State at once get it one after another, and others don't wait.
func TestStatesAreMadeAFewAtATime(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan struct{})
	d := &desk{state: func() {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
		now.Add(-1)
	}}
	path, _ := serve(t, d, nil)
	var wg sync.WaitGroup
	for range 4 * maxStates {
		wg.Go(func() {
			if _, err := agentapi.NewClient(path).State(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	within(t, "no State is made", func() bool { return now.Load() == maxStates })
	if _, err := agentapi.NewClient(path).Status(t.Context(), agentapi.StatusRequest{}); err != nil {
		t.Errorf("status: %v", err)
	}
	close(release)
	wg.Wait()
	if most.Load() != maxStates {
		t.Errorf("%d at a time, want %d", most.Load(), maxStates)
	}
}

func TestHangingUpCancels(t *testing.T) {
	cancelled, started := make(chan error, 1), make(chan struct{})
	d := &desk{attach: func(ctx context.Context, _ agentapi.AttachRequest, _ *os.File) error {
		close(started)
		<-ctx.Done()
		cancelled <- ctx.Err()
		return ctx.Err()
	}}
	path, _ := serve(t, d, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	if _, err := agentapi.NewClient(path).Attach(ctx, agentapi.AttachRequest{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case err := <-cancelled:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the request goes on")
	}
}

func TestStopCancels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	started := make(chan struct{})
	d := &desk{attach: func(ctx context.Context, _ agentapi.AttachRequest, _ *os.File) error {
		close(started)
		<-ctx.Done()
		return agentapi.Errorf(agentapi.CodeUnavailable, "stopping")
	}}
	s, err := Listen(Options{Path: path, Handler: d, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	dial(t, path) // one that says nothing
	go func() {
		<-started
		cancel()
	}()
	if _, err := agentapi.NewClient(path).Attach(t.Context(), agentapi.AttachRequest{}, nil); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("%v", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}

// TestStopAnswersNothingUnasked: who has connected, and whose request has not been read when the agent stops, gets no answer: an
// answer is final, but the next agent serves who gets none.
func TestStopAnswersNothingUnasked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := Listen(Options{Path: path, Handler: &desk{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	var conns []*net.UnixConn
	for range 64 {
		c := dial(t, path)
		conns = append(conns, c)
		var got agentapi.Response
		if err := agentapi.WriteRequest(c, agentapi.Request{Version: agentapi.Version, Verb: agentapi.VerbList}, nil); err != nil {
			t.Fatal(err)
		}
		if err := agentapi.ReadFrame(c, &got, agentapi.MaxResponse); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for i, c := range conns {
		var got agentapi.Response
		if err := agentapi.ReadFrame(c, &got, agentapi.MaxResponse); !errors.Is(err, io.EOF) {
			t.Fatalf("connection %d: %v, %+v", i, err, got.Error)
		}
	}
}

// TestGarbage has many clients send nonsense, hang up in the middle, and send nothing, while others are served.
func TestGarbage(t *testing.T) {
	d := &desk{attach: func(context.Context, agentapi.AttachRequest, *os.File) error { return nil }}
	path, _ := serve(t, d, nil)
	ns, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	before := openFDs(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 50 {
				if err := nonsense(path, r, ns); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if _, err := agentapi.NewClient(path).Attach(ctx, agentapi.AttachRequest{Sandbox: "s"}, ns); err != nil {
					t.Errorf("an honest client: %v", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	within(t, "descriptors are lost", func() bool { return openFDs(t) <= before })
}

// nonsense sends something that is no request, and takes what comes back.
func nonsense(path string, r *rand.Rand, ns *os.File) error {
	nc, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer nc.Close()
	c := nc.(*net.UnixConn)
	junk := make([]byte, r.IntN(300))
	for i := range junk {
		junk[i] = byte(r.Uint32())
	}
	switch r.IntN(6) {
	case 0: // bytes
		_, err = c.Write(junk)
	case 1: // a frame of bytes
		_, err = c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(junk))), junk...))
	case 2: // a frame that is cut off
		_, err = c.Write(append(binary.BigEndian.AppendUint32(nil, 1<<17), junk...))
	case 3: // a good request, and away
		err = agentapi.WriteRequest(c, agentapi.Request{Version: 1, Verb: agentapi.VerbAttach, Body: json.RawMessage(`{"sandbox":"x"}`)}, ns)
		return err
	case 4: // descriptors that nobody has asked for
		err = agentapi.WriteRequest(c, agentapi.Request{Version: 1, Verb: agentapi.VerbStatus}, ns)
	case 5: // nothing
	}
	if err != nil {
		return nil // it has hung up already
	}
	if err := c.CloseWrite(); err != nil {
		return nil
	}
	if err := c.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the server neither answers nor hangs up")
	}
	return nil
}

func openFDs(t *testing.T) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

func TestListenReplacesALeftSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(Options{Path: path, Handler: &desk{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Error(err)
	}
}
