// Package health serves /metrics, /livez and /readyz.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options is what Listen takes.
type Options struct {
	Addr string
	// Live returns why the process should be ended and started again; nil if it is well.
	Live func() error
	// Ready returns what the agent still waits for, and what is wrong though it does its work.
	Ready    func() (missing, problems []string)
	Gatherer prometheus.Gatherer
	Log      *slog.Logger
}

// Server serves the three.
type Server struct {
	l net.Listener
	s *http.Server
}

// Listen makes the listener.
func Listen(o Options) (*Server, error) {
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listening for health and metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Live(); err != nil {
			answer(w, http.StatusServiceUnavailable, []string{err.Error()})
			return
		}
		answer(w, http.StatusOK, []string{"alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		missing, problems := o.Ready()
		code, lines := http.StatusOK, []string{"ready"}
		if len(missing) > 0 {
			code, lines = http.StatusServiceUnavailable, []string{"not ready"}
		}
		for _, m := range missing {
			lines = append(lines, "missing: "+m)
		}
		for _, p := range problems {
			lines = append(lines, "problem: "+p)
		}
		answer(w, code, lines)
	})
	return &Server{l: l, s: &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}}, nil
}

func answer(w http.ResponseWriter, code int, lines []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, strings.Join(lines, "\n")) // a client that hung up
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.l.Addr() }

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.s.Close() }) // nobody waits for an answer about an agent that ends
	defer stop()
	if err := s.s.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving health and metrics: %w", err)
	}
	return nil
}
