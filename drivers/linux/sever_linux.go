package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// severedFor is how long a cut connection is remembered: as long as the flow table would remember it if nothing moved.
const severedFor = 5 * 24 * time.Hour

// severBatch is how many connections one transaction notes.
const severBatch = 250

// sever notes the TCP connections among es.
func (c *cutter) sever(es []entry) error {
	var ms []message
	for i := range es {
		if !es[i].connected() {
			continue
		}
		ms = append(ms, severMessage(&es[i].flow))
		if len(ms) < severBatch {
			continue
		}
		if err := c.transact(ms); err != nil {
			return err
		}
		ms = nil
	}
	return c.transact(ms)
}

// transact carries out messages about the sets, all or none. That a set is full does not keep flows from being cut.
func (c *cutter) transact(ms []message) error {
	if len(ms) == 0 {
		return nil
	}
	err := c.s.transact(ms, false)
	if errors.Is(err, unix.ENFILE) {
		c.log.Warn("more connections are cut than can be remembered: some may go on from their other end", "limit", maxTimed)
		return nil
	}
	if err != nil {
		return fmt.Errorf("noting what is cut: %w", err)
	}
	return nil
}

// severMessage notes both directions of a connection, as their packets arrive at the node.
func severMessage(f *flow) message {
	var es attrBuf
	note := userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, noteOf(f))
	for _, t := range []flowTuple{f.orig, f.reply} {
		at := es.nest(unix.NFTA_LIST_ELEM)
		k := es.nest(unix.NFTA_SET_ELEM_KEY)
		es.data(unix.NFTA_DATA_VALUE, severKey(t))
		es.end(k)
		es.bytes(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(severedFor.Milliseconds())))
		es.bytes(unix.NFTA_SET_ELEM_USERDATA, note)
		es.end(at)
	}
	m := severedMessage(unix.NFT_MSG_NEWSETELEM, f.orig.src.Is6(), es)
	m.flags = unix.NLM_F_CREATE
	return m
}

func unseverMessage(v6 bool, key []byte) message {
	var es attrBuf
	at := es.nest(unix.NFTA_LIST_ELEM)
	es.bytes(unix.NFTA_SET_ELEM_KEY|nested, key)
	es.end(at)
	return severedMessage(unix.NFT_MSG_DELSETELEM, v6, es)
}

func severedMessage(typ uint16, v6 bool, es attrBuf) message {
	b := severedAttrs(v6)
	b.bytes(unix.NFTA_SET_ELEM_LIST_ELEMENTS|nested, es)
	return message{typ: typ, family: families[Inet], attrs: b}
}

func severedAttrs(v6 bool) attrBuf {
	var b attrBuf
	b.str(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
	b.str(unix.NFTA_SET_ELEM_LIST_SET, severedSet(v6))
	return b
}

func severedSet(v6 bool) string {
	if v6 {
		return setSevered6
	}
	return setSevered4
}

func severKey(t flowTuple) string {
	return concat(string(t.src.AsSlice()), string(t.dst.AsSlice()), bytes16(t.sport), bytes16(t.dport))
}

// noteOf says which connection an element is about, for people and for parseNote: where it came from, where it was sent,
// and where it went if that is not the same.
func noteOf(f *flow) string {
	src, dst := netip.AddrPortFrom(f.orig.src, f.orig.sport), netip.AddrPortFrom(f.orig.dst, f.orig.dport)
	to := netip.AddrPortFrom(f.reply.src, f.reply.sport)
	if dst == to {
		return src.String() + " " + dst.String()
	}
	return src.String() + " " + dst.String() + " " + to.String()
}

// parseNote gives the flow as far as a judge needs it.
func parseNote(note string) (*flow, bool) {
	words := strings.Fields(note)
	if len(words) < 2 || len(words) > 3 {
		return nil, false
	}
	var ends [3]netip.AddrPort
	for i, w := range words {
		a, err := netip.ParseAddrPort(w)
		if err != nil {
			return nil, false
		}
		ends[i] = a
	}
	if len(words) == 2 {
		ends[2] = ends[1]
	}
	f := &flow{proto: unix.IPPROTO_TCP}
	f.orig = flowTuple{src: ends[0].Addr(), sport: ends[0].Port(), dst: ends[1].Addr(), dport: ends[1].Port()}
	f.reply = flowTuple{src: ends[2].Addr(), sport: ends[2].Port(), dst: ends[0].Addr(), dport: ends[0].Port()}
	return f, true
}

// review takes back the notes of connections that are not denied any longer, and those that say nothing.
func (c *cutter) review(j *judge) error {
	for _, v6 := range []bool{false, true} {
		var ms []message
		var err error
		for try := 1; try == 1 || errors.Is(err, errInterrupted) && try <= readTries; try++ {
			ms = nil
			err = c.eachSevered(v6, func(key []byte, note string) {
				if f, ok := parseNote(note); !ok || !j.denied(f) {
					ms = append(ms, unseverMessage(v6, key))
				}
			})
		}
		if err != nil {
			return fmt.Errorf("looking at what was cut: %w", err)
		}
		if err := c.transact(ms); err != nil {
			return err
		}
	}
	return nil
}

// eachSevered calls fn with each note of a family.
func (c *cutter) eachSevered(v6 bool, fn func(key []byte, note string)) error {
	return c.s.dump(unix.NFT_MSG_GETSETELEM, families[Inet], severedAttrs(v6), func(_ byte, attrs []byte) error {
		return eachAttr(attrs, func(typ uint16, v []byte) error {
			if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return nil
			}
			return eachAttr(v, func(_ uint16, e []byte) error {
				m := attrMap(e)
				note, _ := userdata.GetString(m[unix.NFTA_SET_ELEM_USERDATA], userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
				fn(m[unix.NFTA_SET_ELEM_KEY], note)
				return nil
			})
		})
	})
}
