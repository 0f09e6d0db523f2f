//go:build !noembed

package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tortie/tortie/controllers"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/store"
)

// runStore runs the store, and with it the controllers: there is one store of a cluster, so that there is one of them,
// and nobody has to think of them.
func runStore(ctx context.Context, cfg store.Config) error {
	socket := localSocket(cfg.Listen)
	// What the controllers miss is the store's to say; what they do is to be seen.
	all, err := controllers.New(controllers.Config{
		Log: cfg.Log.With("component", "controllers"), Registry: prometheus.NewRegistry(),
		OpenStore: func(context.Context) (datastore.Store, error) {
			return etcd.Open(etcd.Config{Endpoints: []string{socket}, Log: slog.New(slog.DiscardHandler)})
		},
	})
	if err != nil {
		return err
	}
	ready := make(chan struct{})
	tell := cfg.Ready
	cfg.Ready = func() { tell(); close(ready) }
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	g.Go(func() error {
		defer stop() // the controllers end with the store, whyever it ends
		return store.Run(ctx, cfg)
	})
	g.Go(func() error {
		select {
		case <-ready:
			return all.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// localSocket is where root on this host finds the store. There is one in any case.
func localSocket(listen []string) string {
	for _, l := range listen {
		if strings.HasPrefix(l, "unix:") {
			return l
		}
	}
	return store.DefaultListen
}
