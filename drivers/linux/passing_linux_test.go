package linux

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// short is a kernel that has no room for a while: it refuses what is about one policy.
type short struct {
	kernel
	err   error
	whole bool // it blames no message

	tries int
}

func (k *short) commit(ops []op, dry bool) error {
	k.tries++
	for i := range ops {
		if k.err == nil || ops[i].owner().Kind != drivers.ObjPolicy {
			continue
		}
		if k.whole {
			return &refusedOps{err: k.err}
		}
		return &refusedOps{ops: map[int]error{i: fmt.Errorf("%s: %w", ops[i].String(), k.err)}}
	}
	return k.kernel.commit(ops, dry)
}

// TestPassingErrors: an error that is about the moment fails the Apply as a whole. It is no object's fault, nothing is
// searched for, and nobody is put on a stand-in.
func TestPassingErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns, other := netnstest.New(t), netnstest.New(t)
	apply(t, openDriver(t, other, nil), smallState(), nil)
	want := nftDump(t, other)
	for _, err := range []error{unix.ENOMEM, unix.ENOBUFS, unix.EINTR, unix.EAGAIN} {
		for _, whole := range []bool{false, true} {
			d := openDriver(t, ns, nil)
			k := &short{kernel: d.kernel, err: err, whole: whole}
			d.kernel = k
			s := smallState()
			got := d.Apply(ctx, s, nil)
			var partly *drivers.ApplyError
			if !errors.Is(got, err) || errors.As(got, &partly) {
				t.Fatalf("%v (of the whole: %v): got %v", err, whole, got)
			}
			if k.tries != 1 || len(d.quarantine) != 0 {
				t.Errorf("%v (of the whole: %v): %d tries, %d objects in quarantine", err, whole, k.tries, len(d.quarantine))
			}
			k.err = nil
			ch := drivers.NewChanges()
			ch.AfterError()
			apply(t, d, s, ch)
			if diff := cmp.Diff(want, nftDump(t, ns)); diff != "" {
				t.Errorf("%v (of the whole: %v): after the next Apply: %s", err, whole, diff)
			}
			if err := d.Clean(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestPassingErrorOfARoute: so it is with routes.
func TestPassingErrorOfARoute(t *testing.T) {
	t.Parallel()
	var fail error = unix.ENOBUFS
	d := openDriver(t, netnstest.New(t), func(o *Options) {
		o.refuse = func(drivers.ObjectRef, string) error { return nil }
	})
	d.routes.write = func(string) error { return fail }
	s := smallState()
	dst := prefix("10.99.0.0/24")
	s.Routes[dst] = &drivers.Route{Dst: dst, Kind: drivers.RouteBlackhole}
	var partly *drivers.ApplyError
	if err := d.Apply(context.Background(), s, nil); !errors.Is(err, fail) || errors.As(err, &partly) {
		t.Fatalf("got %v", err)
	}
	fail = unix.EINVAL
	if err := d.Apply(context.Background(), s, nil); !errors.As(err, &partly) {
		t.Fatalf("got %v", err)
	}
	fail = nil
	apply(t, d, s, nil)
}
