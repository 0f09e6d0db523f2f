package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// kernelHarness runs the nftables driver in a world of its own, with real packets.
type kernelHarness struct {
	*world
	wire     *wire
	flows    *flowTable
	log      *slog.Logger
	features drivers.Features // of this kernel, once a driver has found out
	limits   limits           // of merging
	driver   *Driver
	written  int // by earlier drivers

	asked  time.Duration    // grows by an hour with each look at the clock
	fault  drivertest.Fault // Write is counted down
	failed map[string]bool
}

var _ drivertest.Harness = (*kernelHarness)(nil)

// newKernelHarness builds the topology; it goes with the test.
func newKernelHarness(t testing.TB) *kernelHarness {
	t.Helper()
	netnstest.NeedRoot(t)
	for _, tool := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs the program %s (Debian: nftables, iproute2): %v", tool, err)
		}
	}
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	h := &kernelHarness{world: w, log: slog.New(slog.DiscardHandler)}
	if h.wire, err = openWire(w); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.wire.close)
	if h.flows, err = openFlowTable(w.node.Ns()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.flows.close)
	return h
}

// Open starts a driver.
func (h *kernelHarness) Open(ctx context.Context, fresh bool) (drivers.Driver, error) {
	h.written, h.driver = h.Writes(), nil
	if fresh {
		if err := h.clear(); err != nil {
			return nil, err
		}
	}
	d, err := Open(ctx, Options{
		Netns: h.node.Ns().Path(), Options: drivers.Options{Log: h.log, Clock: h.clock}, refuse: h.refuse, features: h.features, limits: h.limits,
	})
	if err != nil {
		return nil, err
	}
	h.driver, h.features = d, d.Features()
	return d, nil
}

// clock makes hours pass between Applies: what the driver has put off is due by the next one.
func (h *kernelHarness) clock() time.Time {
	h.asked += time.Hour
	return time.Unix(0, 0).Add(h.asked)
}

// clear removes what a driver made, without the driver's help.
func (h *kernelHarness) clear() error {
	tables, err := h.tables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		h.flows.nft.DelTable(t)
	}
	if err := h.flows.nft.Flush(); err != nil {
		return fmt.Errorf("deleting the driver's tables: %w", err)
	}
	rs, err := h.node.Routes(RouteProtocol)
	if err != nil {
		return err
	}
	for _, r := range rs {
		if err := h.node.DeleteRoute(r); err != nil {
			return err
		}
	}
	ns, err := h.node.Neighs(0)
	if err != nil {
		return err
	}
	for _, n := range ns {
		if n.Protocol != RouteProtocol {
			continue
		}
		if err := h.node.DeleteNeigh(n); err != nil {
			return err
		}
	}
	return nil
}

// Verdict sends packets.
func (h *kernelHarness) Verdict(ctx context.Context, ps []drivertest.Probe) ([]drivertest.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var out []drivertest.Result
	for _, run := range apart(ps) {
		rs, err := h.probe(run)
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	return out, nil
}

// probe brings the state of the flow table about and sends the probes.
func (h *kernelHarness) probe(ps []drivertest.Probe) ([]drivertest.Result, error) {
	if err := h.flows.forget(); err != nil {
		return nil, err
	}
	added, err := h.addNeighs(ps)
	if err != nil {
		return nil, err
	}
	gs := h.wire.tag(ps)
	if err := h.flows.prepare(gs); err != nil {
		return nil, err
	}
	rs, err := h.wire.run(gs)
	return rs, errors.Join(err, h.deleteNeighs(added))
}

// apart splits probes, in order, into runs in which no two flows of protocols without ports have an address in common.
// Flows that differ in their source only meet after masquerading: there is no port that could tell them apart then, and
// the kernel drops the second one.
func apart(ps []drivertest.Probe) [][]drivertest.Probe {
	type end struct {
		proto uint8
		addr  netip.Addr
	}
	var out [][]drivertest.Probe
	seen, first := map[end]bool{}, 0
	for i, p := range ps {
		pk := p.Packet
		if pk.ARP || pk.SrcPort != 0 || pk.Proto == protoICMP || pk.Proto == protoICMPv6 {
			continue
		}
		src, dst := end{pk.Proto, pk.Src}, end{pk.Proto, pk.Dst}
		if seen[src] || seen[dst] {
			out, first = append(out, ps[first:i]), i
			clear(seen)
		}
		seen[src], seen[dst] = true, true
	}
	return append(out, ps[first:])
}

// Writes counts what all drivers have written.
func (h *kernelHarness) Writes() int {
	if h.driver == nil {
		return h.written
	}
	return h.written + h.driver.Writes()
}

// Fail makes a write fail and each try to write the same again, as it would be if the kernel had no memory for it, or every
// write of an object.
func (h *kernelHarness) Fail(f drivertest.Fault) { h.fault, h.failed = f, map[string]bool{} }

// refuse is what the driver asks before each write.
func (h *kernelHarness) refuse(o drivers.ObjectRef, what string) error {
	if o == h.fault.Refuse && o != (drivers.ObjectRef{}) {
		return fmt.Errorf("refused by the harness: %w", unix.EINVAL)
	}
	key := o.String() + " " + what
	if h.fault.Write > 0 {
		if h.fault.Write--; h.fault.Write == 0 {
			h.failed[key] = true
		}
	}
	if h.failed[key] {
		return fmt.Errorf("failed by the harness: %w", unix.ENOMEM)
	}
	return nil
}
