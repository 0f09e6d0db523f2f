package kube

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/tortie/tortie/api"
)

// older is a watch of a server that had default/a and default/lost, at revisions 101 and 102, was then away, and was restored
// from a backup. It has told of something: a Reflector would go on where it was.
func older(t *testing.T, f *fakeServer, s *Store) *seen {
	f.put(netsets, "default/a", "", `,"spec":{"nets":["10.0.0.0/8"]}`)
	w := watchKinds(t, s, kindsOf("NetworkSet"))
	w.untilInSync()
	f.put(netsets, "default/lost", "", "")
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/lost")
	f.set(netsets, http.StatusServiceUnavailable)
	f.mu.Lock()
	delete(f.objs[pathOf(netsets)], "default/lost")
	f.rev = 50
	f.mu.Unlock()
	return w
}

// TestOlderHistory: a server that was restored from a backup has an older revision than the one that we have seen. It would
// take a watch from there, and tell nothing.
func TestOlderHistory(t *testing.T) {
	f := newFake(t)
	w := older(t, f, f.open())
	f.put(netsets, "default/new", "", "")
	f.set(netsets, 0)
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/new")
}

// TestHistoryThatCaughtUp: it was away for long, and has come past the revision that we have seen on another way. What
// happened on it before is read, too.
func TestHistoryThatCaughtUp(t *testing.T) {
	f := newFake(t)
	s := f.open()
	s.pace.resume = 0 // any time is long
	w := older(t, f, s)
	f.put(netsets, "default/new", "", "")
	f.mu.Lock()
	f.rev = 200
	f.mu.Unlock()
	f.set(netsets, 0)
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/new")
	w.wantTold("+NetworkSet/default/a +NetworkSet/default/lost +NetworkSet/default/new -NetworkSet/default/lost") // a is as it was
}

// TestSameRevisionAgain: an object can be another one with the revision that we know.
func TestSameRevisionAgain(t *testing.T) {
	for _, old := range []bool{false, true} {
		for _, code := range []int{http.StatusServiceUnavailable, http.StatusInternalServerError} {
			t.Run(fmt.Sprintf("%d, old %v", code, old), func(t *testing.T) {
				f := newFake(t)
				f.old = old
				w := older(t, f, f.open())
				f.set(netsets, code)
				f.mu.Lock()
				f.rev = 100
				f.mu.Unlock()
				before := f.asked(netsets)
				f.put(netsets, "default/a", "", `,"spec":{"nets":["192.0.2.0/24"]}`) // at 101, as before
				waitFor(t, "some more requests", func() bool { return f.asked(netsets) > before+2 })
				f.set(netsets, 0)
				w.untilWorld("NetworkSet/default/a")
				w.wantTold("+NetworkSet/default/a +NetworkSet/default/a +NetworkSet/default/lost -NetworkSet/default/lost")
			})
		}
	}
}

// TestSameRevisionOfPod: a pod can, too.
func TestSameRevisionOfPod(t *testing.T) {
	f := newFake(t)
	f.put(pods, "default/p", `"uid":"u1","labels":{"a":"1"}`, `,"spec":{"nodeName":"n"}`)
	w := watchKinds(t, f.open(), kindsOf("WorkloadEndpoint"))
	w.untilInSync()
	before := f.asked(pods)
	f.set(pods, http.StatusInternalServerError)
	waitFor(t, "some more requests", func() bool { return f.asked(pods) > before+2 })
	f.mu.Lock()
	f.rev--
	f.mu.Unlock()
	f.put(pods, "default/p", `"uid":"u1","labels":{"a":"2"}`, `,"spec":{"nodeName":"n"}`)
	f.set(pods, 0)
	w.until("the other label", func() bool {
		o, _ := w.world["WorkloadEndpoint/default/n-k8s-p-eth0"].Object.(*api.WorkloadEndpoint)
		return o != nil && o.Labels["a"] == "2"
	})
}

// TestNoWatchListMany: so many objects that an older server gives them in pages. When it has forgotten the revision that a
// watch goes on from, what there is now is read, not what there was then.
func TestNoWatchListMany(t *testing.T) {
	f := newFake(t)
	f.old = true
	var keys []string
	for i := range 501 {
		f.put(netsets, fmt.Sprintf("default/%d", i), "", "")
		keys = append(keys, fmt.Sprintf("NetworkSet/default/%d", i))
	}
	w := watchKinds(t, f.open(), kindsOf("NetworkSet"))
	w.untilWorld(keys...)
	f.set(netsets, http.StatusServiceUnavailable)
	f.put(netsets, "default/new", "", "")
	f.mu.Lock()
	f.oldest = f.rev
	f.mu.Unlock()
	f.set(netsets, 0)
	w.untilWorld(append(keys, "NetworkSet/default/new")...)
}
