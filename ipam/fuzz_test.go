package ipam

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	fuzzSeed  = flag.Uint64("ipam.seed", 0, "the seed of an episode to repeat")
	fuzzTotal = flag.Int("ipam.steps", fuzzSteps, "how long to go on")
)

const (
	simNodes   = 5
	simGrace   = 15 * time.Minute
	episodeLen = 20_000
)

// tenant is who holds a handle, as the outside sees it.
type tenant struct {
	node   int
	handle string
	held   []Held // as last returned
	// tokens says that held is what the store has: no call since has ended in the dark.
	tokens bool
	busy   bool // a call for it is under way
}

// model is what must be so, whatever the nodes do.
type model struct {
	t        *testing.T
	rng      *rand.Rand
	store    *simStore
	oneByOne bool
	now      time.Time
	offset   [simNodes + 1]time.Duration // of the nodes' clocks
	procs    [simNodes + 1]*process      // the last one cleans up
	zombies  []*process
	settings Settings

	holder  map[netip.Addr]*tenant // addresses that somebody counts on
	tenants []*tenant              // who holds something
	doomed  []*tenant              // to be released until that succeeds
	past    []*tenant              // released: what late releases speak of
	handles int
	steps   int
	stats   map[string]int
	failed  error
}

// TestFuzz lets nodes allocate, release, crash, lose answers, and go on as ghosts, with clocks that jump and users who
// change pools, and holds them to two promises: an address is never somebody's while another one counts on it, and none
// is lost for good.
func TestFuzz(t *testing.T) {
	seed := *fuzzSeed
	if seed != 0 {
		runEpisode(t, seed, episodeLen)
		return
	}
	seed = uint64(time.Now().UnixNano())
	total := map[string]int{}
	start, steps, episodes := time.Now(), 0, 0
	for ; steps < *fuzzTotal && !t.Failed(); episodes++ {
		m := runEpisode(t, seed+uint64(episodes), episodeLen)
		steps += m.steps
		for k, n := range m.stats {
			total[k] += n
		}
	}
	t.Logf("%d steps in %d episodes from seed %d in %v: %v", steps, episodes, seed, time.Since(start).Round(time.Millisecond), total)
	for _, k := range []string{"assigned", "renewed", "released", "refused late", "crashes", "ghosts", "borrowed", "collected", "full"} {
		if total[k] == 0 && !t.Failed() {
			t.Errorf("no %s: the test does not reach what it is for", k)
		}
	}
}

func runEpisode(t *testing.T, seed uint64, steps int) *model {
	t.Helper()
	m := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), store: newSimStore(), now: time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC),
		holder: map[netip.Addr]*tenant{}, stats: map[string]int{},
	}
	m.oneByOne = m.rng.IntN(2) == 0
	m.store.wrote = m.wrote
	m.reset()
	for i := range m.procs {
		m.procs[i] = m.newProcess(i)
	}
	for m.steps < steps && m.failed == nil {
		m.step()
	}
	if m.failed == nil {
		m.settle()
	}
	for _, p := range append(m.zombies, m.procs[:]...) {
		p.kill()
	}
	if m.failed != nil {
		t.Errorf("after %d steps: %v\nrepeat it with: go test ./ipam -run TestFuzz -ipam.seed %d", m.steps, m.failed, seed)
	}
	return m
}

func (m *model) fail(format string, args ...any) {
	if m.failed == nil {
		m.failed = fmt.Errorf(format, args...)
	}
}

// reset gives the pools and settings that episodes begin and end with.
func (m *model) reset() {
	m.settings = Settings{
		Pools: []*api.IPPool{simPool("v4", "10.0.0.0/26", 29), simPool("v6", "fd00::/122", 125)},
	}
}

func simPool(name, cidr string, blockSize int) *api.IPPool {
	p := &api.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.IPPoolSpec{CIDR: cidr, BlockSize: blockSize}}
	api.Default(p)
	return p
}

func nodeName(i int) string { return "n" + strconv.Itoa(i) }

func (m *model) newProcess(i int) *process {
	c := &client{s: m.store, rng: m.rng, flaky: 4}
	p := &process{c: c, now: func() time.Time { return m.now }}
	p.a = New(Config{Store: c, Node: nodeName(i), OneByOne: m.oneByOne,
		Settings: func(context.Context) (Settings, error) { return m.settings, nil },
		Clock:    func() time.Time { return m.now.Add(m.offset[i]) },
	})
	p.a.wait = func(context.Context, int) error { return nil }
	return p
}

// wrote checks every change of a block against those who count on its addresses.
func (m *model) wrote(before, after *api.IPAMBlock) {
	if after != nil {
		if err := sane(after); err != nil {
			m.fail("block %s: %v", after.Name, err)
		}
	}
	if before == nil {
		return
	}
	old, err := readBlock(before)
	if err != nil {
		m.fail("%v", err)
		return
	}
	for i := range before.Spec.Allocations {
		h, ok := old.handle(i)
		if !ok {
			continue
		}
		addr := nth(old.prefix, i)
		tn := m.holder[addr]
		if tn == nil || tn.handle != h {
			continue
		}
		if after != nil {
			b := block{after, old.prefix}
			if now, ok := b.handle(i); ok && now == h {
				continue
			}
		}
		m.fail("%s was taken from %s, who counts on it", addr, h)
	}
}

// step lets one process go on, or begin something.
func (m *model) step() {
	m.steps++
	m.now = m.now.Add(time.Duration(m.rng.IntN(40)) * time.Millisecond)
	switch n := m.rng.IntN(3000); {
	case n < 6:
		m.crash(m.rng.IntN(len(m.procs)))
	case n < 9:
		m.offset[m.rng.IntN(simNodes)] = time.Duration(m.rng.IntN(7200)-3600) * time.Second
	case n < 11:
		m.change()
	case n < 30:
		m.now = m.now.Add(time.Duration(m.rng.IntN(120)) * time.Second)
	}
	if len(m.zombies) > 0 && m.rng.IntN(5) == 0 {
		m.stepZombie(m.rng.IntN(len(m.zombies)))
		return
	}
	i := m.rng.IntN(len(m.procs))
	if p := m.procs[i]; p.busy() {
		p.c.late = m.now.Sub(p.since) > simGrace/3
		p.step()
	} else if i == simNodes {
		m.collect(p)
	} else {
		m.begin(i, p)
	}
}

func (m *model) stepZombie(i int) {
	z := m.zombies[i]
	switch {
	case z.paused > 0:
		z.paused--
		return
	case !z.busy():
	case m.rng.IntN(40) == 0:
		z.kill()
	default:
		z.step()
	}
	if !z.busy() {
		m.zombies = slices.Delete(m.zombies, i, i+1)
	}
}

// crash replaces a process. The old one may go on for a while, or sleep and go on later: nobody hears of its results.
func (m *model) crash(i int) {
	p := m.procs[i]
	m.procs[i] = m.newProcess(i)
	m.stats["crashes"]++
	if !p.busy() || m.rng.IntN(2) == 0 {
		p.kill()
		return
	}
	m.stats["ghosts"]++
	p.done(false)
	p.done = func(bool) {}
	p.paused = m.rng.IntN(3) * m.rng.IntN(2000)
	m.zombies = append(m.zombies, p)
}

// change is a user who changes his mind about pools and settings.
func (m *model) change() {
	s := Settings{Pools: slices.Clone(m.settings.Pools), Config: m.settings.Config, Reservations: m.settings.Reservations}
	switch m.rng.IntN(8) {
	case 0:
		s.Config.StrictAffinity = !s.Config.StrictAffinity
	case 1:
		s.Config.IPCooldownSeconds = m.rng.IntN(3) * 20
	case 2:
		s.Config.MaxBlocksPerHost = m.rng.IntN(4)
	case 3: // blocks of another size
		s.Pools[0] = simPool("v4", "10.0.0.0/26", 28+m.rng.IntN(3))
	case 4:
		s.Pools[1] = simPool("v6", "fd00::/122", 124+m.rng.IntN(3))
	case 5: // a pool that overlaps another one
		s.Pools = append(s.Pools[:2:2], simPool("small", "10.0.0.16/28", 28+m.rng.IntN(4)))
	case 6:
		s.Pools = s.Pools[:2:2]
		off := *s.Pools[0]
		off.Spec.Disabled = !off.Spec.Disabled
		s.Pools[0] = &off
	case 7:
		s.Reservations = []*api.IPReservation{{Spec: api.IPReservationSpec{ReservedCIDRs: []string{
			netip.PrefixFrom(nth(netip.MustParsePrefix("10.0.0.0/26"), m.rng.IntN(64)), 28+m.rng.IntN(5)).Masked().String()}}}}
	}
	m.settings = s
}

// begin starts something on a node that has nothing to do.
func (m *model) begin(i int, p *process) {
	var mine []*tenant
	for _, tn := range m.tenants {
		if tn.node == i && !tn.busy {
			mine = append(mine, tn)
		}
	}
	for _, tn := range m.doomed {
		if tn.node == i && !tn.busy && m.rng.IntN(2) == 0 {
			m.release(p, tn)
			return
		}
	}
	switch n := m.rng.IntN(100); {
	case n < 35 || len(mine) == 0:
		m.assign(i, p)
	case n < 42:
		m.renew(p, mine[m.rng.IntN(len(mine))])
	case n < 80:
		tn := mine[m.rng.IntN(len(mine))]
		m.doom(tn)
		m.release(p, tn)
	case n < 95 && len(m.past) > 0:
		m.releaseLate(p, m.past[m.rng.IntN(len(m.past))])
	case n < 97:
		p.start(func() { p.a.Tidy(context.Background(), time.Minute) }, func(bool) {})
	}
}

// request makes up what somebody asks for.
func (m *model) request(i int, handle string) Request {
	r := Request{Handle: handle, Owner: api.Owner{Namespace: "ns", Pod: handle}, V4: true}
	switch m.rng.IntN(6) {
	case 0:
		r.V4, r.V6 = false, true
	case 1, 2:
		r.V6 = true
	case 3:
		r.Pools = []string{"v4"}
	case 4:
		if m.rng.IntN(3) == 0 {
			r.V4, r.Addrs = false, []netip.Addr{nth(netip.MustParsePrefix("10.0.0.0/26"), m.rng.IntN(64))}
		}
	}
	if !m.oneByOne && m.rng.IntN(3) == 0 {
		r.Ops = func(Result) []datastore.Op {
			return []datastore.Op{{Verb: datastore.Create, Object: &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{
				Name: handle + "-" + strconv.Itoa(m.steps)}}}}
		}
	}
	return r
}

// assign asks for addresses for one to three new handles at once, or for one that was released before.
func (m *model) assign(i int, p *process) {
	var jobs []*assign
	var tickets []*ticket
	var tenants []*tenant
	for range 1 + m.rng.IntN(6)/4 + m.rng.IntN(6)/5 {
		m.handles++
		handle := "h" + strconv.Itoa(m.handles)
		if k := len(m.past); k > 0 && m.rng.IntN(4) == 0 {
			// The same handle again, on the same node: only after releases that could tell one from the other.
			if old := m.past[m.rng.IntN(k)]; old.node == i && old.tokens && !m.lives(old.handle) {
				handle = old.handle
			}
		}
		if slices.ContainsFunc(tenants, func(tn *tenant) bool { return tn.handle == handle }) {
			continue
		}
		req := m.request(i, handle)
		req.Owner.Node = nodeName(i)
		j := &assign{req: &req}
		jobs, tickets = append(jobs, j), append(tickets, &ticket{job: j})
		tn := &tenant{node: i, handle: handle, busy: true}
		tenants = append(tenants, tn)
		m.tenants = append(m.tenants, tn)
	}
	p.start(func() { p.a.process(context.Background(), tickets) }, func(lived bool) {
		for k, tn := range tenants {
			if lived {
				m.assigned(tn, jobs[k].result, tickets[k].err)
			} else {
				m.assigned(tn, Result{}, errCrashed)
			}
		}
	})
}

func (m *model) lives(handle string) bool {
	has := func(tn *tenant) bool { return tn.handle == handle }
	return slices.ContainsFunc(m.tenants, has) || slices.ContainsFunc(m.doomed, has)
}

// assigned is what the one who asked hears.
func (m *model) assigned(tn *tenant, r Result, err error) {
	tn.busy = false
	if err != nil {
		if errors.Is(err, ErrFull) {
			m.stats["full"]++
		}
		if !errors.Is(err, datastore.ErrUnavailable) && !knownError(err) {
			m.fail("%s: unexpected: %v", tn.handle, err)
		}
		tn.tokens = false
		m.doom(tn) // a failed ADD is followed by a DEL
		return
	}
	m.stats["assigned"]++
	for _, h := range r.Addrs {
		if other := m.holder[h.Addr]; other != nil && other != tn {
			m.fail("%s was given to %s, though %s counts on it", h.Addr, tn.handle, other.handle)
		}
		if who := m.allocated(h.Addr); !slices.Contains(who, tn.handle) {
			m.fail("%s was given to %s, but the store says it is of %q", h.Addr, tn.handle, who)
		}
		if b := m.block(h.Block); b != nil && b.obj.Spec.Affinity != "host:"+nodeName(tn.node) {
			m.stats["borrowed"]++
		}
		m.holder[h.Addr] = tn
	}
	tn.held, tn.tokens = r.Addrs, true
}

func knownError(err error) bool {
	for _, k := range []error{ErrFull, ErrNoPool, ErrTaken, ErrBusy} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// renew asks again for a handle that has addresses, as a repeated ADD does.
func (m *model) renew(p *process, tn *tenant) {
	req := Request{Handle: tn.handle, Owner: api.Owner{Namespace: "ns", Pod: tn.handle, Node: nodeName(tn.node)}}
	for _, h := range tn.held {
		req.V4 = req.V4 || h.Addr.Is4()
		req.V6 = req.V6 || h.Addr.Is6()
	}
	tn.busy = true
	var got Result
	var err error
	p.start(func() { got, err = p.a.Assign(context.Background(), req) }, func(lived bool) {
		tn.busy = false
		if !lived || err != nil {
			tn.tokens = false
			return
		}
		m.stats["renewed"]++
		for k, h := range got.Addrs {
			if k >= len(tn.held) || h.Addr != tn.held[k].Addr || h.Token == tn.held[k].Token && tn.tokens {
				m.fail("%s had %v and asked again: it got %v", tn.handle, tn.held, got.Addrs)
			}
		}
		tn.held, tn.tokens = got.Addrs, true
	})
}

// doom says that nobody counts on a tenant's addresses any more.
func (m *model) doom(tn *tenant) {
	m.tenants = slices.DeleteFunc(m.tenants, func(x *tenant) bool { return x == tn })
	for a, x := range m.holder {
		if x == tn {
			delete(m.holder, a)
		}
	}
	m.doomed = append(m.doomed, tn)
}

func (m *model) release(p *process, tn *tenant) {
	o := ReleaseOptions{}
	if tn.tokens {
		o.Held = tn.held
	}
	tn.busy = true
	var err error
	p.start(func() { _, err = p.a.Release(context.Background(), tn.handle, o) }, func(lived bool) {
		tn.busy = false
		if !lived || err != nil {
			if lived && !errors.Is(err, datastore.ErrUnavailable) && !errors.Is(err, ErrBusy) {
				m.fail("releasing %s: %v", tn.handle, err)
			}
			return
		}
		m.stats["released"]++
		m.doomed = slices.DeleteFunc(m.doomed, func(x *tenant) bool { return x == tn })
		if m.past = append(m.past, tn); len(m.past) > 200 {
			m.past = slices.Clone(m.past[100:])
		}
	})
}

// releaseLate repeats a release that was done long ago. Who has the addresses now keeps them: wrote sees to that.
func (m *model) releaseLate(p *process, tn *tenant) {
	if !tn.tokens {
		return
	}
	reused := m.lives(tn.handle)
	var gone []netip.Addr
	p.start(func() { gone, _ = p.a.Release(context.Background(), tn.handle, ReleaseOptions{Held: tn.held}) }, func(lived bool) {
		if lived && len(gone) > 0 {
			m.fail("a late release of %s freed %v", tn.handle, gone)
		}
		if lived && reused {
			m.stats["refused late"]++
		}
	})
}

func (m *model) uses(context.Context) ([]Use, error) {
	var uses []Use
	for a, tn := range m.holder {
		uses = append(uses, Use{a, tn.handle})
	}
	slices.SortFunc(uses, func(a, b Use) int { return a.Addr.Compare(b.Addr) })
	return uses, nil
}

func (m *model) collect(p *process) {
	if m.rng.IntN(50) > 0 {
		return
	}
	p.start(func() {
		done, _ := p.a.Collect(context.Background(), CollectOptions{AuditOptions: AuditOptions{InUse: m.uses}, Grace: simGrace})
		m.stats["collected"] += len(done.Released) + len(done.Objects)
	}, func(bool) {})
}

func (m *model) block(p netip.Prefix) *block {
	o, _ := m.store.kind("IPAMBlock").objects[blockName(p)].(*api.IPAMBlock)
	if o == nil {
		return nil
	}
	b, err := readBlock(o)
	if err != nil {
		m.fail("%v", err)
		return nil
	}
	return b
}

// allocated is who has an address in the store. Where objects are written one by one, ghosts can leave blocks that
// overlap, whose addresses nobody has been told of.
func (m *model) allocated(a netip.Addr) []string {
	var who []string
	for _, o := range m.store.list("IPAMBlock") {
		if b, err := readBlock(o.(*api.IPAMBlock)); err == nil && b.prefix.Contains(a) {
			if h, ok := b.handle(ordinal(b.prefix, a)); ok {
				who = append(who, h)
			}
		}
	}
	if len(who) > 1 && !m.oneByOne {
		m.fail("%s is of %v, in overlapping blocks", a, who)
	}
	return who
}

// settle ends an episode: all processes are gone, what they left is cleaned up, and then every address can be had.
func (m *model) settle() {
	ctx := context.Background()
	for i := range m.procs {
		m.procs[i].kill()
	}
	for _, z := range m.zombies {
		z.kill()
	}
	m.offset = [simNodes + 1]time.Duration{}
	m.reset()
	cleaner := m.newProcess(simNodes)
	cleaner.c.flaky = 0
	clean := func() {
		for range 6 {
			m.now = m.now.Add(2 * time.Hour)
			if _, err := cleaner.a.Collect(ctx, CollectOptions{AuditOptions: AuditOptions{InUse: m.uses}, Grace: simGrace}); err != nil {
				m.fail("cleaning up: %v", err)
			}
		}
	}
	clean()
	r, err := cleaner.a.Audit(ctx, AuditOptions{InUse: m.uses})
	if err != nil || len(r.Leaked)+len(r.Missing)+len(r.Double)+len(r.Objects) > 0 {
		m.fail("after cleaning up an audit finds %+v, %v", r, err)
		return
	}
	for a := range m.holder {
		if got := m.allocated(a); len(got) != 1 || got[0] != m.holder[a].handle {
			m.fail("%s is of %q, not of %s", a, got, m.holder[a].handle)
		}
	}
	for _, tn := range slices.Clone(m.tenants) {
		m.doom(tn)
	}
	clean()
	m.exhaust(ctx)
}

// exhaust takes every address of the pools, from a node that had nothing.
func (m *model) exhaust(ctx context.Context) {
	m.settings.Config.StrictAffinity, m.settings.Config.MaxBlocksPerHost = true, 1000
	p := m.newProcess(0)
	p.c.flaky = 0
	got := map[netip.Addr]bool{}
	for n := range 65 {
		r, err := p.a.Assign(ctx, Request{Handle: "all" + strconv.Itoa(n), V4: true, V6: true, Owner: api.Owner{Node: nodeName(0)}})
		if n == 64 {
			if !errors.Is(err, ErrFull) {
				m.fail("65 of 64 addresses: %v, %v", r, err)
			}
			break
		}
		if err != nil {
			m.fail("only %d of 64 addresses of each family can be had: %v\n%v", n, err, slices.Collect(maps.Keys(m.store.kind("BlockAffinity").objects)))
			return
		}
		for _, h := range r.Addrs {
			if got[h.Addr] {
				m.fail("%s is given twice", h.Addr)
			}
			got[h.Addr] = true
		}
	}
}
