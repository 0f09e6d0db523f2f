package kube

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/storetest"
	"golang.org/x/sync/errgroup"
)

// otherwise says which cases are about what an API server does in another way.
var otherwise = map[string]string{
	"Unreadable":         "the server lets nothing in that it can't read",
	"WatchUnreadable":    "the same; see TestUnreadable",
	"WatchPartial":       "the same",
	"UnknownFieldGoes":   "the server lets no unknown field in; see TestUnknownField",
	"Txn":                "there are no transactions",
	"TxnAllOrNothing":    "there are no transactions",
	"TxnBounds":          "there are no transactions",
	"TxnRace":            "there are no transactions",
	"WatchTxnInOneBatch": "there are no transactions",
	"WatchOrder":         "each kind has a stream of its own",
	"WatchResume":        "a resumed watch compares instead of going on; see WatchResumeCompacted",
	"WatchPages":         "a watch-list has no pages; TestMemory has many objects",
	"WatchRestored":      "a restored server is one with another history: see TestOlderHistory",
}

// apart does the writes of a transaction by themselves, for tests that only want many objects.
type apart struct{ *Store }

func (s apart) Txn(ctx context.Context, ops ...datastore.Op) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(10)
	for _, op := range ops {
		g.Go(func() error { return s.Store.Txn(ctx, op) })
	}
	return g.Wait()
}

// TestConformance runs the suite against a real API server, over a faulty wire.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *storetest.Harness {
		c := take(t)
		for _, ns := range []string{"a", "b", "ab", "a-b", "other", "ns0", "ns1", "ns2", "ns3", "ns4", "ns5", "ns6"} {
			c.must(t, http.MethodPatch, "/api/v1/namespaces/"+ns+"?fieldManager=test", map[string]any{
				"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns}})
		}
		return &storetest.Harness{
			Store:   apart{c.open(t, true)},
			Other:   c.open(t, false),
			SetRaw:  func(key api.Key, value []byte) { setRaw(t, c, key, value) },
			Compact: func() { c.compact(t) },
			Cut:     c.Cut, Down: c.Down, Up: c.Up,
			Backup: func() func() { t.Fatal("not in these cases"); return nil },
		}
	}, otherwise)
}

// setRaw stores a value that the server takes.
func setRaw(t *testing.T, c *cluster, key api.Key, value []byte) {
	t.Helper()
	if !json.Valid(value) {
		t.Fatalf("%v can't be stored as %q", key, value)
	}
	c.must(t, http.MethodPost, path(key), value)
}
