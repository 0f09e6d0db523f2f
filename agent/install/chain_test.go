package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChainTo(t *testing.T) {
	const ours = `{"chained":true,"type":"tortie-cni"}`
	for name, text := range map[string]string{
		"10-cloud.conflist": `{"cniVersion": "0.4.0", "name": "cloud", "disableCheck": true, "plugins": [{"type": "ptp", "n": 12345678901234567}]}`,
		"10-cloud.conf":     `{"cniVersion": "0.4.0", "name": "cloud", "type": "ptp", "n": 12345678901234567}`,
	} {
		p := newPlace(t, Conf{ChainTo: "cloud"})
		p.i.o.ConfName = "00-tortie.conflist"
		p.write(filepath.Join(p.conf, "05-other.conflist"), `{"name": "other", "plugins": []}`, 0o644)
		if err := p.i.look(true); err == nil || !strings.Contains(err.Error(), `network "cloud"; there are: 05-other.conflist (other)`) {
			t.Errorf("%s: without it: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(p.conf, "00-tortie.conflist")); err == nil {
			t.Errorf("%s: a configuration without the other plugin", name)
		}
		p.write(filepath.Join(p.conf, name), text, 0o644)
		p.look(true)
		p.look(true) // it is not taken for the other's
		got := strings.Join(strings.Fields(p.read(filepath.Join(p.conf, "00-tortie.conflist"))), "")
		if !strings.Contains(got, `"name":"cloud"`) || !strings.Contains(got, "12345678901234567") || strings.Count(got, ours) != 1 ||
			!strings.Contains(got, ours+`]}`) || !strings.Contains(got, `"cniVersion":"0.4.0"`) {
			t.Errorf("%s: %s", name, got)
		}
		if len(p.i.Problems()) != 0 {
			t.Errorf("%s: %v", name, p.i.Problems())
		}
	}
}
