package ipam

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/tortie/tortie/api"
)

func (m *model) trace(before, after *api.IPAMBlock) {
	watch := os.Getenv("WATCH")
	if watch == "" {
		return
	}
	p := netip.MustParsePrefix(watch)
	name := func(o *api.IPAMBlock) string {
		if o == nil {
			return "-"
		}
		s := fmt.Sprintf("%s uid=%s aff=%q rv=%s:", o.Spec.CIDR, o.UID, o.Spec.Affinity, o.ResourceVersion)
		b, _ := readBlock(o)
		for i := range o.Spec.Allocations {
			h, _ := b.handle(i)
			s += " " + h + ";"
		}
		return s
	}
	o := before
	if o == nil {
		o = after
	}
	if q := netip.MustParsePrefix(o.Spec.CIDR); q.Overlaps(p) {
		fmt.Println(m.steps, m.now.Format("15:04:05"), "\n   ", name(before), "\n   ", name(after))
	}
}

func debugAffinity(s *simStore, before, after api.Object) {
	watch := os.Getenv("WATCH")
	if watch == "" {
		return
	}
	name := func(o api.Object) string {
		a, _ := o.(*api.BlockAffinity)
		if a == nil {
			return "-"
		}
		return a.Name + " " + a.Spec.State + " " + a.ResourceVersion
	}
	o := before
	if o == nil {
		o = after
	}
	if q := rangeOf(o.(*api.BlockAffinity)); q.Overlaps(netip.MustParsePrefix(watch)) {
		fmt.Println("  aff rev", s.rev, name(before), "=>", name(after))
		if after == nil {
			buf := make([]byte, 6000)
			buf = buf[:runtime.Stack(buf, false)]
			for _, l := range strings.Split(string(buf), "\n") {
				if strings.Contains(l, "ipam.(*Allocator)") {
					fmt.Println("       ", strings.SplitN(l, "(0x", 2)[0])
				}
			}
		}
	}
}
