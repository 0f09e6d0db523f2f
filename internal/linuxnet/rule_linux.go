package linuxnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Rule sends the packets of an address, or those that are to leave by an interface, to a routing table.
type Rule struct {
	From     netip.Prefix // invalid = any
	OutName  string       // of the interface; "" = any
	V6       bool
	Table    int
	Priority int // the lowest comes first; the main table's is 32766
}

// Rules lists the rules of a priority.
func (c *Conn) Rules(priority int) ([]Rule, error) {
	var out []Rule
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		rs, err := dump(func() ([]netlink.Rule, error) { return c.h.RuleList(fam) })
		if err != nil {
			return nil, fmt.Errorf("listing rules: %w", err)
		}
		for _, r := range rs {
			if r.Priority == priority {
				out = append(out, Rule{From: prefixOf(r.Src), OutName: r.OifName, V6: fam == unix.AF_INET6, Table: r.Table, Priority: r.Priority})
			}
		}
	}
	return out, nil
}

// AddRule adds a rule. One that is there is no error.
func (c *Conn) AddRule(r Rule) error {
	n := netlink.NewRule()
	n.Family, n.Table, n.Priority, n.OifName = unix.AF_INET, r.Table, r.Priority, r.OutName
	if r.V6 {
		n.Family = unix.AF_INET6
	}
	if r.From.IsValid() {
		n.Src = ipNet(r.From)
	}
	if err := c.h.RuleAdd(n); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding a rule to table %d: %w", r.Table, err)
	}
	return nil
}
