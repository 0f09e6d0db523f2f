package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// seen is a watch that keeps what it is told.
type seen struct {
	t       *testing.T
	cancel  context.CancelFunc
	ended   chan error
	mu      sync.Mutex
	changed chan struct{}
	world   map[string]datastore.Event // those that are there
	log     []string                   // +key, !key, -key
	last    datastore.Batch
	bad     bool // a kind was named, at any time
}

func watchKinds(t *testing.T, s datastore.Store, o datastore.WatchOptions) *seen {
	ctx, cancel := context.WithCancel(t.Context())
	w := &seen{t: t, cancel: cancel, ended: make(chan error, 1), changed: make(chan struct{}), world: map[string]datastore.Event{}}
	go func() { w.ended <- s.Watch(ctx, o, w.batch) }()
	t.Cleanup(func() {
		cancel()
		<-w.ended
	})
	return w
}

func kindsOf(kinds ...string) datastore.WatchOptions { return datastore.WatchOptions{Kinds: kinds} }

func (w *seen) batch(b datastore.Batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range b.Events {
		k := e.Key.String()
		switch {
		case e.Problem != nil:
			w.world[k] = e
			w.log = append(w.log, "!"+k)
		case e.Object != nil:
			w.world[k] = e
			w.log = append(w.log, "+"+k)
		default:
			delete(w.world, k)
			w.log = append(w.log, "-"+k)
		}
	}
	if w.last.InSync && !b.InSync {
		w.t.Error("in sync no more")
	}
	w.last, w.bad = b, w.bad || b.Status.Kinds != nil
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

// until waits for a condition, which is called with the lock held.
func (w *seen) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(time.Minute) // a real server is slow to come back on a busy machine
	for {
		w.mu.Lock()
		if ok() {
			w.mu.Unlock()
			return
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case err := <-w.ended:
			w.ended <- err
			w.t.Fatalf("the watch ended before %s: %v", what, err)
		case <-deadline:
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("%s did not come: log %v, in sync %v, status %+v", what, w.log, w.last.InSync, w.last.Status)
		}
	}
}

func (w *seen) untilInSync() {
	w.t.Helper()
	w.until("in sync", func() bool { return w.last.InSync })
}

func (w *seen) untilWorld(keys ...string) {
	w.t.Helper()
	slices.Sort(keys)
	w.until(fmt.Sprintf("%v", keys), func() bool { return w.last.InSync && slices.Equal(sorted(w.world), keys) })
}

// told returns what has been told so far, sorted.
func (w *seen) told() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := slices.Clone(w.log)
	slices.Sort(log)
	return strings.Join(log, " ")
}

func (w *seen) wantTold(want string) {
	w.t.Helper()
	if got := w.told(); got != want {
		w.t.Errorf("told %s, want %s", got, want)
	}
}

const netsets = "networksets.projectcalico.org"

func TestAbsentKind(t *testing.T) {
	f := newFake(t, clusterPolicies, netsets)
	w := watchKinds(t, f.open(), kindsOf("GlobalNetworkPolicy", "NetworkSet"))
	w.untilInSync() // without them
	if w.last.Status.Kinds != nil || !w.last.Status.Connected {
		t.Errorf("status %+v", w.last.Status)
	}
	f.serveMore(netsets)
	f.put(netsets, "default/a", "", "")
	w.untilWorld("NetworkSet/default/a")
}

// TestAbsentForAMoment: a server that does not know what it serves takes nothing away.
func TestAbsentForAMoment(t *testing.T) {
	f := newFake(t)
	f.put(netsets, "default/a", "", "")
	s := f.open()
	s.pace.confirm = 1000
	w := watchKinds(t, s, kindsOf("NetworkSet"))
	w.untilInSync()
	before := f.asked(netsets)
	f.set(netsets, http.StatusNotFound)
	waitFor(t, "some more requests", func() bool { return f.asked(netsets) > before+8 })
	f.set(netsets, 0)
	f.put(netsets, "default/b", "", "")
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/b")
	w.wantTold("+NetworkSet/default/a +NetworkSet/default/b")
}

// TestAbsentForGood: a kind that was taken out is believed to be gone after a while.
func TestAbsentForGood(t *testing.T) {
	f := newFake(t)
	f.put(netsets, "default/a", "", "")
	w := watchKinds(t, f.open(), kindsOf("NetworkSet"))
	w.untilInSync()
	f.set(netsets, http.StatusNotFound)
	w.untilWorld()
	f.set(netsets, 0)
	w.untilWorld("NetworkSet/default/a")
	w.wantTold("+NetworkSet/default/a +NetworkSet/default/a -NetworkSet/default/a")
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func TestRefusedKind(t *testing.T) {
	for _, code := range []int{http.StatusForbidden, http.StatusUnauthorized} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			f := newFake(t)
			f.put(netsets, "default/a", "", "")
			f.set(netsets, code)
			w := watchKinds(t, f.open(), kindsOf("NetworkSet", "Tier"))
			w.until("the bad news", func() bool { return errors.Is(w.last.Status.Kinds["NetworkSet"], datastore.ErrForbidden) })
			if w.last.InSync || len(w.last.Status.Kinds) != 1 {
				t.Errorf("in sync %v, status %+v", w.last.InSync, w.last.Status)
			}
			if e := w.last.Status.Kinds["NetworkSet"]; !strings.Contains(e.Error(), netsets) {
				t.Errorf("%v does not name the resource", e)
			}
			f.set(netsets, 0)
			w.untilWorld("NetworkSet/default/a")
			w.until("good news", func() bool { return w.last.Status.Kinds == nil && w.last.Status.Connected })
		})
	}
}

// TestRefusedLater: what was read stays, and the stream stays in sync.
func TestRefusedLater(t *testing.T) {
	f := newFake(t)
	f.put(netsets, "default/a", "", "")
	w := watchKinds(t, f.open(), kindsOf("NetworkSet", "Tier"))
	w.untilInSync()
	f.set(netsets, http.StatusForbidden)
	w.until("the bad news", func() bool { return w.last.Status.Kinds["NetworkSet"] != nil })
	if !w.last.InSync || !w.last.Status.Connected {
		t.Errorf("in sync %v, status %+v", w.last.InSync, w.last.Status)
	}
	f.set(netsets, 0)
	w.until("good news", func() bool { return w.last.Status.Kinds == nil })
	w.wantTold("+NetworkSet/default/a")
}

// TestAllRefused: then nobody speaks to us.
func TestAllRefused(t *testing.T) {
	f := newFake(t)
	f.set(netsets, http.StatusForbidden)
	w := watchKinds(t, f.open(), kindsOf("NetworkSet"))
	w.until("the bad news", func() bool { return errors.Is(w.last.Status.Err, datastore.ErrForbidden) })
	if w.last.Status.Connected {
		t.Errorf("status %+v", w.last.Status)
	}
}

// TestFailingKind: a server that can't give one kind is there all the same.
func TestFailingKind(t *testing.T) {
	f := newFake(t)
	f.set(netsets, http.StatusInternalServerError)
	w := watchKinds(t, f.open(), kindsOf("NetworkSet", "Tier"))
	w.until("the bad news", func() bool {
		return errors.Is(w.last.Status.Kinds["NetworkSet"], datastore.ErrUnavailable) && w.last.Status.Connected
	})
	if w.last.InSync {
		t.Error("in sync without a kind")
	}
	f.set(netsets, 0)
	w.untilInSync()
}

// TestBusyKind: a server that says for long that it is busy is one that can't give the kind, at first and later.
func TestBusyKind(t *testing.T) {
	f := newFake(t)
	f.put(netsets, "default/a", "", "")
	f.put("tiers.projectcalico.org", "x", "", "")
	f.set(netsets, http.StatusTooManyRequests)
	w := watchKinds(t, f.open(), kindsOf("NetworkSet", "Tier"))
	bad := func() bool {
		return errors.Is(w.last.Status.Kinds["NetworkSet"], datastore.ErrUnavailable) && len(w.last.Status.Kinds) == 1 && w.last.Status.Connected
	}
	w.until("the bad news", func() bool { return bad() && !w.last.InSync && w.world["Tier/x"].Object != nil })
	f.set(netsets, 0)
	w.untilWorld("NetworkSet/default/a", "Tier/x")
	w.until("good news", func() bool { return w.last.Status.Kinds == nil })
	f.set(netsets, http.StatusTooManyRequests)
	w.until("the bad news again", bad)
	f.put(netsets, "default/b", "", "")
	f.set(netsets, 0)
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/b", "Tier/x")
	w.until("good news again", func() bool { return w.last.Status.Kinds == nil })
	w.wantTold("+NetworkSet/default/a +NetworkSet/default/b +Tier/x")
}

// TestBusyForAMoment: that is no news.
func TestBusyForAMoment(t *testing.T) {
	f := newFake(t)
	f.put(netsets, "default/a", "", "")
	s := f.open()
	s.pace.busy = time.Hour
	w := watchKinds(t, s, kindsOf("NetworkSet", "Tier"))
	w.untilInSync()
	before := f.asked(netsets)
	f.set(netsets, http.StatusTooManyRequests)
	waitFor(t, "some more requests", func() bool { return f.asked(netsets) > before+8 })
	f.put(netsets, "default/b", "", "")
	f.set(netsets, 0)
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/b")
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bad {
		t.Error("a moment was told of")
	}
}

func TestExpiredRevision(t *testing.T) {
	f := newFake(t)
	for _, n := range []string{"a", "b", "c"} {
		f.put(netsets, "default/"+n, "", "")
	}
	w := watchKinds(t, f.open(), kindsOf("NetworkSet"))
	w.untilInSync()
	f.mu.Lock()
	f.oldest = f.rev + 2 // whatever they resume from is gone
	f.mu.Unlock()
	f.set(netsets, http.StatusServiceUnavailable)
	f.remove(netsets, "default/b")
	f.put(netsets, "default/c", "", `,"spec":{"nets":["10.0.0.0/8"]}`)
	f.put(netsets, "default/d", "", "")
	f.set(netsets, 0)
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/c", "NetworkSet/default/d")
	w.wantTold("+NetworkSet/default/a +NetworkSet/default/b +NetworkSet/default/c +NetworkSet/default/c +NetworkSet/default/d -NetworkSet/default/b")
}

// TestNoWatchList: an older server gives lists, then watches.
func TestNoWatchList(t *testing.T) {
	f := newFake(t)
	f.old = true
	f.put(netsets, "default/a", "", "")
	f.put(pods, "default/p", `"uid":"u1"`, `,"spec":{"nodeName":"n"}`)
	w := watchKinds(t, f.open(), kindsOf("NetworkSet", "WorkloadEndpoint"))
	var first datastore.Batch
	w.until("something", func() bool {
		first = w.last
		return len(w.log) > 0
	})
	if first.Status.Kinds != nil || !first.InSync {
		t.Errorf("the first batch: in sync %v, status %+v", first.InSync, first.Status)
	}
	f.put(netsets, "default/b", "", "")
	f.remove(pods, "default/p")
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/b")
}

// TestHangingServer: a server that takes requests and never answers is one that can't be reached.
func TestHangingServer(t *testing.T) {
	f := newFake(t)
	f.put(netsets, "default/a", "", "")
	s := f.open()
	s.pace.answer = 50 * time.Millisecond
	w := watchKinds(t, s, kindsOf("NetworkSet"))
	w.untilInSync()
	hang := func(on bool) {
		f.mu.Lock()
		f.hang = on
		f.mu.Unlock()
	}
	hang(true)
	f.cut()
	w.until("the bad news", func() bool { return !w.last.Status.Connected && errors.Is(w.last.Status.Err, datastore.ErrUnavailable) })
	hang(false)
	f.put(netsets, "default/b", "", "")
	w.untilWorld("NetworkSet/default/a", "NetworkSet/default/b")
	w.until("the good news", func() bool { return w.last.Status.Connected && w.last.Status.Err == nil })
	w.wantTold("+NetworkSet/default/a +NetworkSet/default/b")
}

// TestUnreadable: one object that can't be used is a problem of its own.
func TestUnreadable(t *testing.T) {
	f := newFake(t)
	const gnp, np = "globalnetworkpolicies.projectcalico.org", "networkpolicies.projectcalico.org"
	f.put(gnp, "good", "", `,"spec":{"selector":"all()"}`)
	f.put(gnp, "bad", "", `,"spec":{"selector":"all("}`)
	f.put(np, "default/partly", "", `,"spec":{"selector":"all()","ingress":[{"action":"Allow","colour":"red"}]}`)
	f.put(policies, "default/odd", "", `,"spec":{"podSelector":{},"colour":"red"}`)
	w := watchKinds(t, f.open(), kindsOf("GlobalNetworkPolicy", "NetworkPolicy"))
	w.untilWorld("GlobalNetworkPolicy/good", "GlobalNetworkPolicy/bad", "NetworkPolicy/default/partly", "NetworkPolicy/default/knp.default.odd")
	if p := w.world["GlobalNetworkPolicy/bad"].Problem; !errors.Is(p, datastore.ErrUnreadable) {
		t.Errorf("problem %v", p)
	}
	for _, k := range []string{"NetworkPolicy/default/partly", "NetworkPolicy/default/knp.default.odd"} {
		if e := w.world[k]; len(e.Problems) == 0 || e.Object == nil {
			t.Errorf("%s: problems %v of %v", k, e.Problems, e.Object)
		}
	}
	f.put(gnp, "bad", "", `,"spec":{"selector":"all()"}`)
	f.put(gnp, "good", "", `,"spec":{"selector":"also bad("}`)
	w.until("the other way round", func() bool {
		return w.world["GlobalNetworkPolicy/bad"].Object != nil && w.world["GlobalNetworkPolicy/good"].Problem != nil
	})
}

// TestUnchanged: what means nothing to us is not told.
func TestUnchanged(t *testing.T) {
	f := newFake(t)
	f.put(namespaces, "a", `"labels":{"x":"y"}`, "")
	f.put(pods, "a/p", `"uid":"u1"`, `,"spec":{"nodeName":"n"},"status":{"phase":"Pending"}`)
	w := watchKinds(t, f.open(), kindsOf("Profile", "WorkloadEndpoint"))
	w.untilInSync()
	f.put(namespaces, "a", `"labels":{"x":"y"},"managedFields":[]`, "")
	f.put(pods, "a/p", `"uid":"u1"`, `,"spec":{"nodeName":"n"},"status":{"phase":"Running"}`)
	f.put(namespaces, "last", "", "")
	f.put(pods, "a/last", `"uid":"u2"`, `,"spec":{"nodeName":"n"}`)
	w.untilWorld("Profile/kns.a", "Profile/kns.last", "WorkloadEndpoint/a/n-k8s-p-eth0", "WorkloadEndpoint/a/n-k8s-last-eth0")
	w.wantTold("+Profile/kns.a +Profile/kns.last +WorkloadEndpoint/a/n-k8s-last-eth0 +WorkloadEndpoint/a/n-k8s-p-eth0")
}

// TestPodBeforeNamespace: a pod without the labels that it has of its namespace is not told.
func TestPodBeforeNamespace(t *testing.T) {
	f := newFake(t)
	f.put(namespaces, "old", "", "")
	w := watchKinds(t, f.open(), kindsOf("Profile", "WorkloadEndpoint"))
	w.untilInSync()
	f.put(pods, "new/p", `"uid":"u1"`, `,"spec":{"nodeName":"n"}`)
	f.put(pods, "new/p", `"uid":"u1","labels":{"a":"b"}`, `,"spec":{"nodeName":"n"}`)
	f.put(pods, "old/q", `"uid":"u2"`, `,"spec":{"nodeName":"n"}`) // comes after them, in the same stream
	w.untilWorld("Profile/kns.old", "WorkloadEndpoint/old/n-k8s-q-eth0")
	f.put(namespaces, "new", "", "")
	w.untilWorld("Profile/kns.old", "WorkloadEndpoint/old/n-k8s-q-eth0", "Profile/kns.new", "WorkloadEndpoint/new/n-k8s-p-eth0")
	w.mu.Lock()
	defer w.mu.Unlock()
	if want := []string{"+Profile/kns.old", "+WorkloadEndpoint/old/n-k8s-q-eth0", "+Profile/kns.new", "+WorkloadEndpoint/new/n-k8s-p-eth0"}; !slices.Equal(w.log, want) {
		t.Errorf("told %v, want %v", w.log, want)
	}
}

// TestBackWhileCalling: a server that comes back while a call is about to fail is asked again at once.
func TestBackWhileCalling(t *testing.T) {
	s := newFake(t).open()
	s.pace.minBackoff, s.pace.maxBackoff = time.Hour, time.Hour
	h := newHub([]string{"Tier", "IPPool"}, nil, s.log)
	var feeds []*feed
	for _, src := range s.sources {
		if h.add(src) {
			feeds = append(feeds, &feed{s: s, src: src, h: h, t: h.tables[src.name]})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h.health(feeds[1].src, state{health: unreachable})
	calls := 0
	err := feeds[0].do(ctx, func() error {
		if calls++; calls > 1 {
			return nil
		}
		h.health(feeds[1].src, state{health: good})
		return errors.New("refused, a moment ago")
	})
	if err != nil || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// TestPodBeforeAccount: a pod is told once its service account is; one that does not come keeps it back for a while only.
func TestPodBeforeAccount(t *testing.T) {
	f := newFake(t)
	f.put(namespaces, "new", "", "")
	f.put(pods, "new/early", `"uid":"u0"`, `,"spec":{"nodeName":"n","serviceAccountName":"gone"}`)
	w := watchKinds(t, f.open(), kindsOf("Profile", "WorkloadEndpoint", "Tier"))
	w.untilInSync()
	w.untilWorld("Profile/kns.new", "WorkloadEndpoint/new/n-k8s-early-eth0") // all accounts have been read: it has none
	f.put(pods, "new/p", `"uid":"u1"`, `,"spec":{"nodeName":"n","serviceAccountName":"robot"}`)
	f.put("tiers.projectcalico.org", "x", "", "")
	w.untilWorld("Profile/kns.new", "WorkloadEndpoint/new/n-k8s-early-eth0", "Tier/x")
	f.put(serviceAccounts, "new/robot", "", "")
	w.untilWorld("Profile/kns.new", "WorkloadEndpoint/new/n-k8s-early-eth0", "Tier/x", "Profile/ksa.new.robot", "WorkloadEndpoint/new/n-k8s-p-eth0")
	w.mu.Lock()
	account, pod := slices.Index(w.log, "+Profile/ksa.new.robot"), slices.Index(w.log, "+WorkloadEndpoint/new/n-k8s-p-eth0")
	w.mu.Unlock()
	if account > pod {
		t.Errorf("told %v", w.log)
	}
	f.put(pods, "new/q", `"uid":"u2"`, `,"spec":{"nodeName":"n","serviceAccountName":"nobody"}`)
	w.untilWorld("Profile/kns.new", "WorkloadEndpoint/new/n-k8s-early-eth0", "Tier/x", "Profile/ksa.new.robot", "WorkloadEndpoint/new/n-k8s-p-eth0",
		"WorkloadEndpoint/new/n-k8s-q-eth0")
	// It is told of no second time, and its account is not looked for again.
	f.put(serviceAccounts, "new/nobody", "", "")
	f.remove(serviceAccounts, "new/robot")
	f.put(pods, "new/p", `"uid":"u1","labels":{"a":"b"}`, `,"spec":{"nodeName":"n","serviceAccountName":"robot"}`)
	w.until("a label", func() bool {
		o, _ := w.world["WorkloadEndpoint/new/n-k8s-p-eth0"].Object.(*api.WorkloadEndpoint)
		return o != nil && o.Labels["a"] == "b"
	})
}

func TestSameName(t *testing.T) {
	const np = "networkpolicies.projectcalico.org"
	const key = "NetworkPolicy/default/knp.default.x"
	kubernetes := func(w *seen) bool {
		o, ok := w.world[key].Object.(*api.NetworkPolicy)
		return ok && strings.Contains(o.Spec.Selector, "kubernetes")
	}
	const native, stored = `,"spec":{"podSelector":{"matchLabels":{"from":"kubernetes"}}}`, `,"spec":{"selector":"from == 'us'"}`
	f := newFake(t)
	f.put(np, "default/knp.default.x", "", stored)
	w := watchKinds(t, f.open(), kindsOf("NetworkPolicy"))
	w.untilInSync()
	if w.world[key].Object == nil || kubernetes(w) {
		t.Fatalf("a stored policy of that name alone: %+v", w.world[key])
	}
	f.put(policies, "default/x", "", native)
	w.until("Kubernetes' own, with a problem", func() bool { return kubernetes(w) && len(w.world[key].Problems) == 1 })
	f.put(np, "default/knp.default.x", `"labels":{"a":"b"}`, stored)
	f.put(policies, "default/y", "", native)
	w.until("the other", func() bool { return w.world["NetworkPolicy/default/knp.default.y"].Object != nil })
	if !kubernetes(w) {
		t.Error("the stored one won")
	}
	f.remove(policies, "default/x")
	w.until("the stored one", func() bool { return w.world[key].Object != nil && !kubernetes(w) })
	f.put(policies, "default/x", "", native)
	w.until("Kubernetes' own again", func() bool { return kubernetes(w) })
	f.remove(np, "default/knp.default.x")
	f.remove(policies, "default/x")
	w.untilWorld("NetworkPolicy/default/knp.default.y")
}

// TestResume: a watch that resumes tells what differs from what the consumer holds.
func TestResume(t *testing.T) {
	f := newFake(t)
	for _, n := range []string{"same", "changed", "gone"} {
		f.put(netsets, "default/"+n, "", "")
	}
	s := f.open()
	w := watchKinds(t, s, kindsOf("NetworkSet"))
	w.untilInSync()
	o := datastore.WatchOptions{Kinds: []string{"NetworkSet"}, Resume: w.last.Resume, Known: map[api.Key]string{}}
	for _, e := range w.world {
		o.Known[e.Key] = e.Object.GetResourceVersion()
	}
	w.cancel()
	f.put(netsets, "default/changed", "", "")
	f.remove(netsets, "default/gone")
	f.put(netsets, "default/new", "", "")
	again := watchKinds(t, s, o)
	again.untilInSync()
	again.wantTold("+NetworkSet/default/changed +NetworkSet/default/new -NetworkSet/default/gone")
}

func TestForeignAPI(t *testing.T) {
	const calico = `{"kind":"APIService","apiVersion":"apiregistration.k8s.io/v1","metadata":{"name":"v3.projectcalico.org"},"spec":{"service":{"namespace":"calico-apiserver","name":"calico-api"}}}`
	const own = `{"kind":"APIService","apiVersion":"apiregistration.k8s.io/v1","metadata":{"name":"v3.projectcalico.org"},"spec":{}}`
	for name, c := range map[string]struct {
		answer string
		code   int
		bad    bool
	}{
		"Calico's":        {calico, 200, true},
		"of our CRDs":     {own, 200, false},
		"none":            {`{"kind":"Status","apiVersion":"v1","code":404,"reason":"NotFound"}`, 404, false},
		"may not be seen": {`{"kind":"Status","apiVersion":"v1","code":403,"reason":"Forbidden"}`, 403, false},
		"not answering":   {`{"kind":"Status","apiVersion":"v1","code":500,"reason":"InternalError"}`, 500, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			inner := f.srv.Config.Handler
			f.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != apiService {
					inner.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.code)
				fmt.Fprint(w, c.answer)
			})
			s := f.open()
			if err := s.checkServer(t.Context()); errors.Is(err, ErrForeignAPI) != c.bad {
				t.Fatalf("error %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := s.Watch(ctx, kindsOf("Tier"), func(b datastore.Batch) error {
				if b.InSync && !c.bad {
					return errors.New("enough")
				}
				return nil
			})
			if errors.Is(err, ErrForeignAPI) != c.bad || ctx.Err() != nil {
				t.Errorf("the watch ended with %v", err)
			}
			if c.bad && !strings.Contains(err.Error(), "calico-apiserver/calico-api") {
				t.Errorf("%v is no advice", err)
			}
		})
	}
}
