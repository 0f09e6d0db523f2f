package linux

import (
	"context"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestPresent: each way in which our tables may come to judge nothing, as the next process finds it.
func TestPresent(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	present := func(d *Driver) bool {
		t.Helper()
		before := nftDump(t, ns)
		there, err := d.Present(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if nftDump(t, ns) != before || d.Writes() > 0 {
			t.Error("asking has changed something")
		}
		return there
	}
	for what, harm := range map[string]string{
		"nothing happened":            "",
		"an empty State":              "empty",
		"ruleset flushed":             "nft flush ruleset",
		"table deleted":               "nft delete table inet tortie",
		"rules flushed":               "nft flush table inet tortie",
		"one stage flushed":           "nft flush chain inet tortie forward-to",
		"put to sleep":                "nft 'table inet tortie { flags dormant; }'",
		"somebody else's table stays": "nft 'table inet other { chain raw-prerouting { type filter hook prerouting priority 0; accept; }; }'; nft delete table inet tortie",
	} {
		s := smallState()
		if harm == "empty" {
			s = drivers.NewState()
			harm = ""
		}
		d := openDriver(t, ns, nil)
		if err := d.Apply(context.Background(), s, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if harm != "" {
			sh(t, ns, harm)
		}
		next := openDriver(t, ns, nil)
		if got, want := present(next), harm == ""; got != want {
			t.Errorf("%s: present %v, want %v", what, got, want)
		}
		if err := next.Clean(context.Background()); err != nil {
			t.Fatal(err)
		}
		next.writes = 0
		if present(next) {
			t.Errorf("%s: present after Clean", what)
		}
	}
}
