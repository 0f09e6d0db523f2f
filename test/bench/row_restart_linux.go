package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tortie/tortie/test/bench/load"
	"github.com/tortie/tortie/test/lab"
)

// restartRow kills the agents of both nodes under traffic, again and again, and counts what is lost.
func restartRow(ctx context.Context, m *measurement) error {
	p := m.bed.pair
	total := time.Duration(m.Size.Restarts+1) * m.Size.RestartTime
	type outcome struct {
		seen load.Flowed
		err  error
	}
	const synRate, kept = 1000, 50
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.err = m.bed.client(ctx, p.client.Host, &o.seen, "flows", target(p.far.Addr(4), echoPort), total.String(), fmt.Sprint(synRate), fmt.Sprint(kept))
		done <- o
	}()
	var back []float64
	killed := func() error {
		for range m.Size.Restarts {
			if err := pause(ctx, m.Size.RestartTime); err != nil {
				return err
			}
			began := time.Now()
			for _, n := range m.bed.lab.Nodes {
				n.Agent.Kill()
				if err := n.StartAgent(); err != nil {
					return err
				}
			}
			for _, n := range m.bed.lab.Nodes {
				if err := n.AwaitReady(ctx); err != nil {
					return err
				}
			}
			back = append(back, time.Since(began).Seconds())
		}
		return nil
	}()
	o := <-done
	if err := errors.Join(killed, o.err); err != nil {
		return err
	}
	rate := float64(o.seen.New) / total.Seconds()
	m.add(Result{Name: "rate", What: "connections made while agents are killed", Unit: "/s", Spread: Summarize([]float64{rate})})
	m.add(Result{Name: "lost new", What: fmt.Sprintf("of %d new connections, lost or with a packet sent twice", o.seen.New), Unit: "lost",
		Spread: Summarize([]float64{float64(o.seen.NewLost)}), Budget: AtMost(0), Scaled: rate < 0.9*synRate})
	m.add(Result{Name: "lost kept", What: fmt.Sprintf("of %d exchanges on %d connections that were open", o.seen.Kept, kept), Unit: "lost",
		Spread: Summarize([]float64{float64(o.seen.KeptLost)}), Budget: AtMost(0)})
	m.add(Result{Name: "back", What: "both agents killed, started, and ready again", Unit: "s", Spread: Summarize(back)})
	if o.seen.FirstErr != "" {
		m.say("the first loss: %s", o.seen.FirstErr)
	}
	return nil
}

// hostPolicy closes the host but for one port, by which one sees that it stands.
const (
	hostPolicyPort = "47001"
	hostPolicy     = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-eth0, labels: {host: "yes"}}
spec: {node: n1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host}
spec: {selector: host == 'yes', types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [` + hostPolicyPort + `]}}]}
`
)

// rebootRow boots a node again and again while the store is down.
func rebootRow(ctx context.Context, m *measurement) error {
	l := m.bed.lab
	n := l.Nodes[0]
	if _, err := m.bed.apply(ctx, hostPolicy); err != nil {
		return err
	}
	if err := persisted(ctx, n, hostPolicyPort); err != nil {
		return err
	}
	l.Store.Kill()
	var took []float64
	for range m.Size.Reboots {
		n.Agent.Kill()
		if err := n.Replace(); err != nil {
			return err
		}
		began := time.Now()
		if err := n.StartAgent(); err != nil {
			return err
		}
		if err := poll(ctx, 5*time.Millisecond, func() error {
			rules, err := inside(n.Namespace(), "nft", "list", "ruleset")
			if err == nil && !strings.Contains(rules, hostPolicyPort) {
				err = errors.New("the kernel has no rule of the host's policy")
			}
			return err
		}); err != nil {
			return fmt.Errorf("protection after a boot: %w", err)
		}
		took = append(took, time.Since(began).Seconds())
	}
	m.add(Result{Name: "protected", What: "a host boots, the store is down: its policy stands after the agent's start", Unit: "s", Spread: Summarize(took), Budget: AtMost(2)})
	return nil
}

// persisted waits until the agent has written a State to disk that speaks of something.
func persisted(ctx context.Context, n *lab.Node, something string) error {
	return poll(ctx, 20*time.Millisecond, func() error {
		files, err := filepath.Glob(filepath.Join(n.StateDir(), "*"))
		if err != nil {
			return err
		}
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(something)) {
				return nil
			}
		}
		return fmt.Errorf("the agent has not persisted its State: nothing of %s in %v", something, files)
	})
}
