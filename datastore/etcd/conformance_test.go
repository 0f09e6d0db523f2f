package etcd

import (
	"path/filepath"
	"testing"

	"github.com/tortie/tortie/datastore/storetest"
)

// TestConformance runs the suite through a faulty wire, against a server for each case.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *storetest.Harness {
		srv := newServer(t)
		srv.start()
		wire := filepath.Join(srv.dir, "p")
		p := newProxy(t, wire, srv.socket())
		return &storetest.Harness{
			Store:   open(t, Config{Endpoints: []string{"unix://" + wire}}),
			Other:   open(t, Config{Endpoints: []string{srv.endpoint()}}),
			SetRaw:  srv.setRaw,
			Compact: srv.compact,
			Cut:     p.cut,
			Down:    p.down,
			Up:      p.up,
			Backup:  srv.backup,
		}
	})
}
