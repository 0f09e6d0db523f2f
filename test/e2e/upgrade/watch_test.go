//go:build e2e && linux

package upgrade

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/tortie/tortie/internal/agentapi"
)

// watch notes how long nodes have no agent that takes pods.
type watch struct {
	mu   sync.Mutex
	away map[string][]gap
	stop context.CancelFunc
	wg   sync.WaitGroup
}

type gap struct{ from, to time.Time }

func (g gap) long() time.Duration { return g.to.Sub(g.from) }

func (b *bed) watch() *watch {
	b.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w := &watch{away: map[string][]gap{}, stop: stop}
	for _, node := range b.nodes() {
		pid, err := b.Machine(node)
		if err != nil {
			b.Fatal(err)
		}
		agent := agentapi.NewClient(filepath.Join("/proc", pid, "root", agentapi.DefaultSocket))
		w.wg.Go(func() { w.look(ctx, node, agent) })
	}
	b.Cleanup(w.end)
	return w
}

func (w *watch) look(ctx context.Context, node string, agent *agentapi.Client) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	up := true
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			r, err := agent.List(ctx, agentapi.ListRequest{Sandbox: "nobody's"})
			was := up
			up = err == nil && len(r.NotReady) == 0
			w.mu.Lock()
			if all := w.away[node]; was && !up {
				w.away[node] = append(all, gap{now, now})
			} else if !was {
				all[len(all)-1].to = time.Now()
			}
			w.mu.Unlock()
		}
	}
}

// gaps are the times of a node without an agent, and forgets them.
func (w *watch) gaps(node string) []gap {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.away[node]
	w.away[node] = nil
	return all
}

func (w *watch) end() {
	w.stop()
	w.wg.Wait()
}
