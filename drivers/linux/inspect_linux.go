package linux

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
)

// Inspect looks for foreign base chains that end in a drop where packets of workloads pass: an accept of ours ends our
// chains only. A chain that accepts workload interfaces ahead of its end, both ways, is no problem.
func (d *Driver) Inspect(ctx context.Context) ([]drivers.ForeignProblem, error) {
	var problems []drivers.ForeignProblem
	err := d.ns.Do(func() error {
		found, err := foreignChains(ctx, d.prefixes)
		if err != nil {
			return err
		}
		legacy, err := legacyChains(d.prefixes)
		problems = append(found, legacy...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for foreign rules: %w", err)
	}
	return problems, nil
}

var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
}

// hookNames are the hooks at which packets of workloads can be dropped, and which interfaces a rule there can know.
var hookNames = map[nftables.ChainHook]struct {
	name    string
	in, out bool
}{
	unix.NF_INET_FORWARD:   {"forward", true, true},
	unix.NF_INET_LOCAL_IN:  {"input", true, false},
	unix.NF_INET_LOCAL_OUT: {"output", false, true},
}

func foreignChains(ctx context.Context, prefixes []string) ([]drivers.ForeignProblem, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("listing chains: %w", err)
	}
	var problems []drivers.ForeignProblem
	for _, c := range chains {
		family, known := familyNames[c.Table.Family]
		if !known || c.Hooknum == nil || c.Type != nftables.ChainTypeFilter || c.Table.Name == TableName {
			continue
		}
		hook, known := hookNames[*c.Hooknum]
		if !known {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, fmt.Errorf("listing chain %s %s %s: %w", family, c.Table.Name, c.Name, err)
		}
		what := ""
		switch {
		case c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop:
			what = "policy drop"
		case len(rules) > 0 && endsInDrop(rules[len(rules)-1]):
			what = "its last rule drops everything"
		}
		if what == "" || lets(rules, hook.in, hook.out, prefixes) {
			continue
		}
		problems = append(problems, problemAt(family, c.Table.Name, c.Name, hook.name, what, "nft insert rule", prefixes))
	}
	return problems, nil
}

// problemAt words a problem, with the commands that mend it.
func problemAt(family, table, chain, hook, what, command string, prefixes []string) drivers.ForeignProblem {
	var mend []string
	for _, p := range prefixes {
		in, out := fmt.Sprintf("iifname %q accept", p+"*"), fmt.Sprintf("oifname %q accept", p+"*")
		at := fmt.Sprintf("%s %s %s %s ", command, family, table, chain)
		if strings.HasPrefix(command, "ip") {
			in, out = fmt.Sprintf("-i %s+ -j ACCEPT", p), fmt.Sprintf("-o %s+ -j ACCEPT", p)
			at = fmt.Sprintf("%s -I %s ", command, chain)
		}
		if hook != "output" {
			mend = append(mend, at+in)
		}
		if hook != "input" {
			mend = append(mend, at+out)
		}
	}
	return drivers.ForeignProblem{
		Where: fmt.Sprintf("table %s %s, chain %s", family, table, chain),
		What:  fmt.Sprintf("%s at the %s hook stops packets of workloads that policy allows", what, hook),
		Mend:  strings.Join(mend, "; "),
	}
}

// endsInDrop reports whether a rule drops whatever it meets.
func endsInDrop(r *nftables.Rule) bool {
	for i, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log, *expr.Limit:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop && i == len(r.Exprs)-1
		default:
			return false
		}
	}
	return false
}

// lets reports whether rules accept what comes from, and what goes to, interfaces of workloads.
func lets(rules []*nftables.Rule, in, out bool, prefixes []string) bool {
	for _, r := range rules {
		key, name, ok := acceptsIface(r)
		for _, p := range prefixes {
			if !ok || name != p {
				continue
			}
			in = in && key != expr.MetaKeyIIFNAME
			out = out && key != expr.MetaKeyOIFNAME
		}
	}
	return !in && !out
}

// acceptsIface reads a rule that accepts all of some interfaces: by which key, and the beginning of their names.
func acceptsIface(r *nftables.Rule) (key expr.MetaKey, name string, ok bool) {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter:
		case *expr.Meta:
			if name != "" || e.SourceRegister {
				return 0, "", false
			}
			key = e.Key
		case *expr.Cmp:
			if e.Op != expr.CmpOpEq || name != "" {
				return 0, "", false
			}
			name = strings.TrimRight(string(e.Data), "\x00")
		case *expr.Verdict:
			return key, name, e.Kind == expr.VerdictAccept && name != ""
		default:
			return 0, "", false
		}
	}
	return 0, "", false
}
