package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
	"github.com/tortie/tortie/datastore"
)

const (
	// createdBy is the label of automatic host endpoints, and nothing without it is touched. It is the one that Calico
	// gives them, so that policies that select it go on, and so do the objects themselves.
	createdBy      = "projectcalico.org/created-by"
	createdByUs    = "calico-kube-controllers"
	autoHostSuffix = "-auto-hep"
)

// hostEndpoints keeps the automatic host endpoints as the configuration and the nodes say.
type hostEndpoints struct {
	w      *world
	config *config
	store  datastore.Store
}

func (h *hostEndpoints) part() part {
	return part{
		name: "host endpoints", step: h.step, needs: h.w.sees, every: h.config.every,
		kinds: []string{"Node", "HostEndpoint", "KubeControllersConfiguration"},
	}
}

func (h *hostEndpoints) step(ctx context.Context) error {
	nodes, err := listed[*api.Node](h.w, "Node")
	if err != nil {
		return err // the endpoint of a node that can't be read stays
	}
	stored, err := listed[*api.HostEndpoint](h.w, "HostEndpoint")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return err
	}
	s, known, err := h.config.look()
	if !known {
		return err // it does not say that there are to be none
	}
	errs := []error{err}
	want, bad := wanted(nodes, s.hostEndpoints)
	errs = append(errs, bad...)
	have := map[string]*api.HostEndpoint{}
	for _, o := range stored {
		have[o.Name] = o
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		errs = append(errs, h.write(ctx, want[name], have[name]))
	}
	if len(bad) > 0 {
		return errors.Join(errs...) // what such a template has made stays
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if o := have[name]; want[name] == nil && o.Labels[createdBy] == createdByUs && o.DeletionTimestamp == nil {
			errs = append(errs, ignoreRaces(h.store.Delete(ctx, api.KeyOf(o), o.ResourceVersion)))
		}
	}
	return errors.Join(errs...)
}

// wanted returns the host endpoints that there are to be, by name, and what is wrong with their templates.
func wanted(nodes []*api.Node, c *api.AutoHostEndpoints) (map[string]*api.HostEndpoint, []error) {
	want, bad := map[string]*api.HostEndpoint{}, map[string]error{} // by their texts: mostly a template is wrong for all nodes
	if c == nil {
		return want, nil
	}
	for _, n := range nodes {
		made, errs := automatic(n, c)
		for _, o := range made {
			want[o.Name] = o
		}
		for _, err := range errs {
			bad[err.Error()] = err
		}
	}
	var errs []error
	for _, text := range slices.Sorted(maps.Keys(bad)) {
		errs = append(errs, bad[text])
	}
	return want, errs
}

// write creates an endpoint, or changes the one that there is.
func (h *hostEndpoints) write(ctx context.Context, want, have *api.HostEndpoint) error {
	if have == nil {
		_, err := h.store.Create(ctx, want)
		if errors.Is(err, datastore.ErrExists) {
			return fmt.Errorf("%w, and can't be read or was not made for its node automatically", err)
		}
		return err
	}
	if have.Labels[createdBy] != createdByUs {
		return fmt.Errorf("%v is somebody's own: there is no automatic host endpoint beside it", api.KeyOf(have))
	}
	if maps.Equal(want.Labels, have.Labels) && reflect.DeepEqual(want.Spec, have.Spec) {
		return nil
	}
	o := api.DeepCopy(have).(*api.HostEndpoint)
	o.Labels, o.Spec = want.Labels, want.Spec
	_, err := h.store.Update(ctx, o)
	return ignoreRaces(err)
}

// ignoreRaces takes a lost race for nothing to do: the watch tells what came of it, and that is another step.
func ignoreRaces(err error) error {
	if errors.Is(err, datastore.ErrConflict) || errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	return err
}

// automatic returns the host endpoints of a node, and which templates can't be read.
func automatic(n *api.Node, c *api.AutoHostEndpoints) ([]*api.HostEndpoint, []error) {
	var out []*api.HostEndpoint
	var errs []error
	all := nodeAddresses(n)
	if c.CreateDefaultHostEndpoint != "Disabled" && len(all) > 0 {
		o := hostEndpoint(n, n.Name+autoHostSuffix, nil)
		o.Spec.InterfaceName, o.Spec.ExpectedIPs = "*", texts(all)
		out = append(out, o)
	}
	for i := range c.Templates {
		made, err := fromTemplate(n, &c.Templates[i], all)
		if err != nil {
			errs = append(errs, fmt.Errorf("KubeControllersConfiguration/%s: spec.controllers.node.hostEndpoint.templates[%d].%w",
				api.DefaultConfiguration, i, err))
		}
		out = append(out, made...)
	}
	return out, errs
}

// fromTemplate makes those of a template: one with the addresses that are in its prefixes, or with a pattern one for each
// interface that fits.
func fromTemplate(n *api.Node, t *api.HostEndpointTemplate, all []netip.Addr) ([]*api.HostEndpoint, error) {
	if t.NodeSelector != "" {
		sel, err := selector.Parse(t.NodeSelector)
		if err != nil {
			return nil, fmt.Errorf("nodeSelector: %w", err)
		}
		if !sel.Matches(selector.Map(n.Labels)) {
			return nil, nil
		}
	}
	name := n.Name + "-" + t.GenerateName
	if t.InterfacePattern == "" {
		within, err := inside(all, t.InterfaceCIDRs)
		if err != nil || len(within) == 0 {
			return nil, err
		}
		o := hostEndpoint(n, name+autoHostSuffix, t.Labels)
		o.Spec.ExpectedIPs = texts(within)
		return []*api.HostEndpoint{o}, nil
	}
	pattern, err := regexp.Compile(t.InterfacePattern)
	if err != nil {
		return nil, fmt.Errorf("interfacePattern: %w", err)
	}
	var out []*api.HostEndpoint
	for _, i := range n.Spec.Interfaces {
		within, err := inside(addresses(i.Addresses...), t.InterfaceCIDRs)
		if err != nil {
			return nil, err
		}
		if !pattern.MatchString(i.Name) || len(t.InterfaceCIDRs) > 0 && len(within) == 0 {
			continue
		}
		o := hostEndpoint(n, name+"-"+i.Name+autoHostSuffix, t.Labels)
		o.Spec.InterfaceName, o.Spec.ExpectedIPs = i.Name, texts(within)
		out = append(out, o)
	}
	return out, nil
}

// inside returns the addresses that are in one of the prefixes; without prefixes all of them.
func inside(all []netip.Addr, cidrs []string) ([]netip.Addr, error) {
	if len(cidrs) == 0 {
		return all, nil
	}
	var out []netip.Addr
	for _, c := range cidrs {
		p, err := api.ParsePrefix(c)
		if err != nil {
			return nil, fmt.Errorf("interfaceCIDRs: %w", err)
		}
		for _, a := range all {
			if p.Contains(a) && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

func hostEndpoint(n *api.Node, name string, labels map[string]string) *api.HostEndpoint {
	o := &api.HostEndpoint{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "HostEndpoint"}}
	o.Name = nameable(name)
	o.Labels = map[string]string{}
	maps.Copy(o.Labels, n.Labels)
	// A kubelet labels its own Node: it must not say that the node's addresses are those of a pod.
	maps.DeleteFunc(o.Labels, func(name, _ string) bool { return api.ReservedLabel(name) })
	maps.Copy(o.Labels, labels)
	o.Labels[createdBy] = createdByUs
	o.Spec.Node, o.Spec.Profiles = n.Name, []string{api.DefaultAllowProfile}
	return o
}

// nameable replaces what must not be in a name: names of interfaces may have anything.
func nameable(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

// nodeAddresses returns all addresses that a node is known by, those of its tunnels included, sorted.
func nodeAddresses(n *api.Node) []netip.Addr {
	all := tunnelAddresses(n)
	if n.Spec.BGP != nil {
		all = append(all, addresses(n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address)...)
	}
	for _, a := range n.Spec.Addresses {
		all = append(all, addresses(a.Address)...)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

func texts(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
