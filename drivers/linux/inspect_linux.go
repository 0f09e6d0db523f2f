package linux

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
)

// Inspect looks for foreign base chains that end in a drop where packets of workloads pass: an accept of ours ends our
// chains only. A chain that accepts workload interfaces ahead of its end, both ways, is no problem.
func (d *Driver) Inspect(ctx context.Context) ([]drivers.ForeignProblem, error) {
	var problems []drivers.ForeignProblem
	err := d.ns.Do(func() error {
		found, err := foreignChains(ctx, d.socket, d.prefixes)
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

var familyNames = map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

// hookNames are the hooks at which packets of workloads can be dropped, and which interfaces a rule there can know.
var hookNames = map[uint32]struct {
	name    string
	in, out bool
}{
	unix.NF_INET_FORWARD:   {"forward", true, true},
	unix.NF_INET_LOCAL_IN:  {"input", true, false},
	unix.NF_INET_LOCAL_OUT: {"output", false, true},
}

// foreignChain is a base chain of somebody else.
type foreignChain struct {
	family      byte
	table, name string
	hook        uint32
	drops       bool // its policy
	rules       [][]foreignExpr
}

// foreignExpr is an expression of a rule, as the kernel dumps it: the library cannot read all that others may write.
type foreignExpr struct {
	name string
	data map[uint16][]byte
}

func foreignChains(ctx context.Context, s *socket, prefixes []string) ([]drivers.ForeignProblem, error) {
	var chains []*foreignChain
	err := s.dump(unix.NFT_MSG_GETCHAIN, unix.NFPROTO_UNSPEC, nil, func(family byte, b []byte) error {
		m := attrMap(b)
		hook, isBase := m[unix.NFTA_CHAIN_HOOK]
		if familyNames[family] == "" || !isBase || text(m[unix.NFTA_CHAIN_TYPE]) != "filter" || text(m[unix.NFTA_CHAIN_TABLE]) == TableName {
			return nil
		}
		c := &foreignChain{
			family: family, table: text(m[unix.NFTA_CHAIN_TABLE]), name: text(m[unix.NFTA_CHAIN_NAME]),
			hook: be32(attrMap(hook)[unix.NFTA_HOOK_HOOKNUM]), drops: len(m[unix.NFTA_CHAIN_POLICY]) == 4 && be32(m[unix.NFTA_CHAIN_POLICY]) == 0,
		}
		if hookNames[c.hook].name != "" {
			chains = append(chains, c)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing chains: %w", err)
	}
	var problems []drivers.ForeignProblem
	for _, c := range chains {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := c.read(s); err != nil {
			return nil, fmt.Errorf("listing chain %s %s %s: %w", familyNames[c.family], c.table, c.name, err)
		}
		what := ""
		switch {
		case c.drops:
			what = "policy drop"
		case len(c.rules) > 0 && endsInDrop(c.rules[len(c.rules)-1]):
			what = "its last rule drops everything"
		}
		hook := hookNames[c.hook]
		if what != "" && !lets(c.rules, hook.in, hook.out, prefixes) {
			problems = append(problems, problemAt(familyNames[c.family], c.table, c.name, hook.name, what, "nft insert rule", prefixes))
		}
	}
	return problems, nil
}

func (c *foreignChain) read(s *socket) error {
	var b attrBuf
	b.str(unix.NFTA_RULE_TABLE, c.table)
	b.str(unix.NFTA_RULE_CHAIN, c.name)
	return s.dump(unix.NFT_MSG_GETRULE, c.family, b, func(family byte, attrs []byte) error {
		m := attrMap(attrs)
		if family != c.family || text(m[unix.NFTA_RULE_TABLE]) != c.table || text(m[unix.NFTA_RULE_CHAIN]) != c.name {
			return nil
		}
		var rule []foreignExpr
		err := eachAttr(m[unix.NFTA_RULE_EXPRESSIONS], func(_ uint16, v []byte) error {
			e := attrMap(v)
			rule = append(rule, foreignExpr{text(e[unix.NFTA_EXPR_NAME]), attrMap(e[unix.NFTA_EXPR_DATA])})
			return nil
		})
		c.rules = append(c.rules, rule)
		return err
	})
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

// verdict is the verdict of an immediate expression.
func (e *foreignExpr) verdict() (int32, bool) {
	v, ok := attrMap(e.data[unix.NFTA_IMMEDIATE_DATA])[unix.NFTA_DATA_VERDICT]
	return int32(be32(attrMap(v)[unix.NFTA_VERDICT_CODE])), e.name == "immediate" && ok
}

// endsInDrop reports whether a rule drops whatever it meets.
func endsInDrop(rule []foreignExpr) bool {
	for i := range rule {
		switch e := &rule[i]; e.name {
		case "counter", "log", "limit":
		case "reject":
			return true
		default:
			v, ok := e.verdict()
			return ok && v == verdictCode(ActDrop)
		}
	}
	return false
}

// lets reports whether rules accept what comes from, and what goes to, interfaces of workloads.
func lets(rules [][]foreignExpr, in, out bool, prefixes []string) bool {
	for _, r := range rules {
		key, name, ok := acceptsIface(r)
		if !ok || !slices.Contains(prefixes, name) {
			continue
		}
		in = in && key != unix.NFT_META_IIFNAME
		out = out && key != unix.NFT_META_OIFNAME
	}
	return !in && !out
}

// acceptsIface reads a rule that accepts all of some interfaces: by which key, and the beginning of their names.
func acceptsIface(rule []foreignExpr) (key uint32, name string, ok bool) {
	for i := range rule {
		e := &rule[i]
		switch {
		case e.name == "counter":
		case e.name == "meta" && name == "" && e.data[unix.NFTA_META_DREG] != nil:
			key = be32(e.data[unix.NFTA_META_KEY])
		case e.name == "cmp" && name == "" && be32(e.data[unix.NFTA_CMP_OP]) == unix.NFT_CMP_EQ:
			name = text(attrMap(e.data[unix.NFTA_CMP_DATA])[unix.NFTA_DATA_VALUE])
		default:
			v, isVerdict := e.verdict()
			return key, name, isVerdict && v == verdictCode(ActAccept) && name != ""
		}
	}
	return 0, "", false
}
