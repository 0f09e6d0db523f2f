package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/tortie/tortie/test/lab"
)

// pair is two nodes with workloads, and beside them on the same fabric a twin of it: the same namespaces, routes and veth
// pairs without any rule or agent.
//
//	fabric ──┬── n1: client, server, loaded     ── p1: client, server      (10.67.1.0/24)
//	         └── n2: far, farLoaded             ── p2: far                 (10.67.2.0/24)
type pair struct {
	client, server, far, loaded, farLoaded *lab.Workload
	plainClient, plainServer, plainFar     *lab.Host
	plainNodes                             []*lab.Host
}

// The ports of the servers on each host but the clients.
const (
	crrPort  = 8000
	sinkPort = 8001
	echoPort = 8002
)

// pairPolicy is what the servers' policy says, beside what rows add: the deciding policy is the last.
const pairPolicy = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: bench-server}
spec:
  order: 100000
  selector: role == 'server' || role == 'loaded'
  types: [Ingress]
  ingress: [{action: Allow, protocol: TCP, source: {selector: role == 'client'}, destination: {ports: [8000, 8001, 8002]}}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: bench-client}
spec:
  order: 100000
  selector: role == 'client'
  types: [Egress]
  egress: [{action: Allow}]
`

func newPairBed(ctx context.Context, m *measurement) (_ *bed, err error) {
	b, err := newBed(ctx, m, lab.Options{Nodes: 2, AgentConfig: "persistDelay: 100ms\n"}, func(b *bed) error {
		_, err := b.apply(ctx, poolsYAML+"---"+openYAML+"---"+pairPolicy)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.down())
		}
	}()
	p := &pair{}
	b.pair = p
	for _, w := range []struct {
		at   **lab.Workload
		node int
		name string
		role string
	}{
		{&p.client, 1, "client", "client"}, {&p.server, 1, "server", "server"}, {&p.loaded, 1, "loaded", "loaded"},
		{&p.far, 2, "far", "server"}, {&p.farLoaded, 2, "far-loaded", "loaded"},
	} {
		if *w.at, err = b.lab.AddWorkload(ctx, lab.WorkloadSpec{Name: w.name, Namespace: "bench", Node: w.node, Labels: map[string]string{"role": w.role}}); err != nil {
			return nil, err
		}
	}
	if err := p.makeTwin(b.lab); err != nil {
		return nil, fmt.Errorf("making the plain twin: %w", err)
	}
	for _, h := range []*lab.Host{p.server.Host, p.loaded.Host, p.far.Host, p.farLoaded.Host, p.plainServer, p.plainFar} {
		if err := b.serve(ctx, h, fmt.Sprintf("crr:%d", crrPort), fmt.Sprintf("sink:%d", sinkPort), fmt.Sprintf("echo:%d", echoPort)); err != nil {
			return nil, err
		}
	}
	for i, n := range b.lab.Nodes {
		if err := errors.Join(settled(ctx, n, 1), shortFlows(n.Host), shortFlows(p.plainNodes[i])); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// makeTwin wires the namespaces that no agent knows.
func (p *pair) makeTwin(l *lab.Lab) error {
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 31, 50, byte(i)}) }
	for i := 1; i <= 2; i++ {
		node, err := l.AddHost(fmt.Sprintf("p%d", i), at(i))
		if err != nil {
			return err
		}
		p.plainNodes = append(p.plainNodes, node)
		if err := l.Plug(node); err != nil {
			return err
		}
		if err := forward(node); err != nil {
			return err
		}
		if err := node.IP(fmt.Sprintf("route add 10.67.%d.0/24 via %s", 3-i, at(3-i))); err != nil {
			return err
		}
		hosts := map[string]**lab.Host{"plain-far": &p.plainFar}
		if i == 1 {
			hosts = map[string]**lab.Host{"plain-client": &p.plainClient, "plain-server": &p.plainServer}
		}
		number := 0
		for name, h := range hosts {
			number++
			a := netip.AddrFrom4([4]byte{10, 67, byte(i), byte(number)})
			if *h, err = l.AddHost(name, a); err != nil {
				return err
			}
			if err := veth(node, *h, number); err != nil {
				return err
			}
		}
	}
	return nil
}

// veth joins a host to a node as the agent does: a pair, a route to the address, and a gateway that every node has.
func veth(node, h *lab.Host, number int) error {
	const gateway, mac = "169.254.1.1", "ee:ee:ee:ee:ee:ee"
	name := fmt.Sprintf("plain%d", number)
	return errors.Join(
		node.IP(fmt.Sprintf("link add %s address %s type veth peer name eth0 netns %s", name, mac, h.Netns()),
			fmt.Sprintf("link set %s up", name), fmt.Sprintf("route add %s dev %s", h.Addr(4), name)),
		h.IP("link set eth0 up", fmt.Sprintf("addr add %s/32 dev eth0", h.Addr(4)), fmt.Sprintf("neigh add %s lladdr %s dev eth0 nud permanent", gateway, mac),
			fmt.Sprintf("route add %s dev eth0 scope link", gateway), fmt.Sprintf("route add default via %s", gateway)))
}

// forward makes a host a router.
func forward(h *lab.Host) error {
	return h.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
}
