//go:build linux

package cni

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/lab"
)

// ownersWorld has pools, a server that only "app == 'db'" may reach, and friends that reach each other.
const ownersWorld = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: owners}
spec: {cidr: 10.67.0.0/24, blockSize: 26, natOutgoing: false}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: out}
spec: {selector: "app in {'db', 'server', 'other'}", types: [Egress], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: server, namespace: shop}
spec:
  selector: app == 'server'
  types: [Ingress]
  ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'db'}, destination: {ports: [80]}}]
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: friends, namespace: shop}
spec:
  selector: app == 'friend'
  types: [Ingress, Egress]
  ingress: [{action: Allow, source: {selector: app == 'friend'}}]
  egress: [{action: Allow, destination: {selector: app == 'friend'}}]
`

func ownersLab(t *testing.T) []*sharedBed {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Options{Binary: filepath.Join(shared.bin, "tortie"), Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes {
				t.Logf("%s:\n%s", n.Name, n.Agent.Tail())
			}
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(t.TempDir(), "world.yaml")
	if err := os.WriteFile(path, []byte(ownersWorld), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Tortie(t.Context(), nil, "apply", "-f", path); err != nil {
		t.Fatal(err)
	}
	var beds []*sharedBed
	for _, n := range l.Nodes {
		beds = append(beds, &sharedBed{bin: shared.bin, lab: l, node: n})
	}
	return beds
}

// pod is a pod of namespace shop: of one name there may be several, one after another or even at once.
type pod struct {
	*container
	bed  *sharedBed
	name string
	uid  string
	conf object
	addr netip.Addr
}

func (p *pod) verb(verb string) ([]byte, error) {
	args := "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=" + p.name + ";K8S_POD_UID=" + p.uid
	return call{verb: verb, id: p.id, iface: "eth0", netns: p.path(), args: args, conf: p.conf, bed: p.bed}.run()
}

// newPod plugs a pod in. An address is given if one is asked for.
func newPod(t *testing.T, bed *sharedBed, name, uid, app string, want netip.Addr) *pod {
	t.Helper()
	p := &pod{container: newContainer(t), bed: bed, name: name, uid: uid, conf: object{
		"cniVersion": "1.0.0", "name": "testnet", "type": "tortie-cni", "socket": bed.node.Socket(), "namespace": "shop",
		"notesDir": filepath.Join(bed.node.StateDir(), "notes"), "ipam": object{"type": "tortie"}, "labels": object{"app": app}}}
	if want.IsValid() {
		p.conf["runtimeConfig"] = object{"ips": []string{want.String()}}
	}
	eventually(t, "ADD of "+name, func() string { // the pools may not be known yet
		out, err := p.verb("ADD")
		if err != nil {
			return err.Error()
		}
		p.addr = addrOf(t, result(t, out), 0)
		return ""
	})
	return p
}

func (p *pod) del() {
	p.t.Helper()
	if out, err := p.verb("DEL"); err != nil {
		p.t.Fatalf("DEL of %s: %s %v", p.name, out, err)
	}
}

// reaches tries until it works: what another node knows it knows soon.
func (p *pod) reaches(to netip.Addr) {
	p.t.Helper()
	eventually(p.t, p.name+" reaches the server", func() string {
		if err := talk(p.ns, netip.Addr{}, to, 80); err != nil {
			return err.Error()
		}
		return ""
	})
}

// members counts how often an address is added to a set of a node's kernel, by the kernel's own word.
type members struct {
	mu    sync.Mutex
	added []string
	ended error
}

func watchMembers(t *testing.T, bed *sharedBed) *members {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, "nft", "-nn", "monitor", "new", "elements")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = bed.start(cmd)
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	m := &members{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			m.mu.Lock()
			m.added = append(m.added, s.Text())
			m.mu.Unlock()
		}
		err := cmd.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		if ctx.Err() == nil {
			m.ended = fmt.Errorf("nft monitor has ended: %w", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return m
}

// of returns what was added with an address in it since the last call of forget.
func (m *members) of(t *testing.T, a netip.Addr) (out []string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended != nil {
		t.Fatal(m.ended)
	}
	for _, line := range m.added {
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" {},/", r) }) {
			if word == a.String() {
				out = append(out, line)
				break
			}
		}
	}
	return out
}

func (m *members) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.added = nil
}

// holds reports whether some set of the node's kernel has an address in it.
func holds(t *testing.T, bed *sharedBed, a netip.Addr) bool {
	t.Helper()
	ns, err := netns.OpenNamed(bed.node.Netns())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	out := output(t, ns, "nft", "-nn", "list", "sets")
	for _, word := range strings.FieldsFunc(out, func(r rune) bool { return strings.ContainsRune(" \t\n{},/", r) }) {
		if word == a.String() {
			return true
		}
	}
	return false
}

// TestRecreatedElsewhere: db-0 goes, and comes again on another node (or in another sandbox of the same one), under the same
// name and with the same labels. Its old address has them no more, at no time: not in the kernel of the node that enforces
// them, and for no packet of who has the address next.
func TestRecreatedElsewhere(t *testing.T) {
	beds := ownersLab(t)
	here, there := beds[0], beds[1]
	server := newPod(t, there, "server", "s", "server", netip.Addr{})
	server.echo("80")
	seen := watchMembers(t, there)
	// gone waits until the other node knows that the address has no labels any more; from then on it must not get them again.
	gone := func(a netip.Addr) {
		t.Helper()
		eventually(t, "the other node forgets the old address", func() string {
			if holds(t, there, a) {
				return a.String() + " is still in a set"
			}
			return ""
		})
		seen.forget()
	}
	for _, tc := range []struct {
		name  string
		again *sharedBed
		apart bool // the old one is deleted before the new one comes
	}{
		{"on another node", there, true},
		{"on another node, before the old one is deleted", there, false},
		{"on the same node, before the old one is deleted", here, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := newPod(t, here, "db-0", "u1", "db", netip.Addr{})
			old.reaches(server.addr)
			if len(seen.of(t, old.addr)) == 0 {
				t.Fatal("the watch has not seen the address come")
			}
			if tc.apart {
				old.del()
				gone(old.addr)
			} else {
				seen.forget()
			}
			again := newPod(t, tc.again, "db-0", "u2", "db", netip.Addr{})
			defer again.del()
			if again.addr == old.addr {
				t.Fatal("the new one has the address of the old one")
			}
			if !tc.apart {
				if got := seen.of(t, old.addr); len(got) > 0 {
					t.Errorf("the old address was added once more: %q", got)
				}
				old.del()
				gone(old.addr)
			}
			next := newPod(t, here, "other", "o", "other", old.addr)
			defer next.del()
			// An agent that begins anew reads all of it once more.
			there.node.Agent.Kill()
			err := there.node.StartAgent()
			if err == nil {
				err = there.node.AwaitReady(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := dialOnce(next.ns, server.addr, 100*time.Millisecond); err == nil {
					t.Error("the next owner of the address is taken for db-0")
				}
			}
			again.reaches(server.addr)
			if got := seen.of(t, old.addr); len(got) > 0 || holds(t, there, old.addr) {
				t.Errorf("the old address has labels: %q", got)
			}
		})
	}
	server.del()
}
