package linux

import (
	"context"
	"os/exec"
	"slices"
	"strings"
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
	return sorted(string(out))
}

// sorted brings the tables, and the chains and sets in each, into a fixed order: nft lists them in that of their making.
func sorted(dump string) string {
	var blocks []string
	table, block := "", ""
	for _, line := range strings.Split(dump, "\n") {
		switch {
		case strings.HasPrefix(line, "table "):
			table = line
		case line == "" || line == "}":
		default:
			block += line + "\n"
			if line == "\t}" {
				blocks = append(blocks, table+"\n"+block)
				block = ""
			}
		}
	}
	slices.Sort(blocks)
	return strings.Join(append(blocks, block), "")
}

func TestApplyTwice(t *testing.T) {
	t.Parallel()
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
