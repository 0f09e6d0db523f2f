package crdgen

import (
	"fmt"
	"strings"
)

const (
	blank      = `[ \t]*`
	byteValue  = `(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`
	ipv4       = `(?:` + byteValue + `\.){3}` + byteValue
	hextet     = `[0-9a-fA-F]{1,4}`
	length4    = `(?:3[0-2]|[12]?[0-9])`
	length6    = `(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])`
	dnsLabel   = `[a-z0-9](?:[-a-z0-9]*[a-z0-9])?`
	subdomain  = dnsLabel + `(?:\.` + dnsLabel + `)*`
	portName   = `[a-zA-Z0-9._-]*[a-zA-Z][a-zA-Z0-9._-]*`
	quoted     = `(?:"[^"]*"|'[^']*')`
	labelName  = `[a-zA-Z0-9_./-]+`
	maxName    = 253
	maxLabel   = 63
	maxPrefix  = 49 // 39 characters of IPv6, or 45 with an IPv4 address inside, a slash and a length
	maxAddress = 45
)

func whole(pattern string) string    { return `^(?:` + pattern + `)$` }
func optional(pattern string) string { return `^(?:` + pattern + `)?$` }
func anyOf(patterns ...string) string {
	return `(?:` + strings.Join(patterns, "|") + `)`
}

// ipv6 matches what netip.ParseAddr reads as an IPv6 address without a zone.
func ipv6() string {
	h := hextet + `:`
	forms := []string{
		`(?:` + h + `){7}` + hextet,
		`(?:` + h + `){1,7}:`,
	}
	for after := 1; after <= 6; after++ {
		forms = append(forms, fmt.Sprintf(`(?:%s){1,%d}(?::%s){1,%d}`, h, 7-after, hextet, after))
	}
	forms = append(forms, `:(?:(?::`+hextet+`){1,7}|:)`)
	// The last 32 bits may be written as an IPv4 address.
	forms = append(forms, `(?:`+h+`){6}`+ipv4, `(?:`+h+`){1,5}:`+ipv4)
	for after := 1; after <= 4; after++ {
		forms = append(forms, fmt.Sprintf(`(?:%s){1,%d}(?::%s){1,%d}:%s`, h, 5-after, hextet, after, ipv4))
	}
	return anyOf(append(forms, `::(?:`+h+`){0,5}`+ipv4)...)
}

// ipv4InIPv6 matches, of what ipv6 does, the addresses that stand for an IPv4 one: Go and kernel would take them for
// different things.
func ipv4InIPv6() string {
	f := `[fF]{4}`
	return `^(?:[0:]*:` + f + `:(?:` + hextet + `:` + hextet + `|[0-9]+\.[0-9.]+)|(?:0{1,4}:){5}` + f + `:(?::|:` + hextet + `|` + hextet + `::))(?:/|$)`
}

// decimal matches the numbers from first, 0 or 1, to last, also with zeros before them.
func decimal(first int, last uint64) string {
	digits := fmt.Sprint(last)
	n := len(digits)
	var forms []string
	if n > 1 {
		forms = append(forms, fmt.Sprintf(`[1-9][0-9]{0,%d}`, n-2))
	}
	for i := range n {
		low := byte('0')
		if i == 0 {
			low = '1'
		}
		if digits[i] > low {
			forms = append(forms, digits[:i]+fmt.Sprintf(`[%c-%c]`, low, digits[i]-1)+strings.Repeat(`[0-9]`, n-1-i))
		}
	}
	forms = append(forms, digits)
	if first == 0 {
		forms = append(forms, `0`)
	}
	return `0*` + anyOf(forms...)
}

// anyCase matches a word of ASCII letters in any case. (?i) would let the Kelvin sign be a k.
func anyCase(word string) string {
	var b strings.Builder
	for _, c := range word {
		l, u := strings.ToLower(string(c)), strings.ToUpper(string(c))
		if l == u {
			b.WriteString(l)
		} else {
			b.WriteString(`[` + u + l + `]`)
		}
	}
	return b.String()
}

// selectorPattern matches every selector, and more: parentheses and exclamation marks are not counted.
func selectorPattern(global bool) string {
	atoms := []string{
		`all\(` + blank + `\)`,
		`has\(` + blank + labelName + blank + `\)`,
		labelName + blank + `[!=]=` + blank + quoted,
		labelName + `[ \t]+(?:contains|(?:starts|ends)` + blank + `with)` + blank + quoted,
		labelName + `[ \t]+(?:not` + blank + `)?in` + blank + `\{` + blank + `(?:` + quoted + blank + `,` + blank + `)*(?:` + quoted + blank + `)?\}`,
	}
	if global {
		atoms = append(atoms, `global\(`+blank+`\)`)
	}
	item := `[ \t!(]*` + anyOf(atoms...) + `[ \t)]*`
	return `^[ \t]*$|^` + item + `(?:(?:&&|\|\|)` + item + `)*$`
}

// globalAlone matches the one place of global(): a rule's namespaceSelector that is nothing else.
const globalAlone = `^(?:[ \t(]|![ \t(]*!)*global\([ \t]*\)[ \t)]*$`

// allAlone matches selectors that are all(), however it is written.
const allAlone = `^(?:[ \t(]|![ \t(]*!)*(?:all\([ \t]*\)[ \t)]*)?$`
