package crdgen

import (
	"fmt"
	"slices"
	"strings"
)

// tweak adds to a schema what must hold beside the Go type.
type tweak func(*Schema)

func all(tweaks ...tweak) tweak {
	return func(s *Schema) {
		for _, t := range tweaks {
			t(s)
		}
	}
}

func enum[T any](values ...T) tweak {
	return func(s *Schema) {
		for _, v := range values {
			s.Enum = append(s.Enum, v)
		}
	}
}

func defaultTo(v any) tweak      { return func(s *Schema) { s.Default = v } }
func pattern(p string) tweak     { return func(s *Schema) { s.Pattern = p } }
func notEmpty() tweak            { return func(s *Schema) { s.MinLength = count(1) } }
func maxLength(n int64) tweak    { return func(s *Schema) { s.MaxLength = count(n) } }
func minItems(n int64) tweak     { return func(s *Schema) { s.MinItems = count(n) } }
func maxItems(n int64) tweak     { return func(s *Schema) { s.MaxItems = count(n) } }
func required(f ...string) tweak { return func(s *Schema) { s.Required = append(s.Required, f...) } }
func items(t ...tweak) tweak     { return func(s *Schema) { all(t...)(s.Items) } }
func not(p string) tweak         { return func(s *Schema) { s.Not = &Schema{Pattern: p} } }

func between(first, last float64) tweak {
	return func(s *Schema) { s.Minimum, s.Maximum = num(first), num(last) }
}

func atLeast(n float64) tweak { return func(s *Schema) { s.Minimum = num(n) } }

// set is a list in which nothing may be there twice.
func set(t ...tweak) tweak {
	return func(s *Schema) {
		s.ListType = "set"
		all(t...)(s.Items)
	}
}

// keyed is a list of objects of which no two may have the same value in a field.
func keyed(key string) tweak {
	return func(s *Schema) {
		s.ListType, s.ListMapKeys = "map", []string{key}
	}
}

// field changes a field of an object.
func property(name string, t ...tweak) tweak {
	return func(s *Schema) { all(t...)(s.Properties[name]) }
}

// cel adds a rule.
func cel(message, rule string, args ...any) tweak {
	return func(s *Schema) {
		s.Rules = append(s.Rules, Rule{Rule: fmt.Sprintf(rule, args...), Message: message})
	}
}

// onOff is Enabled, Disabled or nothing.
func onOff() tweak { return enum("Enabled", "Disabled", "") }

// words are those of a list in any case, or nothing.
func words(list ...string) tweak { return pattern(`^(?i:` + strings.Join(list, "|") + `)?$`) }

// Addresses. What stands once in an object is checked in CEL, whose message says what is wrong. In the rules of a policy
// there may be half a million of them: that is too much for CEL's limits, and a pattern costs nothing.

// prefixes are prefixes or addresses of both families, in a list.
func prefixes() tweak {
	return all(maxLength(maxPrefix), pattern(whole(ipv4+`(?:/`+length4+`)?|`+ipv6()+`(?:/`+length6+`)?`)), not(ipv4InIPv6()))
}

// cidrs are prefixes with a length, in a list. version 0 is both families.
func cidrs(version int) tweak {
	return all(maxLength(maxPrefix), pattern(whole(families(version, ipv4+`/`+length4, ipv6()+`/`+length6))), not(ipv4InIPv6()))
}

func addresses() tweak {
	return all(maxLength(maxAddress), pattern(whole(ipv4+`|`+ipv6())), not(ipv4InIPv6()))
}

func families(version int, four, six string) string {
	switch version {
	case 4:
		return four
	case 6:
		return six
	}
	return four + `|` + six
}

// address is one address of a family, or nothing.
func address(version int) tweak {
	return all(maxLength(maxAddress), cel(fmt.Sprintf("must be an IPv%d address", version),
		"self == '' || isIP(self) && ip(self).family() == %d", version))
}

// network is one prefix that stands for a network.
func network() tweak {
	return all(maxLength(maxPrefix),
		cel("must be a prefix in CIDR notation", "isCIDR(self)"),
		cel("has bits behind its length", "!isCIDR(self) || cidr(self) == cidr(self).masked()"))
}

// Names.

func nodeName() tweak     { return all(maxLength(maxName), pattern(whole(subdomain))) }
func optionalName() tweak { return all(maxLength(maxName), pattern(optional(subdomain))) }
func label() tweak        { return all(maxLength(maxLabel), pattern(whole(dnsLabel))) }
func optionalLabel() tweak {
	return all(maxLength(maxLabel), pattern(optional(dnsLabel)))
}

// interfaceName lets everything be that the kernel does, but for what could be mistaken for a pattern.
func interfaceName(others ...string) tweak {
	return all(maxLength(15), pattern(whole(strings.Join(append(slices.Clone(others), `[!-)+-.0-9;-~]{0,15}`), "|"))), not(`^\.\.?$`))
}

func interfaceWildcard() tweak { return pattern(`^[a-zA-Z0-9_.*@-]{1,15}$`) }

// selector is one selector, where an object has few of them.
func oneSelector() tweak {
	const marks = `[()]|"[^"]*"|'[^']*'`
	return all(maxLength(1024),
		cel("is not a selector, like app == 'web' && !has(role)", "self.matches(%s)", literal(selectorPattern(false))),
		cel("has parentheses that are not closed, or not opened", "[self.findAll(%s)].all(p, p.filter(c, c == '(').size() == p.filter(c, c == ')').size())", literal(marks)))
}

// ruleSelector is one of the many of a policy's rules.
func ruleSelector() tweak { return all(maxLength(1024), pattern(selectorPattern(false))) }

func ruleNamespaces() tweak {
	return all(maxLength(1024), pattern(selectorPattern(false)+`|`+globalAlone))
}

// literal is a text as CEL writes it.
func literal(s string) string {
	return `'` + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\t", `\t`).Replace(s) + `'`
}

// regexps compiles a regular expression: an error of CEL's is what refuses a bad one.
func regexps() tweak {
	return cel("must be a regular expression", "''.matches(self) in [true, false]")
}

func notNegative() tweak {
	return cel("must be a duration like 1m30s, and not negative", "duration(self) >= duration('0s')")
}

func community() tweak {
	sixteen, thirtyTwo := decimal(0, 65535), decimal(0, 4294967295)
	return pattern(whole(sixteen + `:` + sixteen + `|` + thirtyTwo + `:` + thirtyTwo + `:` + thirtyTwo))
}
