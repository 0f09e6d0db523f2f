package linux

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// cutWorld is a node with the workloads a and b of a cutState plugged in.
type cutWorld struct {
	d     *Driver
	node  *netns.Ns
	at    map[string]*netns.Ns
	state *drivers.State

	mu     sync.Mutex
	counts map[string]float64
}

func newCutWorld(t *testing.T) *cutWorld {
	t.Helper()
	w := &cutWorld{node: netnstest.New(t), at: map[string]*netns.Ns{}, state: cutState(false), counts: map[string]float64{}}
	w.d = openDriver(t, w.node, func(o *Options) {
		o.Metrics = func(name string, n float64) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.counts[name] += n
		}
	})
	sh(t, w.node, "ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	for id, e := range w.state.Endpoints {
		w.at[id.Sandbox] = netnstest.New(t)
		got, err := w.d.Attach(t.Context(), drivers.Attachment{ID: id, Netns: w.at[id.Sandbox].Path(), HostIface: e.Iface, Addrs: e.Addrs})
		if err != nil {
			t.Fatal(err)
		}
		c := *e
		c.MAC = got.MAC
		w.state.Endpoints[id] = &c
		for _, a := range e.Addrs {
			dst := netip.PrefixFrom(a, a.BitLen())
			w.state.Routes[dst] = &drivers.Route{Dst: dst, Kind: drivers.RouteLocal, Iface: e.Iface}
		}
	}
	// kube-proxy's part.
	sh(t, w.node, "nft 'table inet services { chain c { type nat hook prerouting priority -100; ip daddr 10.96.0.1 tcp dport 8080 dnat ip to 10.65.0.2:80; "+
		"ip daddr 10.96.0.1 tcp dport 8081 dnat ip to 10.65.0.2:81; }; }'")
	return w
}

func (w *cutWorld) count(name string) float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[name]
}

// conn is an established connection: both ends.
type conn struct {
	name           string
	client, server net.Conn
}

// dial connects from a to an address, behind which b listens.
func (w *cutWorld) dial(t *testing.T, name, listen, to string) conn {
	t.Helper()
	l := inNs(t, w.at["b"], func() (net.Listener, error) { return net.Listen("tcp", listen) })
	defer l.Close()
	c := conn{name: name}
	c.client = inNs(t, w.at["a"], func() (net.Conn, error) { return net.DialTimeout("tcp", to, 10*time.Second) })
	var err error
	if c.server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.client.Close(); c.server.Close() })
	return c
}

// carry sends a byte and reports whether it has arrived within a time.
func carry(from, to net.Conn, wait time.Duration) error {
	if _, err := from.Write([]byte{1}); err != nil {
		return err
	}
	if err := to.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, err := io.ReadFull(to, make([]byte, 1))
	return err
}

// works fails the test unless c carries data both ways.
func (c conn) works(t *testing.T) {
	t.Helper()
	if err := errors.Join(carry(c.client, c.server, 10*time.Second), carry(c.server, c.client, 10*time.Second)); err != nil {
		t.Errorf("%s: %v", c.name, err)
	}
}

// setPorts lets b accept TCP from and to a number of ports.
func (w *cutWorld) setPorts(t *testing.T, first, last uint16) {
	t.Helper()
	p := *w.state.Policies[np("web")]
	p.In = append([]drivers.Rule(nil), p.In...)
	p.In[0].Match.Dst.Ports = []drivers.PortRange{{First: first, Last: last}}
	p.SetRuleIDs()
	w.state.Policies[p.ID] = &p
	ch := drivers.NewChanges()
	ch.Policies[p.ID] = struct{}{}
	apply(t, w.d, w.state, ch)
}

func (w *cutWorld) setting(t *testing.T, on bool) {
	t.Helper()
	w.state.Node.CutEstablished = on
	ch := drivers.NewChanges()
	ch.Node = true
	apply(t, w.d, w.state, ch)
}

// until waits for something.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

// flowsTo counts the entries of the flow table with a destination port, after translation.
func (w *cutWorld) flowsTo(t *testing.T, port uint16) int {
	t.Helper()
	return inNs(t, w.node, func() (int, error) {
		n := 0
		for _, f := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			fs, err := netlink.ConntrackTableList(netlink.ConntrackTable, f)
			if err != nil {
				return 0, err
			}
			for _, f := range fs {
				if f.Reverse.SrcPort == port {
					n++
				}
			}
		}
		return n, nil
	})
}

// TestCutEstablished: flows that a changed policy denies go on, unless the setting is on; then they stop, and what is
// allowed goes on.
func TestCutEstablished(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t)
	w.state.Node.CutEstablished = false
	apply(t, w.d, w.state, nil)
	w.setPorts(t, 80, 81)
	allowed := []conn{
		w.dial(t, "IPv4", "10.65.0.2:80", "10.65.0.2:80"), w.dial(t, "IPv6", "[fd65::2]:80", "[fd65::2]:80"),
		w.dial(t, "service", "10.65.0.2:80", "10.96.0.1:8080"),
	}
	denied := []conn{
		w.dial(t, "IPv4, denied", "10.65.0.2:81", "10.65.0.2:81"), w.dial(t, "IPv6, denied", "[fd65::2]:81", "[fd65::2]:81"),
		w.dial(t, "service, denied", "10.65.0.2:81", "10.96.0.1:8081"),
	}
	w.setPorts(t, 80, 80)
	for _, c := range append(denied, allowed...) {
		c.works(t)
	}
	if n := w.count("flow_walks"); n != 0 {
		t.Errorf("%v walks through the flow table without the setting", n)
	}

	w.setPorts(t, 80, 81)
	w.setting(t, true)
	for _, c := range append(denied, allowed...) {
		c.works(t)
	}
	w.setPorts(t, 80, 80)
	until(t, "the flows are cut", func() bool { return w.count("flows_cut") == 3 })
	if n := w.flowsTo(t, 81); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	if n := w.flowsTo(t, 80); n != 3 {
		t.Errorf("%d entries of allowed flows are left, want 3", n)
	}
	for _, c := range allowed {
		c.works(t)
	}
	// The server's end speaks first: policy allows it to open connections, but this one must not come to life again.
	for _, c := range denied {
		for _, err := range []error{carry(c.server, c.client, 30*time.Millisecond), carry(c.client, c.server, 30*time.Millisecond)} {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v, want silence", c.name, err)
			}
		}
	}
	for _, c := range allowed { // what came after it has arrived
		c.works(t)
	}
	// What has been noted stands, whoever looks at the tables, and goes when policy allows it.
	if n := w.notes(t); n != 6 {
		t.Errorf("%d directions of connections are noted, want 6", n)
	}
	before := w.d.Writes()
	apply(t, w.d, w.state, nil)
	if n := w.d.Writes() - before; n != 0 || w.notes(t) != 6 {
		t.Errorf("a resync wrote %d objects, and left %d notes", n, w.notes(t))
	}
	nftDump(t, w.node) // nft can read them
	w.setPorts(t, 80, 81)
	until(t, "the notes are taken back", func() bool { return w.notes(t) == 0 })
	for _, c := range denied[:2] { // the third one's translation is gone
		c.works(t)
	}
}

// notes counts the elements of the sets of what was cut.
func (w *cutWorld) notes(t *testing.T) int {
	t.Helper()
	n := 0
	for _, v6 := range []bool{false, true} {
		s, err := dialIn(w.node.FD())
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if err := (&cutter{s: s}).eachSevered(v6, func([]byte, string) { n++ }); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestNotes(t *testing.T) {
	t.Parallel()
	for _, f := range []flow{
		{orig: flowTuple{addr("10.65.0.1"), addr("10.65.0.2"), 40000, 80}, reply: flowTuple{addr("10.65.0.2"), addr("10.65.0.1"), 80, 40000}},
		{orig: flowTuple{addr("fd65::1"), addr("fd96::1"), 40000, 8080}, reply: flowTuple{addr("fd65::2"), addr("fd65::1"), 80, 40000}},
	} {
		f.proto = unix.IPPROTO_TCP
		if got, ok := parseNote(noteOf(&f)); !ok || *got != f {
			t.Errorf("%q is %+v, want %+v", noteOf(&f), got, f)
		}
	}
	for _, bad := range []string{"", "x y", "10.65.0.1:1", "10.65.0.1:1 10.65.0.1:2 10.65.0.1:3 10.65.0.1:4", "10.65.0.1 10.65.0.2"} {
		if f, ok := parseNote(bad); ok {
			t.Errorf("%q is %+v", bad, f)
		}
	}
}

// TestCutIsBounded: changes that come fast share walks, a change of nothing has none, and none is forgotten.
func TestCutIsBounded(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t)
	apply(t, w.d, w.state, nil)
	until(t, "the first walk", func() bool { return w.count("flow_walks") == 1 })
	begin := time.Now()
	for i := range 40 {
		w.setPorts(t, 80, 81+uint16(i%2))
	}
	c := w.dial(t, "denied in the end", "10.65.0.2:81", "10.65.0.2:81")
	c.works(t)
	w.setPorts(t, 80, 80)
	until(t, "the flow is cut", func() bool { return w.count("flows_cut") == 1 })
	if n, limit := w.count("flow_walks"), 3+time.Since(begin)/cutGap; n > float64(limit) {
		t.Errorf("%v walks, want at most %d", n, limit)
	}
	n := w.count("flow_walks")
	for range 3 {
		apply(t, w.d, w.state, nil)
	}
	if err := w.d.Close(); err != nil { // waits for the one that is under way
		t.Fatal(err)
	}
	if m := w.count("flow_walks"); m != n {
		t.Errorf("%v walks where nothing had changed", m-n)
	}
}

// BenchmarkCut measures a walk through a table of flows, none of which is cut.
func BenchmarkCut(b *testing.B) {
	ns := netnstest.New(b)
	d := openDriver(b, ns, nil)
	s := cutState(false)
	s.Node.CutEstablished = false
	if err := d.Apply(context.Background(), s, nil); err != nil {
		b.Fatal(err)
	}
	const flows = 20000
	err := ns.Do(func() error {
		for i := range flows {
			src, dst := addr("10.65.0.1").AsSlice(), addr("10.65.0.2").AsSlice()
			f := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 600}
			sport := uint16(1000 + i%30000)
			f.Forward = netlink.IPTuple{SrcIP: src, DstIP: dst, SrcPort: sport, DstPort: 80, Protocol: unix.IPPROTO_TCP}
			f.Reverse = netlink.IPTuple{SrcIP: dst, DstIP: src, SrcPort: 80, DstPort: sport, Protocol: unix.IPPROTO_TCP}
			f.ProtoInfo = &netlink.ProtoInfoTCP{State: 3}
			if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	d.cutter.state = s
	for b.Loop() {
		if n, err := d.cutter.walk(context.Background()); n != 0 || err != nil {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/flows, "ns/flow")
}
