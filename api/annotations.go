package api

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Annotations of pods that more than one part of Tortie reads. Each holds a list in JSON.
const (
	// AnnotationSourcePrefixes is what a pod wants to send from beside its addresses.
	AnnotationSourcePrefixes = "cni.projectcalico.org/allowedSourcePrefixes"
	// AnnotationFloatingIPs is the floating addresses of a pod.
	AnnotationFloatingIPs = "cni.projectcalico.org/floatingIPs"
)

// AnnotationList reads a list of texts; nil if there is none.
func AnnotationList(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("%q is no list like [\"one\", \"two\"]", text)
	}
	if len(list) == 0 || slices.Contains(list, "") {
		return nil, fmt.Errorf("%q names nothing", text)
	}
	return list, nil
}

// AnnotationAddrs reads a list of addresses: all of it or, with an error, none.
func AnnotationAddrs(text string) ([]netip.Addr, error) {
	list, err := AnnotationList(text)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, t := range list {
		a, err := ParseAddr(t)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// AnnotationPrefixes reads a list of prefixes: all of it or, with an error, none.
func AnnotationPrefixes(text string) ([]netip.Prefix, error) {
	list, err := AnnotationList(text)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, t := range list {
		p, err := ParsePrefix(t)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
