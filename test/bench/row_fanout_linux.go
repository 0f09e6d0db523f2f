package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/test/bench/load"
)

const (
	fanoutPort   = 9001
	fanoutPolicy = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: fanout}
spec:
  order: 1
  selector: role == 'server'
  types: [Ingress]
  ingress: [{action: Allow, protocol: UDP, source: {selector: role == 'newcomer'}, destination: {ports: [9001]}}]
`
)

// fanoutAddr is the address of a newcomer: outside of every pool, routed to a host that sends as all of them.
func fanoutAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)}) }

// newcomer is the endpoint of another node with such an address.
func newcomer(i int) *api.WorkloadEndpoint {
	o := remote(i, map[string]string{"role": "newcomer"})
	o.Spec.IPNetworks = []string{fanoutAddr(i).String() + "/32"}
	return o
}

// fanoutRow writes endpoints of another node, with a block as an attach does, and sees how soon they are members on the
// first node: a host that sends with their addresses gets through then.
func fanoutRow(ctx context.Context, m *measurement) (err error) {
	b, n := m.bed, m.bed.lab.Nodes[0]
	keys, err := b.apply(ctx, fanoutPolicy)
	defer func() { err = errors.Join(err, b.drop(ctx, keys)) }()
	if err != nil {
		return err
	}
	block := &api.IPAMBlock{ObjectMeta: metav1.ObjectMeta{Name: "10-65-200-0-26"}, Spec: api.IPAMBlockSpec{CIDR: "10.65.200.0/26", Affinity: "host:elsewhere0"}}
	for i := range 64 {
		block.Spec.Allocations, block.Spec.Unallocated = append(block.Spec.Allocations, api.Free), append(block.Spec.Unallocated, i)
	}
	if _, err := b.put(ctx, []api.Object{block}); err != nil {
		return err
	}
	keys = append(keys, api.KeyOf(block))
	const host = 200
	outside, err := b.lab.AddOutside("newcomers", host)
	if err != nil {
		return err
	}
	server := b.pair.server
	var commands []string
	for i := range m.Size.Fanout + 1 {
		commands = append(commands, fmt.Sprintf("addr add %s/32 dev eth0", fanoutAddr(i)))
	}
	if err := errors.Join(outside.IP(append(commands, fmt.Sprintf("route add %s/32 via %s", server.Addr(4), n.Addr(4)))...),
		n.IP(fmt.Sprintf("route add 172.30.0.0/16 via %s", outside.Addr(4)))); err != nil {
		return err
	}
	prober, err := load.StartProber(load.Probing{From: outside.Host, To: server.Host, Source: fanoutAddr(0), Dest: netip.AddrPortFrom(server.Addr(4), fanoutPort)})
	if err != nil {
		return err
	}
	defer prober.Stop()
	// The first newcomer shows that the way is open, and is not counted.
	var took []float64
	for i := range m.Size.Fanout + 1 {
		o := newcomer(i)
		ms, err := b.welcome(ctx, prober, o, block, fanoutAddr(i))
		if err != nil {
			return fmt.Errorf("endpoint %d: %w", i, err)
		}
		keys = append(keys, api.KeyOf(o))
		if i > 0 {
			took = append(took, ms)
		}
	}
	what := "endpoint and block written by another node, write returned to member here"
	m.add(quantile("member p50", what, "ms", took, 0.5, Budget{}, false))
	m.add(quantile("member p99", what, "ms", took, 0.99, Budget{}, false))
	return nil
}

// welcome writes a newcomer, and returns how long after the write's return its first datagram got through, in ms.
func (b *bed) welcome(ctx context.Context, p *load.Prober, o *api.WorkloadEndpoint, block *api.IPAMBlock, from netip.Addr) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	p.SetSource(from)
	if _, err := p.AwaitShut(ctx); err != nil {
		return 0, err
	}
	block.Spec.SequenceNumber++
	p.Mark()
	err := b.store.Txn(ctx, datastore.Op{Verb: datastore.Create, Object: o}, datastore.Op{Verb: datastore.Update, Object: block})
	returned := time.Now()
	if err != nil {
		return 0, err
	}
	at, err := p.AwaitOpen(ctx)
	return float64(at.Sub(returned).Nanoseconds()) / 1e6, err
}
