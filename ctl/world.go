package ctl

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// world is the State of every node, as far as it can be known: computed from objects as the agent of each node would,
// and replaced by the State that a live agent holds where one answers.
type world struct {
	objects  map[api.Key]api.Object
	names    map[api.Key]string             // of workloads, for people; see workloadNames
	plugged  map[drivers.EndpointID]api.Key // what the live agent's workloads are called in the store
	states   map[string]*drivers.State      // by node
	source   map[string]string              // where each came from, for people
	live     string                         // the node whose agent answered: this one
	infos    map[string]calcgraph.NodeInfo  // what agents have told of their nodes
	problems []string
}

// uplinkName is the host interface that a node is taken to have where nobody has looked.
const uplinkName = "eth0"

func newWorld(objects []api.Object, source string) *world {
	return newWorldWith(objects, source, func(string, int, int) {})
}

// newWorldWith is newWorld, and tells how far it is.
func newWorldWith(objects []api.Object, source string, progress func(what string, done, total int)) *world {
	w := &world{objects: map[api.Key]api.Object{}, states: map[string]*drivers.State{}, source: map[string]string{}, infos: map[string]calcgraph.NodeInfo{}}
	nodes := map[string]bool{}
	for _, o := range objects {
		w.objects[api.KeyOf(o)] = o
		switch o := o.(type) {
		case *api.Node:
			nodes[o.Name] = true
			if info, ok := calcgraph.ReadNodeInfo(o); ok {
				w.infos[o.Name] = info
			}
		case *api.WorkloadEndpoint:
			nodes[o.Spec.Node] = true
		case *api.HostEndpoint:
			nodes[o.Spec.Node] = true
		}
	}
	w.names = workloadNames(w.objects)
	names := slices.Sorted(maps.Keys(nodes))
	states, problems := make([]*drivers.State, len(names)), make([][]calcgraph.Problem, len(names))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		progress("computing nodes", i, len(names))
		g.Go(func() error {
			states[i], problems[i] = w.compute(name)
			return nil
		})
	}
	_ = g.Wait() // there are no errors
	for i, name := range names {
		w.states[name], w.source[name] = states[i], source
		for _, p := range problems[i] {
			if !slices.Contains(w.problems, p.String()) {
				w.problems = append(w.problems, p.String())
			}
		}
	}
	return w
}

// compute makes the State of one node: each WorkloadEndpoint that the store places there is taken to be plugged in. Its
// settings are those of the FelixConfigurations over what its agent has told of its own, or over the defaults.
func (w *world) compute(node string) (*drivers.State, []calcgraph.Problem) {
	config := calcgraph.Default(node)
	if info, ok := w.infos[node]; ok {
		config = info.Config
	}
	g := calcgraph.New(config)
	for key, o := range w.objects {
		g.Update(key, o)
		if wep, ok := o.(*api.WorkloadEndpoint); ok && wep.Spec.Node == node {
			g.Attached(endpointID(key, wep), ledgerEntry(key, wep))
		}
	}
	g.Host(w.interfaces(node))
	s := drivers.NewState()
	s.Merge(g.Flush(), nil)
	return s, g.Problems()
}

// endpointID is the identity that the workload's agent has in its ledger, as far as the object tells.
func endpointID(key api.Key, wep *api.WorkloadEndpoint) drivers.EndpointID {
	return drivers.EndpointID{
		Kind: drivers.Workload, Sandbox: cmp.Or(wep.Spec.ContainerID, key.Namespace+"/"+key.Name), Interface: cmp.Or(wep.Spec.Endpoint, "eth0"),
	}
}

func ledgerEntry(key api.Key, wep *api.WorkloadEndpoint) *calcgraph.LedgerEntry {
	e := &calcgraph.LedgerEntry{Name: key, UID: string(wep.UID), Iface: wep.Spec.InterfaceName}
	if e.Iface == "" {
		e.Iface = "tort:" + key.Namespace + "/" + key.Name // no interface has such a name; it only has to be unique here
	}
	if mac, err := net.ParseMAC(wep.Spec.MAC); err == nil && len(mac) == len(e.MAC) {
		copy(e.MAC[:], mac)
	}
	for _, n := range wep.Spec.IPNetworks {
		if p, err := netip.ParsePrefix(n); err == nil {
			e.Addrs = append(e.Addrs, p.Addr())
		} else if a, err := netip.ParseAddr(n); err == nil {
			e.Addrs = append(e.Addrs, a)
		}
	}
	return e
}

// interfaces returns a node's inventory: what its agent has told, or made up: eth0 with the node's addresses. The interfaces
// that host endpoints name are always there.
func (w *world) interfaces(node string) []drivers.HostIface {
	ifaces := slices.Clone(w.infos[node].Ifaces)
	if len(ifaces) == 0 {
		uplink := drivers.HostIface{Name: uplinkName, Up: true, MTU: 1500}
		if o, ok := w.objects[api.Key{Kind: "Node", Name: node}].(*api.Node); ok {
			for _, s := range []string{bgp(o).IPv4Address, bgp(o).IPv6Address} {
				if p, err := netip.ParsePrefix(s); err == nil {
					uplink.Addrs = append(uplink.Addrs, p)
				}
			}
		}
		ifaces = append(ifaces, uplink)
	}
	for _, o := range w.objects {
		h, ok := o.(*api.HostEndpoint)
		if !ok || h.Spec.Node != node || h.Spec.InterfaceName == "" || h.Spec.InterfaceName == drivers.AllHostIfaces {
			continue
		}
		if !slices.ContainsFunc(ifaces, func(i drivers.HostIface) bool { return i.Name == h.Spec.InterfaceName }) {
			ifaces = append(ifaces, drivers.HostIface{Name: h.Spec.InterfaceName, Up: true, MTU: 1500})
		}
	}
	slices.SortFunc(ifaces, func(a, b drivers.HostIface) int { return strings.Compare(a.Name, b.Name) })
	ifaces = slices.CompactFunc(ifaces, func(a, b drivers.HostIface) bool { return a.Name == b.Name })
	for i := range ifaces {
		ifaces[i].Index = i + 2
	}
	return ifaces
}

// storeWorld computes the world from everything in the store.
func storeWorld(ctx context.Context, s datastore.Store) (*world, error) {
	all, problems, err := everything(ctx, s)
	if err != nil {
		return nil, err
	}
	w := newWorld(all, "computed from the store")
	w.problems = append(problems, w.problems...)
	return w, nil
}

// everything reads the objects of all kinds. What can't be read is a problem of its own.
func everything(ctx context.Context, s datastore.Store) (all []api.Object, problems []string, err error) {
	for _, k := range api.Kinds() {
		os, err := s.List(ctx, k.Kind, "")
		switch {
		case errors.Is(err, datastore.ErrUnreadable):
			problems = append(problems, err.Error())
		case err != nil:
			return nil, nil, err
		}
		all = append(all, os...)
	}
	return all, problems, nil
}

// addLive replaces the State of the node on which an agent answers by the one that it holds.
func (env *Env) addLive(ctx context.Context, w *world) (node string, err error) {
	data, err := env.agent().State(ctx)
	if err != nil {
		return "", err
	}
	s, err := drivers.DecodeState(bytes.NewReader(data))
	if err != nil {
		return "", fmt.Errorf("reading the State of the agent: %w", err)
	}
	w.states[s.Node.Name], w.live = s, s.Node.Name
	w.source[s.Node.Name] = "as its agent holds it now"
	got, err := env.agent().List(ctx, agentapi.ListRequest{})
	if err != nil {
		w.problems = append(w.problems, fmt.Sprintf("the agent does not say what its workloads are called in the store: %v", err))
	}
	w.plugged = map[drivers.EndpointID]api.Key{}
	for _, a := range got.Attachments {
		ns, name, _ := strings.Cut(a.Endpoint, "/")
		w.plugged[drivers.EndpointID{Kind: drivers.Workload, Sandbox: a.Sandbox, Interface: a.Interface}] = api.Key{Kind: "WorkloadEndpoint", Namespace: ns, Name: name}
	}
	return s.Node.Name, nil
}

// nodeOf finds the node that an address is on: of a workload, or the node's own.
func (w *world) nodeOf(a netip.Addr) *drivers.State {
	for _, name := range slices.Sorted(maps.Keys(w.states)) {
		s := w.states[name]
		if p := s.Locate(a, uplinkName); p.Kind == drivers.PlaceWorkload || p.Kind == drivers.PlaceProcess {
			return s
		}
	}
	return nil
}
