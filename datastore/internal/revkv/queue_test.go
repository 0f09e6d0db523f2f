package revkv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

func put(key string, mod int64, known bool) op {
	return op{Entry: Entry{Key: key, Value: []byte("v"), Mod: mod}, known: known}
}

func gone(key string) op { return op{Entry: Entry{Key: key}, known: true} }

func keys(cs []change) string {
	out := ""
	for _, c := range cs {
		if c.Value == nil {
			out += "-"
		}
		out += fmt.Sprintf("%s@%d ", c.Key, c.Mod)
	}
	return out
}

func TestQueueCoalesces(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []op
		want string
	}{
		{"nothing", nil, ""},
		{"in order", []op{put("b", 1, false), put("a", 2, false)}, "b@1 a@2 "},
		{"the last value, at its place", []op{put("a", 1, true), put("b", 2, true), put("a", 3, true)}, "b@2 a@3 "},
		{"came and went", []op{put("a", 1, false), gone("a")}, ""},
		{"came, changed and went", []op{put("a", 1, false), put("a", 2, true), gone("a")}, ""},
		{"went", []op{put("a", 1, true), gone("a")}, "-a@0 "},
		{"went and came", []op{gone("a"), put("a", 2, false)}, "a@2 "},
		{"went, came and went", []op{gone("a"), put("a", 2, false), gone("a")}, "-a@0 "},
	} {
		q := newQueue()
		q.push(c.ops, &progress{pos: Position{Rev: 9}, tell: true})
		cs, n, err := q.take(t.Context())
		if got := keys(cs); err != nil || got != c.want || n.pos.Rev != 9 {
			t.Errorf("%s: %q at %d, %v; want %q", c.name, got, n.pos.Rev, err, c.want)
		}
	}
}

// TestQueueAgainstModel lets a slow consumer end up with the producer's world, with never more in the queue than both
// worlds hold.
func TestQueueAgainstModel(t *testing.T) {
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		q := newQueue()
		truth, world := map[string]int64{}, map[string]int64{}
		for rev := int64(1); rev < 3000; rev++ {
			key := fmt.Sprint(rnd.IntN(40))
			if rnd.IntN(4) == 0 {
				key = fmt.Sprint("passing", rev) // a key that never comes again
				q.push([]op{put(key, rev, false), gone(key)}, &progress{pos: Position{Rev: rev}})
				continue
			}
			_, known := truth[key]
			o := put(key, rev, known)
			if known && rnd.IntN(2) == 0 {
				o = gone(key)
				delete(truth, key)
			} else {
				truth[key] = rev
			}
			q.push([]op{o}, &progress{pos: Position{Rev: rev}})
			if most := len(truth) + len(world); len(q.index) > most || len(q.slots) > 2*most+64+1 {
				t.Fatalf("seed %d: %d keys in %d places, worlds of %d and %d", seed, len(q.index), len(q.slots), len(truth), len(world))
			}
			if rnd.IntN(50) == 0 && q.toTell() {
				consume(t, q, world)
				if !maps.Equal(world, truth) {
					t.Fatalf("seed %d at %d: %v, want %v", seed, rev, world, truth)
				}
			}
		}
	}
}

func consume(t *testing.T, q *queue, world map[string]int64) note {
	t.Helper()
	cs, n, err := q.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		_, held := world[c.Key]
		switch {
		case c.Value != nil:
			world[c.Key] = c.Mod
		case !held:
			t.Fatalf("delete of %s, which was not there", c.Key)
		default:
			delete(world, c.Key)
		}
	}
	return n
}

// TestQueuePosition: the consumer may resume only from what it has been told in full.
func TestQueuePosition(t *testing.T) {
	q := newQueue()
	world := map[string]int64{}
	var ops []op
	for i := range int64(maxBatch + 10) {
		ops = append(ops, put(fmt.Sprint(i), i, false))
	}
	q.push(ops[:5], nil)
	if n := consume(t, q, world); n.pos.Rev != 0 || n.inSync {
		t.Errorf("in the middle of a list: %+v", n)
	}
	q.push(ops[5:], nil)
	q.push(nil, &progress{pos: Position{Rev: 7}, inSync: true})
	if n := consume(t, q, world); n.pos.Rev != 0 || n.inSync || len(world) != 5+maxBatch {
		t.Errorf("with %d keys: %+v", len(world), n)
	}
	if n := consume(t, q, world); n.pos.Rev != 7 || !n.inSync || len(world) != len(ops) {
		t.Errorf("with %d keys: %+v", len(world), n)
	}
	if q.toTell() {
		t.Error("there is more")
	}
	// A relist: what was told before stays true until it is done.
	q.push(ops[:1], nil)
	if n := consume(t, q, world); n.pos.Rev != 7 || !n.inSync {
		t.Errorf("in the middle of a relist: %+v", n)
	}
	q.push(nil, &progress{pos: Position{Rev: 9}})
	if q.toTell() {
		t.Error("a new position alone is no news")
	}
	q.push(nil, &progress{pos: Position{Rev: 10}, tell: true})
	if n := consume(t, q, world); n.pos.Rev != 10 {
		t.Errorf("at %+v", n)
	}
}

func TestQueueRoom(t *testing.T) {
	q := newQueue()
	var ops []op
	for i := range int64(maxBatch + 1) {
		ops = append(ops, put(fmt.Sprint(i), i, false))
	}
	q.push(ops, nil)
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if err := q.room(ctx); err != stop {
		t.Errorf("a full queue: %v", err)
	}
	consume(t, q, map[string]int64{})
	if err := q.room(t.Context()); err != nil {
		t.Error(err)
	}
	if _, _, err := q.take(ctx); err != stop {
		t.Errorf("take, though there is something: %v", err)
	}
}
