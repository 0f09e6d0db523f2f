package linux

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// nft is the kernel's nf_tables in one network namespace.
type nft struct{ s *socket }

func (n *nft) close() error { return n.s.close() }

func (n *nft) commit(ops []op, dry bool) error {
	var ms []message
	var of []int // the op of each message
	for i := range ops {
		m, err := ops[i].messages()
		if err != nil {
			return &refusedOps{ops: map[int]error{i: err}}
		}
		for range m {
			of = append(of, i)
		}
		ms = append(ms, m...)
	}
	err := n.s.transact(ms, dry)
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	out := &refusedOps{ops: map[int]error{}, err: r.err}
	for i, err := range r.messages {
		out.ops[of[i]] = fmt.Errorf("%s: %w", ops[of[i]].String(), err)
	}
	return out
}

// messages encodes the op.
func (o *op) messages() ([]message, error) {
	family := families[o.table]
	one := func(typ, flags uint16, attrs []byte) []message {
		return []message{{typ: typ, flags: flags, family: family, attrs: attrs}}
	}
	var b attrBuf
	switch o.kind {
	case opAddTable, opDelTable:
		b.str(unix.NFTA_TABLE_NAME, TableName)
		if o.kind == opDelTable {
			return one(unix.NFT_MSG_DELTABLE, 0, b), nil
		}
		return one(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, b), nil
	case opAddSet:
		return one(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, o.set.create()), nil
	case opDelSet:
		b.str(unix.NFTA_SET_TABLE, TableName)
		b.str(unix.NFTA_SET_NAME, o.set.Name)
		return one(unix.NFT_MSG_DELSET, 0, b), nil
	case opFlushSet:
		b.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		b.str(unix.NFTA_SET_ELEM_LIST_SET, o.set.Name)
		return one(unix.NFT_MSG_DELSETELEM, 0, b), nil
	case opAddElems, opDelElems:
		typ, flags := uint16(unix.NFT_MSG_NEWSETELEM), uint16(unix.NLM_F_CREATE)
		if o.kind == opDelElems {
			typ, flags = unix.NFT_MSG_DELSETELEM, 0
		}
		var ms []message
		for _, attrs := range o.set.elements(o.elems) {
			ms = append(ms, one(typ, flags, attrs)...)
		}
		return ms, nil
	case opAddChain:
		return one(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, o.chain.create()), nil
	case opDelChain:
		return one(unix.NFT_MSG_DELCHAIN, 0, o.chain.name()), nil
	case opFlushChain:
		b.str(unix.NFTA_RULE_TABLE, TableName)
		b.str(unix.NFTA_RULE_CHAIN, o.chain.Name)
		return one(unix.NFT_MSG_DELRULE, 0, b), nil
	case opAddRule:
		attrs, err := o.chain.addRule(&o.chain.Rules[o.rule])
		if err != nil {
			return nil, err
		}
		return one(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, attrs), nil
	}
	return nil, fmt.Errorf("%s: no such write", o.String())
}
