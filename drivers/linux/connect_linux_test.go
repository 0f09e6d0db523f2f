package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// Benchmarks of the rate of TCP connections between two workloads of one node, with 10,000 rules at the server against 10,
// where the last of them decides:
//
//	S1  distinct ports: each rule allows a port from a set
//	S2  one port and 100 sets, all Allow; the client is in the last rule's set only
//	S3  one port, Allow and Deny in turn, about sets that overlap; the client is in the last rule's set only
//
// Each rule is a policy of its own, or, in the second form, all are rules of one policy. The two sizes are measured in turns.

// duel is a client and a server on a node.
type duel struct {
	driver         *Driver
	client, server *netns.Ns
	port           uint16
	to             netip.Addr
}

// connectShape makes the i-th of n rules and the port that the last of them is about.
type connectShape struct {
	port   func(i int) uint16
	action func(i, n int) drivers.Action
	set    func(i, n int) int
}

var connectShapes = map[string]connectShape{
	"S1": {
		port:   func(i int) uint16 { return uint16(20000 + i) },
		action: func(int, int) drivers.Action { return drivers.Allow },
		set:    func(i, n int) int { return i % 100 },
	},
	"S2": {
		port:   func(int) uint16 { return 8080 },
		action: func(int, int) drivers.Action { return drivers.Allow },
		set:    func(i, n int) int { return i % 100 },
	},
	"S3": {
		port:   func(int) uint16 { return 8080 },
		action: func(i, n int) drivers.Action { return drivers.Action((n - i) % 2) }, // the last one allows
		set:    func(i, n int) int { return i % 100 },
	},
}

// connectState is a client and a server with n rules, in policies of so many.
func connectState(shape connectShape, n, perPolicy int) *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{Name: "n1", WorkloadPrefixes: []string{"tort"}}
	for i := range 101 {
		var ms []drivers.Member
		for j := range 10 { // half of each set is in the next one
			ms = append(ms, drivers.AddrMember(netip.AddrFrom4([4]byte{10, 66, byte(i), byte(j)})),
				drivers.AddrMember(netip.AddrFrom4([4]byte{10, 66, byte(i + 1), byte(j)})))
		}
		s.Sets[drivers.SetID(fmt.Sprintf("s:%d", i))] = drivers.NewSet(drivers.SetNet, ms...)
	}
	last := drivers.SetID("s:last")
	s.Sets[last] = drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.65.0.1")))
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default"}}}
	for first := 0; first < n; first += perPolicy {
		p := &drivers.Policy{ID: np(fmt.Sprintf("p%d", first)), Tier: "default"}
		for i := first; i < first+perPolicy; i++ {
			set := drivers.SetID(fmt.Sprintf("s:%d", shape.set(i, n)))
			if i == n-1 {
				set = last
			}
			port := shape.port(i)
			p.In = append(p.In, drivers.Rule{Action: shape.action(i, n), Match: drivers.Match{
				Proto: ptr(uint8(l4TCP)), Src: drivers.Side{Sets: []drivers.SetID{set}},
				Dst: drivers.Side{Ports: []drivers.PortRange{{First: port, Last: port}}}}})
		}
		p.SetRuleIDs()
		s.Policies[p.ID] = p
		l.Tiers[0].Policies = append(l.Tiers[0].Policies, p.ID)
	}
	open := drivers.PolicyID{Kind: drivers.KindProfile, Name: "open"}
	s.Policies[open] = &drivers.Policy{ID: open, Out: []drivers.Rule{{Action: drivers.Allow}}}
	s.Policies[open].SetRuleIDs()
	for i := 1; i <= 2; i++ {
		a := attachment(i, noNs)
		a.Addrs = a.Addrs[:1]
		e := &drivers.Endpoint{ID: a.ID, Iface: a.HostIface, Addrs: a.Addrs, Profiles: []drivers.PolicyID{open}}
		if i == 2 {
			e.Policy.Normal.In = l
		}
		s.Endpoints[a.ID] = e
		dst := netip.PrefixFrom(a.Addrs[0], 32)
		s.Routes[dst] = &drivers.Route{Dst: dst, Kind: drivers.RouteLocal, Iface: a.HostIface}
	}
	return s
}

var noNs = &netns.Ns{} // of an attachment that is only named

// newDuel plugs client and server in, programs s, and lets the server listen.
func newDuel(b testing.TB, s *drivers.State, port uint16, change func(*Options)) *duel {
	b.Helper()
	w := &duel{client: netnstest.New(b), server: netnstest.New(b), port: port, to: addr("10.65.0.2")}
	d := openDriver(b, netnstest.New(b), change)
	w.driver = d
	for i, ns := range []*netns.Ns{w.client, w.server} {
		a := attachment(i+1, ns)
		a.Addrs = a.Addrs[:1]
		got, err := d.Attach(b.Context(), a)
		if err != nil {
			b.Fatal(err)
		}
		s.Endpoints[a.ID].MAC = got.MAC
	}
	apply(b, d, s, nil)
	l := inNs(b, w.server, func() (net.Listener, error) {
		return net.Listen("tcp4", netip.AddrPortFrom(w.to, port).String())
	})
	done := make(chan struct{})
	b.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return w
}

// connect makes n connections, one after another, and gives how long one of them took: the median.
func (w *duel) connect(n int) (time.Duration, error) {
	var took []time.Duration
	err := w.client.Do(func() error {
		for range n {
			start := time.Now()
			if err := w.once(); err != nil {
				return err
			}
			took = append(took, time.Since(start))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

func (w *duel) once() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// A reset when it is closed: nothing lingers, and ports don't run out.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	tv := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(w.port), Addr: w.to.As4()})
	for errors.Is(err, unix.EINTR) { // it goes on by itself
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 5000)
	}
	if err != nil {
		return fmt.Errorf("connecting to port %d: %w", w.port, err)
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return fmt.Errorf("connecting to port %d: %w", w.port, err)
	}
	return nil
}

func benchmarkConnect(b *testing.B, name string) {
	const many, few = 10000, 10
	shape := connectShapes[name]
	for form, perPolicy := range map[string]int{"policies": 1, "rules": many} {
		b.Run(form, func(b *testing.B) {
			large := newDuel(b, connectState(shape, many, perPolicy), shape.port(many-1), nil)
			small := newDuel(b, connectState(shape, few, min(few, perPolicy)), shape.port(few-1), nil)
			var slow, fast []time.Duration
			for b.Loop() {
				for _, w := range []struct {
					*duel
					to *[]time.Duration
				}{{large, &slow}, {small, &fast}} {
					t, err := w.connect(400)
					if err != nil {
						b.Fatal(err)
					}
					*w.to = append(*w.to, t)
				}
			}
			ratios := make([]float64, len(slow))
			for i := range slow {
				ratios[i] = float64(fast[i]) / float64(slow[i])
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "ratio")
			b.ReportMetric(float64(slices.Min(fast).Nanoseconds())/1000, "few-min-us")
			b.ReportMetric(float64(slices.Min(slow).Nanoseconds())/1000, "many-min-us")
			b.ReportMetric(float64(slices.Min(fast))/float64(slices.Min(slow)), "ratio-of-min")
		})
	}
}

func BenchmarkConnectS1(b *testing.B) { benchmarkConnect(b, "S1") }
func BenchmarkConnectS2(b *testing.B) { benchmarkConnect(b, "S2") }
func BenchmarkConnectS3(b *testing.B) { benchmarkConnect(b, "S3") }

// TestConnectShapes: in each shape the last rule decides, with few rules and with many; without it nobody gets through.
func TestConnectShapes(t *testing.T) {
	t.Parallel()
	for name, shape := range connectShapes {
		for _, n := range []int{10, 200} {
			for _, perPolicy := range []int{1, n} {
				s := connectState(shape, n, perPolicy)
				pk := drivers.Packet{
					From: drivers.Place{Kind: drivers.PlaceWorkload, Iface: attachment(1, noNs).HostIface},
					To:   drivers.Place{Kind: drivers.PlaceWorkload, Iface: attachment(2, noNs).HostIface},
					Src:  addr("10.65.0.1"), Dst: addr("10.65.0.2"), Proto: l4TCP, SrcPort: 1000, DstPort: shape.port(n - 1),
				}
				p := Render(s)
				agree(t, s, &p, []drivers.Packet{pk})
				if drivers.Evaluate(s, pk).Verdict != drivers.VerdictAllow {
					t.Errorf("%s, %d rules: denied", name, n)
				}
				pk.Src = addr("10.65.0.3")
				e := *s.Endpoints[attachment(1, noNs).ID]
				e.Addrs = []netip.Addr{pk.Src}
				s.Endpoints[e.ID] = &e
				p = Render(s)
				agree(t, s, &p, []drivers.Packet{pk})
				if drivers.Evaluate(s, pk).Verdict != drivers.VerdictDeny {
					t.Errorf("%s, %d rules: somebody in no set is allowed", name, n)
				}
			}
		}
	}
}
