package api

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestBombs: input that is small and would become large, or deep, ends in an error, and soon.
func TestBombs(t *testing.T) {
	const head = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: x}\n"
	var aliases strings.Builder
	aliases.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&aliases, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	policy := func(selector string) string {
		return `{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkPolicy","metadata":{"name":"x"},"spec":{"selector":"` + selector + `"}}`
	}
	for name, text := range map[string]string{
		"aliases of aliases":       head + aliases.String(),
		"an alias of itself":       head + "spec: &a {nets: [*a]}\n",
		"deep YAML":                head + "spec: " + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
		"deep YAML mappings":       head + "spec: " + strings.Repeat("{a: ", 50_000) + "1" + strings.Repeat("}", 50_000),
		"deep JSON":                `{"spec":` + strings.Repeat("[", 1_000_000) + strings.Repeat("]", 1_000_000) + `}`,
		"deep JSON, never closed":  `{"spec":` + strings.Repeat(`{"a":`, 1_000_000),
		"a number without an end":  `{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"x"},"spec":{"order":` + strings.Repeat("9", 1_000_000) + `}}`,
		"many documents of nobody": strings.Repeat("--- 1\n", 200_000),
		"larger than it may be":    head + strings.Repeat("#", MaxInput),
	} {
		bounded(t, name, func() error {
			_, err := Decode([]byte(text))
			return err
		})
		bounded(t, name+", stored", func() error {
			_, _, err := DecodeStored("Tier", []byte(text))
			return err
		})
	}
	for name, selector := range map[string]string{
		"deep parentheses":       strings.Repeat("(", 1_000_000) + "all()" + strings.Repeat(")", 1_000_000),
		"open parentheses":       strings.Repeat("(", 1_000_000),
		"denied parentheses":     strings.Repeat("!(", 500_000) + "all()",
		"a word without an end":  strings.Repeat("a", 2_000_000) + " == 'b'",
		"a list that ends wrong": strings.Repeat("has(a) && ", 300_000),
	} {
		bounded(t, name, func() error {
			_, _, err := DecodeStored("GlobalNetworkPolicy", []byte(policy(selector)))
			return err
		})
	}
}

// bounded wants an error from fn within a time that is far longer than it takes, and far shorter than a bomb would.
func bounded(t *testing.T, name string, fn func() error) {
	t.Helper()
	began := time.Now()
	err := fn()
	if err == nil {
		t.Errorf("%s: no error", name)
	} else if n := len(err.Error()); n > 64<<10 {
		t.Errorf("%s: an error of %d bytes", name, n)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("%s: it took %v", name, took)
	}
}
