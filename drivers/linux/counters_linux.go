package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"strconv"
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
)

// Counters yields what each rule has matched since it was written, if the driver was opened to count. A rule that is there
// several times, for both families or for several stages, is counted as one; one that is written anew, because its policy
// changed, begins at zero. Established flows meet no rules: what is counted of them is the packets that opened them.
func (d *Driver) Counters(ctx context.Context) iter.Seq2[drivers.RuleID, drivers.Count] {
	return func(yield func(drivers.RuleID, drivers.Count) bool) {
		if !d.opts.Count || ctx.Err() != nil {
			return
		}
		counts, err := d.counts()
		for try := 1; errors.Is(err, errInterrupted) && try < readTries; try++ {
			counts, err = d.counts()
		}
		if err != nil && !errors.Is(err, errInterrupted) {
			d.log.Warn("counters cannot be read", "error", err)
			return
		}
		for id, c := range counts {
			if !yield(id, c) {
				return
			}
		}
	}
}

func (d *Driver) counts() (map[drivers.RuleID]drivers.Count, error) {
	counts := map[drivers.RuleID]drivers.Count{}
	return counts, d.socket.dump(unix.NFT_MSG_GETRULE, families[Inet], tableAttr(unix.NFTA_RULE_TABLE), func(_ byte, b []byte) error {
		m := attrMap(b)
		comment, _ := userdata.GetString(m[unix.NFTA_RULE_USERDATA], userdata.TypeComment)
		id, ok := ruleIDOf(comment)
		if !ok || text(m[unix.NFTA_RULE_TABLE]) != TableName {
			return nil
		}
		if one, ok := countOf(m[unix.NFTA_RULE_EXPRESSIONS]); ok {
			sum := counts[id]
			counts[id] = drivers.Count{Packets: sum.Packets + one.Packets, Bytes: sum.Bytes + one.Bytes}
		}
		return nil
	})
}

// ruleIDOf reads the id at the beginning of the comment of a policy's rule.
func ruleIDOf(comment string) (drivers.RuleID, bool) {
	first, _, _ := strings.Cut(comment, " ")
	n, err := strconv.ParseUint(first, 16, 64)
	return drivers.RuleID(n), err == nil && len(first) == 16
}

// countOf finds the counter among a rule's expressions.
func countOf(exprs []byte) (c drivers.Count, ok bool) {
	_ = eachAttr(exprs, func(_ uint16, e []byte) error {
		m := attrMap(e)
		if text(m[unix.NFTA_EXPR_NAME]) != "counter" {
			return nil
		}
		v := attrMap(m[unix.NFTA_EXPR_DATA])
		if p, b := v[unix.NFTA_COUNTER_PACKETS], v[unix.NFTA_COUNTER_BYTES]; len(p) == 8 && len(b) == 8 {
			c, ok = drivers.Count{Packets: binary.BigEndian.Uint64(p), Bytes: binary.BigEndian.Uint64(b)}, true
		}
		return nil
	})
	return c, ok
}
