package bench

import (
	"context"
	"errors"
	"fmt"
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

// rebootRow boots a node again and again while the store is down.
func rebootRow(ctx context.Context, m *measurement) error {
	l := m.bed.lab
	n := l.Nodes[0]
	if err := persisted(ctx, n); err != nil {
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
		if err := poll(ctx, 2*time.Millisecond, func() error {
			rules, err := countRules(n.Host)
			if err == nil && rules == 0 {
				err = errors.New("the kernel has no rules of ours")
			}
			return err
		}); err != nil {
			return fmt.Errorf("protection after a boot: %w", err)
		}
		took = append(took, time.Since(began).Seconds())
	}
	m.add(Result{Name: "protected", What: "a host boots, the store is down: rules stand after the agent's start", Unit: "s", Spread: Summarize(took), Budget: AtMost(2)})
	return nil
}

// persisted waits until the agent has written its State to disk.
func persisted(ctx context.Context, n *lab.Node) error {
	return poll(ctx, 50*time.Millisecond, func() error {
		st, err := status(ctx, n)
		if err == nil && st.Persisted.Bytes == 0 {
			err = errors.New("the agent has not persisted its State")
		}
		return err
	})
}
