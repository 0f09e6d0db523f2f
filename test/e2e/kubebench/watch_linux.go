package kubebench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/rest"
)

const blocks = "/apis/projectcalico.org/v3/ipamblocks"

// arrival is when a watcher had a block, by now.
type arrival struct {
	version string
	at      int64
}

// crowd are watchers: each has a connection of its own, and watches on it what an agent does.
type crowd struct {
	paths  []string
	cancel context.CancelFunc
	wg     sync.WaitGroup
	bytes  atomic.Int64
	opened atomic.Int64
	again  atomic.Int64 // watches that the API server has ended, and that were begun again

	mu       sync.Mutex
	err      error
	arrivals [][]arrival       // by watcher
	versions map[string]string // of the first block that has a pod in it
}

// watched are the paths that agents watch, as the API server has written them down.
func (c *cluster) watched() ([]string, error) {
	log, err := os.Open(filepath.Join(c.State(), "run/logs/audit.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	paths := map[string]bool{}
	err = readAudit(log, func(r *request) {
		if u, err := url.Parse(r.URI); err == nil && r.who() == "tortie-agent" && r.Verb == "watch" {
			paths[u.Path] = true
		}
	})
	if err == nil && !paths[blocks] {
		err = errors.New("no agent watches IPAM blocks")
	}
	return slices.Sorted(maps.Keys(paths)), err
}

// join starts watchers, and waits until all their watches have begun.
func (c *cluster) join(ctx context.Context, n int) (_ *crowd, err error) {
	w := &crowd{versions: map[string]string{}, arrivals: make([][]arrival, n)}
	if w.paths, err = c.watched(); err != nil {
		return nil, err
	}
	secrets, err := rest.TLSConfigFor(c.config)
	if err != nil {
		return nil, err
	}
	ctx, w.cancel = context.WithCancel(ctx)
	room := make(chan struct{}, 8) // that the API server is asked for at once
	var (
		begun sync.WaitGroup
		mu    sync.Mutex
		errs  []error
	)
	for i := range n {
		begun.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if err := w.watcher(ctx, c, secrets.Clone(), i); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	begun.Wait()
	if len(errs) > 0 {
		w.leave()
		return nil, fmt.Errorf("%d of %d watchers could not begin, of which the first says: %w", len(errs), n, errs[0])
	}
	return w, nil
}

// leave ends all watches.
func (w *crowd) leave() {
	w.cancel()
	w.wg.Wait()
}

func (w *crowd) watcher(ctx context.Context, c *cluster, secrets *tls.Config, i int) error {
	client := &http.Client{Transport: &http.Transport{DialContext: c.dial, TLSClientConfig: secrets, ForceAttemptHTTP2: true, DisableCompression: true}}
	var latest atomic.Pointer[string] // the version of the last block; versions are the cluster's, not a kind's
	zero := "0"
	latest.Store(&zero)
	for _, path := range w.paths {
		body, err := watch(ctx, client, c.config.Host+path, "0")
		if err != nil {
			return err
		}
		w.opened.Add(1)
		w.wg.Go(func() {
			if err := w.follow(ctx, client, c.config.Host+path, i, body, &latest); err != nil && ctx.Err() == nil {
				w.mu.Lock()
				w.err = fmt.Errorf("watcher %d, %s: %w", i, path, err)
				w.mu.Unlock()
			}
		})
	}
	return nil
}

// follow reads a watch, and begins it again when the API server has ended it, as it does with those that don't keep up.
func (w *crowd) follow(ctx context.Context, client *http.Client, url string, i int, body io.ReadCloser, latest *atomic.Pointer[string]) (err error) {
	for {
		if strings.HasSuffix(url, blocks) {
			w.blocks(body, i, latest)
		} else {
			w.discard(body)
		}
		if err := body.Close(); err != nil || ctx.Err() != nil {
			return err
		}
		w.again.Add(1)
		if body, err = watch(ctx, client, url, *latest.Load()); err != nil {
			return err
		}
	}
}

// watch begins one.
func watch(ctx context.Context, client *http.Client, url, version string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"?watch=true&allowWatchBookmarks=true&timeoutSeconds=3600&resourceVersion="+version, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json;stream=watch")
	if strings.HasPrefix(req.URL.Path, "/api/v1/") || strings.HasPrefix(req.URL.Path, "/apis/discovery.k8s.io/") {
		req.Header.Set("Accept", "application/vnd.kubernetes.protobuf;stream=watch")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		return nil, errors.Join(fmt.Errorf("watching %s: %s %s", req.URL.Path, resp.Proto, resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

func (w *crowd) discard(r io.Reader) {
	buf := make([]byte, 2<<10) // there are tens of thousands
	for {
		n, err := r.Read(buf)
		w.bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

var (
	versionMark = []byte(`"resourceVersion":"`)
	podMark     = regexp.MustCompile(`"pod":"(` + memberPrefix + `\d+)"`)
)

// blocks notes when each block arrives, and the version of the last. The first watcher looks into them, too.
func (w *crowd) blocks(r io.Reader, i int, latest *atomic.Pointer[string]) {
	lines := bufio.NewReaderSize(r, 32<<10)
	version, bookmark := "", false
	for {
		line, err := lines.ReadSlice('\n')
		w.bytes.Add(int64(len(line)))
		if version == "" {
			_, rest, _ := bytes.Cut(line, versionMark)
			v, _, _ := bytes.Cut(rest, []byte(`"`))
			version, bookmark = string(v), bytes.HasPrefix(line, []byte(`{"type":"BOOKMARK"`))
		}
		if i == 0 && !bookmark {
			w.look(line, version)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		} else if err != nil {
			return
		}
		at, of := now(), version
		latest.Store(&of)
		if !bookmark { // that is of the last block's version, or of a later one
			w.mu.Lock()
			w.arrivals[i] = append(w.arrivals[i], arrival{version, at})
			w.mu.Unlock()
		}
		version = ""
	}
}

func (w *crowd) look(line []byte, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range podMark.FindAllSubmatch(line, -1) {
		if pod := string(m[1]); w.versions[pod] == "" {
			w.versions[pod] = version
		}
	}
}

// seen are the times from the write of a pod's block until watchers had it: all of them, and the last of each write.
func (w *crowd) seen(writes map[string]int64) (all, last ms, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, nil, w.err
	}
	written := map[string]int64{}
	for pod, at := range writes {
		v := w.versions[pod]
		if v == "" {
			return nil, nil, fmt.Errorf("no watcher was told of the block of %s", pod)
		}
		written[v] = at
	}
	times, counts := map[string]float64{}, map[string]int{}
	for _, arrivals := range w.arrivals {
		for _, a := range arrivals {
			if at, ok := written[a.version]; ok {
				took := millis(a.at - at)
				all = append(all, took)
				counts[a.version]++
				times[a.version] = max(times[a.version], took)
			}
		}
	}
	for v := range written {
		if counts[v] != len(w.arrivals) {
			return nil, nil, fmt.Errorf("%d of %d watchers were told of version %s", counts[v], len(w.arrivals), v)
		}
		last = append(last, times[v])
	}
	return all, last, nil
}
