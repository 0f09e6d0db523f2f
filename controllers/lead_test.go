package controllers

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// hanging is a client of Leases whose requests are not answered while it is cut.
type hanging struct {
	coordinationv1client.LeasesGetter
	cut *atomic.Bool
}

func (h hanging) Leases(namespace string) coordinationv1client.LeaseInterface {
	return hangingLeases{h.LeasesGetter.Leases(namespace), h.cut}
}

type hangingLeases struct {
	coordinationv1client.LeaseInterface
	cut *atomic.Bool
}

func (h hangingLeases) wait(ctx context.Context) error {
	for h.cut.Load() && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return ctx.Err()
}

func (h hangingLeases) Get(ctx context.Context, name string, o metav1.GetOptions) (*coordinationv1.Lease, error) {
	if err := h.wait(ctx); err != nil {
		return nil, err
	}
	return h.LeaseInterface.Get(ctx, name, o)
}

func (h hangingLeases) Update(ctx context.Context, l *coordinationv1.Lease, o metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if err := h.wait(ctx); err != nil {
		return nil, err
	}
	return h.LeaseInterface.Update(ctx, l, o)
}

// TestLeaseThatIsLost has the leader's requests hang: it stops before another process leads, and leads again later. A leader
// that ends lets the other one lead at once, but not before its work is done.
func TestLeaseThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset().CoordinationV1()
		var leaders atomic.Int32
		type process struct {
			cut     atomic.Bool
			leading atomic.Bool
			began   atomic.Int64
			stop    context.CancelFunc
			done    chan struct{}
		}
		lingering := 3 * time.Second
		start := func(id string) *process {
			p := &process{done: make(chan struct{})}
			ctx, cancel := context.WithCancel(t.Context())
			p.stop = cancel
			// It looks often: it sees that a lease has run out just then.
			l := &Lease{Client: hanging{client, &p.cut}, Namespace: "tortie-system", Identity: id,
				duration: leaseDuration, deadline: renewDeadline, every: renewEvery}
			if id == "b" {
				l.every = time.Second
			}
			go func() {
				defer close(p.done)
				err := l.lead(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) {
					if leaders.Add(1) > 1 {
						t.Errorf("%s leads, and another one still does", id)
					}
					p.began.Store(time.Now().UnixNano())
					p.leading.Store(true)
					<-ctx.Done()
					time.Sleep(lingering)
					p.leading.Store(false)
					leaders.Add(-1)
				})
				if err != nil {
					t.Error(err)
				}
			}()
			return p
		}
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		a := start("a")
		pass(time.Second)
		b := start("b")
		pass(10 * time.Minute)
		if !a.leading.Load() || b.leading.Load() {
			t.Fatal("a does not lead alone")
		}
		a.cut.Store(true)
		pass(2 * leaseDuration)
		if a.leading.Load() || !b.leading.Load() {
			t.Fatal("b does not lead alone")
		}
		a.cut.Store(false)
		pass(time.Minute)
		ended := time.Now()
		b.stop()
		<-b.done
		pass(4 * renewEvery) // it asks at least that often
		if !a.leading.Load() || time.Unix(0, a.began.Load()).Sub(ended) < lingering {
			t.Error("a does not lead after b, or too early")
		}
		// What can't be given back does not keep the process from its end.
		a.cut.Store(true)
		ended = time.Now()
		a.stop()
		<-a.done
		if d := time.Since(ended); d > lingering+giveBackTimeout {
			t.Errorf("the end took %v", d)
		}
		if leaders.Load() != 0 {
			t.Error("somebody still leads")
		}
	})
}
