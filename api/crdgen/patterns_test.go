package crdgen

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
)

// accepts says what a schema's pattern and its opposite say of a text.
func accepts(t testing.TB, tw tweak) func(string) bool {
	t.Helper()
	s := &Schema{Type: "string"}
	tw(s)
	yes := regexp.MustCompile(s.Pattern)
	no := regexp.MustCompile(`$^x`)
	if s.Not != nil {
		no = regexp.MustCompile(s.Not.Pattern)
	}
	return func(text string) bool {
		return yes.MatchString(text) && !no.MatchString(text) && (s.MaxLength == nil || int64(len(text)) <= *s.MaxLength)
	}
}

var addressSeeds = []string{"10.0.0.1", "0.0.0.0/0", "255.255.255.255/32", "::", "::1", "1::", "::/0", "fd00::1/64", "2001:db8:0:1:2:3:4:5/128",
	"1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "1:2::4:5:6:7:8", "1:2:3:4:5:6::8", "1:2:3:4:5:6:1.2.3.4", "::1.2.3.4", "1::1.2.3.4",
	"1:2:3:4:5::1.2.3.4", "1:2:3:4::6:1.2.3.4", "1::3:4:5:6:1.2.3.4", "::2:3:4:5:6:1.2.3.4", "64:ff9b::10.0.0.1/96", "::ffff:1.2.3.4", "::ffff:102:304/96",
	"0:0:0:0:0:ffff:1.2.3.4", "0:0:0:0:0:ffff::", "0:0:0:0:0:ffff:1::", "0:0:0:0:0:ffff::1", "0:0:0:0:ffff::", "::ffff:0:1.2.3.4", "::FFFF:1:2", "0::ffff:1:2",
	"1::ffff:1.2.3.4", "::ffff:1", "::ffff", "fe80::1%eth0", "10.0.0.1/08", "10.0.0.01", "1.2.3", "10.0.0.0/33", "fd00::/129", "1.2.3.4.5", "::1::", ":::", ":1", "1:"}

// checkAddress compares the patterns with the parsers.
func checkAddress(t *testing.T, text string, prefix, cidr, address func(string) bool) {
	t.Helper()
	_, err := api.ParsePrefix(text)
	if got := prefix(text); got != (err == nil) {
		t.Errorf("the pattern of prefixes says %v to %q, the parser: %v", got, text, err)
	}
	if got, want := cidr(text), err == nil && strings.Contains(text, "/"); got != want {
		t.Errorf("the pattern of CIDRs says %v to %q, the parser %v", got, text, want)
	}
	_, err = api.ParseAddr(text)
	if got := address(text); got != (err == nil) {
		t.Errorf("the pattern of addresses says %v to %q, the parser: %v", got, text, err)
	}
}

func TestAddressPatterns(t *testing.T) {
	prefix, cidr, address := accepts(t, prefixes()), accepts(t, cidrs(0)), accepts(t, addresses())
	for _, text := range addressSeeds {
		checkAddress(t, text, prefix, cidr, address)
	}
	r := rand.New(rand.NewPCG(1, 2))
	const letters = "0123456789afAF:./g%"
	for range 15_000 {
		text := []byte(addressSeeds[r.IntN(len(addressSeeds))])
		for range r.IntN(3) {
			switch at := r.IntN(len(text) + 1); {
			case r.IntN(3) == 0 && at < len(text):
				text = append(text[:at], text[at+1:]...)
			default:
				text = append(text[:at], append([]byte{letters[r.IntN(len(letters))]}, text[at:]...)...)
			}
		}
		checkAddress(t, string(text), prefix, cidr, address)
	}
	for range 5_000 {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.UintN(256)) * byte(r.IntN(2))
		}
		a := netip.AddrFrom16(b)
		checkAddress(t, a.String(), prefix, cidr, address)
		checkAddress(t, a.StringExpanded()+"/64", prefix, cidr, address)
	}
}

func TestDecimal(t *testing.T) {
	for _, c := range []struct {
		first int
		last  uint64
	}{{0, 5}, {0, 63}, {1, 255}, {0, 255}, {1, 65535}, {0, 4294967295}, {1, 100}, {0, 999}} {
		re := regexp.MustCompile(whole(decimal(c.first, c.last)))
		for _, n := range []uint64{0, 1, 2, 9, 10, 11, 99, 100, 101, c.last / 2, c.last - 1, c.last, c.last + 1, c.last + 10, c.last * 10, 65534, 65536, 70000} {
			for _, text := range []string{fmt.Sprint(n), fmt.Sprintf("00%d", n)} {
				if got, want := re.MatchString(text), n >= uint64(c.first) && n <= c.last; got != want {
					t.Errorf("%d to %d: %s is %v", c.first, c.last, text, got)
				}
			}
		}
	}
}

// TestSelectorPattern: the pattern refuses no selector that can be read.
func TestSelectorPattern(t *testing.T) {
	plain, anywhere := accepts(t, pattern(selectorPattern(false))), accepts(t, pattern(selectorPattern(true)))
	namespaces, everything := accepts(t, ruleNamespaces()), accepts(t, pattern(allAlone))
	tokens := []string{"a", "all()", "all( )", "has(a)", "has( b/c.d-e )", "global()", "!", "(", ")", "&&", "||", " ", "\t", "==", "!=", "'x'", `"y'z"`, "in", "not in", "notin",
		"{", "}", ",", "contains", "starts with", "startswith", "ends  with", "{'a'}", "{ 'a' , \"b\", }", "{}", "a == 'b'", "a in {'b'}", "all", "has", "not", "&", "=", "'"}
	r := rand.New(rand.NewPCG(3, 4))
	good := 0
	for range 60_000 {
		var b strings.Builder
		for range 1 + r.IntN(7) {
			b.WriteString(tokens[r.IntN(len(tokens))])
			if r.IntN(2) == 0 {
				b.WriteByte(' ')
			}
		}
		text := b.String()
		s, err := selector.Parse(text)
		if err != nil {
			continue
		}
		good++
		_, isGlobal := s.Root().(selector.Global)
		_, isAll := s.Root().(selector.All)
		switch global := strings.Contains(text, "global"); {
		case !anywhere(text):
			t.Errorf("the pattern refuses %q", text)
		case !global && (!plain(text) || !namespaces(text)):
			t.Errorf("the pattern without global() refuses %q", text)
		case isGlobal != (namespaces(text) && !plain(text)):
			t.Errorf("global() alone: %q", text)
		case isAll && !everything(text) && !strings.Contains(text, "||") && !strings.Contains(text, "&&"):
			t.Errorf("all() alone: %q", text)
		}
	}
	if good < 1000 {
		t.Errorf("only %d of the texts were selectors", good)
	}
	for _, bad := range []string{"app", "app = 'web'", "app == web", "app == 'web", "has(a) &", "has(a) &&", "any()", "has(", "!", "a in (b)", "a in {'b' 'c'}", "&& has(a)"} {
		if plain(bad) {
			t.Errorf("the pattern lets %q be", bad)
		}
	}
}
