package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/test/lab"
)

func newStoreBed(ctx context.Context, m *measurement) (*bed, error) {
	return newBed(ctx, m, lab.Options{Nodes: 1}, nil)
}

// storeRow: what the store's disk and the store itself take.
func storeRow(ctx context.Context, m *measurement) error {
	if err := pause(ctx, min(m.Size.Settle, 5*time.Second)); err != nil {
		return err
	}
	now, _, err := memory(m.bed.lab.Store.Pid())
	if err != nil {
		return err
	}
	m.add(Result{Name: "rss", What: "`tortie store`, empty, resident", Unit: "MB", Spread: Summarize([]float64{now}), Budget: AtMost(80)})
	if err := m.addFsync(); err != nil {
		return err
	}
	var took []float64
	for i := range m.Size.Fsyncs {
		began := time.Now()
		if _, err := m.bed.raw.Put(ctx, fmt.Sprintf("/bench/%d", i), "some value"); err != nil {
			return fmt.Errorf("writing to the store: %w", err)
		}
		took = append(took, float64(time.Since(began).Nanoseconds())/1e6)
	}
	m.add(quantile("put p50", "one write of the store, one after the other", "ms", took, 0.5, Budget{}, false))
	m.add(quantile("put p99", "one write of the store, one after the other", "ms", took, 0.99, Budget{}, false))
	return nil
}

// addFsync notes how long the disk takes, in the store's own folder, to write 2 KiB for good as the store does.
func (m *measurement) addFsync() (err error) {
	f, err := os.Create(filepath.Join(m.bed.lab.Dir, "store", "fsync"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var took []float64
	block := make([]byte, 2<<10)
	for range m.Size.Fsyncs {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("measuring the disk: %w", err)
		}
		took = append(took, float64(time.Since(began).Nanoseconds())/1e6)
	}
	m.add(quantile("fsync p50", "the disk of the store: 2 KiB written and synced", "ms", took, 0.5, Budget{}, false))
	m.add(quantile("fsync p99", "the disk of the store: 2 KiB written and synced", "ms", took, 0.99, Budget{}, false))
	return nil
}

// newRSSBed is a node with some workloads, in a cluster with ten policies.
func newRSSBed(ctx context.Context, m *measurement) (_ *bed, err error) {
	b, err := newBed(ctx, m, lab.Options{Nodes: 1}, func(b *bed) error {
		if _, err := b.put(ctx, append(namespaces(), markerPolicies(10)...)); err != nil {
			return err
		}
		_, err := b.apply(ctx, poolsYAML)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.plugIn(ctx, m.Size.RSSLocals, labels), settled(ctx, b.lab.Nodes[0], 1)); err != nil {
		return nil, errors.Join(err, b.down())
	}
	return b, nil
}

// rssRow: the agent's memory in small clusters.
func rssRow(ctx context.Context, m *measurement) error {
	n := m.bed.lab.Nodes[0]
	resident := func(name, what string, budget Budget) error {
		if err := pause(ctx, m.Size.Settle/2); err != nil {
			return err
		}
		now, _, err := memory(n.Agent.Pid())
		if err != nil {
			return err
		}
		m.add(Result{Name: name, What: what, Unit: "MB", Spread: Summarize([]float64{now}), Budget: budget, Scaled: m.Size.RSSLocals < 100})
		return nil
	}
	if err := resident("small", fmt.Sprintf("agent, resident, settled: %d local workloads, 10 policies", m.Size.RSSLocals), AtMost(60)); err != nil {
		return err
	}
	objects := markerPolicies(10 + m.Size.SmallPolicies)[10:]
	for i := range m.Size.SmallPods {
		objects = append(objects, remote(i, labels(i)))
	}
	if _, err := m.bed.put(ctx, objects); err != nil {
		return err
	}
	if err := settled(ctx, n, min(m.Size.SmallPolicies, m.Size.RSSLocals)); err != nil {
		return err
	}
	return resident("medium", fmt.Sprintf("the same with %d policies and %d workloads in the cluster", m.Size.SmallPolicies, m.Size.SmallPods), Budget{})
}

// newClusterBed is one node of a large cluster, of which the store knows the rest.
func newClusterBed(ctx context.Context, m *measurement) (_ *bed, err error) {
	m.say("writing %d endpoints and %d policies", m.Size.Endpoints, m.Size.LargeRules)
	b, err := newBed(ctx, m, lab.Options{Nodes: 1}, func(b *bed) error {
		if _, err := b.put(ctx, append(namespaces(), markerPolicies(m.Size.LargeRules)...)); err != nil {
			return err
		}
		const slice = 10_000
		for i := 0; i < m.Size.Endpoints; i += slice {
			if _, err := b.put(ctx, remotes(i, min(i+slice, m.Size.Endpoints))); err != nil {
				return err
			}
		}
		_, err := b.apply(ctx, poolsYAML)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := b.plugIn(ctx, markers, labels); err != nil {
		return nil, errors.Join(err, b.down())
	}
	return b, nil
}

// rssLargeRow starts the agent of the large cluster's node anew: its peak is that of the first snapshot.
func rssLargeRow(ctx context.Context, m *measurement) error {
	n := m.bed.lab.Nodes[0]
	if err := n.Agent.Stop(); err != nil {
		return err
	}
	began := time.Now()
	if err := n.StartAgent(); err != nil {
		return err
	}
	// Some policies may not be on this node, if there are fewer workloads than markers.
	if err := settled(ctx, n, m.Size.LargeRules*9/10); err != nil {
		return err
	}
	ready := time.Since(began).Seconds()
	if err := pause(ctx, m.Size.Settle); err != nil {
		return err
	}
	now, peak, err := memory(n.Agent.Pid())
	if err != nil {
		return err
	}
	store, _, err := memory(m.bed.lab.Store.Pid())
	if err != nil {
		return err
	}
	scaled := m.Size.Endpoints < 250_000 || m.Size.LargeRules < 10_000
	what := fmt.Sprintf("%d endpoints in the cluster, %d policies of five rules on %d local workloads", m.Size.Endpoints, m.Size.LargeRules, markers)
	m.add(Result{Name: "settled", What: fmt.Sprintf("agent, resident, %v after the first snapshot: %s", m.Size.Settle, what), Unit: "MB",
		Spread: Summarize([]float64{now}), Budget: AtMost(350), Scaled: scaled})
	m.add(Result{Name: "peak", What: "the same, peak since its start", Unit: "MB", Spread: Summarize([]float64{peak}), Budget: AtMost(700), Scaled: scaled})
	m.add(Result{Name: "start", What: "from the agent's start until all is enforced", Unit: "s", Spread: Summarize([]float64{ready})})
	m.add(Result{Name: "store", What: "`tortie store` then, resident", Unit: "MB", Spread: Summarize([]float64{store})})
	return nil
}
