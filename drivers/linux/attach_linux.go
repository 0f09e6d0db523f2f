package linux

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns"
)

// The link between a workload and its node is the same everywhere, so that a workload that moves finds what it left.
var (
	// hostMAC is the Ethernet address of the node's end.
	hostMAC = drivers.MAC{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}

	// gateway4 and gateway6 are the next hops of the workload's default routes. The node's end bears both, so the
	// kernel answers for them whatever else the host can route: proxy ARP would need a route to 169.254.1.1. The
	// IPv4 one has the scope "host": the kernel then never chooses it as the source of what the node sends to the
	// workload, and answers ARP for it still, also with arp_ignore=1 as kube-proxy sets it.
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

const (
	defaultMTU = 1500
	minMTU6    = 1280
	maxIfname  = 15

	// Inside a workload: the tables of second interfaces, and the place of the rules that lead to them, before the main
	// table's.
	tableBase    = 84000
	rulePriority = 8400
)

// attacher plugs workloads in with a veth pair each. It implements drivers.Attacher.
type attacher struct {
	host    *linuxnet.Conn
	log     *slog.Logger
	nodeMTU atomic.Int64
	locks   keyLocks // by host interface
}

func newAttacher(host *linuxnet.Conn, log *slog.Logger) *attacher {
	return &attacher{host: host, log: log}
}

// setMTU sets the MTU of attachments that name none; 0 = the default.
func (t *attacher) setMTU(mtu int) { t.nodeMTU.Store(int64(mtu)) }

// Attach makes the pair of interfaces, addresses and default routes of a workload.
func (t *attacher) Attach(ctx context.Context, a drivers.Attachment) (drivers.Attached, error) {
	defer t.locks.lock(a.HostIface)()
	l, err := t.open(a)
	if err != nil {
		return drivers.Attached{}, fmt.Errorf("attaching %s: %w", nameOf(a.ID), err)
	}
	defer l.close()
	made, err := l.makePair()
	if err == nil {
		err = l.mend(ctx)
	}
	if err != nil {
		err = fmt.Errorf("attaching %s: %w", nameOf(a.ID), err)
		if made {
			err = errors.Join(err, t.host.DeleteLink(a.HostIface))
		}
		return drivers.Attached{}, err
	}
	t.log.Debug("workload attached", "sandbox", a.ID.Sandbox, "interface", a.ID.Interface, "host_interface", a.HostIface, "made", made)
	return drivers.Attached{HostIface: a.HostIface, HostMAC: hostMAC, MAC: l.a.MAC, MTU: l.a.MTU, Gateways: l.gateways(), Made: made}, nil
}

// Detach removes the workload's interface.
func (t *attacher) Detach(ctx context.Context, a drivers.Attachment) error {
	defer t.locks.lock(a.HostIface)()
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := t.host.Link(a.HostIface)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("detaching %s: %w", nameOf(a.ID), err)
	}
	// No alias: an Attach that was killed in its first moments.
	if h.Type != "veth" || h.Alias != "" && h.Alias != alias(a.ID) {
		return fmt.Errorf("detaching %s: %w", nameOf(a.ID), notOurs(h))
	}
	if err := t.host.DeleteLink(a.HostIface); err != nil {
		return fmt.Errorf("detaching %s: %w", nameOf(a.ID), err)
	}
	return nil
}

// Check names each difference from what Attach would make.
func (t *attacher) Check(ctx context.Context, a drivers.Attachment) error {
	defer t.locks.lock(a.HostIface)()
	l, err := t.open(a)
	if err != nil {
		return fmt.Errorf("checking %s: %w", nameOf(a.ID), err)
	}
	defer l.close()
	paired, err := l.findPair()
	if err == nil && !paired {
		err = fmt.Errorf("interface %s is missing", a.HostIface)
	}
	if err != nil {
		return fmt.Errorf("checking %s: %w", nameOf(a.ID), err)
	}
	if err := l.survey(); err != nil {
		return fmt.Errorf("checking %s: %w", nameOf(a.ID), err)
	}
	var errs []error
	for _, s := range l.steps() {
		if s.lax {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		diff, err := s.diff()
		if err != nil {
			errs = append(errs, fmt.Errorf("checking %s of %s: %w", s.what, nameOf(a.ID), err))
		} else if diff != "" {
			errs = append(errs, fmt.Errorf("checking %s: %s: %s", nameOf(a.ID), s.what, diff))
		}
	}
	return errors.Join(errs...)
}

// open completes a and opens both namespaces.
func (t *attacher) open(a drivers.Attachment) (*link, error) {
	if err := validate(a); err != nil {
		return nil, err
	}
	if a.MTU == 0 {
		a.MTU = int(t.nodeMTU.Load())
	}
	if a.MTU == 0 {
		a.MTU = defaultMTU
	}
	for _, ip := range a.Addrs {
		// Below it the kernel takes IPv6 off an interface.
		if ip.Is6() && a.MTU < minMTU6 {
			return nil, fmt.Errorf("an MTU of %d is too small for IPv6 address %s", a.MTU, ip)
		}
	}
	if a.MAC == (drivers.MAC{}) {
		a.MAC = macOf(a.ID)
	}
	ns, err := netns.Open(a.Netns)
	if err != nil {
		return nil, err
	}
	if same, err := ns.Same(t.host.Ns()); err != nil || same {
		ns.Close()
		return nil, errors.Join(err, fmt.Errorf("network namespace %s is the node's own", a.Netns))
	}
	in, err := linuxnet.Open(ns)
	if err != nil {
		ns.Close()
		return nil, err
	}
	return &link{a: a, host: t.host, in: in}, nil
}

func validate(a drivers.Attachment) error {
	for _, n := range []string{a.HostIface, a.ID.Interface} {
		if n == "" || len(n) > maxIfname || strings.ContainsAny(n, "/: \t\n") || n == "." || n == ".." {
			return fmt.Errorf("%q is no name of an interface", n)
		}
	}
	if a.ID.Sandbox == "" {
		return errors.New("no sandbox")
	}
	if len(a.Addrs) == 0 {
		return errors.New("no addresses")
	}
	for _, ip := range a.Addrs {
		if !ip.IsGlobalUnicast() || ip.Is4In6() || ip.Zone() != "" {
			return fmt.Errorf("%s cannot be the address of a workload", ip)
		}
	}
	if a.MAC[0]&1 != 0 {
		return fmt.Errorf("MAC %x is a group's", a.MAC[:])
	}
	return nil
}

// macOf makes the MAC of a workload that asks for none: the same one each time, locally administered.
func macOf(id drivers.EndpointID) drivers.MAC {
	h := sha256.Sum256([]byte("mac\x00" + id.Sandbox + "\x00" + id.Interface))
	m := drivers.MAC(h[:6])
	m[0] = m[0]&^1 | 2
	return m
}

// alias is what the node's end of a workload's link bears, to tell whose it is.
func alias(id drivers.EndpointID) string {
	s := "tortie " + nameOf(id)
	if len(s) > 250 { // the kernel takes 255
		h := sha256.Sum256([]byte(s))
		s = "tortie sha256:" + hex.EncodeToString(h[:])
	}
	return s
}

func nameOf(id drivers.EndpointID) string { return id.Sandbox + "/" + id.Interface }

func notOurs(h linuxnet.Link) error {
	return fmt.Errorf("interface %s belongs to something else (%s, alias %q)", h.Name, h.Type, h.Alias)
}

// keyLocks is a lock for each key.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	mu    sync.Mutex
	users int
}

// lock takes the lock of key and returns the function that gives it back.
func (k *keyLocks) lock(key string) func() {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyLock{}
	}
	l := k.held[key]
	if l == nil {
		l = &keyLock{}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
}
