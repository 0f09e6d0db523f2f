package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	kerrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaseName is the name of the Lease that the leader holds.
const LeaseName = "tortie-controllers"

// Nothing that the controllers do is urgent: another one leads a few seconds after one that has ended in order, and after
// leaseDuration if it just died. Each of them asks four times a minute.
//
// Who can't renew has renewEvery and renewDeadline less than leaseDuration left for what is under way: five seconds.
const (
	leaseDuration = time.Minute
	renewDeadline = 40 * time.Second
	renewEvery    = 15 * time.Second
	// giveBackTimeout bounds giving it back: the others get it all the same, later.
	giveBackTimeout = 10 * time.Second
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

// lead runs fn whenever this process holds the lease, until ctx ends. The context of fn ends before another process can have
// the lease, if it can't be renewed; it is given back, and asked for again, only once fn has returned.
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
	var begun atomic.Bool // fn has, or it is too late for that
	done := make(chan struct{})
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: l.Namespace, Name: LeaseName},
		Client:     l.Client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: l.Identity},
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: l.duration, RenewDeadline: l.deadline, RetryPeriod: l.every, Name: LeaseName,
		// ReleaseOnCancel would be waited for before the context that is held ends: longer than the lease lasts.
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				if !begun.CompareAndSwap(false, true) {
					return
				}
				defer close(done)
				defer release()
				defer context.AfterFunc(held, stop)()
				log.Info("leading", "identity", l.Identity)
				fn(work)
				log.Info("not leading any more")
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
		if !begun.Load() { // else fn ends by itself
			release()
		}
	})()
	elector.Run(ectx)
	stop()
	if !begun.CompareAndSwap(false, true) {
		<-done
	}
	if elector.IsLeader() {
		if err := giveBack(ctx, lock); err != nil {
			log.Warn("giving back the lease; another process leads when it has run out", "err", err)
		}
	}
	return nil
}

// giveBack lets another process have the lease at once, if it still is this one's.
func giveBack(ctx context.Context, lock *resourcelock.LeaseLock) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	for {
		r, _, err := lock.Get(ctx)
		if err != nil || r.HolderIdentity != lock.Identity() {
			return err
		}
		now := metav1.Now()
		err = lock.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaseDurationSeconds: 1, AcquireTime: now, RenewTime: now, LeaderTransitions: r.LeaderTransitions,
		})
		if !kerrors.IsConflict(err) { // with a renewal of ours whose answer nobody waited for
			return err
		}
	}
}
