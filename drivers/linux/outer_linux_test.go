package linux

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestOuterPackets: what a tunnel's device of the host makes of a packet is sent by the host, and its policy is asked,
// though the kernel says that the packet came in by that device. Forwarded packets and the host's neighbour discovery
// bear an interface too, and Normal Out is not about them.
func TestOuterPackets(t *testing.T) {
	node, far, behind := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	for _, ns := range []*netns.Ns{node, far, behind} {
		sh(t, ns, "sysctl -qw net.ipv6.conf.default.accept_dad=0")
	}
	sh(t, node, `ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip link add eth0 type veth peer name eth0 netns `+far.Path()+`; ip link add eth1 type veth peer name eth0 netns `+behind.Path()+`
		ip addr add 172.20.0.1/24 dev eth0; ip addr add fd20::1/64 dev eth0; ip link set eth0 up
		ip addr add 172.21.0.1/24 dev eth1; ip addr add fd21::1/64 dev eth1; ip link set eth1 up`)
	sh(t, far, "ip addr add 172.20.0.2/24 dev eth0; ip addr add fd20::2/64 dev eth0; ip link set eth0 up")
	sh(t, behind, `ip addr add 172.21.0.2/24 dev eth0; ip addr add fd21::2/64 dev eth0; ip link set eth0 up
		ip route add default via 172.21.0.1; ip route add default via fd21::1`)
	sh(t, node, `ip link add vx0 type vxlan id 7 remote 172.20.0.2 dstport 9999 dev eth0
		sysctl -qw net.ipv6.conf.vx0.disable_ipv6=1; ip link set vx0 up
		ip addr add 172.22.0.1/24 dev vx0; ip neigh add 172.22.0.2 lladdr 02:00:00:00:00:01 dev vx0`)

	s := drivers.NewState()
	s.Node.WorkloadPrefixes = []string{"tort"}
	tcp, udp := uint8(6), uint8(17)
	id := drivers.PolicyID{Kind: drivers.KindGlobalNetworkPolicy, Name: "out"}
	policy := func(rules ...drivers.Rule) *drivers.Policy {
		return &drivers.Policy{ID: id, Tier: "default", In: []drivers.Rule{{Action: drivers.Allow}}, Out: rules}
	}
	list := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{id}}}}
	e := &drivers.Endpoint{ID: drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "h", Interface: "eth0"}, Name: "h", Iface: "eth0"}
	e.Policy.Normal = drivers.Directions{In: list, Out: list}
	s.Endpoints[e.ID], s.Policies[id] = e, policy()
	outer, plain4, plain6 := listenUDP(t, far, ":9999"), listenUDP(t, far, "172.20.0.2:7"), listenUDP(t, far, "[fd20::2]:7")
	sends := func(from *netns.Ns, to string, at net.PacketConn, want bool, what string) {
		t.Helper()
		sendUDP(t, from, to)
		if got := hears(t, at, want); got != want {
			t.Errorf("%s: arrived %t, want %t", what, got, want)
		}
	}
	sends(node, "172.20.0.2:9999", outer, true, "before there is any policy")
	d := openDriver(t, node, nil)
	apply(t, d, s, nil)
	sends(node, "172.20.0.2:9999", outer, false, "the host's own packet, denied")
	sends(node, "172.22.0.2:7", outer, false, "through the tunnel, the outer packet denied")
	sends(behind, "172.22.0.2:7", outer, false, "forwarded into the tunnel, the outer packet denied")
	sends(behind, "172.20.0.2:7", plain4, true, "forwarded")
	sh(t, node, "ip -6 neigh flush dev eth0")
	sends(behind, "[fd20::2]:7", plain6, true, "forwarded after neighbour discovery")

	s.Policies[id] = policy(drivers.Rule{Action: drivers.Deny, Match: drivers.Match{Proto: &tcp}}, drivers.Rule{Action: drivers.Allow, Match: drivers.Match{
		Proto: &udp, Dst: drivers.Side{Nets: []netip.Prefix{netip.MustParsePrefix("172.20.0.2/32")}, Ports: []drivers.PortRange{{First: 9999, Last: 9999}}},
	}})
	apply(t, d, s, nil)
	sends(node, "172.22.0.2:7", outer, true, "through the tunnel, the outer packet allowed")
	sends(behind, "172.22.0.2:7", outer, true, "forwarded into the tunnel, the outer packet allowed")
}

func listenUDP(t *testing.T, ns *netns.Ns, at string) (c net.PacketConn) {
	t.Helper()
	err := ns.Do(func() (err error) {
		c, err = net.ListenPacket("udp", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// sendUDP sends one datagram; policy may refuse it to the sender's face.
func sendUDP(t *testing.T, ns *netns.Ns, to string) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// hears reports whether a datagram arrives: for one that is to come it waits longer. It takes what else has come.
func hears(t *testing.T, c net.PacketConn, want bool) (heard bool) {
	t.Helper()
	wait := 200 * time.Millisecond
	if want {
		wait = 5 * time.Second
	}
	buf := make([]byte, 2000)
	for ; ; wait = 20 * time.Millisecond {
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ReadFrom(buf); errors.Is(err, os.ErrDeadlineExceeded) {
			return heard
		} else if err != nil {
			t.Fatal(err)
		}
		heard = true
	}
}
