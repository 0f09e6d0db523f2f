package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Protocol is an IP protocol: a name (TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite) or a number from 1 to 255.
type Protocol struct {
	Name   string // as written; "" if Number was given
	Number uint8
}

// Port is a number, a range written "first:last", or the name of a port of the endpoints that the rule selects.
type Port struct {
	Name        string // "" for numbers
	First, Last uint16 // equal for a single port
}

var protocolNumbers = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}

var protocolNames = []string{"TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"}

// canonicalProtocol gives the names and the numbers of protocols that have one their usual spelling.
func canonicalProtocol(p Protocol) Protocol {
	if n, ok := p.Num(); ok {
		for _, name := range protocolNames {
			if protocolNumbers[strings.ToLower(name)] == n {
				return Protocol{Name: name}
			}
		}
	}
	return p
}

// Num returns the protocol's number; ok is false for a name that is not known.
func (p Protocol) Num() (n uint8, ok bool) {
	if p.Name == "" {
		return p.Number, p.Number != 0
	}
	n, ok = protocolNumbers[strings.ToLower(p.Name)]
	return n, ok
}

// String gives the name as written, or the number.
func (p Protocol) String() string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Number))
}

// MarshalJSON gives a string for a name and a number for a number.
func (p Protocol) MarshalJSON() ([]byte, error) {
	if p.Name != "" {
		return json.Marshal(p.Name)
	}
	return json.Marshal(p.Number)
}

// UnmarshalJSON reads a name, a number, or a number in a string.
func (p *Protocol) UnmarshalJSON(b []byte) error {
	s, quoted, err := numOrString(b)
	if err != nil {
		return err
	}
	*p = Protocol{}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil && !quoted:
		return fmt.Errorf("protocol %s is not a whole number", s)
	case err != nil:
		p.Name = s
	case n < 0 || n > 255:
		return fmt.Errorf("protocol number %d is not between 0 and 255", n)
	default:
		p.Number = uint8(n)
	}
	return nil
}

// String gives "80", "8000:8080" or the name.
func (p Port) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.First == p.Last:
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d:%d", p.First, p.Last)
}

// MarshalJSON gives a number for a single port and a string for ranges and names.
func (p Port) MarshalJSON() ([]byte, error) {
	if p.Name == "" && p.First == p.Last {
		return json.Marshal(p.First)
	}
	return json.Marshal(p.String())
}

// UnmarshalJSON reads a number, or a string with a number, a range or a name.
func (p *Port) UnmarshalJSON(b []byte) error {
	s, quoted, err := numOrString(b)
	if err != nil {
		return err
	}
	port, err := ParsePort(s)
	if err == nil && port.Name != "" && !quoted {
		err = fmt.Errorf("port %s is not a whole number from 0 to 65535", s)
	}
	*p = port
	return err
}

// ParsePort reads "80", "8000:8080" or a name.
func ParsePort(s string) (Port, error) {
	first, last, isRange := strings.Cut(s, ":")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 64)
	b, err2 := strconv.ParseUint(last, 10, 64)
	switch {
	case err1 != nil && !isRange && s != "":
		return Port{Name: s}, nil
	case err1 != nil || err2 != nil:
		return Port{}, fmt.Errorf("port %q is neither a number, nor first:last, nor a name", s)
	case a > 65535 || b > 65535:
		return Port{}, fmt.Errorf("port %q is above 65535", s)
	case a > b:
		return Port{}, fmt.Errorf("port range %q ends before it begins", s)
	}
	return Port{First: uint16(a), Last: uint16(b)}, nil
}

// numOrString returns a JSON number or string as text.
func numOrString(b []byte) (s string, quoted bool, err error) {
	if len(b) > 0 && b[0] == '"' {
		err := json.Unmarshal(b, &s)
		return s, true, err
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil || n == "" {
		return "", false, fmt.Errorf("%s is neither a number nor a string", b)
	}
	return n.String(), false, nil
}
