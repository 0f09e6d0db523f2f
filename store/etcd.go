package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/embed"
)

const (
	memberName = "tortie"
	// peerURL is a name in the member list and nothing else: no peer listener is opened.
	peerURL = "http://127.0.0.1:2380"

	// etcd keeps the last requests in memory until it has taken a snapshot, for members that lag. There are none: with
	// the defaults (10,000 and 5,000) a busy small store holds on to some 100 MB.
	snapshotCount   = 2000
	snapshotCatchUp = 100

	progressInterval = 10 * time.Minute

	// A member that is alone has no heartbeats to lose: a short election time only makes it start sooner, in 0.1 s instead
	// of 1 s.
	tickMs, electionMs = 50, 250
)

// etcdConfig is the configuration of a member that is alone and has no listener: serve.go does the listening.
func etcdConfig(cfg Config) *embed.Config {
	c := embed.NewConfig()
	c.Name = memberName
	c.Dir = cfg.Dir
	peer := mustParse(peerURL)
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil
	for _, l := range cfg.Listen {
		c.AdvertiseClientUrls = append(c.AdvertiseClientUrls, mustParse(l))
	}
	c.InitialCluster = c.InitialClusterFromName(memberName)
	// Counts only when the data directory is made: see the package's doc.
	c.InitialClusterToken = rand.Text()
	c.TickMs, c.ElectionMs = tickMs, electionMs
	c.EnableGRPCGateway = false
	c.ClientTLSInfo.ClientCertAuth = true // who calls is the common name of a certificate
	c.SnapshotCount = snapshotCount
	c.SnapshotCatchUpEntries = snapshotCatchUp
	c.MaxWalFiles = 2
	c.QuotaBackendBytes = cfg.QuotaBytes
	c.AutoCompactionMode = embed.CompactorModePeriodic
	c.AutoCompactionRetention = cfg.Compaction.String()
	c.WatchProgressNotifyInterval = progressInterval
	c.DowngradeCheckTime = 0
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZap(cfg.Log.With("component", "etcd")))
	return c
}

func mustParse(s string) url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err) // constants, and what Validate has read
	}
	return *u
}

// readable opens the database as etcd will: it does so in a goroutine of its own and panics if it can't, which nobody
// could turn into an error.
func readable(dir string) error {
	path := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil // a new store
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	return db.Close()
}

// startEtcd starts the server and waits until it is ready. What else etcd has to say about a broken data directory it
// says by panicking, too.
func startEtcd(ctx context.Context, cfg Config) (e *embed.Etcd, err error) {
	defer func() {
		if r := recover(); r != nil {
			e, err = nil, fmt.Errorf("starting etcd on %s: %v", cfg.Dir, r)
		}
	}()
	if err := readable(cfg.Dir); err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	e, err = embed.StartEtcd(etcdConfig(cfg))
	if err != nil {
		return nil, fmt.Errorf("starting etcd on %s: %w", cfg.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case <-e.Server.StopNotify():
		e.Close()
		return nil, fmt.Errorf("starting etcd on %s: it stopped", cfg.Dir)
	case <-ctx.Done():
		e.Close()
		return nil, ctx.Err()
	}
}
