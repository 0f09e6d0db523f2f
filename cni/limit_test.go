package cni

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestConfigurationIsBounded: nesting and size that no configuration has are refused, for every verb.
func TestConfigurationIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"large": `{"name":"n","x":"` + strings.Repeat("x", maxConf) + `"}`,
		"deep":  `{"name":` + strings.Repeat("[", 500_000),
	} {
		for _, minimal := range []bool{true, false} {
			if _, err := parse([]byte(text), minimal); err == nil || codeOf(err) != types.ErrDecodingFailure || len(err.Error()) > 1000 {
				t.Errorf("%s, minimal %v: %.200v", name, minimal, err)
			}
		}
	}
}
