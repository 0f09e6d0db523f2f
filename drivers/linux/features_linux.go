package linux

import (
	"errors"
	"fmt"

	"github.com/tortie/tortie/drivers"
)

// probe finds out what this kernel takes, by transactions that it examines and takes back.
func probe(s *socket) (drivers.Features, error) {
	f := drivers.AllFeatures(driverName)
	f.HTTP = false
	f.Encaps = []drivers.Encap{drivers.EncapNone}
	if err := try(s, needed()); err != nil {
		return f, fmt.Errorf("nftables on this host: %w: %w", drivers.ErrUnsupported, err)
	}
	for _, o := range []struct {
		has  *bool
		rule Rule
		hook Hook
	}{
		{&f.Untracked, Rule{Actions: does(ActNoTrack)}, *hook("prerouting", prioRaw)},
		{&f.Log, Rule{Actions: []Action{{Kind: ActLog, Prefix: LogPrefix}}}, *hook("forward", prioFrom)},
		{&f.PreDNAT, when(does(ActDrop), match(FOrigDport, OpEq, bytes16(1))), *hook("input", prioTo)},
		{&f.Masquerade, Rule{Actions: does(ActMasquerade)}, Hook{Type: "nat", Hook: "postrouting", Priority: prioSourceNAT}},
	} {
		c := &Chain{Key: Key{Inet, probeName}, Hook: &o.hook, Rules: []Rule{o.rule}}
		err := try(s, Program{Chains: map[Key]*Chain{c.Key: c}})
		var r *refusedOps
		if err != nil && !errors.As(err, &r) {
			return f, err
		}
		*o.has = err == nil
	}
	f.FloatingNAT = try(s, translating()) == nil
	return f, nil
}

const probeName = "probe"

// needed has one of everything that a program cannot do without.
func needed() Program {
	p := Program{Chains: map[Key]*Chain{}, Sets: map[Key]*SetObject{}}
	set := func(t Table, name string, o SetObject) {
		o.Key, o.Content = Key{t, probeName + "-" + name}, elems{}
		p.Sets[o.Key] = &o
	}
	set(Inet, "addresses", SetObject{Types: []Type{TAddr6}, Interval: true})
	set(Inet, "ports", SetObject{Types: []Type{TAddr4, TProto, TPort}})
	set(Inet, "flows", SetObject{Types: severedTypes(true), Timed: true})
	set(Inet, "lists", SetObject{Types: []Type{TIfName}, Verdict: true})
	p.Chains[Key{Inet, probeName}] = &Chain{Key: Key{Inet, probeName}, Hook: hook("prerouting", prioRaw), Rules: []Rule{
		when(does(ActAccept), isFamily(true), in(probeName+"-addresses", FSrc6)),
		when(does(ActAccept), isFamily(false), notIn(probeName+"-ports", FDst4, FL4Proto, FDport)),
		when(does(ActAccept), ctIs(stateEstablished), match(FMark, OpAny, native32(MarkPass))),
		when(does(ActDrop), match(FEtherSrc, OpNe, "\x00\x00\x00\x00\x00\x00"), match(FLocal, OpEq, native32(2)), notOwn()),
		{Actions: []Action{{Kind: ActClearMark, Mark: MarkPass}, {Kind: ActVMap, Field: FIIfName, VMap: probeName + "-lists"}}},
	}}
	p.Chains[Key{ARP, probeName}] = &Chain{Key: Key{ARP, probeName}, Hook: hook("input", prioARP), Rules: []Rule{
		when(does(ActAccept), match(FARPSenderIP, OpEq, "\x00\x00\x00\x00")),
	}}
	return p
}

// translating has what floating addresses take.
func translating() Program {
	const name = probeName + "-floating"
	set := &SetObject{Key: Key{Inet, name}, Types: []Type{TAddr6}, Data: []Type{TAddr6}, Content: elems{}}
	in := &Chain{Key: Key{Inet, probeName}, Hook: &Hook{Type: "nat", Hook: "prerouting", Priority: prioFloatDNAT},
		Rules: []Rule{when([]Action{{Kind: ActDNAT, Field: FDst6, VMap: name}}, isFamily(true))}}
	out := &Chain{Key: Key{Inet, name}, Hook: &Hook{Type: "nat", Hook: "postrouting", Priority: prioFloatSNAT},
		Rules: []Rule{when([]Action{{Kind: ActSNAT, Field: FOrigDst4}}, isFamily(false))}}
	return Program{Chains: map[Key]*Chain{in.Key: in, out.Key: out}, Sets: map[Key]*SetObject{set.Key: set}}
}

// try examines a program, beside whatever the tables hold.
func try(s *socket, p Program) error {
	have := noTables()
	return (&nft{s: s}).commit(plan(&p, have, allKeys(&p, &have.Program), nil), true)
}
