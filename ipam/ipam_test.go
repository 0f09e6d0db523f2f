package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// counted counts the writes that come to pass, and can hold them up.
type counted struct {
	datastore.Store
	mu     sync.Mutex
	writes int
	ops    int
	reads  int
	gate   chan struct{} // if not nil, each write waits for an item
}

func (c *counted) write(ops int, err error) {
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writes++
		c.ops += ops
	}
}

func (c *counted) read() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
}

func (c *counted) Get(ctx context.Context, key api.Key) (api.Object, error) {
	c.read()
	return c.Store.Get(ctx, key)
}

func (c *counted) List(ctx context.Context, kind, namespace string) ([]api.Object, error) {
	c.read()
	return c.Store.List(ctx, kind, namespace)
}

func (c *counted) Update(ctx context.Context, o api.Object) (api.Object, error) {
	if c.gate != nil {
		<-c.gate
	}
	out, err := c.Store.Update(ctx, o)
	c.write(1, err)
	return out, err
}

func (c *counted) Txn(ctx context.Context, ops ...datastore.Op) error {
	if c.gate != nil {
		<-c.gate
	}
	err := c.Store.Txn(ctx, ops...)
	c.write(len(ops), err)
	return err
}

func (c *counted) since(f func()) int {
	before := c.writes
	f()
	return c.writes - before
}

// bench is a store with objects, and a clock.
type bench struct {
	t     testing.TB
	store *counted
	now   time.Time
}

func newBench(t testing.TB, objects ...string) *bench {
	t.Helper()
	b := &bench{t: t, store: &counted{Store: mem.New()}, now: time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC)}
	t.Cleanup(func() { b.store.Close() })
	for _, o := range objects {
		b.apply(o)
	}
	return b
}

func (b *bench) apply(yaml string) {
	b.t.Helper()
	objects, err := api.Decode([]byte(yaml))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, o := range objects {
		if _, err := b.store.Create(b.t.Context(), o); errors.Is(err, datastore.ErrExists) {
			_, err = b.store.Store.Update(b.t.Context(), o)
			if err != nil {
				b.t.Fatal(err)
			}
		} else if err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) node(name string) *Allocator {
	return New(Config{Store: b.store, Node: name, Clock: func() time.Time { return b.now }})
}

func poolYAML(name, cidr, more string) string {
	return fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: %s}, spec: {cidr: %q%s}}", name, cidr, more)
}

func config(spec string) string {
	return "{apiVersion: projectcalico.org/v3, kind: IPAMConfiguration, metadata: {name: default}, spec: {" + spec + "}}"
}

func reservation(cidrs string) string {
	return "{apiVersion: projectcalico.org/v3, kind: IPReservation, metadata: {name: r}, spec: {reservedCIDRs: [" + cidrs + "]}}"
}

func (b *bench) assign(a *Allocator, req Request) Result {
	b.t.Helper()
	r, err := a.Assign(b.t.Context(), req)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// v4 asks for one IPv4 address.
func (b *bench) v4(a *Allocator, handle string) Held {
	b.t.Helper()
	return b.assign(a, Request{Handle: handle, V4: true}).Addrs[0]
}

func (b *bench) release(a *Allocator, handle string, o ReleaseOptions) []netip.Addr {
	b.t.Helper()
	got, err := a.Release(b.t.Context(), handle, o)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

func list1[T api.Object](b *bench, kind string) []T {
	b.t.Helper()
	out, err := list[T](b.t.Context(), b.store, kind)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func endpoint(name string, r Result) *api.WorkloadEndpoint {
	w := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: name}}
	w.Spec.Node = "n1"
	for _, h := range r.Addrs {
		w.Spec.IPNetworks = append(w.Spec.IPNetworks, netip.PrefixFrom(h.Addr, h.Addr.BitLen()).String())
	}
	return w
}

// attach is an ADD that writes a WorkloadEndpoint with the addresses.
func attach(name string) Request {
	return Request{Handle: HandleOf(name, "eth0"), Owner: api.Owner{Namespace: "prod", Pod: name}, V4: true, V6: true,
		Ops: func(r Result) []datastore.Op {
			return []datastore.Op{{Verb: datastore.Create, Object: endpoint(name, r)}}
		}}
}

func TestOneWriteEach(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""), poolYAML("v6", "fd65::/48", ""))
	a := b.node("n1")
	if n := b.store.since(func() { b.assign(a, attach("first")) }); n != 3 {
		t.Errorf("the first ADD, which claims two blocks, is %d writes, want 3", n)
	}
	for i := range 60 {
		if n := b.store.since(func() { b.assign(a, attach(fmt.Sprintf("pod-%d", i))) }); n != 1 {
			t.Errorf("ADD %d is %d writes", i, n)
		}
	}
	for i := range 60 {
		name := fmt.Sprintf("pod-%d", i)
		n := b.store.since(func() {
			got := b.release(a, HandleOf(name, "eth0"), ReleaseOptions{Ops: []datastore.Op{{Verb: datastore.Delete,
				Key: api.Key{Kind: "WorkloadEndpoint", Namespace: "prod", Name: name}}}})
			if len(got) != 2 {
				t.Errorf("%s had %v", name, got)
			}
		})
		if n != 1 {
			t.Errorf("DEL %d is %d writes", i, n)
		}
	}
	if n := b.store.since(func() { b.release(a, HandleOf("pod-7", "eth0"), ReleaseOptions{}) }); n != 0 {
		t.Errorf("a repeated DEL is %d writes", n)
	}
	if left := list1[*api.WorkloadEndpoint](b, "WorkloadEndpoint"); len(left) != 1 {
		t.Errorf("%d endpoints are left, want the first", len(left))
	}
	if h := list1[*api.IPAMHandle](b, "IPAMHandle"); len(h) != 0 {
		t.Errorf("there are records of handles: %v", h)
	}
}

func TestSharedWrites(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	a := b.node("n1")
	b.v4(a, "first")
	b.store.gate = make(chan struct{})
	const n = 50
	var wg sync.WaitGroup
	got := make([]Result, n)
	before := b.store.writes
	for i := range n {
		wg.Go(func() {
			var err error
			if got[i], err = a.Assign(t.Context(), Request{Handle: fmt.Sprintf("h%d", i), V4: true}); err != nil {
				t.Error(err)
			}
		})
	}
	waiting := func() int {
		a.queue.mu.Lock()
		defer a.queue.mu.Unlock()
		return len(a.queue.waiting)
	}
	for deadline := time.Now().Add(10 * time.Second); waiting() < n-1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	go func() {
		for range n {
			b.store.gate <- struct{}{}
		}
	}()
	wg.Wait()
	if w := b.store.writes - before; w > 3 {
		t.Errorf("%d ADDs at once are %d writes, want 2: the first, and all others", n, w)
	}
	seen := map[netip.Addr]bool{}
	for _, r := range got {
		if len(r.Addrs) == 1 && seen[r.Addrs[0].Addr] {
			t.Errorf("%s is given twice", r.Addrs[0].Addr)
		}
		seen[r.Addrs[0].Addr] = true
	}
}

// TestGiveUp ends the contexts of requests that wait, and of one that is worked on.
func TestGiveUp(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	a := b.node("n1")
	b.v4(a, "first")
	b.store.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 10)
	leader := make(chan error, 1)
	go func() {
		_, err := a.Assign(t.Context(), Request{Handle: "leader", V4: true})
		leader <- err
	}()
	for i := range 10 {
		go func() {
			_, err := a.Assign(ctx, Request{Handle: fmt.Sprintf("h%d", i), V4: true})
			errs <- err
		}()
	}
	cancel()
	for range 10 {
		select {
		case err := <-errs:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("gave up with %v", err)
			}
		case b.store.gate <- struct{}{}: // a round that the leader is not in
		case <-time.After(10 * time.Second):
			t.Fatal("who gives up does not come back")
		}
	}
	close(b.store.gate)
	if err := <-leader; err != nil {
		t.Errorf("the others' giving up took the leader along: %v", err)
	}
	b.v4(a, "last")
}

// TestLeaderGivesUp ends the context of who works for others, too.
func TestLeaderGivesUp(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	a := b.node("n1")
	b.v4(a, "before")
	b.store.gate = make(chan struct{})
	ask := func(ctx context.Context, handle string, waiting int) chan error {
		done := make(chan error, 1)
		go func() {
			_, err := a.Assign(ctx, Request{Handle: handle, V4: true})
			done <- err
		}()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			a.queue.mu.Lock()
			n, busy := len(a.queue.waiting), a.queue.busy
			a.queue.mu.Unlock()
			if busy && n == waiting || time.Now().After(deadline) {
				return done
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := ask(t.Context(), "first", 0)
	leader, other := ask(ctx, "leader", 1), ask(t.Context(), "other", 2)
	b.store.gate <- struct{}{} // first is done; leader works for other
	if err := <-first; err != nil {
		t.Error(err)
	}
	cancel()
	close(b.store.gate)
	if err := <-other; err != nil {
		t.Errorf("who was in the same batch: %v", err)
	}
	<-leader
}

func TestDualStackAllOrNothing(t *testing.T) {
	for _, oneByOne := range []bool{false, true} {
		t.Run(fmt.Sprintf("oneByOne=%v", oneByOne), func(t *testing.T) {
			b := newBench(t, poolYAML("v4", "10.65.0.0/26", ""), poolYAML("v6", "fd65::/126", ", blockSize: 126"))
			a := b.node("n1")
			a.oneByOne = oneByOne
			for i := range 4 {
				b.assign(a, Request{Handle: fmt.Sprintf("h%d", i), V4: true, V6: true})
			}
			writes := b.store.since(func() {
				_, err := a.Assign(t.Context(), Request{Handle: "h4", V4: true, V6: true})
				if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "pool v6") {
					t.Errorf("without an IPv6 address: %v", err)
				}
			})
			if writes != 0 {
				t.Errorf("half of it was written: %d writes", writes)
			}
			u, err := a.Show(t.Context())
			if err != nil || u.Pools[0].Used != 4 || u.Pools[1].Used != 4 {
				t.Errorf("usage %+v, %v", u.Pools, err)
			}
		})
	}
}

// TestStaleRelease tells apart what looks alike: a DEL that is repeated after its address has got another owner, or the
// same one again.
func TestStaleRelease(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/32", ", blockSize: 32"))
	a := b.node("n1")
	old := b.v4(a, "h1")
	b.release(a, "h1", ReleaseOptions{Held: []Held{old}})

	other := b.v4(a, "h2")
	if other.Addr != old.Addr {
		t.Fatalf("%s and %s", other.Addr, old.Addr)
	}
	if got := b.release(a, "h1", ReleaseOptions{Held: []Held{old}}); len(got) > 0 {
		t.Errorf("an old DEL took %v from its next owner", got)
	}
	if got := b.release(a, "h1", ReleaseOptions{}); len(got) > 0 {
		t.Errorf("an old DEL by its handle took %v from its next owner", got)
	}
	b.release(a, "h2", ReleaseOptions{})

	again := b.v4(a, "h1")
	if got := b.release(a, "h1", ReleaseOptions{Held: []Held{old}}); len(got) > 0 {
		t.Errorf("an old DEL took %v from the same handle's next allocation", got)
	}
	renewed := b.v4(a, "h1") // a repeated ADD
	if renewed.Addr != again.Addr || renewed.Token == again.Token {
		t.Errorf("%+v, asked again: %+v", again, renewed)
	}
	if got := b.release(a, "h1", ReleaseOptions{Held: []Held{again}}); len(got) > 0 {
		t.Errorf("a DEL of before the repeated ADD took %v", got)
	}
	if got := b.release(a, "h1", ReleaseOptions{Held: []Held{renewed}}); len(got) != 1 {
		t.Errorf("the DEL that is meant took %v", got)
	}

	// The block is removed and made again: numbers start anew, tokens don't.
	last := b.v4(a, "h1")
	b.release(a, "h1", ReleaseOptions{})
	o := list1[*api.IPAMBlock](b, "IPAMBlock")[0]
	ok, err := a.removeBlock(t.Context(), &block{o, netip.MustParsePrefix("10.65.0.0/32")})
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	for range 20 {
		now := b.v4(a, "h1")
		if now.Token == last.Token {
			t.Fatalf("token %s comes again", now.Token)
		}
		if got := b.release(a, "h1", ReleaseOptions{Held: []Held{last}}); len(got) > 0 {
			t.Fatal("a DEL of another block's life took it")
		}
	}
}

func TestReuseLast(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/30", ", blockSize: 30"))
	a := b.node("n1")
	first := b.v4(a, "a")
	b.release(a, "a", ReleaseOptions{})
	for i := range 3 {
		if h := b.v4(a, fmt.Sprint("b", i)); h.Addr == first.Addr {
			t.Errorf("%s is given again while others have been free for longer", h.Addr)
		}
	}
	if h := b.v4(a, "c"); h.Addr != first.Addr {
		t.Errorf("%s, want %s", h.Addr, first.Addr)
	}
}

func TestCooldown(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/31", ", blockSize: 31"), config("ipCooldownSeconds: 30"))
	a := b.node("n1")
	x, y := b.v4(a, "x"), b.v4(a, "y")
	b.now = b.now.Add(300 * time.Millisecond)
	b.release(a, "y", ReleaseOptions{})
	b.now = b.now.Add(time.Second)
	b.release(a, "x", ReleaseOptions{})
	_, err := a.Assign(t.Context(), Request{Handle: "z", V4: true})
	if !errors.Is(err, ErrFull) {
		t.Errorf("while both cool down: %v", err)
	}
	b.now = b.now.Add(29*time.Second - time.Millisecond) // 30 s after the release of y, but for a moment
	if _, err := a.Assign(t.Context(), Request{Handle: "z", V4: true}); !errors.Is(err, ErrFull) {
		t.Errorf("a moment too early: %v", err)
	}
	u, err := a.Show(t.Context())
	if err != nil || u.Blocks[0].Cooling != 2 || u.Blocks[0].Free != 0 || u.Pools[0].Cooling != 2 {
		t.Errorf("usage %+v, %v", u, err)
	}
	b.now = b.now.Add(2 * time.Second)
	if h := b.v4(a, "z"); h.Addr != y.Addr {
		t.Errorf("%s, want %s, which was released first", h.Addr, y.Addr)
	}
	if h := b.v4(a, "w"); h.Addr != x.Addr {
		t.Errorf("%s, want %s", h.Addr, x.Addr)
	}
	b.release(a, "w", ReleaseOptions{})
	if h := b.assign(a, Request{Handle: "w", Addrs: []netip.Addr{x.Addr}}); h.Addrs[0].Addr != x.Addr {
		t.Error("who asks for the address that he had has to wait")
	}
	b.release(a, "w", ReleaseOptions{})
	b.now = b.now.Add(-time.Hour) // the clock is set back
	b.v4(a, "v")
}

func TestBlockSizeInBytes(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	a := b.node("worker-17.zone-a.example.com")
	for i := range 64 {
		// A sandbox's id as containerd makes it, and names of usual length: 45 characters together.
		sandbox := strings.Repeat(fmt.Sprintf("%016x", 0x9e3779b97f4a7c15*uint64(i+1)), 4)
		b.assign(a, Request{Handle: HandleOf(sandbox, "eth0"), V4: true, Owner: api.Owner{
			Namespace: "payments-eu", Pod: fmt.Sprintf("checkout-backend-7d4b9c6f5d-x%04d", i),
			UID: fmt.Sprintf("d09e6c5a-3af0-43a3-958d-98643d90%04x", i)}})
	}
	blocks := list1[*api.IPAMBlock](b, "IPAMBlock")
	data, err := api.Encode(blocks[0])
	if err != nil || len(blocks) != 1 || len(blocks[0].Spec.Unallocated) != 0 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	t.Logf("%d bytes", len(data))
	if len(data) > 11<<10 {
		t.Errorf("a full block is %d bytes, more than 11 KB", len(data))
	}
	for addr, o := range blocks[0].Owners() {
		i := ordinal(netip.MustParsePrefix(blocks[0].Spec.CIDR), addr)
		want := api.Owner{Namespace: "payments-eu", Pod: fmt.Sprintf("checkout-backend-7d4b9c6f5d-x%04d", i),
			UID: fmt.Sprintf("d09e6c5a-3af0-43a3-958d-98643d90%04x", i), Node: "worker-17.zone-a.example.com"}
		if diff := cmp.Diff(want, o); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", addr, diff)
		}
	}
}

func TestHandleOf(t *testing.T) {
	seen := map[string]string{}
	for _, c := range [][2]string{{"", ""}, {"a", "eth0"}, {"a", "eth1"}, {"ae", "th0"}, {"A", "eth0"}, {"cnitool-77383ca0a0715733ca6f", "eth0"},
		{strings.Repeat("f", 64), "eth0"}, {strings.Repeat("f", 63) + "e", "eth0"}, {"../../x", "eth0"}} {
		h := HandleOf(c[0], c[1])
		if other, ok := seen[h]; ok {
			t.Errorf("%q is the handle of %v and of %s", h, c, other)
		}
		seen[h] = fmt.Sprint(c)
		if len(h) > 26 || strings.Trim(h, "abcdefghijklmnopqrstuvwxyz0123456789.") != "" {
			t.Errorf("%q, of %v, is long or has odd letters", h, c)
		}
	}
	if h := HandleOf("3f2a9c8d7e6b5a4c", "eth0"); !strings.HasPrefix(h, "3f2a9c8d7e6b.") {
		t.Errorf("%q does not begin like the sandbox's id", h)
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	a := b.node("n1")
	for name, r := range map[string]Request{
		"no handle":     {V4: true},
		"nothing":       {Handle: "h"},
		"unknown use":   {Handle: "h", V4: true, Use: "workload"},
		"zero address":  {Handle: "h", Addrs: []netip.Addr{{}}},
		"address twice": {Handle: "h", Addrs: slices.Repeat([]netip.Addr{netip.MustParseAddr("10.65.0.1")}, 2)},
		"IPv4 in IPv6":  {Handle: "h", Addrs: []netip.Addr{netip.MustParseAddr("::ffff:10.65.0.1")}},
	} {
		if got, err := a.Assign(t.Context(), r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := a.Release(t.Context(), "", ReleaseOptions{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("releasing no handle: %v", err)
	}
	a.oneByOne = true
	if _, err := a.Assign(t.Context(), attach("x")); !errors.Is(err, ErrInvalid) {
		t.Errorf("writing along, where that can't be: %v", err)
	}
}

// TestOpsThatFail brings along what can't be written: only the one who did fails.
func TestOpsThatFail(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""), poolYAML("v6", "fd65::/48", ""))
	a := b.node("n1")
	b.assign(a, attach("there"))
	var tickets []*ticket
	for _, name := range []string{"one", "there", "two"} {
		req := attach(name)
		req.Handle += "x"
		req.Owner.Node = "n1"
		tickets = append(tickets, &ticket{job: &assign{req: &req}})
	}
	a.process(t.Context(), tickets)
	if tickets[0].err != nil || tickets[2].err != nil {
		t.Errorf("the others fail, too: %v, %v", tickets[0].err, tickets[2].err)
	}
	if !errors.Is(tickets[1].err, datastore.ErrExists) {
		t.Errorf("the endpoint is there already: %v", tickets[1].err)
	}
	u, err := a.Show(t.Context())
	if err != nil || u.Pools[0].Used != 3 || u.Pools[1].Used != 3 {
		t.Errorf("usage %+v, %v; want 3 of each family", u.Pools, err)
	}
}

func TestLostAnswers(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	m := b.store.Store.(*mem.Store)
	a := b.node("n1")
	b.v4(a, "first")
	m.FailNth(0, 1000, datastore.ErrUnavailable)
	if _, err := a.Assign(t.Context(), Request{Handle: "h", V4: true}); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("without a store: %v", err)
	}
	m.Fail(nil)
	m.LoseAnswers(3)
	h, err := a.Assign(t.Context(), Request{Handle: "h", V4: true})
	if err != nil {
		// It is not known what came of it; asking again tells.
		h = b.assign(a, Request{Handle: "h", V4: true})
	}
	if got := b.release(a, "h", ReleaseOptions{Held: h.Addrs}); len(got) != 1 {
		t.Errorf("released %v", got)
	}
	if u, err := a.Show(t.Context()); err != nil || u.Pools[0].Used != 1 {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func TestRestart(t *testing.T) {
	for _, oneByOne := range []bool{false, true} {
		b := newBench(t, poolYAML("v4", "10.65.0.0/30", ", blockSize: 31"))
		node := func(name string) *Allocator {
			a := b.node(name)
			a.oneByOne = oneByOne
			return a
		}
		n1, n2 := node("n1"), node("n2")
		b.v4(n2, "other")
		own := b.v4(n1, "own0")
		b.v4(n1, "own1")
		borrowed := b.v4(n1, "borrowed")
		if h := list1[*api.IPAMHandle](b, "IPAMHandle"); len(h) != 1 || h[0].Spec.HandleID != "borrowed" {
			t.Fatalf("records %+v", h)
		}
		n1 = node("n1")
		for handle, had := range map[string]Held{"own0": own, "borrowed": borrowed} {
			if again := b.v4(n1, handle); again.Addr != had.Addr {
				t.Errorf("%s has %s, and after a restart gets %s", handle, had.Addr, again.Addr)
			}
		}
		n1 = node("n1")
		if got := b.release(n1, "borrowed", ReleaseOptions{}); !slices.Equal(got, []netip.Addr{borrowed.Addr}) {
			t.Errorf("released %v", got)
		}
		if h := list1[*api.IPAMHandle](b, "IPAMHandle"); len(h) != 0 {
			t.Errorf("a record is left: %+v", h)
		}
		if r, err := n1.Audit(t.Context(), AuditOptions{InUse: func(context.Context) ([]Use, error) { return nil, nil }}); err != nil || len(r.Leaked) != 3 || len(r.Objects) != 0 {
			t.Errorf("audit: %+v, %v", r, err)
		}
	}
}

// TestConcurrent lets real goroutines on a few nodes fight for a small pool: for the race detector.
func TestConcurrent(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/26", ", blockSize: 29"), poolYAML("v6", "fd65::/122", ", blockSize: 125"))
	var mu sync.Mutex
	held := map[netip.Addr]string{}
	var wg sync.WaitGroup
	for n := range 3 {
		a := b.node(fmt.Sprint("n", n))
		for w := range 6 {
			wg.Go(func() {
				for i := range 30 {
					handle := fmt.Sprintf("h%d-%d-%d", n, w, i)
					r, err := a.Assign(t.Context(), Request{Handle: handle, V4: true, V6: i%2 == 0})
					if err != nil {
						if !errors.Is(err, ErrFull) && !errors.Is(err, ErrBusy) {
							t.Error(err)
						}
						continue
					}
					mu.Lock()
					for _, h := range r.Addrs {
						if other, ok := held[h.Addr]; ok {
							t.Errorf("%s is given to %s and to %s", h.Addr, other, handle)
						}
						held[h.Addr] = handle
					}
					mu.Unlock()
					mu.Lock()
					for _, h := range r.Addrs {
						delete(held, h.Addr)
					}
					mu.Unlock()
					if got, err := a.Release(t.Context(), handle, ReleaseOptions{Held: r.Addrs}); err != nil || len(got) != len(r.Addrs) {
						t.Errorf("released %v of %v, %v", got, r.Addrs, err)
					}
				}
			})
		}
	}
	wg.Wait()
	r, err := b.node("auditor").Audit(t.Context(), AuditOptions{})
	if err != nil || r.Allocated != 0 || len(r.Objects) > 0 {
		t.Errorf("audit %+v, %v", r, err)
	}
}
