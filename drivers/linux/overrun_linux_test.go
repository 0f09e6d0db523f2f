package linux

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestKickAfterOverrun: when more happens to nf_tables than the kernel keeps for the monitor, that is a kick, also if none
// of what was kept is about our tables.
func TestKickAfterOverrun(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	kicks, hold := make(chan struct{}), make(chan struct{})
	d := openDriver(t, ns, func(o *Options) {
		o.Kick = func() {
			kicks <- struct{}{}
			<-hold // a driver's kicks don't block: this is a machine that is too busy to listen
		}
	})
	t.Cleanup(func() { // whoever still kicks must not hold up Close
		close(hold)
		go func() {
			for range kicks {
			}
		}()
	})
	heard := func(what string) {
		t.Helper()
		select {
		case <-kicks:
		case <-time.After(10 * time.Second):
			t.Fatal(what)
		}
	}
	apply(t, d, smallState(), nil)
	if err := unix.SetsockoptInt(d.monitor.s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		t.Fatal(err)
	}
	sh(t, ns, "nft delete table arp tortie")
	heard("the beginning is not heard")
	// One transaction of somebody else's with many objects: its events come at once.
	var b strings.Builder
	b.WriteString("add table inet other\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "add chain inet other c%d\n", i)
	}
	sh(t, ns, "nft -f - <<'END'\n"+b.String()+"END")
	hold <- struct{}{}
	heard("events were lost, and nobody looks")
	apply(t, d, smallState(), nil)
	if err := unix.SetsockoptInt(d.monitor.s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20); err != nil {
		t.Fatal(err)
	}
	hold <- struct{}{}
	heard("nobody looks again once the queue is empty, though more was lost until then")
	hold <- struct{}{}
	sh(t, ns, "nft delete table arp tortie")
	heard("nothing is heard after an overrun")
}

// TestReadBackWhileOthersWrite resyncs while somebody else commits to nf_tables again and again, which interrupts dumps. No
// resync may fail, nor take what it reads for damage.
func TestReadBackWhileOthersWrite(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	d := openDriver(t, ns, nil)
	s := scaleState(50, 200, 20, true)
	apply(t, d, s, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var commits atomic.Int64
	wg.Go(func() {
		for ; ctx.Err() == nil; commits.Add(1) {
			_ = ns.Do(func() error {
				return exec.Command("nft", fmt.Sprintf("add table ip other%d; delete table ip other%[1]d", commits.Load())).Run()
			})
		}
	})
	before := d.Writes()
	const resyncs = 5
	for i := range resyncs {
		if err := d.Apply(ctx, s, nil); err != nil {
			t.Fatalf("resync %d, %d commits of others: %v", i, commits.Load(), err)
		}
	}
	if n := d.Writes() - before; n != 0 {
		t.Errorf("%d resyncs wrote %d objects", resyncs, n)
	}
	cancel()
	wg.Wait()
	t.Logf("%d resyncs, %d commits of others meanwhile", resyncs, commits.Load())
	if commits.Load() < 3 {
		t.Error("too little happened")
	}
}
