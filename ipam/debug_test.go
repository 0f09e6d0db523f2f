package ipam

import (
	"fmt"
	"net/netip"
	"os"

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
