//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/test/lab"
)

const (
	// churnEnv is how long TestKillChurn goes on, and seedEnv the seed of its choices.
	churnEnv = "TORTIE_CHURN_TIME"
	seedEnv  = "TORTIE_CHURN_SEED"

	churnTime = 12 * time.Second
	churners  = 4
)

// churn counts what happened.
type churn struct {
	attached, detached, refused, policies, agents, stores atomic.Int64
}

// TestKillChurn kills agents and the store with SIGKILL at any moment, while workloads come and go, policies change, and
// the probes run.
func TestKillChurn(t *testing.T) {
	t.Parallel()
	last, seed := churnSettings(t)
	t.Logf("%s=%v %s=%d", churnEnv, last, seedEnv, seed)
	s := newScene(t, lab.Options{AgentConfig: "persistDelay: 100ms\n"})
	p := startProbes(t, s.client, s.server)
	ctx, cancel := context.WithTimeout(t.Context(), last)
	defer cancel()
	var c churn
	var wg sync.WaitGroup
	var leftOver [churners]*lab.Workload
	for i := range churners {
		w, err := s.NewWorkload(lab.WorkloadSpec{Name: fmt.Sprintf("churn%d", i), Namespace: "x", Node: 1 + i%2, Labels: map[string]string{"role": "client"}})
		if err != nil {
			t.Fatal(err)
		}
		leftOver[i] = w
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() { c.comeAndGo(ctx, w, rng) })
	}
	wg.Go(func() { c.changePolicies(ctx, s, rand.New(rand.NewPCG(seed, 100))) })
	if err := c.kill(ctx, s, rand.New(rand.NewPCG(seed, 101))); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, w := range leftOver {
		eventually(t, 30*time.Second, "the last detach of "+w.Name, func() error { return w.Detach(t.Context()) })
	}
	s.opens(t, 30*time.Second)
	p.sound(t)
	s.settled(t)
	t.Logf("%v: %d attached, %d detached, %d refused or cut off, %d policies written; %d agents and %d stores killed",
		last, c.attached.Load(), c.detached.Load(), c.refused.Load(), c.policies.Load(), c.agents.Load(), c.stores.Load())
	if c.attached.Load() == 0 || c.policies.Load() == 0 || c.agents.Load() == 0 || c.stores.Load() == 0 {
		t.Error("too little happened")
	}
}

func churnSettings(t *testing.T) (time.Duration, uint64) {
	t.Helper()
	last, seed := churnTime, uint64(time.Now().UnixNano())
	var err1, err2 error
	if v := os.Getenv(churnEnv); v != "" {
		last, err1 = time.ParseDuration(v)
	}
	if v := os.Getenv(seedEnv); v != "" {
		seed, err2 = strconv.ParseUint(v, 0, 64)
	}
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return last, seed
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *churn) comeAndGo(ctx context.Context, w *lab.Workload, rng *rand.Rand) {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := w.Attach(try)
		if err == nil {
			c.attached.Add(1)
			sleep(ctx, time.Duration(rng.IntN(300))*time.Millisecond)
			if err = w.Detach(try); err == nil {
				c.detached.Add(1)
			}
		}
		cancel()
		if err != nil {
			c.refused.Add(1)
			sleep(ctx, 50*time.Millisecond)
		}
	}
}

func (c *churn) changePolicies(ctx context.Context, s *scene, rng *rand.Rand) {
	for ctx.Err() == nil {
		more := []int{}
		for range rng.IntN(3) {
			more = append(more, 7000+rng.IntN(50))
		}
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		if apply(try, s.Lab, policy(more...)) == nil {
			c.policies.Add(1)
		}
		cancel()
		sleep(ctx, time.Duration(rng.IntN(100))*time.Millisecond)
	}
}

// kill kills and starts again until ctx ends, and returns when all run.
func (c *churn) kill(ctx context.Context, s *scene, rng *rand.Rand) error {
	background := context.WithoutCancel(ctx)
	for i := 0; ctx.Err() == nil; i++ {
		sleep(ctx, time.Duration(rng.IntN(1500))*time.Millisecond)
		if i%3 == 1 {
			s.Store.Kill()
			c.stores.Add(1)
			if rng.IntN(2) == 0 { // an agent that starts without a store
				if err := c.killAgent(s, rng); err != nil {
					return err
				}
			}
			sleep(ctx, time.Duration(rng.IntN(1000))*time.Millisecond)
			if err := s.StartStore(background); err != nil {
				return err
			}
			continue
		}
		if err := c.killAgent(s, rng); err != nil {
			return err
		}
		// The next kill may come at any moment of the start; a time-out is a node that does not come up.
		if rng.IntN(2) == 0 {
			if err := awaitReady(background, s); err != nil {
				return err
			}
		}
	}
	return awaitReady(background, s)
}

func (c *churn) killAgent(s *scene, rng *rand.Rand) error {
	n := s.Nodes[rng.IntN(len(s.Nodes))]
	n.Agent.Kill()
	c.agents.Add(1)
	return n.StartAgent()
}

func awaitReady(ctx context.Context, s *scene) error {
	for _, n := range s.Nodes {
		if err := n.AwaitReady(ctx); err != nil {
			st, statusErr := n.Client().Status(ctx, agentapi.StatusRequest{})
			return fmt.Errorf("%w (status: %+v, %w)", err, st.Problems, statusErr)
		}
	}
	return nil
}
