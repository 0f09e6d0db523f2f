package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tortie/tortie/drivers"
)

const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

var protocols = map[string]uint8{"tcp": protoTCP, "udp": protoUDP, "sctp": protoSCTP}

// Failsafe is written "tcp:22", or "tcp:22:192.0.2.0/24".
type Failsafe drivers.Failsafe

// UnmarshalText reads what MarshalText writes.
func (f *Failsafe) UnmarshalText(b []byte) error {
	proto, rest, _ := strings.Cut(string(b), ":")
	port, net, hasNet := strings.Cut(rest, ":") // the address may be IPv6 and have colons of its own
	p, known := protocols[strings.ToLower(proto)]
	n, err := strconv.ParseUint(port, 10, 16)
	if !known || err != nil {
		return fmt.Errorf("failsafe %q: want PROTOCOL:PORT or PROTOCOL:PORT:PREFIX, with tcp, udp or sctp", b)
	}
	out := Failsafe{Proto: p, Port: uint16(n)}
	if hasNet {
		if out.Net, err = netip.ParsePrefix(net); err != nil {
			return fmt.Errorf("failsafe %q: %w", b, err)
		}
		if out.Net.Addr().Is4In6() { // no packet has such an address, and no State on disk may hold it
			return fmt.Errorf("failsafe %q: an IPv4 prefix inside an IPv6 one; write it as IPv4", b)
		}
		out.Net = out.Net.Masked()
	}
	*f = out
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (f Failsafe) MarshalText() ([]byte, error) {
	name := ""
	for n, p := range protocols {
		if p == f.Proto {
			name = n
		}
	}
	s := name + ":" + strconv.Itoa(int(f.Port))
	if f.Net.IsValid() {
		s += ":" + f.Net.String()
	}
	return []byte(s), nil
}
