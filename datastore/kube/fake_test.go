package kube

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

var seed = maphash.MakeSeed()

// fakeServer speaks the API as far as reads go: lists, watch-lists, watches with bookmarks, errors. Unlike a real one it
// can be told to fail.
type fakeServer struct {
	t    *testing.T
	srv  *httptest.Server
	mu   sync.Mutex
	rev  int
	objs map[string]map[string]json.RawMessage // by path of the resource; those that are not here are not served
	// fail is the status code that requests for a path get.
	fail     map[string]int
	watches  map[string][]*fakeWatch
	removed  map[string]map[int]string // by path and revision: what a watch from before is told of
	requests []string
	changes  []fakeChange
	oldest   int  // watches from before are told that it is gone
	old      bool // it knows no watch-lists
	hang     bool // no request is answered
}

// fakeChange is one of the history that lists at a revision are made of.
type fakeChange struct {
	rev       int
	path, key string
	obj       json.RawMessage // nil if it was removed
}

type fakeWatch struct {
	from   int // it is told of what comes after
	events chan string
	end    chan struct{}
	once   sync.Once
}

func (w *fakeWatch) stop() { w.once.Do(func() { close(w.end) }) }

// newFake serves all resources, all empty, but for those named.
func newFake(t *testing.T, absent ...string) *fakeServer {
	f := &fakeServer{t: t, rev: 100, objs: map[string]map[string]json.RawMessage{}, fail: map[string]int{}, watches: map[string][]*fakeWatch{},
		removed: map[string]map[int]string{}}
	for _, s := range sources(seed) {
		if !slices.Contains(absent, s.name) {
			f.objs[s.path+"/"+s.plural] = map[string]json.RawMessage{}
		}
	}
	f.srv = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		f.cut()
		f.srv.Close()
	})
	return f
}

// open returns a store on f that is not patient.
func (f *fakeServer) open() *Store {
	f.t.Helper()
	s, err := open(&rest.Config{Host: f.srv.URL}, slog.New(slog.NewTextHandler(f.t.Output(), nil)))
	if err != nil {
		f.t.Fatal(err)
	}
	s.pace = pace{minBackoff: time.Millisecond, maxBackoff: 20 * time.Millisecond, answer: time.Minute, steady: time.Second, absent: 10 * time.Millisecond, definition: time.Minute, refused: 20 * time.Millisecond, resume: time.Second, busy: 10 * time.Millisecond, confirm: 3}
	f.t.Cleanup(func() { s.Close() })
	return s
}

func pathOf(name string) string {
	for _, s := range sources(seed) {
		if s.name == name {
			return s.path + "/" + s.plural
		}
	}
	return "/" + name
}

// put stores an object; spec is what follows metadata, as JSON members.
func (f *fakeServer) put(resource, key, labels, rest string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev++
	ns, name, ok := strings.Cut(key, "/")
	meta := fmt.Sprintf(`"name":%q,"namespace":%q`, name, ns)
	if !ok {
		meta = fmt.Sprintf(`"name":%q`, key)
	}
	if labels != "" {
		meta += "," + labels
	}
	path := pathOf(resource)
	version := strings.TrimPrefix(strings.TrimPrefix(path[:strings.LastIndex(path, "/")], "/apis/"), "/api/")
	o := fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{%s,"resourceVersion":"%d"}%s}`, kindNamed(resource), version, meta, f.rev, rest)
	verb := "MODIFIED"
	if f.objs[path][key] == nil {
		verb = "ADDED"
	}
	f.objs[path][key] = json.RawMessage(o)
	f.changes = append(f.changes, fakeChange{f.rev, path, key, json.RawMessage(o)})
	f.tell(path, verb, o)
}

func kindNamed(resource string) string {
	if k, ok := map[string]string{pods: "Pod", namespaces: "Namespace", serviceAccounts: "ServiceAccount", nodes: "Node",
		endpointSlices: "EndpointSlice", policies: "NetworkPolicy", clusterPolicies: "ClusterNetworkPolicy"}[resource]; ok {
		return k
	}
	for _, s := range sources(seed) {
		if s.name == resource {
			return s.kind
		}
	}
	return ""
}

func (f *fakeServer) remove(resource, key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev++
	path := pathOf(resource)
	o := f.objs[path][key]
	delete(f.objs[path], key)
	f.changes = append(f.changes, fakeChange{rev: f.rev, path: path, key: key})
	if f.removed[path] == nil {
		f.removed[path] = map[int]string{}
	}
	f.removed[path][f.rev] = string(o)
	f.tell(path, "DELETED", string(o))
}

func (f *fakeServer) tell(path, verb, o string) {
	for _, w := range f.watches[path] {
		if f.rev <= w.from {
			continue
		}
		w.events <- fmt.Sprintf(`{"type":%q,"object":%s}`, verb, o)
	}
}

// set has requests for a resource answered with a status code; 0 ends that. Watches that are under way end.
func (f *fakeServer) set(resource string, code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := pathOf(resource)
	if f.fail[path] = code; code != 0 {
		for _, w := range f.watches[path] {
			w.stop()
		}
		f.watches[path] = nil
	}
}

// serveMore makes a resource served.
func (f *fakeServer) serveMore(resource string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objs[pathOf(resource)] = map[string]json.RawMessage{}
}

// cut ends all watches.
func (f *fakeServer) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, ws := range f.watches {
		for _, w := range ws {
			w.stop()
		}
		delete(f.watches, path)
	}
}

// asked counts the requests for a resource.
func (f *fakeServer) asked(resource string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if strings.HasPrefix(r, pathOf(resource)+"?") {
			n++
		}
	}
	return n
}

func (f *fakeServer) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.URL.RequestURI())
	_, served := f.objs[r.URL.Path]
	code := f.fail[r.URL.Path]
	old, hang := f.old, f.hang
	f.mu.Unlock()
	if hang {
		<-r.Context().Done()
		return
	}
	if !served {
		code = http.StatusNotFound
	}
	switch q := r.URL.Query(); {
	case code != 0:
		f.status(w, code, "no luck")
	case old && q.Get("sendInitialEvents") != "":
		f.write(w, http.StatusUnprocessableEntity, statusOf(422, "Invalid", "", "sendInitialEvents: Forbidden: is disabled"))
	case q.Get("watch") != "":
		f.watch(w, r)
	default:
		f.list(w, r)
	}
}

// list answers like a real one without resourceVersionMatch: with a revision what there was then if it is asked for pages,
// else what there is now.
func (f *fakeServer) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	f.mu.Lock()
	objs, rev, start := f.objs[r.URL.Path], f.rev, ""
	if from := q.Get("resourceVersion"); from == "0" {
		limit = 0
	} else if from != "" && limit > 0 {
		rev, _ = strconv.Atoi(from)
		objs = f.at(r.URL.Path, rev)
	}
	if at, last, ok := strings.Cut(q.Get("continue"), " "); ok {
		rev, _ = strconv.Atoi(at)
		objs, start = f.at(r.URL.Path, rev), last
	}
	meta := map[string]any{"resourceVersion": strconv.Itoa(rev)}
	items := []json.RawMessage{}
	last := start
	for _, key := range sorted(objs) {
		if key <= start {
			continue
		}
		if limit > 0 && len(items) == limit {
			meta["continue"] = fmt.Sprint(rev, " ", last)
			break
		}
		items, last = append(items, objs[key]), key
	}
	f.mu.Unlock()
	f.write(w, http.StatusOK, map[string]any{"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items})
}

// at returns what there was at a revision.
func (f *fakeServer) at(path string, rev int) map[string]json.RawMessage {
	objs := map[string]json.RawMessage{}
	for _, c := range f.changes {
		switch {
		case c.path != path || c.rev > rev:
		case c.obj == nil:
			delete(objs, c.key)
		default:
			objs[c.key] = c.obj
		}
	}
	return objs
}

func (f *fakeServer) status(w http.ResponseWriter, code int, message string) {
	if code == http.StatusNotFound {
		http.Error(w, "404 page not found", code) // as a real one says it
		return
	}
	reason := map[int]string{403: "Forbidden", 401: "Unauthorized", 410: "Expired", 500: "InternalError"}[code]
	f.write(w, code, statusOf(code, reason, "", message))
}

func statusOf(code int, reason, cause, message string) map[string]any {
	s := map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code}
	if cause != "" {
		s["details"] = map[string]any{"causes": []any{map[string]any{"reason": cause}}}
	}
	return s
}

func (f *fakeServer) write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

func (f *fakeServer) watch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("resourceVersion"))
	f.mu.Lock()
	if from > f.rev && q.Get("sendInitialEvents") != "" { // a real one takes other watches, and keeps silent until it has come there
		f.mu.Unlock()
		f.refuse(w, statusOf(http.StatusGatewayTimeout, "Timeout", "ResourceVersionTooLarge", "Too large resource version"))
		return
	}
	if from > 0 && from < f.oldest && q.Get("sendInitialEvents") == "" {
		f.mu.Unlock()
		f.refuse(w, statusOf(http.StatusGone, "Expired", "", "too old resource version"))
		return
	}
	me := &fakeWatch{from: from, events: make(chan string, len(f.objs[r.URL.Path])+1000), end: make(chan struct{})}
	for _, o := range f.objs[r.URL.Path] {
		rev := revOf(o)
		if q.Get("sendInitialEvents") != "" || rev > from {
			me.events <- fmt.Sprintf(`{"type":"ADDED","object":%s}`, o)
		}
	}
	for rev, o := range f.removed[r.URL.Path] {
		if q.Get("sendInitialEvents") == "" && rev > from {
			me.events <- fmt.Sprintf(`{"type":"DELETED","object":%s}`, o)
		}
	}
	if q.Get("sendInitialEvents") != "" {
		me.events <- fmt.Sprintf(`{"type":"BOOKMARK","object":{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}}}}`,
			bookmarkKind(r.URL.Path), strings.TrimPrefix(strings.TrimPrefix(r.URL.Path[:strings.LastIndex(r.URL.Path, "/")], "/apis/"), "/api/"), f.rev)
	}
	f.watches[r.URL.Path] = append(f.watches[r.URL.Path], me)
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		select {
		case e := <-me.events:
			fmt.Fprintln(w, e)
			w.(http.Flusher).Flush()
		case <-me.end:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// refuse takes a watch, and says in it that it can't be.
func (f *fakeServer) refuse(w http.ResponseWriter, status map[string]any) {
	f.write(w, http.StatusOK, map[string]any{"type": "ERROR", "object": status})
}

func bookmarkKind(path string) string {
	for _, s := range sources(seed) {
		if s.path+"/"+s.plural == path {
			return kindNamed(s.name)
		}
	}
	return ""
}

func revOf(o json.RawMessage) int {
	var m struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if json.Unmarshal(o, &m) != nil {
		return 0
	}
	n, _ := strconv.Atoi(m.Metadata.ResourceVersion)
	return n
}
