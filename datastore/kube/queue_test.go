package kube

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// TestQueue: + puts, - deletes; lower case is what the consumer has not heard of, ! what it may hold.
func TestQueue(t *testing.T) {
	for pushed, want := range map[string]string{
		"+a +b":         "+a +b",
		"+a +b +a":      "+b +a",
		"+a -a":         "",
		"+a -a +a":      "+a",
		"+a! -a":        "-a",
		"-a!":           "-a",
		"-a! +a":        "+a",
		"-a! +a -a":     "-a",
		"+a +b -a +c":   "+b +c",
		"+a! +b -a! +b": "-a +b",
	} {
		q := newQueue()
		q.sync()
		for _, p := range strings.Fields(pushed) {
			e := event{key: api.Key{Kind: "Tier", Name: p[1:2]}, known: strings.HasSuffix(p, "!")}
			if p[0] == '+' {
				e.obj = &api.Tier{}
			}
			q.push(e)
		}
		es, n, err := q.take(t.Context())
		if err != nil || !n.inSync {
			t.Fatal(err, n)
		}
		var got []string
		for _, e := range es {
			sign := "+"
			if e.gone() {
				sign = "-"
			}
			got = append(got, sign+e.key.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", pushed, got, want)
		}
	}
}

// TestQueueFirst: a first snapshot comes as a whole, but does not wait where it may take long.
func TestQueueFirst(t *testing.T) {
	key := func(i int) api.Key { return api.Key{Kind: "Tier", Name: fmt.Sprint(i)} }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	q := newQueue()
	q.push(event{key: key(0), obj: &api.Tier{}})
	q.status(datastore.Status{Connected: true}, true)
	if es, _, err := q.take(ended); err == nil {
		t.Errorf("%v before all is in", es)
	}
	for i := range maxBatch {
		q.push(event{key: key(i), obj: &api.Tier{}})
	}
	if es, n, err := q.take(t.Context()); err != nil || n.inSync || len(es) != maxBatch || !n.status.Connected {
		t.Errorf("%d events, in sync %v, %v", len(es), n.inSync, err)
	}
	q.push(event{key: key(1), obj: &api.Tier{}})
	q.sync()
	if es, n, err := q.take(t.Context()); err != nil || !n.inSync || len(es) != 1 {
		t.Errorf("%v, in sync %v, %v", es, n.inSync, err)
	}
	q = newQueue()
	q.push(event{key: key(0), obj: &api.Tier{}})
	q.status(datastore.Status{Connected: true, Kinds: map[string]error{"Tier": nil}}, true)
	if es, n, err := q.take(t.Context()); err != nil || n.inSync || len(es) != 1 {
		t.Errorf("with a kind that is refused: %v, in sync %v, %v", es, n.inSync, err)
	}
}
