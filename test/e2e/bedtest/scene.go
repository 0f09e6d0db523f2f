//go:build linux

package bedtest

import (
	"testing"
)

// Scene is a server that may be asked by a client and not by a stranger, across nodes.
type Scene struct {
	*Cluster
	Server, Client, Stranger *Pod
}

// Labels of a scene's pods.
var (
	IsServer = map[string]string{"app": "server"}
	IsClient = map[string]string{"role": "client"}
)

// OpenScene is Open, with a scene.
func OpenScene(t *testing.T) *Scene {
	t.Helper()
	return Open(t).Scene()
}

// Scene makes one in the test's namespace.
func (c *Cluster) Scene() *Scene {
	c.Helper()
	c.Only("only-clients", IsServer, IsClient)
	p := c.Start(Spec{Name: "server", Node: "node2", Labels: IsServer},
		Spec{Name: "client", Node: "node1", Labels: IsClient}, Spec{Name: "stranger", Node: "node1"})
	s := &Scene{c, p[0], p[1], p[2]}
	s.Holds()
	return s
}

// Holds says that the policy does, for new connections.
func (s *Scene) Holds() {
	s.Helper()
	s.Allowed(s.Client.Inside, s.Server.Server())
	s.Denied(s.Stranger.Inside, s.Server.Server())
}
