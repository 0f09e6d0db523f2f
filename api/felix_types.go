package api

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxNodePortRanges = 7

// felixType is the type of a setting.
type felixType struct {
	words  string // what values there are, for the reader of the docs
	goType reflect.Type
	check  func(c *checker, p *field.Path, v any) // nil = every value of goType will do
	canon  func(v any) any                        // gives values their usual spelling; nil = there is one only
	limits FelixLimits
}

// FelixLimits says in parts what Values of a FelixField says in words, for whoever makes a schema of it.
type FelixLimits struct {
	Type    reflect.Type
	Like    string   // what check the values have to pass beside their type and the bounds below; "" = none
	Enum    []string // in any case, or ""
	Bounded bool     // Min and Max hold
	Min     int64
	Max     int64
	Pattern string // of the whole text
	Only    string // of a setting that is refused: the only value that it takes beside the empty one
}

// like names the check of a type.
func (t felixType) like(name string) felixType {
	t.limits.Like = name
	return t
}

func typed[T any](words string, check func(c *checker, p *field.Path, v T)) felixType {
	t := felixType{words: words, goType: reflect.TypeFor[T]()}
	if check != nil {
		t.check = func(c *checker, p *field.Path, v any) { check(c, p, v.(T)) }
	}
	return t
}

func felixBool() felixType { return typed[bool]("true, false", nil) }

func felixInt(first, last int64) felixType {
	words := fmt.Sprintf("%d to %d", first, last)
	if last == math.MaxInt64 {
		words = fmt.Sprintf("a number from %d", first)
	}
	t := typed(words, func(c *checker, p *field.Path, n int64) {
		if n < first || n > last {
			c.invalid(p, n, "must be %s", words)
		}
	})
	t.limits.Bounded, t.limits.Min, t.limits.Max = true, first, last
	return t
}

func felixSize() felixType { return felixInt(0, math.MaxInt32) }
func felixPort() felixType { return felixInt(0, math.MaxUint16) }

func felixDuration() felixType {
	return typed("a duration, like 1m30s", func(c *checker, p *field.Path, d Duration) {
		if d < 0 {
			c.invalid(p, d.String(), "may not be negative")
		}
	})
}

// felixEnum takes its values in any case: Calico does for some, and nobody remembers for which.
func felixEnum(values ...string) felixType {
	t := typed(strings.Join(values, ", "), func(c *checker, p *field.Path, s string) {
		canonicalWord(&s, values)
		if s != "" {
			oneOf(c, p, s, values...)
		}
	})
	t.canon = func(v any) any {
		s := v.(string)
		canonicalWord(&s, values)
		return s
	}
	t.limits.Enum = values
	return t
}

func felixText() felixType { return typed[string]("a text", nil) }

// felixPattern is a text that matches pattern as a whole.
func felixPattern(words, pattern string) felixType {
	re := regexp.MustCompile(`^(?:` + pattern + `)$`)
	t := typed(words, func(c *checker, p *field.Path, s string) {
		if !re.MatchString(s) {
			c.invalid(p, s, "must be %s", words)
		}
	})
	t.limits.Pattern = pattern
	return t
}

func felixRegexp() felixType {
	return typed("a regular expression", func(c *checker, p *field.Path, s string) { c.regexp(s, p) }).like("regexp")
}

func felixSelector() felixType {
	return typed("a selector", func(c *checker, p *field.Path, s string) { c.selector(s, p) }).like("selector")
}

func felixAddr(version int) felixType {
	return typed(fmt.Sprintf("an IPv%d address", version), func(c *checker, p *field.Path, s string) { c.optionalAddress(s, version, p) }).
		like(fmt.Sprintf("IPv%d", version))
}

func felixInterface() felixType {
	return typed("the name of an interface", func(c *checker, p *field.Path, s string) { c.interfaceName(s, p) }).like("interface")
}

func felixPrefixes() felixType {
	return typed("a list of prefixes", func(c *checker, p *field.Path, nets []string) { c.prefixes(nets, p) }).like("prefixes")
}

func felixInterfaces() felixType {
	re := regexp.MustCompile(`^[a-zA-Z0-9:._+-]{1,15}$`)
	return typed("a list of names of interfaces, in which + stands for any text", func(c *checker, p *field.Path, names []string) {
		for i, name := range names {
			if !re.MatchString(name) {
				c.invalid(p.Index(i), name, "is not the name of an interface")
			}
		}
	}).like("interfaces")
}

// felixPortRange is one port or "first:last"; names are none.
func felixPortRange() felixType {
	return typed("a port, or a range like 32768:65535", checkRange).like("range")
}

func felixPortRanges() felixType {
	return typed("a list of ports and ranges like 30000:32767", func(c *checker, p *field.Path, ports []Port) {
		c.atMost(p, len(ports), maxNodePortRanges)
		for i, port := range ports {
			checkRange(c, p.Index(i), port)
		}
	}).like("ranges")
}

func checkRange(c *checker, p *field.Path, port Port) {
	switch {
	case port.Name != "":
		c.invalid(p, port.Name, "must be a number, or a range like 32768:65535")
	case port.First > port.Last:
		c.invalid(p, port.String(), "range ends before it begins")
	}
}

func felixFailsafes() felixType {
	t := typed("a list of {protocol, port, net}", func(c *checker, p *field.Path, ports []ProtoPort) {
		for i := range ports {
			c.failsafe(&ports[i], p.Index(i))
		}
	})
	t.canon = func(v any) any {
		ports := slices.Clone(v.([]ProtoPort))
		for i := range ports {
			ports[i].Protocol = canonicalProtocol(Protocol{Name: cmp.Or(ports[i].Protocol, "TCP")}).Name
			if n, err := ParsePrefix(ports[i].Net); err == nil {
				ports[i].Net = n.String()
			}
		}
		return ports
	}
	return t
}

func (c *checker) failsafe(f *ProtoPort, p *field.Path) {
	if _, ok := failsafeProtocol(f.Protocol); !ok {
		c.invalid(p.Child("protocol"), f.Protocol, "must be TCP, UDP or SCTP")
	}
	if f.Port == 0 {
		c.invalid(p.Child("port"), 0, "must be between 1 and 65535")
	}
	if f.Net != "" {
		if _, err := ParsePrefix(f.Net); err != nil {
			c.invalid(p.Child("net"), f.Net, "%v", err)
		}
	}
}

func failsafeProtocol(name string) (n uint8, ok bool) {
	p := Protocol{Name: cmp.Or(name, "TCP")}
	n = p.number()
	return n, n == protocolTCP || n == protocolUDP || n == protocolSCTP
}

func (f ProtoPort) failsafe() Failsafe {
	n, _ := failsafeProtocol(f.Protocol)
	out := Failsafe{Proto: n, Port: f.Port}
	if n, err := ParsePrefix(f.Net); err == nil {
		out.Net = n
	}
	return out
}

// felixMarks is a mask of packet marks, with room for what is put there.
func felixMarks() felixType {
	return typed("a 32-bit mask with two bits or more", func(c *checker, p *field.Path, n int64) {
		if n < 0 || n > math.MaxUint32 || bits.OnesCount64(uint64(n)) < 2 {
			c.invalid(p, n, "must be a 32-bit mask with two bits or more")
		}
	}).like("marks")
}

func felixTables() felixType {
	return typed("{min, max} from 1 to 250", func(c *checker, p *field.Path, r RouteTableRange) { c.tables(r, 250, p) }).like("tables")
}

func felixTableRanges() felixType {
	return typed("a list of {min, max} from 1 to 4294967295, 65535 in all", func(c *checker, p *field.Path, ranges []RouteTableRange) {
		total := int64(0)
		for i, r := range ranges {
			if c.tables(r, math.MaxUint32, p.Index(i)) {
				total += r.Max - r.Min + 1
			}
		}
		if total > math.MaxUint16 {
			c.invalid(p, total, "names more than 65535 tables")
		}
	}).like("table ranges")
}

func (c *checker) tables(r RouteTableRange, last int64, p *field.Path) (ok bool) {
	before := len(c.errs)
	switch {
	case r.Min < 1:
		c.invalid(p.Child("min"), r.Min, "must be 1 or more")
	case r.Max > last:
		c.invalid(p.Child("max"), r.Max, "must be %d or less", last)
	case r.Min > r.Max:
		c.invalid(p.Child("max"), r.Max, "must not be less than min")
	}
	return len(c.errs) == before
}

func felixTimeouts() felixType {
	return typed("a list of {name, timeout}", func(c *checker, p *field.Path, list []HealthTimeout) {
		for i, t := range list {
			if t.Name == "" {
				c.required(p.Index(i).Child("name"), "the name of a part of Felix")
			}
			if t.Timeout < 0 {
				c.invalid(p.Index(i).Child("timeout"), t.Timeout.String(), "may not be negative")
			}
		}
	})
}

func felixFilters() felixType { return typed[map[string]string]("texts by names of interfaces", nil) }

func felixConntrack() felixType {
	timers := []string{"creationGracePeriod", "tcpSynSent", "tcpEstablished", "tcpFinsSeen", "tcpResetSeen", "udpTimeout",
		"genericTimeout", "icmpTimeout"}
	return typed("durations or Auto, by timer", func(c *checker, p *field.Path, m map[string]string) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !slices.ContainsFunc(timers, func(t string) bool { return strings.EqualFold(t, k) }) {
				c.errs = append(c.errs, field.NotSupported(p.Key(k), k, timers))
				continue
			}
			if d, err := time.ParseDuration(m[k]); m[k] != "Auto" && (err != nil || d < 0) {
				c.invalid(p.Key(k), m[k], "must be a duration like 1m30s, or Auto")
			}
		}
	}).like("conntrack")
}

func felixDSCP() felixType {
	return typed("0 to 63, or a name like AF11", func(c *checker, p *field.Path, d DSCP) { c.dscp(d, p) }).like("DSCP")
}

// felixHost is an address or a name that a server listens on.
func felixHost() felixType {
	return felixPattern("the name or address of a host", `[a-zA-Z0-9:._+-]{0,64}`)
}

var dscpNames = []string{"DF", "LE", "EF", "VA", "CS0", "CS1", "CS2", "CS3", "CS4", "CS5", "CS6", "CS7", "AF11", "AF12", "AF13",
	"AF21", "AF22", "AF23", "AF31", "AF32", "AF33", "AF41", "AF42", "AF43"}

func (c *checker) dscp(d DSCP, p *field.Path) {
	if n, err := strconv.ParseUint(string(d), 10, 8); err == nil && n <= 63 || slices.Contains(dscpNames, strings.ToUpper(string(d))) {
		return
	}
	c.invalid(p, string(d), "must be a number from 0 to 63 or a name like AF11")
}

func (c *checker) regexp(s string, p *field.Path) {
	if _, err := regexp.Compile(s); err != nil {
		c.invalid(p, s, "%v", err)
	}
}
