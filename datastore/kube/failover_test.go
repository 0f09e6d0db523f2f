package kube

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestFailover(t *testing.T) {
	answer := func(name string) *httptest.Server {
		return httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			io.WriteString(w, name+" "+r.URL.RequestURI()+" "+string(body))
		}))
	}
	a, b := answer("a"), answer("b")
	a.Start()
	b.Start()
	defer b.Close()
	var log strings.Builder
	c := http.Client{Transport: failover(parse(t, a.URL, b.URL), slog.New(slog.NewTextHandler(&log, nil)))(http.DefaultTransport)}
	ask := func() string {
		res, err := c.Post("http://nowhere.invalid/x?y=z", "text/plain", strings.NewReader("body"))
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return string(body)
	}
	if got := ask(); got != "a /x?y=z body" {
		t.Errorf("first: %s", got)
	}
	address := a.Listener.Addr().String()
	a.CloseClientConnections()
	a.Close()
	for range 3 {
		if got := ask(); got != "b /x?y=z body" {
			t.Errorf("with the first one gone: %s", got)
		}
	}
	if n := strings.Count(log.String(), "another API server answers now"); n != 1 || !strings.Contains(log.String(), "connection refused") {
		t.Errorf("the log has\n%s", log.String())
	}
	b.CloseClientConnections()
	b.Close()
	if got := ask(); !strings.Contains(got, "connection refused") {
		t.Errorf("with all gone: %s", got)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	back := answer("back")
	back.Listener.Close()
	back.Listener = l
	back.Start()
	defer back.Close()
	if got := ask(); !strings.HasPrefix(got, "back") {
		t.Errorf("with the first one back: %s", got)
	}
}

// parse returns the addresses of servers.
func parse(t *testing.T, addresses ...string) (out []*url.URL) {
	t.Helper()
	for _, a := range addresses {
		u, err := parseServer(a)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

// silent returns the address of a server that takes connections, and never says a word.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // the kernel accepts without us
	return l.Addr().String()
}

type tripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// TestFailoverSilent: a server whose node is frozen is left for the next one, but nothing is sent twice.
func TestFailoverSilent(t *testing.T) {
	for name, c := range map[string]struct {
		handshake time.Duration
		context   func(context.Context) (context.Context, context.CancelFunc)
		stays     bool
	}{
		"handshake timeout": {handshake: time.Millisecond, context: context.WithCancel},
		"deadline": {context: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 20*time.Millisecond)
		}},
		"no answer": {context: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(errNoAnswer)
			return ctx, func() {}
		}},
		"cancelled": {stays: true, context: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(errClosed)
			return ctx, func() {}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer b.Close()
			impatient := b.Client().Transport.(*http.Transport).Clone()
			impatient.TLSHandshakeTimeout = c.handshake
			frozen := silent(t)
			rt := failover(parse(t, "https://"+frozen, b.URL), slog.New(slog.DiscardHandler))(tripper(func(req *http.Request) (*http.Response, error) {
				if req.URL.Host == frozen {
					return impatient.RoundTrip(req)
				}
				return b.Client().Transport.RoundTrip(req)
			})).(*turns)
			ctx, cancel := c.context(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "POST", "https://nowhere.invalid/", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := rt.RoundTrip(req); err == nil {
				t.Fatal("the first request was sent on")
			}
			if c.stays {
				if at := rt.present(); at != 0 {
					t.Errorf("%d moves", at)
				}
				return
			}
			res, err := (&http.Client{Transport: rt}).Get("https://nowhere.invalid/")
			if err != nil {
				t.Fatalf("the second request: %v", err)
			}
			res.Body.Close()
		})
	}
}

// TestFailoverAtOnce: many requests that fail at once are one reason to move.
func TestFailoverAtOnce(t *testing.T) {
	const n = 10
	for name, answer := range map[string]func() (*http.Response, error){
		"error":  func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"answer": func() (*http.Response, error) { return &http.Response{StatusCode: http.StatusServiceUnavailable}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			var all, done sync.WaitGroup
			all.Add(n)
			var asked sync.Map
			rt := failover(parse(t, "http://a:1", "http://b:1", "http://c:1"), slog.New(slog.DiscardHandler))(tripper(func(req *http.Request) (*http.Response, error) {
				asked.Store(req.URL.Host, true)
				all.Done()
				all.Wait()
				return answer()
			})).(*turns)
			for range n {
				done.Go(func() {
					req := httptest.NewRequest("GET", "http://nowhere.invalid/", nil)
					_, _ = rt.RoundTrip(req)
				})
			}
			done.Wait()
			if rt.at != 1 || rt.bad != 0 {
				t.Errorf("%d moves, %d bad answers", rt.at, rt.bad)
			}
			if _, ok := asked.Load("b:1"); ok {
				t.Error("a request was sent again")
			}
		})
	}
}

// TestFailoverErrors: a server that only answers that it can't is left, too.
func TestFailoverErrors(t *testing.T) {
	for name, c := range map[string]struct {
		codes []int
		want  string
	}{
		"all":            {[]int{503, 500, 502, 200, 503}, "aaabb"},
		"some":           {[]int{503, 503, 200, 503, 503, 404, 500, 500}, "aaaaaaaa"},
		"busy":           {[]int{429, 429, 429, 429, 429}, "aaaaa"},
		"behind":         {[]int{504, 504, 504, 504, 504}, "aaaaa"},
		"in between":     {[]int{503, 429, 503, 504, 503, 200}, "aaaaab"},
		"of all of them": {[]int{503, 503, 503, 503, 503, 503, 503}, "aaabbba"},
	} {
		var got string
		i := 0
		rt := failover(parse(t, "http://a:1", "http://b:1"), slog.New(slog.DiscardHandler))(tripper(func(req *http.Request) (*http.Response, error) {
			got += req.URL.Hostname()
			i++
			return &http.Response{StatusCode: c.codes[i-1]}, nil
		}))
		for range c.codes {
			if res, err := rt.RoundTrip(httptest.NewRequest("GET", "http://nowhere.invalid/", nil)); err != nil || res.StatusCode != c.codes[i-1] {
				t.Errorf("%s: %v, %v", name, res, err)
			}
		}
		if got != c.want {
			t.Errorf("%s: asked %s, want %s", name, got, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	for server, ok := range map[string]bool{
		"https://10.0.0.1:6443": true, "https://[fd00::1]:6443": true, "https://api.example.com:443/": true,
		"10.0.0.1:6443": false, "https://10.0.0.1": false, "ftp://x:1": false, "https://x:1/path": false, "": false,
	} {
		if err := (Config{APIServers: []string{server}}).Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", server, err)
		}
	}
	rc, err := Config{Kubeconfig: "testdata/kubeconfig", APIServers: []string{"https://10.0.0.1:6443"}, Node: "n1", Version: "1.2"}.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	if rc.Host != "https://10.0.0.1:6443" || rc.BearerToken != "secret" || !strings.HasPrefix(rc.UserAgent, "tortie/1.2 (") || !strings.HasSuffix(rc.UserAgent, " node/n1") {
		t.Errorf("host %q, user agent %q", rc.Host, rc.UserAgent)
	}
	if _, err := (Config{Kubeconfig: "testdata/none"}).RESTConfig(); err == nil {
		t.Error("a file that is not there does not matter")
	}
}
