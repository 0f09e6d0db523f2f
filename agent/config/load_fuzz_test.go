package config

import (
	"bytes"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// FuzzLoad reads whole files. What is valid can be written, and comes back the same.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("nodeName: n1\nnodeAddresses: [10.0.0.1/24, \"fd00::1/64\"]\nfailsafeIn: [\"tcp:22\"]\nresyncInterval: 90s\nlogLevel: debug\n"))
	f.Add([]byte("store: {endpoints: [\"https://h:1\"], certFile: a, keyFile: b}\nfailsafeOut: null\nmtu: 1400"))
	f.Add([]byte("{}"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("nodeName: n1\nnodeName: n2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		if c.Validate() != nil {
			return
		}
		text, err := yaml.Marshal(c)
		if err != nil {
			t.Fatalf("%+v can't be written: %v", c, err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%s\ncan't be read: %v", text, err)
		}
		if twice, err := yaml.Marshal(again); err != nil || !bytes.Equal(text, twice) {
			t.Fatalf("%s\ncomes back as\n%s, %v", text, twice, err)
		}
	})
}

// TestBombs: files that are small and would become large.
func TestBombs(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
		"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n" +
		"g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g,*g]\n"
	for name, text := range map[string]string{
		"aliases":   bomb,
		"deep":      "nodeName: " + strings.Repeat("[", 100_000),
		"deep maps": strings.Repeat("{a: ", 100_000),
	} {
		if _, err := Parse([]byte(text)); err == nil || len(err.Error()) > 64<<10 {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}
