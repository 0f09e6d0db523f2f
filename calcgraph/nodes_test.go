package calcgraph

import (
	"bytes"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// TestNodeAddressInOtherClothes: an IPv4 address in an IPv6 one is no address of a node. A State with it could be written
// to disk, and not be read after a reboot.
func TestNodeAddressInOtherClothes(t *testing.T) {
	g := New(Default("n1"))
	for _, name := range []string{"n1", "n2"} {
		n := &api.Node{Spec: api.NodeSpec{BGP: &api.NodeBGPSpec{IPv4Address: "172.16.0.2/24", IPv6Address: "::ffff:10.0.0.1/104"}}}
		n.Name = name
		g.Update(api.Key{Kind: "Node", Name: name}, n)
	}
	s := drivers.NewState()
	s.Merge(g.Flush(), nil)
	if ps := g.Problems(); len(ps) != 2 || ps[0].Field != "spec.bgp.ipv6Address" {
		t.Errorf("problems %v, want one of each node's ipv6Address", ps)
	}
	if p := s.Peers["n2"]; p == nil || len(p.Addrs) != 1 || len(s.Node.Addresses) != 1 {
		t.Errorf("peer %v and addresses %v, want the IPv4 address of each", p, s.Node.Addresses)
	}
	var b bytes.Buffer
	if err := drivers.EncodeState(&b, s); err != nil {
		t.Fatal(err)
	}
	if _, err := drivers.DecodeState(&b); err != nil {
		t.Error(err)
	}
}
