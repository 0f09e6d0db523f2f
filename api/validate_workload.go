package api

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds of QoSControls.
const (
	minBandwidth   = 1000   // bit/s
	maxBandwidth   = 1e15   // bit/s
	maxPacketRate  = 10_000 // packets/s
	maxConnections = 1<<32 - 1
	maxBurst       = 1 << 35     // bits
	maxMinburst    = 100_000_000 // bytes
)

// nat checks a floating address, which stands for an address that the endpoint has.
func (c *checker) nat(n *IPNAT, networks []string, p *field.Path) {
	c.address(n.InternalIP, 0, p.Child("internalIP"))
	internal, err := ParseAddr(n.InternalIP)
	if err != nil {
		c.address(n.ExternalIP, 0, p.Child("externalIP"))
		return
	}
	c.address(n.ExternalIP, ipVersion(internal), p.Child("externalIP"))
	if !slices.ContainsFunc(networks, func(s string) bool {
		own, err := parsePrefix(s)
		return err == nil && own.Addr() == internal
	}) {
		c.invalid(p.Child("internalIP"), n.InternalIP, "is not one of ipNetworks")
	}
}

func (c *checker) qos(q *QoSControls, p *field.Path) {
	type limits struct {
		direction                                                               string
		bandwidth, burst, peakrate, minburst, packets, packetBurst, connections int64
	}
	for _, l := range []limits{
		{"ingress", q.IngressBandwidth, q.IngressBurst, q.IngressPeakrate, q.IngressMinburst, q.IngressPacketRate, q.IngressPacketBurst, q.IngressMaxConnections},
		{"egress", q.EgressBandwidth, q.EgressBurst, q.EgressPeakrate, q.EgressMinburst, q.EgressPacketRate, q.EgressPacketBurst, q.EgressMaxConnections},
	} {
		direction := l.direction
		at := func(name string) *field.Path { return p.Child(direction + name) }
		c.limit(at("Bandwidth"), l.bandwidth, minBandwidth, maxBandwidth)
		c.limit(at("Burst"), l.burst, minBandwidth, maxBurst)
		c.limit(at("Peakrate"), l.peakrate, minBandwidth, maxBandwidth)
		c.limit(at("Minburst"), l.minburst, 1, maxMinburst)
		c.limit(at("PacketRate"), l.packets, 1, maxPacketRate)
		c.limit(at("PacketBurst"), l.packetBurst, 1, maxPacketRate)
		c.limit(at("MaxConnections"), l.connections, 1, maxConnections)
		c.without(at("Burst"), l.burst, l.bandwidth, direction+"Bandwidth")
		c.without(at("Peakrate"), l.peakrate, l.bandwidth, direction+"Bandwidth")
		c.without(at("Minburst"), l.minburst, l.peakrate, direction+"Peakrate")
		c.without(at("PacketBurst"), l.packetBurst, l.packets, direction+"PacketRate")
		if l.peakrate != 0 && l.bandwidth != 0 && l.peakrate <= l.bandwidth {
			c.invalid(at("Peakrate"), l.peakrate, "must be more than %sBandwidth", direction)
		}
	}
	if q.DSCP != nil {
		c.dscp(*q.DSCP, p.Child("dscp"))
	}
}

// limit checks a bound of which 0 is none.
func (c *checker) limit(p *field.Path, n, first, last int64) {
	if n != 0 && (n < first || n > last) {
		c.invalid(p, n, "must be between %d and %d", first, last)
	}
}

// without checks that a limit is not given without the one that it refines.
func (c *checker) without(p *field.Path, n, other int64, name string) {
	if n != 0 && other == 0 {
		c.forbidden(p, "needs %s", name)
	}
}
