package linux

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
)

var _ drivers.Presence = (*Driver)(nil)

// guards are the chains without which packets go unjudged. They have rules whatever the State is.
var guards = []string{baseRawIn, baseFwdFrom, baseFwdTo, baseInFrom, baseInTo, basePost}

// Present reports whether the kernel has a table of ours that judges packets. Whether it is up to date is Apply's to find out.
func (d *Driver) Present(ctx context.Context) (bool, error) {
	var err error
	for range readTries {
		if err = ctx.Err(); err != nil {
			break
		}
		var there bool
		if there, err = d.guarded(); !errors.Is(err, errInterrupted) {
			if err == nil {
				return there, nil
			}
			break
		}
	}
	return false, fmt.Errorf("looking for our tables: %w", err)
}

func (d *Driver) guarded() (bool, error) {
	r := &reader{n: &nft{s: d.socket}, want: &Program{}, have: noTables()}
	if err := r.table(Inet); err != nil {
		return false, err
	}
	if !r.have.exist[Inet] || r.have.remake[Inet] { // a dormant one judges nothing
		return false, nil
	}
	hooked := map[string]bool{}
	err := d.socket.dump(unix.NFT_MSG_GETCHAIN, families[Inet], tableAttr(unix.NFTA_CHAIN_TABLE), func(_ byte, b []byte) error {
		m := attrMap(b)
		if _, ok := m[unix.NFTA_CHAIN_HOOK]; ok && text(m[unix.NFTA_CHAIN_TABLE]) == TableName {
			hooked[text(m[unix.NFTA_CHAIN_NAME])] = true
		}
		return nil
	})
	for _, name := range guards {
		if err != nil || !hooked[name] {
			return false, err
		}
		ruled := false
		q := attrBuf(tableAttr(unix.NFTA_RULE_TABLE))
		q.str(unix.NFTA_RULE_CHAIN, name)
		err = d.socket.dump(unix.NFT_MSG_GETRULE, families[Inet], q, func(_ byte, b []byte) error {
			m := attrMap(b)
			ruled = ruled || text(m[unix.NFTA_RULE_TABLE]) == TableName && text(m[unix.NFTA_RULE_CHAIN]) == name
			return nil
		})
		if err != nil || !ruled {
			return false, err
		}
	}
	return true, nil
}
