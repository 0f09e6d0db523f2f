package agent

import (
	"net/netip"
	"testing"
)

func TestPrefixOf(t *testing.T) {
	for _, a := range []string{"127.0.0.1", "::1", "fe80::1", "192.0.2.77"} {
		if p, err := prefixOf(netip.MustParseAddr(a)); err != nil || p.IsValid() {
			t.Errorf("%s: %s, %v", a, p, err)
		}
	}
}

func TestNodeResource(t *testing.T) {
	n := nodeResource("n", []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")})
	if n.Spec.BGP.IPv4Address != "192.0.2.1/24" || n.Spec.BGP.IPv6Address != "2001:db8::1/64" {
		t.Errorf("%+v", n.Spec.BGP)
	}
}
