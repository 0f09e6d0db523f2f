package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api/selector"
)

// family is 4 or 6.
type family int

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return 4
	}
	return 6
}

func (f family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// choose returns the pools that may serve a request with an address of a family. Pools that are named serve it whatever
// their selectors and assignment mode say.
func (r *rules) choose(req *Request, f family, node string, nodeLabels map[string]string) ([]*pool, error) {
	named, err := r.named(req, f)
	if err != nil {
		return nil, err
	}
	candidates, explicit := named, len(named) > 0
	if !explicit {
		candidates = r.pools
	}
	var chosen []*pool
	var why []string
	for _, p := range candidates {
		if familyOf(p.prefix.Addr()) != f {
			continue
		}
		reason := p.refuses(req.use())
		if reason == "" && !explicit {
			reason = p.passesBy(req, node, nodeLabels)
		}
		if reason != "" {
			why = append(why, fmt.Sprintf("%s: %s", p.name, reason))
			continue
		}
		chosen = append(chosen, p)
	}
	if len(chosen) > 0 {
		return chosen, nil
	}
	switch {
	case len(why) == 0:
		return nil, fmt.Errorf("%w for %s addresses: create an IPPool", ErrNoPool, f)
	case explicit:
		return nil, fmt.Errorf("%w of those that were asked for may give an address (%s)", ErrNoPool, strings.Join(why, "; "))
	}
	return nil, fmt.Errorf("%w allows %s %s an %s address (%s): change a pool, or create one", ErrNoPool,
		req.describe(), node, f, strings.Join(why, "; "))
}

// named returns the pools of a family that a request names, by name or prefix.
func (r *rules) named(req *Request, f family) ([]*pool, error) {
	var named []*pool
	for _, want := range req.Pools {
		prefix, err := netip.ParsePrefix(want)
		i := slices.IndexFunc(r.pools, func(p *pool) bool { return p.name == want || err == nil && p.prefix == prefix.Masked() })
		if i < 0 {
			return nil, fmt.Errorf("%w named %q: see what pools there are", ErrNoPool, want)
		}
		if p := r.pools[i]; familyOf(p.prefix.Addr()) == f && !slices.Contains(named, p) {
			named = append(named, p)
		}
	}
	return named, nil
}

// refuses says why a pool can't serve a use at all, "" if it can.
func (p *pool) refuses(use string) string {
	uses := p.obj.Spec.AllowedUses
	if len(uses) == 0 {
		uses = []string{UseWorkload, UseTunnel}
	}
	switch {
	case p.disabled != "":
		return p.disabled
	case !slices.Contains(uses, use):
		return fmt.Sprintf("its allowedUses are %s, not %s", strings.Join(uses, " and "), use)
	}
	return ""
}

// passesBy says why a pool does not serve a request that does not name it, "" if it does.
func (p *pool) passesBy(req *Request, node string, nodeLabels map[string]string) string {
	switch {
	case p.obj.Spec.AssignmentMode == "Manual":
		return "its assignmentMode is Manual: ask for it by name"
	case !p.allNodes && !p.nodes.Matches(selector.Map(nodeLabels)):
		return fmt.Sprintf("its nodeSelector %s does not match node %s", p.obj.Spec.NodeSelector, node)
	case !p.allSpace && !p.namespaces.Matches(selector.Map(req.NamespaceLabels)):
		return fmt.Sprintf("its namespaceSelector %s does not match namespace %q", p.obj.Spec.NamespaceSelector, req.Owner.Namespace)
	}
	return ""
}

// holding returns the pool that may serve a request for one address.
func (r *rules) holding(req *Request, a netip.Addr) (*pool, error) {
	var why []string
	for _, p := range r.pools {
		if !p.prefix.Contains(a) {
			continue
		}
		reason := p.refuses(req.use())
		if reason == "" {
			return p, nil
		}
		why = append(why, fmt.Sprintf("%s: %s", p.name, reason))
	}
	if len(why) == 0 {
		return nil, fmt.Errorf("%w holds address %s: ask for one inside of a pool, or create a pool around it", ErrNoPool, a)
	}
	return nil, fmt.Errorf("%w may give address %s (%s)", ErrNoPool, a, strings.Join(why, "; "))
}

func names(pools []*pool) string {
	if len(pools) == 1 {
		return "pool " + pools[0].name
	}
	all := make([]string, len(pools))
	for i, p := range pools {
		all[i] = p.name
	}
	return "pools " + strings.Join(all, ", ")
}
