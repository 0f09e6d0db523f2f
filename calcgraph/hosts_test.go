package calcgraph

import (
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// TestHostAsSuch says that a "*" endpoint answers for the host as such where workloads' packets to the host ask it, and
// nowhere else.
func TestHostAsSuch(t *testing.T) {
	for toHost, want := range map[drivers.EndpointToHost]int{drivers.ToHostReturn: 2, drivers.ToHostDrop: 1} {
		c := Default("n1")
		c.EndpointToHost = toHost
		g := New(c)
		for _, name := range []string{"b", "a"} {
			hep := &api.HostEndpoint{Spec: api.HostEndpointSpec{Node: "n1", InterfaceName: "*"}}
			hep.Name = name
			g.Update(api.KeyOf(hep), hep)
		}
		g.Host([]drivers.HostIface{{Name: "lo"}, {Name: "eth0"}, {Name: "tort0"}})
		s := drivers.NewState()
		s.Merge(g.Flush(), nil)
		if len(s.Endpoints) != want {
			t.Errorf("%v: %d endpoints, want %d:\n%s", toHost, len(s.Endpoints), want, s)
		}
		id := drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "a", Interface: drivers.AllHostIfaces}
		if e := s.Endpoints[id]; (e != nil) != (toHost == drivers.ToHostReturn) {
			t.Errorf("%v: the endpoint that stands for the host is %v", toHost, e)
		}
	}
}
