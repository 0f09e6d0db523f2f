package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

const (
	// Clients ping idle connections every 10 s, so that a peer that is gone is noticed.
	keepaliveMin = 5 * time.Second
	stopTimeout  = 2 * time.Second

	handshakeTimeout = 15 * time.Second
)

// Run runs a store until ctx ends; then it stops in order and returns nil. An error says why it could not start, or
// could not go on.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	cfg = cfg.withDefaults()
	unlock, err := lock(cfg.Dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer unlock()
	ls, err := listenAll(cfg)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer closeAll(ls)
	e, err := startEtcd(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("store: %w", err)
	}
	defer e.Close()
	n, err := openNetwork(ctx, e.Server, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("store: %w", err)
	}
	if err := serve(ctx, cfg, e, n, ls); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	cfg.Log.Info("store stopped")
	return nil
}

// listenAll opens the listeners. Connections wait in them until etcd is ready, a fraction of a second later.
func listenAll(cfg Config) ([]*listener, error) {
	var ls []*listener
	for _, s := range cfg.Listen {
		a, err := parseListen(s)
		if err == nil {
			var l *listener
			if l, err = listen(a); err == nil {
				ls = append(ls, l)
				continue
			}
		}
		closeAll(ls)
		return nil, err
	}
	return ls, nil
}

func closeAll(ls []*listener) {
	for _, l := range ls {
		l.Close()
	}
}

// serve serves clients until ctx ends or something breaks.
func serve(ctx context.Context, cfg Config, e *embed.Etcd, n *network, ls []*listener) error {
	g, ctx := errgroup.WithContext(ctx)
	k := newKeeper(e.Server, cfg.QuotaBytes, cfg.Log)
	joiner := newJoiner(ctx, n)
	defer joiner.wait()
	for _, l := range ls {
		srv := newServer(ctx, e, n, k, joiner, l.local)
		g.Go(func() error {
			if err := srv.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("serving %s: %w", l.Addr(), err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			stop(srv)
			return nil
		})
	}
	g.Go(func() error {
		k.run(ctx)
		return nil
	})
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-e.Server.StopNotify():
			return errors.New("etcd stopped")
		case err := <-e.Err():
			return fmt.Errorf("etcd: %w", err)
		}
	})
	cfg.Log.Info("store ready", "dir", cfg.Dir, "listen", cfg.Listen, "revision", e.Server.KV().Rev())
	cfg.Ready()
	return g.Wait()
}

// newServer makes the gRPC server of a listener: etcd's own, and beside it what root on this host may ask for, or before
// it what keeps members to their own.
func newServer(ctx context.Context, e *embed.Etcd, n *network, k *keeper, j *joiner, local bool) *grpc.Server {
	opts := []grpc.ServerOption{
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if local {
		srv := v3rpc.Server(e.Server, nil, k.intercept, append(opts, grpc.Creds(localCreds{}), grpc.ChainStreamInterceptor(endWith(ctx)))...)
		adminServer{n}.register(srv)
		return srv
	}
	g := &guard{kv: e.Server.KV(), now: n.now, complain: n.complain}
	return v3rpc.Server(e.Server, nil, k.intercept, append(opts, grpc.Creds(newMemberCreds(n, j.take)),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.ChainUnaryInterceptor(g.intercept), grpc.ChainStreamInterceptor(g.interceptStream, endWith(ctx)))...)
}

// stop lets requests end that are under way. Streams have been ended by endWith.
func stop(srv *grpc.Server) {
	t := time.AfterFunc(stopTimeout, srv.Stop)
	defer t.Stop()
	srv.GracefulStop()
}

// endWith ends streams (watches, which would last for ever) when ctx does.
func endWith(ctx context.Context) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		sctx, cancel := context.WithCancel(ss.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		err := h(srv, &stream{ServerStream: ss, ctx: sctx})
		if ctx.Err() != nil {
			return rpctypes.ErrGRPCStopped
		}
		return err
	}
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }
