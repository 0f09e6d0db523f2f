package linux

import "encoding/binary"

// attrBuf builds netlink attributes.
type attrBuf []byte

func (b *attrBuf) pad() {
	for len(*b)%4 != 0 {
		*b = append(*b, 0)
	}
}

func (b *attrBuf) bytes(typ uint16, v []byte) {
	*b = native.AppendUint16(*b, uint16(4+len(v)))
	*b = native.AppendUint16(*b, typ)
	*b = append(*b, v...)
	b.pad()
}

func (b *attrBuf) data(typ uint16, v string) {
	*b = native.AppendUint16(*b, uint16(4+len(v)))
	*b = native.AppendUint16(*b, typ)
	*b = append(*b, v...)
	b.pad()
}

// str adds a string with its terminating zero.
func (b *attrBuf) str(typ uint16, v string) { b.data(typ, v+"\x00") }

func (b *attrBuf) u32(typ uint16, v uint32) {
	*b = native.AppendUint16(*b, 8)
	*b = native.AppendUint16(*b, typ)
	*b = binary.BigEndian.AppendUint32(*b, v)
}

// nest begins a nested attribute and returns what end needs.
func (b *attrBuf) nest(typ uint16) int {
	at := len(*b)
	*b = native.AppendUint16(*b, 0)
	*b = native.AppendUint16(*b, typ|nested)
	return at
}

func (b *attrBuf) end(at int) { native.PutUint16((*b)[at:], uint16(len(*b)-at)) }

const nested = 0x8000 // NLA_F_NESTED
