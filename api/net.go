package api

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ParsePrefix reads a prefix, or an address as a prefix of one, and clears the bits behind the length: "10.1.2.3/8"
// gives 10.0.0.0/8, "10.1.2.3" gives 10.1.2.3/32.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := parsePrefix(s)
	return p.Masked(), err
}

// parsePrefix keeps the bits behind the length.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a prefix in CIDR notation", s)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a prefix in CIDR notation", s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 address inside an IPv6 one; write it as IPv4", s)
	}
	return p, nil
}

// ParseAddr reads an IPv4 or IPv6 address without a zone.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	case a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q has a zone", s)
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is an IPv4 address inside an IPv6 one; write it as IPv4", s)
	}
	return a, nil
}

// checkPortName refuses what can't be the name of a port, so that a mistyped number is not taken for a name.
func checkPortName(s string) error {
	letter := false
	for i := range len(s) {
		c := s[i]
		letter = letter || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !(c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return fmt.Errorf("port name %q holds %q, which is no letter, digit, dot, dash or underscore", s, c)
		}
	}
	switch {
	case len(s) > 128:
		return errors.New("port name is longer than 128 characters")
	case !letter:
		return fmt.Errorf("port name %q has no letter", s)
	}
	return nil
}
