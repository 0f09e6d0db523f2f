//go:build linux

package cni

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	current "github.com/containernetworking/cni/pkg/types/100"
)

// withPools makes pools of both families, which go when the test ends.
func withPools(t testing.TB) {
	t.Helper()
	var b strings.Builder
	for name, cidr := range map[string]string{"cni-v4": "10.66.0.0/24", "cni-v6": "fd66::/112"} {
		fmt.Fprintf(&b, "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: %s}\nspec: {cidr: %q, natOutgoing: false}\n", name, cidr)
	}
	path := filepath.Join(t.TempDir(), "pools.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := shared.tortie(t, "apply", "-f", path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"cni-v4", "cni-v6"} {
			if _, err := shared.lab.Tortie(context.WithoutCancel(t.Context()), shared.node, "delete", "ippool", name); err != nil {
				t.Error(err)
			}
		}
	})
}

func addresses(t *testing.T, r *current.Result) (out []string) {
	t.Helper()
	for n := range r.IPs {
		out = append(out, addrOf(t, r, n).String())
	}
	return out
}

// TestAgentAllocates: by itself, by family, and as the runtime asks; what is deleted can be had again.
func TestAgentAllocates(t *testing.T) {
	withPools(t)
	conf := func(section, runtime object) object {
		c := pluginConf(section, object{"runtimeConfig": runtime})
		if section == nil {
			delete(c, "ipam")
		}
		return c
	}
	c := newContainer(t)
	// The agent hears of the pools soon.
	var out []byte
	eventually(t, "an address", func() string {
		var err error
		if out, err = c.verb("ADD", conf(nil, nil)); err != nil {
			return err.Error()
		}
		if len(result(t, out).IPs) < 2 { // of one pool
			c.del(conf(nil, nil))
			return string(out)
		}
		return ""
	})
	both := result(t, out)
	for i, pool := range []string{"10.66.0.0/24", "fd66::/112"} {
		if a := addrOf(t, both, i); !netip.MustParsePrefix(pool).Contains(a) {
			t.Errorf("%s is not of %s", a, pool)
		}
	}
	if again := result(t, must(c.verb("ADD", conf(nil, nil)))); cmp.Diff(both, again) != "" {
		t.Errorf("repeated: %s", cmp.Diff(both, again))
	}
	c.echo("80")
	if err := talk(nodeNs(t), netip.Addr{}, addrOf(t, both, 0), 80); err != nil {
		t.Error(err)
	}

	d := newContainer(t)
	v6 := conf(object{"type": "tortie", "families": []string{"IPv6"}, "pools": []string{"cni-v6"}}, nil)
	if got := d.add(v6); len(got.IPs) != 1 || addrOf(t, got, 0).Is4() {
		t.Errorf("%v", got.IPs)
	}

	// An address that somebody has is refused, and free once it is deleted.
	e := newContainer(t)
	fixed := conf(object{"type": "tortie"}, object{"ips": []string{both.IPs[0].Address.IP.String() + "/24"}})
	if out, err := e.verb("ADD", fixed); err == nil {
		t.Errorf("an address was given twice: %s", out)
	}
	c.del(conf(nil, nil))
	free := conf(object{"type": "tortie"}, object{"ips": []string{"10.66.0.77"}})
	if got := e.add(free); cmp.Diff([]string{"10.66.0.77"}, addresses(t, got)) != "" {
		t.Errorf("%v", got.IPs)
	}
	e.del(free)
	if got := e.add(free); cmp.Diff([]string{"10.66.0.77"}, addresses(t, got)) != "" {
		t.Errorf("after a DEL: %v", got.IPs)
	}
}

// TestPoolOfAnotherName: the code says that there is no address, and nothing is left of the try.
func TestPoolOfAnotherName(t *testing.T) {
	c := newContainer(t)
	_, err := c.verb("ADD", pluginConf(object{"type": "tortie", "pools": []string{"no-such-pool"}}, nil))
	wantCode(t, "a pool that isn't there", err, 102)
	nothingLeft(t)
}

// TestAttachFromPool: what ADD can ask for, `tortie attach` can.
func TestAttachFromPool(t *testing.T) {
	withPools(t)
	for _, tc := range []struct {
		args []string
		want string // prefixes, in order
	}{
		{[]string{"--pool", "cni-v6"}, "fd66::/112"},
		{[]string{"-4"}, "10.66.0.0/24"},
		{[]string{"-6", "-4"}, "10.66.0.0/24 fd66::/112"},
		{[]string{"--pool", "10.66.0.0/24"}, "10.66.0.0/24"},
	} {
		c := newContainer(t)
		eventually(t, strings.Join(tc.args, " "), func() string { // the agent hears of the pools soon
			if _, err := shared.tortie(t, append([]string{"attach", c.path(), "--sandbox", c.id}, tc.args...)...); err != nil {
				return err.Error()
			}
			return ""
		})
		var prefixes []string
		for _, a := range attachments(t)[0].Addresses {
			prefix := "10.66.0.0/24"
			if a.Is6() {
				prefix = "fd66::/112"
			}
			if !netip.MustParsePrefix(prefix).Contains(a) {
				t.Errorf("%v: %s is of no pool", tc.args, a)
			}
			prefixes = append(prefixes, prefix)
		}
		if got := strings.Join(prefixes, " "); got != tc.want {
			t.Errorf("%v: addresses of %s, want %s", tc.args, got, tc.want)
		}
		if _, err := shared.tortie(t, "detach", c.path(), "--sandbox", c.id); err != nil {
			t.Error(err)
		}
	}
	c := newContainer(t)
	if _, err := shared.tortie(t, "attach", c.path(), "--sandbox", c.id, "--address", "10.66.0.9", "--pool", "cni-v4"); err == nil || !strings.Contains(err.Error(), "--address") {
		t.Errorf("both an address and a pool: %v", err)
	}
	nothingLeft(t)
}
