package ipam_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/ipam"
	"github.com/tortie/tortie/store"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// memory is where files are in memory, if there is such a place: the test is about who is faster, not about the disk.
func memory() string {
	if i, err := os.Stat("/dev/shm"); err == nil && i.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// startEtcd runs a real store in this process, with its data below a directory, and returns where it is.
func startEtcd(t testing.TB, under string) string {
	t.Helper()
	dir, err := os.MkdirTemp(under, "tip") // short: the path of a Unix socket has room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	endpoint := "unix://" + filepath.Join(dir, "s")
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- store.Run(ctx, store.Config{Dir: filepath.Join(dir, "data"), Listen: []string{endpoint},
			Log: slog.New(slog.DiscardHandler), Ready: func() { close(ready) }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the store ended with %v", err)
		}
		os.RemoveAll(dir)
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("the store ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the store does not start")
	}
	return endpoint
}

func openEtcd(t testing.TB, endpoint string) datastore.Store {
	t.Helper()
	s, err := etcd.Open(etcd.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// writer counts the writes of one node.
type writer struct {
	datastore.Store
	n atomic.Int64
}

func (w *writer) Update(ctx context.Context, o api.Object) (api.Object, error) {
	w.n.Add(1)
	return w.Store.Update(ctx, o)
}

func (w *writer) Txn(ctx context.Context, ops ...datastore.Op) error {
	w.n.Add(1)
	return w.Store.Txn(ctx, ops...)
}

func createPool(t testing.TB, s datastore.Store, name, cidr string, blockSize int) {
	t.Helper()
	if _, err := s.Create(t.Context(), &api.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.IPPoolSpec{CIDR: cidr, BlockSize: blockSize}}); err != nil {
		t.Fatal(err)
	}
}

// cluster is nodes that all come at once.
type cluster struct {
	t      *testing.T
	stores []datastore.Store
	writes atomic.Int64
	adds   atomic.Int64

	mu   sync.Mutex
	held map[netip.Addr]string
}

const podsEach = 4

// TestThousandNodes has a thousand nodes take their blocks and addresses of a real etcd at the same time.
func TestThousandNodes(t *testing.T) {
	endpoint := startEtcd(t, memory())
	c := &cluster{t: t, held: map[netip.Addr]string{}}
	for range 4 {
		c.stores = append(c.stores, openEtcd(t, endpoint))
	}
	createPool(t, c.stores[0], "v4", "10.0.0.0/15", 26) // twice as many blocks as nodes
	start := time.Now()
	work := make(chan int)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := range work {
				c.node(i)
			}
		})
	}
	for i := range ipam.EtcdNodes {
		work <- i
	}
	close(work)
	wg.Wait()
	took := time.Since(start)

	a := ipam.New(ipam.Config{Store: c.stores[0], Node: "auditor"})
	r, err := a.Audit(t.Context(), ipam.AuditOptions{InUse: func(context.Context) ([]ipam.Use, error) {
		var uses []ipam.Use
		for addr, by := range c.held {
			uses = append(uses, ipam.Use{Addr: addr, By: by})
		}
		return uses, nil
	}})
	if err != nil || len(r.Leaked)+len(r.Missing)+len(r.Double)+len(r.Objects) > 0 || r.Allocated != len(c.held) || r.Blocks != ipam.EtcdNodes {
		t.Errorf("%d addresses are held; an audit finds %+v, %v", len(c.held), r, err)
	}
	t.Logf("%d nodes, %d ADDs and as many DELs but %d, %d writes, in %v", ipam.EtcdNodes, c.adds.Load(), len(c.held), c.writes.Load(), took.Round(time.Millisecond))
	// Of each node: two for its block, podsEach-1 more for ADDs, one DEL; and whatever lost a race.
	if want := int64(ipam.EtcdNodes * (podsEach + 2)); c.writes.Load() > want*11/10 {
		t.Errorf("%d writes, want about %d", c.writes.Load(), want)
	}
}

func (c *cluster) node(i int) {
	w := &writer{Store: c.stores[i%len(c.stores)]}
	name := fmt.Sprintf("node-%d", i)
	a := ipam.New(ipam.Config{Store: w, Node: name})
	ctx := c.t.Context()
	for k := range podsEach {
		handle := ipam.HandleOf(fmt.Sprintf("%s-%d", name, k), "eth0")
		r, err := a.Assign(ctx, ipam.Request{Handle: handle, V4: true, Owner: api.Owner{Namespace: "ns", Pod: handle}})
		for try := 0; errors.Is(err, datastore.ErrUnavailable) && try < 5; try++ { // a machine with other work
			r, err = a.Assign(ctx, ipam.Request{Handle: handle, V4: true, Owner: api.Owner{Namespace: "ns", Pod: handle}})
		}
		if err != nil {
			c.t.Errorf("%s: %v", name, err)
			return
		}
		c.adds.Add(1)
		if k == podsEach-1 { // the last one goes again
			if got, err := a.Release(ctx, handle, ipam.ReleaseOptions{Held: r.Addrs}); err != nil || len(got) != 1 {
				c.t.Errorf("%s: released %v, %v", name, got, err)
			}
			continue
		}
		c.mu.Lock()
		if other, ok := c.held[r.Addrs[0].Addr]; ok {
			c.t.Errorf("%s is given to %s and to %s", r.Addrs[0].Addr, other, handle)
		}
		c.held[r.Addrs[0].Addr] = handle
		c.mu.Unlock()
	}
	c.writes.Add(w.n.Load())
}

// BenchmarkAssign is an ADD of two families with an endpoint, and its DEL, on a real store.
func BenchmarkAssign(b *testing.B) {
	for _, parallel := range []int{1, 16} {
		b.Run(fmt.Sprintf("etcd-%d", parallel), func(b *testing.B) {
			s := &writer{Store: openEtcd(b, startEtcd(b, ""))}
			createPool(b, s, "v4", "10.0.0.0/16", 26)
			createPool(b, s, "v6", "fd00::/64", 122)
			a := ipam.New(ipam.Config{Store: s, Node: "n1"})
			var n atomic.Int64
			b.SetParallelism(max(1, parallel/2))
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					cycle(b, a, fmt.Sprintf("pod-%d", n.Add(1)))
				}
			})
			b.ReportMetric(float64(s.n.Load())/float64(b.N), "writes/op")
		})
	}
}

func cycle(b *testing.B, a *ipam.Allocator, name string) {
	handle := ipam.HandleOf(name, "eth0")
	r, err := a.Assign(b.Context(), ipam.Request{Handle: handle, V4: true, V6: true, Owner: api.Owner{Namespace: "ns", Pod: name},
		Ops: func(r ipam.Result) []datastore.Op {
			w := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
			return []datastore.Op{{Verb: datastore.Create, Object: w}}
		}})
	if err != nil {
		b.Error(err)
		return
	}
	gone := datastore.Op{Verb: datastore.Delete, Key: api.Key{Kind: "WorkloadEndpoint", Namespace: "ns", Name: name}}
	if _, err := a.Release(b.Context(), handle, ipam.ReleaseOptions{Held: r.Addrs, Ops: []datastore.Op{gone}}); err != nil {
		b.Error(err)
	}
}
