package linux

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// gates are counters ahead of all that the driver has and behind it, for packets to one port.
const gates = `
table inet gates {
	counter before { }
	counter after { }
	chain before { type filter hook prerouting priority -400; udp dport 8080 counter name before; }
	chain after { type filter hook postrouting priority 400; udp dport 8080 counter name after; }
}
`

var gateCounter = regexp.MustCompile(`packets (\d+)`)

// passed is how many packets came to a gate.
func passed(t *testing.T, ns *netns.Ns, gate string) int {
	t.Helper()
	out := inNs(t, ns, func() ([]byte, error) {
		return exec.Command("nft", "list", "counter", "inet", "gates", gate).CombinedOutput()
	})
	m := gateCounter.FindSubmatch(out)
	if m == nil {
		t.Fatalf("no count in %s", out)
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// switchState lets the first workload reach the second at UDP ports, by a list of a policy about a set, and of so many others.
func switchState(others int, set drivers.SetID) *drivers.State {
	s := connectState(connectShapes["S1"], 1, 1)
	s.Sets[set] = drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.65.0.1")))
	open := &drivers.Policy{ID: np("open"), Tier: "default", In: []drivers.Rule{{Action: drivers.Allow, Match: drivers.Match{
		Proto: ptr(uint8(l4UDP)), Src: drivers.Side{Sets: []drivers.SetID{set}},
	}}}}
	open.SetRuleIDs()
	s.Policies[open.ID] = open
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default"}}}
	for i := range others {
		p := &drivers.Policy{ID: np(fmt.Sprint("other", i)), Tier: "default", In: []drivers.Rule{portRule(drivers.Allow, i)}}
		p.SetRuleIDs()
		s.Policies[p.ID] = p
		l.Tiers[0].Policies = append(l.Tiers[0].Policies, p.ID)
	}
	l.Tiers[0].Policies = append(l.Tiers[0].Policies, open.ID)
	for id, e := range s.Endpoints {
		if e.Policy.Normal.In != nil {
			q := *e
			q.Policy.Normal.In = l
			s.Endpoints[id] = &q
		}
	}
	return s
}

// TestSwitchUnderWay: packets that are under way while something takes the place of something else are judged by the one or
// the other. All that both allow go through. Without stages one in some thousand switches loses a packet; TestStages says why.
func TestSwitchUnderWay(t *testing.T) {
	t.Parallel()
	for name, states := range map[string][2]*drivers.State{
		"a list": {switchState(1, "s:one"), switchState(2, "s:one")},
		"a set":  {switchState(1, "s:one"), switchState(1, "s:two")},
	} {
		t.Run(name, func(t *testing.T) { switchUnderWay(t, states) })
	}
}

const switching = 2 * time.Second

func switchUnderWay(t *testing.T, states [2]*drivers.State) {
	node, client, server := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	d := openDriver(t, node, nil)
	for i, ns := range []*netns.Ns{client, server} {
		a := attachment(i+1, ns)
		a.Addrs = a.Addrs[:1]
		got, err := d.Attach(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range states {
			s.Endpoints[a.ID].MAC = got.MAC
		}
	}
	apply(t, d, states[0], nil)
	inNs(t, node, func() (struct{}, error) {
		out, err := exec.Command("nft", gates).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return struct{}{}, err
	})
	// Somebody has the port, and never answers: each packet is the first of its flow.
	var fds [2]int
	for i, ns := range []*netns.Ns{client, server} {
		fd, err := openSocket(ns, unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	to := &unix.SockaddrInet4{Port: 8080, Addr: addr("10.65.0.2").As4()}
	if err := unix.Bind(fds[1], to); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = unix.Sendto(fds[0], []byte{1}, 0, to)
		}
	}()
	ch := drivertest.Diff(states[0], states[1])
	applies := 0
	for end := time.Now().Add(switching); time.Now().Before(end); applies++ {
		apply(t, d, states[(applies+1)%2], ch)
	}
	stop.Store(true)
	<-done
	before, after := passed(t, node, "before"), passed(t, node, "after")
	t.Logf("%d packets, %d Applies", before, applies)
	if before < 100 || applies < 10 {
		t.Errorf("%d packets during %d Applies: this proves little", before, applies)
	}
	if before != after {
		t.Errorf("%d of %d packets that both States allow were lost in %d switches", before-after, before, applies)
	}
}
