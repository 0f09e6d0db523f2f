package revkv

import (
	"encoding/binary"
	"sort"
)

// revs holds the revision of each key that a watch has sent: what a relist is compared with. It is packed (keys in
// order, each as its difference from the one before, in blocks), because there is one for each watch and 250,000 keys
// in it are common: some 5 MB here, more than 30 MB in a map.
//
// The zero value is empty.
type revs struct {
	blocks []revBlock // ordered, none empty
	n      int
}

const (
	blockMax  = 64
	blockFill = 48 // of blocks that are built in order, so that inserts find room
)

type revBlock struct {
	first string
	n     int
	data  []byte // of each key: uvarint shared prefix, uvarint length of the rest, the rest, uvarint revision
}

type revEntry struct {
	key string
	rev int64
}

func (r *revs) len() int { return r.n }

// find returns the index of the block that key is in, if it is anywhere; -1 if it comes before all.
func (r *revs) find(key string) int {
	return sort.Search(len(r.blocks), func(i int) bool { return r.blocks[i].first > key }) - 1
}

func (r *revs) get(key string) (int64, bool) {
	i := r.find(key)
	if i < 0 {
		return 0, false
	}
	c := blockCursor{data: r.blocks[i].data}
	for c.next() {
		if string(c.key) >= key {
			return c.rev, string(c.key) == key
		}
	}
	return 0, false
}

// set notes the revision of key, and says whether it was there.
func (r *revs) set(key string, rev int64) bool {
	if len(r.blocks) == 0 {
		r.blocks = append(r.blocks, packBlock([]revEntry{{key, rev}}))
		r.n++
		return false
	}
	i := max(r.find(key), 0)
	es := r.blocks[i].unpack()
	at, found := searchEntries(es, key)
	if found {
		es[at].rev = rev
		r.blocks[i] = packBlock(es)
		return true
	}
	es = append(es, revEntry{})
	copy(es[at+1:], es[at:])
	es[at] = revEntry{key, rev}
	r.n++
	if len(es) <= blockMax {
		r.blocks[i] = packBlock(es)
		return false
	}
	half := len(es) / 2
	r.blocks = append(r.blocks, revBlock{})
	copy(r.blocks[i+2:], r.blocks[i+1:])
	r.blocks[i], r.blocks[i+1] = packBlock(es[:half]), packBlock(es[half:])
	return false
}

// del forgets key, and says whether it was there.
func (r *revs) del(key string) bool {
	i := r.find(key)
	if i < 0 {
		return false
	}
	es := r.blocks[i].unpack()
	at, found := searchEntries(es, key)
	if !found {
		return false
	}
	r.n--
	if len(es) == 1 {
		r.blocks = append(r.blocks[:i], r.blocks[i+1:]...)
		return true
	}
	r.blocks[i] = packBlock(append(es[:at], es[at+1:]...))
	return true
}

func searchEntries(es []revEntry, key string) (int, bool) {
	at := sort.Search(len(es), func(i int) bool { return es[i].key >= key })
	return at, at < len(es) && es[at].key == key
}

func packBlock(es []revEntry) revBlock {
	var buf [blockMax * 64]byte
	data, last := buf[:0], ""
	for _, e := range es {
		data = appendEntry(data, last, e)
		last = e.key
	}
	return revBlock{first: es[0].key, n: len(es), data: append([]byte(nil), data...)}
}

func appendEntry(data []byte, last string, e revEntry) []byte {
	shared := 0
	for shared < len(last) && shared < len(e.key) && last[shared] == e.key[shared] {
		shared++
	}
	data = binary.AppendUvarint(data, uint64(shared))
	data = binary.AppendUvarint(data, uint64(len(e.key)-shared))
	data = append(data, e.key[shared:]...)
	return binary.AppendUvarint(data, uint64(e.rev))
}

func (b *revBlock) unpack() []revEntry {
	es := make([]revEntry, 0, b.n+1)
	c := blockCursor{data: b.data}
	for c.next() {
		es = append(es, revEntry{string(c.key), c.rev})
	}
	return es
}

// blockCursor reads a block in order. key is valid until the next call of next.
type blockCursor struct {
	data []byte
	key  []byte
	rev  int64
}

func (c *blockCursor) next() bool {
	if len(c.data) == 0 {
		return false
	}
	shared, n := binary.Uvarint(c.data)
	c.data = c.data[n:]
	size, n := binary.Uvarint(c.data)
	c.data = c.data[n:]
	c.key = append(c.key[:shared], c.data[:size]...)
	c.data = c.data[size:]
	rev, n := binary.Uvarint(c.data)
	c.data = c.data[n:]
	c.rev = int64(rev)
	return true
}

// revCursor reads a revs in order; the revs must not change meanwhile. It stands on the first entry when it is made.
type revCursor struct {
	r     *revs
	block int
	c     blockCursor
	ok    bool // key and rev are valid
	key   string
	rev   int64
}

func (r *revs) cursor() *revCursor {
	c := &revCursor{r: r, block: -1}
	c.next()
	return c
}

func (c *revCursor) next() {
	for !c.c.next() {
		if c.block++; c.block >= len(c.r.blocks) {
			c.ok = false
			return
		}
		c.c = blockCursor{data: c.r.blocks[c.block].data}
	}
	c.key, c.rev, c.ok = string(c.c.key), c.c.rev, true
}

// revBuilder makes a revs from keys that come in order.
type revBuilder struct {
	out  revs
	part []revEntry
}

func (b *revBuilder) add(key string, rev int64) {
	b.part = append(b.part, revEntry{key, rev})
	if len(b.part) == blockFill {
		b.flush()
	}
}

func (b *revBuilder) flush() {
	if len(b.part) == 0 {
		return
	}
	b.out.blocks = append(b.out.blocks, packBlock(b.part))
	b.out.n += len(b.part)
	b.part = b.part[:0]
}

func (b *revBuilder) done() revs {
	b.flush()
	return b.out
}
