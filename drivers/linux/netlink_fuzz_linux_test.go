package linux

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// sample is a message of nf_tables with an attribute in an attribute.
func sample() []byte {
	var inner, b attrBuf
	inner.str(unix.NFTA_EXPR_NAME, "cmp")
	b.str(unix.NFTA_TABLE_NAME, TableName)
	b.data(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, string(inner))
	return appendMessage(nil, nftType(unix.NFT_MSG_NEWRULE), 0, 7, families[Inet], 0, b)
}

// FuzzMessages takes what comes over netlink apart. No length in it is taken on trust.
func FuzzMessages(f *testing.F) {
	good := sample()
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(append(good, good...))
	f.Add(native.AppendUint32(nil, 16))
	f.Add(append(native.AppendUint32(nil, 36), make([]byte, 32)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours(b)
		total := 0
		err := eachMessageFlags(b, func(_, _ uint16, _ uint32, data []byte) error {
			total += nlHeader + len(data)
			_ = errorOf(data) // any bytes
			if len(data) < nfHeader {
				return nil
			}
			m := attrMap(data[nfHeader:])
			want := &Chain{Hook: &Hook{}}
			sameHook(want, m)
			sameExprs(m[unix.NFTA_RULE_EXPRESSIONS], data[nfHeader:])
			return nil
		})
		if err == nil && total > len(b) {
			t.Fatalf("%d bytes of messages in %d", total, len(b))
		}
	})
}

// FuzzFlow reads an entry of the flow table.
func FuzzFlow(f *testing.F) {
	tuple := func(typ uint16) string {
		var ip, proto, b, all attrBuf
		ip.data(ctaIPv4Src, "\x0a\x00\x00\x01")
		ip.data(ctaIPv4Dst, "\x0a\x00\x00\x02")
		proto.data(ctaProtoNum, "\x06")
		proto.data(ctaSrcPort, "\x00\x50")
		b.data(ctaTupleIP|nested, string(ip))
		b.data(ctaTupleProto|nested, string(proto))
		all.data(typ|nested, string(b))
		return string(all)
	}
	f.Add([]byte(tuple(ctaTupleOrig) + tuple(ctaTupleReply)))
	f.Add([]byte{8, 0, ctaZone, 0, 1, 0, 0, 0, 5, 0, ctaID, 0, 1})
	f.Add([]byte{4, 0, ctaProtoInfo, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e entry
		if err := e.read(b); err != nil {
			return
		}
		if len(e.tuple) > len(b) {
			t.Fatalf("a tuple of %d bytes in %d", len(e.tuple), len(b))
		}
	})
}

// FuzzElements reads elements of sets and maps, and joins those of interval sets.
func FuzzElements(f *testing.F) {
	elem := func(key string, end bool) []byte {
		var data, b attrBuf
		data.data(unix.NFTA_DATA_VALUE, key)
		b.data(unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, string(data))
		if end {
			b.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		}
		return b
	}
	f.Add(elem("\x0a\x00\x00\x00", false), elem("\x0b\x00\x00\x00", true), true)
	f.Add(elem("\x00\x00\x00\x00", true), elem("", false), false)
	f.Add(elem("\x00", false), elem("\x00", true), true)
	f.Fuzz(func(t *testing.T, a, b []byte, verdict bool) {
		s := &SetObject{Verdict: verdict}
		es := []kernelElem{s.decode(a), s.decode(b)}
		got, err := intervals(es)
		if err != nil {
			if !errors.Is(err, errIntervals) {
				t.Fatal(err)
			}
			return
		}
		if len(got) > len(es) {
			t.Fatalf("%d intervals of %d ends", len(got), len(es))
		}
	})
}

// FuzzForeignRule reads rules of other programs.
func FuzzForeignRule(f *testing.F) {
	f.Add(sample()[nlHeader+nfHeader:], "tort")
	f.Add([]byte{}, "")
	f.Fuzz(func(t *testing.T, b []byte, prefix string) {
		var rule []foreignExpr
		if err := eachAttr(b, func(_ uint16, v []byte) error {
			e := attrMap(v)
			rule = append(rule, foreignExpr{text(e[unix.NFTA_EXPR_NAME]), attrMap(e[unix.NFTA_EXPR_DATA])})
			return nil
		}); err != nil {
			return
		}
		endsInDrop(rule)
		acceptsIface(rule)
		lets([][]foreignExpr{rule}, true, true, []string{prefix})
	})
}

// FuzzSeveredNote reads the comments of elements that say which connection was cut.
func FuzzSeveredNote(f *testing.F) {
	f.Add("10.0.0.1:1 10.0.0.2:2")
	f.Add("[fd00::1]:1 [fd00::2]:2 [fd00::3]:3")
	f.Add("10.0.0.1 10.0.0.2")
	f.Fuzz(func(t *testing.T, note string) {
		fl, ok := parseNote(note)
		if !ok {
			return
		}
		if again, ok := parseNote(noteOf(fl)); !ok || again.orig != fl.orig || again.reply.src != fl.reply.src || again.reply.sport != fl.reply.sport {
			t.Fatalf("%q is %+v, which is %+v", note, fl, again)
		}
	})
}
