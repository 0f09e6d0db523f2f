// Package storetest is what it means to be a datastore.Store: the same cases run against every back end.
package storetest

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// Harness is a store under test, empty at first, and the means to make trouble for it.
type Harness struct {
	Store datastore.Store
	// Other is another client of the same store, which no fault but Compact and Backup touches.
	Other datastore.Store
	// SetRaw stores a value as it is.
	SetRaw func(key api.Key, value []byte)
	// Compact forgets all history.
	Compact func()
	// Cut breaks the connections of Store once; Down until Up.
	Cut, Down, Up func()
	// Backup returns what puts the store back to how it is now. Both clients lose their connections.
	Backup func() (restore func())
}

// patience is how long things may take that come by themselves. Reached only in a test that fails.
const patience = 30 * time.Second

// Run runs all cases; open returns a store for one of them, and cleans up by t. Cases in except are about what this store
// does not promise, each for the reason given.
func Run(t *testing.T, open func(t *testing.T) *Harness, except ...map[string]string) {
	skip := map[string]string{}
	for _, m := range except {
		maps.Copy(skip, m)
	}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *Harness)
	}{
		{"Create", testCreate},
		{"CreateTwice", testCreateTwice},
		{"Missing", testMissing},
		{"Update", testUpdate},
		{"UpdateNothing", testUpdateNothing},
		{"UpdateConflict", testUpdateConflict},
		{"Generation", testGeneration},
		{"Delete", testDelete},
		{"Names", testNames},
		{"Invalid", testInvalid},
		{"List", testList},
		{"ListPages", testListPages},
		{"Unreadable", testUnreadable},
		{"UnknownFieldGoes", testUnknownFieldGoes},
		{"RaceUpdate", testRaceUpdate},
		{"RaceCreate", testRaceCreate},
		{"Context", testContext},
		{"Unreachable", testUnreachable},
		{"Txn", testTxn},
		{"TxnAllOrNothing", testTxnAllOrNothing},
		{"TxnBounds", testTxnBounds},
		{"TxnRace", testTxnRace},
		{"WatchSnapshotAndDelta", testWatchSnapshotAndDelta},
		{"WatchPages", testWatchPages},
		{"WatchTxnInOneBatch", testWatchTxnInOneBatch},
		{"WatchOrder", testWatchOrder},
		{"WatchResume", testWatchResume},
		{"WatchResumeCompacted", testWatchResumeCompacted},
		{"WatchResumeCompactedUnknown", testWatchResumeCompactedUnknown},
		{"WatchResumeNothingNew", testWatchResumeNothingNew},
		{"WatchCut", testWatchCut},
		{"WatchCompactedWhileDown", testWatchCompactedWhileDown},
		{"WatchRestored", testWatchRestored},
		{"WatchDownAtFirst", testWatchDownAtFirst},
		{"WatchSlowConsumer", testWatchSlowConsumer},
		{"WatchUnreadable", testWatchUnreadable},
		{"WatchPartial", testWatchPartial},
		{"WatchEnds", testWatchEnds},
		{"WatchInvalid", testWatchInvalid},
		{"WatchUnderFire", testWatchUnderFire},
	} {
		if skip[c.name] != "" {
			delete(skip, c.name)
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, open(t))
		})
	}
	for name := range skip {
		t.Errorf("there is no case %s to except", name)
	}
}

// background is a context for what must end by itself.
func background(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
