package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaseName is the name of the Lease that the leader holds.
const LeaseName = "tortie-controllers"

// Nothing that the controllers do is urgent: another one leads a few seconds after one that has ended in order, and after
// leaseDuration if it just died. Each of them asks four times a minute.
const (
	leaseDuration = time.Minute
	renewDeadline = 40 * time.Second
	renewEvery    = 15 * time.Second
)

// Lease says which Lease the leader holds.
type Lease struct {
	Client    coordinationv1client.LeasesGetter
	Namespace string
	Identity  string // of this process

	duration, deadline, every time.Duration // of tests; 0 = as above
}

func (l *Lease) withDefaults() Lease {
	c := *l
	if c.duration == 0 {
		c.duration, c.deadline, c.every = leaseDuration, renewDeadline, renewEvery
	}
	return c
}

// lead runs fn whenever this process holds the lease, until ctx ends. The context of fn ends when it is lost; the lease is
// given back, and asked for again, only once fn has returned.
func (l *Lease) lead(ctx context.Context, log *slog.Logger, fn func(context.Context)) error {
	c := l.withDefaults()
	for ctx.Err() == nil {
		if err := c.term(ctx, log, fn); err != nil {
			return err
		}
	}
	return nil
}

// term waits for the lease and holds it while fn runs.
func (l *Lease) term(ctx context.Context, log *slog.Logger, fn func(context.Context)) error {
	// The elector's own context outlives ctx: the lease is let go when the work is done, not before.
	ectx, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	work, stop := context.WithCancel(ctx)
	defer stop()
	started, done := make(chan struct{}), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: l.Namespace, Name: LeaseName},
			Client:     l.Client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: l.Identity},
		},
		LeaseDuration: l.duration, RenewDeadline: l.deadline, RetryPeriod: l.every, ReleaseOnCancel: true, Name: LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				close(started)
				defer close(done)
				defer release()
				defer context.AfterFunc(held, stop)()
				log.Info("leading", "identity", l.Identity)
				fn(work)
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(id string) {
				if id != l.Identity {
					log.Info("another process leads", "leader", id)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("electing a leader: %w", err)
	}
	defer context.AfterFunc(ctx, func() {
		select {
		case <-started: // fn ends by itself
		default:
			release()
		}
	})()
	elector.Run(ectx)
	stop()
	select {
	case <-started:
		<-done
		log.Info("not leading any more")
	default:
	}
	return nil
}
