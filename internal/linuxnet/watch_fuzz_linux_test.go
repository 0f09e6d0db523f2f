package linuxnet

import (
	"encoding/hex"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzEvent reads notifications that are cut off or nonsense: the kernel sends none, but a length that is taken on trust
// is how a small mistake becomes the agent's end.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		"0a8000000400540600000000080001000a00000008000f00fe000000",                         // a route
		"000001000200000043100100ffffffff0900030065746830000000000a0001000200000000010000", // a link
		"021880fe01000000080001007f000001",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		for _, typ := range []uint16{unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR} {
			f.Add(typ, b)
		}
	}
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		if typ == unix.RTM_NEWLINK || typ == unix.RTM_DELLINK {
			return // read by the netlink library, which trusts the kernel
		}
		e, ok := event(&unix.NlMsghdr{Type: typ}, data)
		if ok && e.Kind == RouteEvent && e.Dst.IsValid() && e.Dst.Bits() > e.Dst.Addr().BitLen() {
			t.Fatalf("%v", e)
		}
	})
}
