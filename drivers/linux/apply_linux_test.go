package linux

import (
	"context"
	"os/exec"
	"testing"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

func openDriver(t testing.TB, ns *netns.Ns, change func(*Options)) *Driver {
	t.Helper()
	o := Options{Netns: ns.Path()}
	if change != nil {
		change(&o)
	}
	d, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func nftDump(t testing.TB, ns *netns.Ns) string {
	t.Helper()
	var out []byte
	err := ns.Do(func() (err error) {
		out, err = exec.Command("nft", "-n", "list", "ruleset").CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft list ruleset: %v\n%s", err, out)
	}
	return string(out)
}

func TestApplyTwice(t *testing.T) {
	ctx := context.Background()
	ns := netnstest.New(t)
	d := openDriver(t, ns, nil)
	s := smallState()
	if err := d.Apply(ctx, s, nil); err != nil {
		t.Fatal(err)
	}
	first := d.Writes()
	nftDump(t, ns) // nft can read what it finds
	for range 2 {
		if err := d.Apply(ctx, s, nil); err != nil {
			t.Fatal(err)
		}
		if d.Writes() != first {
			t.Fatalf("an Apply with nothing to do wrote %d objects", d.Writes()-first)
		}
	}
}
