//go:build linux

package lab

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// closedHost is a host endpoint that lets one port in and nothing out, and what shuts it before the flow table, too.
const (
	closedHost = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-eth0, labels: {host: "yes"}}
spec: {node: n1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed}
spec:
  selector: host == 'yes'
  types: [Ingress, Egress]
  ingress:
    - action: Allow
      protocol: TCP
      destination: {ports: [7001]}
`
	closedUntracked = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed-untracked}
spec:
  selector: host == 'yes'
  types: [Ingress, Egress]
  doNotTrack: true
  applyOnForward: true
  ingress: [{action: Deny}]
  egress: [{action: Deny}]
`
)

// TestClosedHostIsFound: policy that closes a host's interface closes neither the failsafes nor the way to find who has
// an address, over IPv6 no less than over IPv4.
func TestClosedHostIsFound(t *testing.T) {
	const failsafeIn, failsafeOut, allowed, closed = 22, 6443, 7001, 7002
	ctx := t.Context()
	l := newLab(t, Options{Nodes: 1})
	n := l.Nodes[0]
	out, err := l.AddOutside("outside", 9, Server{Port: failsafeOut}, Server{Port: closed})
	if err != nil {
		t.Fatal(err)
	}
	closers, err := n.serve([]Server{{Port: failsafeIn}, {Port: allowed}, {Port: closed}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range closers {
		defer c.Close()
	}
	forget := func(t *testing.T) {
		t.Helper()
		if err := errors.Join(n.ip("neigh flush dev eth0"), out.ip("neigh flush dev eth0")); err != nil {
			t.Fatal(err)
		}
	}
	for _, stage := range []struct {
		name, policy string
		shut         uint16 // the port by which one sees that the policy is in force
	}{{"default deny", closedHost, closed}, {"untracked deny", closedUntracked, allowed}} {
		if _, err := l.applyText(ctx, stage.policy); err != nil {
			t.Fatal(err)
		}
		for _, family := range []int{4, 6} {
			t.Run(fmt.Sprintf("%s over IPv%d", stage.name, family), func(t *testing.T) {
				eventually(t, 10*time.Second, "policy", func() error {
					if err := out.Echo(ctx, "tcp", n.Addr(family), stage.shut); !errors.Is(err, ErrDropped) {
						return fmt.Errorf("port %d: %v", stage.shut, err)
					}
					return nil
				})
				forget(t)
				if err := out.Echo(ctx, "tcp", n.Addr(family), failsafeIn); err != nil {
					t.Errorf("to a failsafe, without neighbours: %v", err)
				}
				forget(t)
				if err := n.Echo(ctx, "tcp", out.Addr(family), failsafeOut); err != nil {
					t.Errorf("from the host to a failsafe, without neighbours: %v", err)
				}
				if err := n.Echo(ctx, "tcp", out.Addr(family), closed); err == nil {
					t.Errorf("the host reaches port %d", closed)
				}
			})
		}
	}
}
