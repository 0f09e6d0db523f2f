package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is where a socket is made: it runs fn on a thread inside.
type Namespace interface{ Do(fn func() error) error }

// Probing says what a Prober does.
type Probing struct {
	From, To Namespace      // of the sender and of the receiver
	Source   netip.Addr     // the sender's; invalid = what the kernel takes
	Dest     netip.AddrPort // the receiver's
	Every    time.Duration  // between datagrams; 0 = 200 us
}

// Prober sends a datagram of a new flow (from a port that has not been used for a while) every so often, and knows which
// of them arrive: that is how it sees to a fraction of a millisecond when a policy takes effect, in both directions.
type Prober struct {
	p    Probing
	rx   int // the receiver's socket
	stop atomic.Bool
	wg   sync.WaitGroup

	source atomic.Pointer[netip.Addr]
	sent   atomic.Uint64         // the number of datagrams so far
	times  [1 << 16]atomic.Int64 // when a datagram was sent, by its number (mod the size), in ns since base
	base   time.Time             // with a monotonic clock
	err    atomic.Pointer[error] // why it does not go on
	mu     sync.Mutex
	mark   uint64 // the first datagram that counts
	first  uint64 // the first that arrived of those, + 1
	last   uint64 // the last that arrived of all, + 1
	lastAt time.Time
}

// quiet is how long nothing arrives, of at least quietSent datagrams, if a policy denies them.
const (
	quiet     = 25 * time.Millisecond
	quietSent = 40
)

// StartProber starts to send. Stop ends it.
func StartProber(p Probing) (*Prober, error) {
	if p.Every == 0 {
		p.Every = 200 * time.Microsecond
	}
	pr := &Prober{p: p, base: time.Now()}
	pr.SetSource(p.Source)
	err := p.To.Do(func() (err error) {
		if pr.rx, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		tv := unix.NsecToTimeval((50 * time.Millisecond).Nanoseconds()) // so that Stop is noticed
		return errors.Join(unix.SetsockoptTimeval(pr.rx, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
			unix.Bind(pr.rx, &unix.SockaddrInet4{Port: int(p.Dest.Port())}))
	})
	if err != nil {
		return nil, fmt.Errorf("starting to probe %v: %w", p.Dest, err)
	}
	pr.wg.Go(func() { pr.fail(pr.receive()) })
	pr.wg.Go(func() { pr.fail(p.From.Do(pr.send)) })
	return pr, nil
}

// SetSource makes datagrams come from another address from now on.
func (p *Prober) SetSource(a netip.Addr) { p.source.Store(&a) }

// Stop ends the prober.
func (p *Prober) Stop() {
	p.stop.Store(true)
	p.wg.Wait()
	unix.Close(p.rx)
}

func (p *Prober) fail(err error) {
	if err != nil {
		p.err.CompareAndSwap(nil, &err)
	}
}

// send runs on a thread of its own, inside the sender's namespace.
func (p *Prober) send() error {
	to := &unix.SockaddrInet4{Port: int(p.p.Dest.Port()), Addr: p.p.Dest.Addr().As4()}
	const lowest, ports = 1024, 64000
	pause := unix.NsecToTimespec(p.p.Every.Nanoseconds())
	for n := uint64(0); !p.stop.Load(); n++ {
		from := &unix.SockaddrInet4{Port: lowest + int(n%ports)}
		if a := *p.source.Load(); a.IsValid() {
			from.Addr = a.As4()
		}
		p.times[n%uint64(len(p.times))].Store(int64(time.Since(p.base)))
		if err := sendFrom(from, to, n); err != nil {
			return fmt.Errorf("sending datagram %d: %w", n, err)
		}
		p.sent.Store(n + 1)
		_ = unix.Nanosleep(&pause, nil) // an interrupted pause is a short one
	}
	return nil
}

func sendFrom(from, to unix.Sockaddr, n uint64) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, from)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil // somebody else has the port: the next datagram has another one
	}
	if err != nil {
		return err
	}
	err = unix.Sendto(fd, binary.BigEndian.AppendUint64(nil, n), 0, to)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOBUFS) {
		return nil // that is what a denial may look like to the sender
	}
	return err
}

func (p *Prober) receive() error {
	buf := make([]byte, 64)
	for !p.stop.Load() {
		n, _, err := unix.Recvfrom(p.rx, buf, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("receiving datagrams: %w", err)
		}
		if n == 8 {
			p.arrived(binary.BigEndian.Uint64(buf))
		}
	}
	return nil
}

func (p *Prober) arrived(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first == 0 && n >= p.mark {
		p.first = n + 1
	}
	p.last, p.lastAt = max(p.last, n+1), time.Now()
}

// Mark begins a measurement: AwaitOpen sees datagrams that are sent from now on.
func (p *Prober) Mark() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark, p.first = p.sent.Load(), 0
}

// AwaitOpen waits until a datagram arrives that was sent since Mark, and returns when the first of those was sent.
func (p *Prober) AwaitOpen(ctx context.Context) (time.Time, error) {
	return p.await(ctx, "a datagram that gets through", func() (time.Time, bool) {
		if p.first == 0 {
			return time.Time{}, false
		}
		return p.sentAt(p.first - 1), true
	})
}

// AwaitShut waits until no datagram gets through any more, and returns when the first was sent that did not.
func (p *Prober) AwaitShut(ctx context.Context) (time.Time, error) {
	return p.await(ctx, "the end of the datagrams that get through", func() (time.Time, bool) {
		// p.last is the number of the first that was lost, if none arrives any more.
		if p.last == 0 {
			return p.sentAt(p.mark), p.sent.Load() > p.mark+quietSent
		}
		if time.Since(p.lastAt) < quiet || p.sent.Load() < p.last+quietSent {
			return time.Time{}, false
		}
		return p.sentAt(p.last), true
	})
}

func (p *Prober) sentAt(n uint64) time.Time {
	return p.base.Add(time.Duration(p.times[n%uint64(len(p.times))].Load()))
}

func (p *Prober) await(ctx context.Context, what string, done func() (time.Time, bool)) (time.Time, error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := p.err.Load(); err != nil {
			return time.Time{}, *err
		}
		p.mu.Lock()
		at, ok := done()
		p.mu.Unlock()
		if ok {
			return at, nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
