package linux

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

func ptr[T any](v T) *T { return &v }

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func np(name string) drivers.PolicyID {
	return drivers.PolicyID{Kind: drivers.KindNetworkPolicy, Namespace: "default", Name: name}
}

// smallState has a bit of everything.
func smallState() *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{
		Name: "n1", WorkloadPrefixes: []string{"tort"}, EndpointToHost: drivers.ToHostReturn,
		FailsafeIn:  []drivers.Failsafe{{Proto: 6, Port: 22}, {Proto: 17, Port: 68, Net: prefix("10.0.0.0/8")}},
		FailsafeOut: []drivers.Failsafe{{Proto: 17, Port: 53}},
	}
	s.Sets["s:hash"] = drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.65.0.1")), drivers.AddrMember(addr("fd65::1")))
	s.Sets["s:wide"] = drivers.NewSet(drivers.SetNet, drivers.NetMember(prefix("10.0.0.0/8")), drivers.AddrMember(addr("11.0.0.0")),
		drivers.NetMember(prefix("224.0.0.0/3")))
	s.Sets["p:http"] = drivers.NewSet(drivers.SetPort, drivers.PortMember(addr("10.65.0.1"), 6, 80), drivers.PortMember(addr("fd65::1"), 6, 80))
	add := func(id drivers.PolicyID, in, out []drivers.Rule) {
		p := &drivers.Policy{ID: id, Tier: "default", In: in, Out: out}
		p.SetRuleIDs()
		s.Policies[id] = p
	}
	add(np("web"), []drivers.Rule{
		{Action: drivers.Log, Match: drivers.Match{Proto: ptr(uint8(6))}},
		{Action: drivers.Allow, Match: drivers.Match{
			Proto: ptr(uint8(6)), Src: drivers.Side{Sets: []drivers.SetID{"s:hash"}, NotSets: []drivers.SetID{"s:wide"}},
			Dst: drivers.Side{Ports: []drivers.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8080}}, PortSets: []drivers.SetID{"p:http"}},
		}},
		{Action: drivers.Deny, Match: drivers.Match{NotICMP: &drivers.ICMP{Type: 8}, Src: drivers.Side{NotNets: []netip.Prefix{prefix("192.168.0.0/16"), prefix("10.1.0.0/16")}}}},
		{Action: drivers.Allow, Match: drivers.Match{Src: drivers.Side{NotPorts: []drivers.PortRange{{First: 1, Last: 1023}}}}},
	}, []drivers.Rule{{Action: drivers.Allow, Match: drivers.Match{IPVersion: 4}}, {Action: drivers.Allow, Match: drivers.Match{
		ICMP: &drivers.ICMP{Type: 128, Code: ptr(uint8(0))}, Dst: drivers.Side{Services: []drivers.SetID{"p:http"}, Nets: []netip.Prefix{prefix("fd00::/8")}}}}})
	add(np("pass"), []drivers.Rule{{Action: drivers.Pass, Match: drivers.Match{Src: drivers.Side{Nets: []netip.Prefix{prefix("10.65.0.0/24")}}}}}, nil)
	prof := drivers.PolicyID{Kind: drivers.KindProfile, Name: "kns.default"}
	add(prof, []drivers.Rule{{Action: drivers.Allow}}, []drivers.Rule{{Action: drivers.Allow}})
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{
		{Name: "first", Default: drivers.Deny, Policies: []drivers.PolicyID{np("pass"), np("web")}},
		{Name: "default", Default: drivers.Pass, Policies: []drivers.PolicyID{np("web")}},
	}}
	for i, n := range []string{"torta", "tortb"} {
		id := drivers.EndpointID{Sandbox: n, Interface: "eth0"}
		s.Endpoints[id] = &drivers.Endpoint{
			ID: id, Name: "default/" + n, Iface: n, MAC: drivers.MAC{2, 0, 0, 0, 0, byte(i)},
			Addrs:  []netip.Addr{addr(fmt.Sprintf("10.65.0.%d", i+1)), addr(fmt.Sprintf("fd65::%d", i+1))},
			Policy: drivers.EndpointPolicy{Normal: drivers.Directions{In: l, Out: l}}, Profiles: []drivers.PolicyID{prof},
		}
	}
	hid := drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "h", Interface: "eth0"}
	d := drivers.Directions{In: l, Out: l}
	s.Endpoints[hid] = &drivers.Endpoint{ID: hid, Name: "h", Iface: "eth0", Policy: drivers.EndpointPolicy{
		Normal: d, Forward: d, PreDNAT: drivers.Directions{In: l}, Untracked: d}}
	all := drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "all", Interface: drivers.AllHostIfaces}
	s.Endpoints[all] = &drivers.Endpoint{ID: all, Name: "all", Iface: drivers.AllHostIfaces, Policy: drivers.EndpointPolicy{Normal: d}}
	s.Peers["n2"] = &drivers.Peer{Name: "n2", Addrs: []netip.Addr{addr("172.20.0.3"), addr("fd20::3")}}
	s.Masquerade = drivers.Masquerade{From: []netip.Prefix{prefix("10.65.0.0/16"), prefix("fd65::/64")}, Except: []netip.Prefix{prefix("10.65.0.0/16"), prefix("fd65::/64")}}
	return s
}

func openDriver(t testing.TB, ns *netns.Ns, change func(*Options)) *Driver {
	t.Helper()
	o := Options{Netns: ns.Path()}
	if change != nil {
		change(&o)
	}
	d, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func nftDump(t testing.TB, ns *netns.Ns) string {
	t.Helper()
	var out []byte
	err := ns.Do(func() (err error) {
		out, err = exec.Command("nft", "-n", "list", "ruleset").CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft list ruleset: %v\n%s", err, out)
	}
	return string(out)
}

func TestApplyTwice(t *testing.T) {
	ctx := context.Background()
	ns := netnstest.New(t)
	d := openDriver(t, ns, nil)
	s := smallState()
	if err := d.Apply(ctx, s, nil); err != nil {
		t.Fatal(err)
	}
	first := d.Writes()
	nftDump(t, ns) // nft can read what it finds
	for range 2 {
		if err := d.Apply(ctx, s, nil); err != nil {
			t.Fatal(err)
		}
		if d.Writes() != first {
			t.Fatalf("an Apply with nothing to do wrote %d objects", d.Writes()-first)
		}
	}
}
