//go:build linux

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/netns"
	allocator "github.com/tortie/tortie/ipam"
	"github.com/tortie/tortie/test/lab"
)

// stranger4 and stranger6 are the other ends of flows that earlier owners of addresses had.
const stranger4, stranger6 = "192.0.2.99", "2001:db8::99"

func serveEcho(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

func unmarshalResult(b []byte, r *current.Result) error {
	if err := json.Unmarshal(b, r); err != nil {
		return fmt.Errorf("%w in %s", err, b)
	}
	return nil
}

// applyPools makes pools of both families.
func applyPools(t *testing.T, l *lab.Lab) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pools.yaml")
	const pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: %s}\nspec: {cidr: %q, natOutgoing: false}\n---\n"
	text := fmt.Sprintf(pool+pool, "kill-v4", "10.66.0.0/16", "kill-v6", "fd66::/64")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Tortie(t.Context(), nil, "apply", "-f", path); err != nil {
		t.Fatal(err)
	}
}

// onHost does fn in the node's namespace.
func (k *killer) onHost(fn func() error) error {
	ns, err := netns.OpenNamed(k.bed.node.Netns())
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(fn)
}

// oldFlows leaves flows in the node's table as an earlier owner of the addresses would have.
func (k *killer) oldFlows(pools bool) error {
	addrs := k.addrs
	if !pools {
		addrs = []netip.Addr{netip.MustParseAddr("10.65.1.10"), netip.MustParseAddr("fd65::1:10")}
	}
	return k.onHost(func() error {
		for _, a := range addrs {
			peer, family := netip.MustParseAddr(stranger4), netlink.InetFamily(unix.AF_INET)
			if a.Is6() {
				peer, family = netip.MustParseAddr(stranger6), unix.AF_INET6
			}
			for port, ends := range [][2]netip.Addr{{a, peer}, {peer, a}} {
				there := netlink.IPTuple{SrcIP: ends[0].AsSlice(), DstIP: ends[1].AsSlice(), SrcPort: uint16(1000 + port), DstPort: 53, Protocol: unix.IPPROTO_UDP}
				back := netlink.IPTuple{SrcIP: there.DstIP, DstIP: there.SrcIP, SrcPort: there.DstPort, DstPort: there.SrcPort, Protocol: unix.IPPROTO_UDP}
				err := netlink.ConntrackCreate(netlink.ConntrackTable, family, &netlink.ConntrackFlow{FamilyType: uint8(family), Forward: there, Reverse: back, TimeOut: 600})
				if err != nil && !errors.Is(err, unix.EEXIST) {
					return fmt.Errorf("leaving a flow: %w", err)
				}
			}
		}
		return nil
	})
}

// flows lists the node's flow table.
func (k *killer) flows() ([]string, error) {
	var out []string
	err := k.onHost(func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			fs, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return fmt.Errorf("listing flows: %w", err)
			}
			for _, f := range fs {
				out = append(out, f.String())
			}
		}
		return nil
	})
	return out, err
}

// hostState is what a node's kernel holds that workloads have to do with, in lines.
type hostState struct{ rules, routes []string }

func (k *killer) state() (hostState, error) {
	var s hostState
	err := k.onHost(func() error {
		for _, c := range []struct {
			into    *[]string
			command string
		}{
			{&s.rules, "nft -s list ruleset"},
			{&s.routes, "ip route show table all; ip -6 route show table all; ip rule; ip -6 rule"},
		} {
			out, err := exec.Command("sh", "-c", c.command).Output()
			if err != nil {
				return fmt.Errorf("%s: %w", c.command, err)
			}
			*c.into = strings.Split(string(out), "\n")
			slices.Sort(*c.into)                                       // nft lists in the order of making
			*c.into = slices.DeleteFunc(*c.into, func(s string) bool { // of the node's own addresses, which come by and by
				return strings.Contains(s, "proto kernel") && !strings.Contains(s, "tort") && len(mentions([]string{s})) == 0
			})
		}
		return nil
	})
	return s, err
}

// remember takes the node as it is, once it has routes to the blocks of all others.
func (k *killer) remember() {
	k.t.Helper()
	eventually(k.t, "routes to other nodes", func() string {
		var err error
		if k.before, err = k.state(); err != nil {
			return err.Error()
		}
		for n := range killNodes {
			for _, prefix := range []string{fmt.Sprintf("10.66.%d.", n+1), fmt.Sprintf("fd66::%d:", n+1)} {
				if !slices.ContainsFunc(k.before.routes, func(s string) bool { return strings.Contains(s, prefix) }) {
					return fmt.Sprintf("none to %s in %q", prefix, k.before.routes)
				}
			}
		}
		return ""
	})
}

// nothingLeft waits until nothing is left of c, nor of anything else on the node.
func (k *killer) nothingLeft(c *sandbox) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := k.look(c)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (k *killer) look(c *sandbox) error {
	var errs []error
	left := func(what string, things []string, err error) {
		if err != nil || len(things) > 0 {
			errs = append(errs, fmt.Errorf("left are %s %v (%v)", what, things, err))
		}
	}
	list, err := k.bed.node.Client().List(k.t.Context(), agentapi.ListRequest{})
	if err != nil || len(list.Attachments) > 0 {
		errs = append(errs, fmt.Errorf("left are attachments %v (%v)", list.Attachments, err))
	}
	for _, dir := range []string{"ledger", "notes"} {
		files, err := filepath.Glob(filepath.Join(k.bed.node.StateDir(), dir, "*"))
		left(dir, files, err)
	}
	held, err := filepath.Glob(filepath.Join(k.ipam.dir, "*[.:]*[0-9]"))
	left("addresses of the IPAM plugin", held, err)
	left("interfaces of the container", namesOf(c.ns.Name(), "eth"), nil)
	left("interfaces of the node", namesOf(k.bed.node.Netns(), "tort"), nil)
	neighs, err := exec.Command("ip", "-netns", k.bed.node.Netns(), "neigh", "show", "nud", "all").Output()
	left("neighbours", mentions(strings.Split(string(neighs), "\n")), err)
	flows, err := k.flows()
	left("flows", mentions(flows), err)
	stored, err := k.stored()
	left("in the store", stored, err)
	now, err := k.state()
	if d := cmp.Diff(k.before.routes, now.routes); d != "" || err != nil {
		errs = append(errs, fmt.Errorf("routes (%v): %s", err, d))
	}
	if d := cmp.Diff(k.before.rules, now.rules); d != "" {
		errs = append(errs, fmt.Errorf("rules: %s", d))
	}
	return errors.Join(errs...)
}

// mentions are the lines that speak of an address of the tests.
func mentions(lines []string) []string {
	return slices.DeleteFunc(lines, func(s string) bool {
		return !strings.Contains(s, "10.66.") && !strings.Contains(s, "fd66:") && !strings.Contains(s, "10.65.1.") && !strings.Contains(s, "fd65::1:")
	})
}

func namesOf(ns, prefix string) []string {
	out, err := exec.Command("ip", "-netns", ns, "-o", "link").Output()
	if err != nil {
		return []string{err.Error()}
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], prefix) {
			names = append(names, f[1])
		}
	}
	return names
}

func openStore(l *lab.Lab) (datastore.Store, error) {
	return etcd.Open(etcd.Config{Endpoints: []string{l.StoreEndpoint()}})
}

// stored is what the store holds of workloads of the node.
func (k *killer) stored() ([]string, error) {
	s, err := openStore(k.bed.lab)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var out []string
	weps, err := s.List(k.t.Context(), "WorkloadEndpoint", "")
	if err != nil {
		return nil, err
	}
	for _, o := range weps {
		if w, ok := o.(*api.WorkloadEndpoint); ok && w.Spec.Node == k.bed.node.NodeName() {
			out = append(out, api.KeyOf(w).String())
		}
	}
	blocks, err := s.List(k.t.Context(), "IPAMBlock", "")
	if err != nil {
		return nil, err
	}
	for _, o := range blocks {
		b, ok := o.(*api.IPAMBlock)
		if !ok || !netip.MustParsePrefix(b.Spec.CIDR).Contains(k.addrs[0]) && !netip.MustParsePrefix(b.Spec.CIDR).Contains(k.addrs[1]) {
			continue
		}
		for n, a := range b.Spec.Allocations {
			if a != api.Free {
				out = append(out, fmt.Sprintf("address %d of %s", n, b.Spec.CIDR))
			}
		}
	}
	return out, nil
}

// auditAddresses wants no address to be leaked, given twice or used without being given.
func auditAddresses(t *testing.T, l *lab.Lab) {
	t.Helper()
	s, err := openStore(l)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := allocator.New(allocator.Config{Store: s, Node: "auditor"}).Audit(t.Context(), allocator.AuditOptions{})
	if err != nil || len(r.Leaked)+len(r.Missing)+len(r.Double)+len(r.Objects) > 0 || r.Used > 0 || r.Allocated > 0 {
		t.Errorf("%+v %v", r, err)
	}
}
