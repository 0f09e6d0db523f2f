package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/store/join"
)

// follower is a watch, and what it knows.
type follower struct {
	mu   sync.Mutex
	nets map[string]string // of each set
	sync bool
	up   bool
}

func follow(t *testing.T, s *etcd.Store) *follower {
	t.Helper()
	f := &follower{nets: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Watch(ctx, datastore.WatchOptions{Kinds: []string{"GlobalNetworkSet"}}, func(b datastore.Batch) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.sync, f.up = b.InSync, b.Status.Connected
			for _, e := range b.Events {
				delete(f.nets, e.Key.Name)
				if set, ok := e.Object.(*api.GlobalNetworkSet); ok {
					f.nets[e.Key.Name] = strings.Join(set.Spec.Nets, ",")
				}
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

// knows says whether it is up to date with exactly these sets: name=nets.
func (f *follower) knows(sets ...string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	var have []string
	for name, nets := range f.nets {
		have = append(have, name+"="+nets)
	}
	slices.Sort(have)
	return f.sync && f.up && slices.Equal(have, sets)
}

func netSet(name string, nets ...string) *api.GlobalNetworkSet {
	return &api.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.NetworkSetSpec{Nets: nets}}
}

// TestSnapshot: a store that is restored from an older snapshot is believed, by who watched meanwhile and by who joined
// before.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	n1 := c.member(join.RoleNode, "n1")
	admin := c.member(join.RoleAdmin, "ann").store()
	write := func(o api.Object, err error) api.Object {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	changed := write(admin.Create(ctx, netSet("changed", "10.1.0.0/16"))).(*api.GlobalNetworkSet)
	write(admin.Create(ctx, netSet("deleted", "10.2.0.0/16")))
	write(admin.Create(ctx, netSet("kept", "10.3.0.0/16")))
	file := filepath.Join(t.TempDir(), "snap.db")
	info, err := c.admin.Snapshot(ctx, file)
	if err != nil || info.Keys == 0 || info.Revision == 0 {
		t.Fatalf("saving: %+v, %v", info, err)
	}
	if m := mode(t, file); m != 0o600 {
		t.Errorf("snapshot %o", m)
	}
	if es, err := os.ReadDir(filepath.Dir(file)); err != nil || len(es) != 1 {
		t.Errorf("beside it: %v, %v", es, err)
	}
	changed.Spec.Nets = []string{"10.1.1.0/24"}
	write(admin.Update(ctx, changed))
	write(admin.Create(ctx, netSet("later", "10.4.0.0/16")))
	if err := admin.Delete(ctx, api.Key{Kind: "GlobalNetworkSet", Name: "deleted"}, ""); err != nil {
		t.Fatal(err)
	}
	f := follow(t, n1.store())
	if !until(t, patience, func() bool { return f.knows("changed=10.1.1.0/24", "kept=10.3.0.0/16", "later=10.4.0.0/16") }) {
		t.Fatalf("before: %+v", f)
	}
	n2 := c.member(join.RoleNode, "n2")

	if _, err := Restore(file, c.cfg.Dir, logTo(c.log)); !errors.Is(err, ErrLocked) {
		t.Errorf("over a running store: %v", err)
	}
	c.stop()
	if _, err := Restore(file, c.cfg.Dir, logTo(c.log)); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("over a store: %v", err)
	}
	if err := os.Rename(c.cfg.Dir, c.cfg.Dir+".old"); err != nil {
		t.Fatal(err)
	}
	// What an interrupted try has left is in nobody's way.
	if err := os.MkdirAll(filepath.Join(c.cfg.Dir, restoring, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	if again, err := Restore(file, c.cfg.Dir, logTo(c.log)); err != nil || again.SHA256 != info.SHA256 {
		t.Fatalf("restoring: %+v, %v", again, err)
	}
	if m := mode(t, c.cfg.Dir); m != 0o700 {
		t.Errorf("data directory %o", m)
	}
	c.start()
	if !until(t, patience, func() bool { return f.knows("changed=10.1.0.0/16", "deleted=10.2.0.0/16", "kept=10.3.0.0/16") }) {
		t.Errorf("after: %+v", f)
	}
	if st, err := Status(ctx, socketOf(c.cfg)); err != nil || st.Revision < info.Revision+revisionBump {
		t.Errorf("status %+v, %v", st, err)
	}
	write(admin.Create(ctx, netSet("new")))
	if _, err := n2.Hello(ctx, c.addr); !errors.Is(err, join.ErrRefused) {
		t.Errorf("who joined after the snapshot: %v", err)
	}
	if err := n2.join(c.token(TokenRequest{}), "n2", false); err != nil {
		t.Errorf("joining again: %v", err)
	}
}

// TestSnapshotDamage: nothing is restored from a file that is not what was saved.
func TestSnapshotDamage(t *testing.T) {
	t.Parallel()
	cfg := config(shortDir(t), &output{})
	stop := start(t, cfg)
	dir := t.TempDir()
	file := filepath.Join(dir, "good")
	if _, err := (Admin{Socket: socketOf(cfg)}).Snapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if _, err := (Admin{Socket: socketOf(cfg)}).Snapshot(t.Context(), filepath.Join(dir, "no", "such", "folder")); err == nil {
		t.Error("saved into a folder that is not there")
	}
	stop()
	if _, err := (Admin{Socket: socketOf(cfg)}).Snapshot(t.Context(), filepath.Join(dir, "late")); err == nil {
		t.Error("saved from a store that is not there")
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, b := range map[string][]byte{
		"a flipped bit": flipped, "a part": good[:len(good)/2], "the end missing": good[:len(good)-1], "nothing": {}, "a page of zeros": make([]byte, 4096+32),
		"text": []byte(strings.Repeat("text", 1000)),
	} {
		path := filepath.Join(dir, "bad")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := SnapshotStatus(path); err == nil {
			t.Errorf("%s: status is content", name)
		}
		to := filepath.Join(dir, "to")
		if _, err := Restore(path, to, logTo(&output{})); err == nil {
			t.Errorf("%s: restored", name)
		}
		if _, err := os.Stat(filepath.Join(to, "member")); err == nil {
			t.Errorf("%s: something was made of it", name)
		}
	}
	es, err := os.ReadDir(dir)
	if err != nil || slices.ContainsFunc(es, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
		t.Errorf("left behind: %v, %v", es, err)
	}
}
