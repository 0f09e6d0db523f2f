package cni

import (
	"fmt"
	"testing"

	"github.com/tortie/tortie/internal/agentapi"
)

func TestBehind(t *testing.T) {
	const there = `{"cniVersion": "1.0.0", "interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/ns"}], "ips": [%s]}`
	for name, x := range map[string]struct{ conf, prev, want string }{
		"of the interface":  {"", fmt.Sprintf(there, `{"address": "10.0.0.2/24", "interface": 1}`), "[10.0.0.2]"},
		"both families":     {"", fmt.Sprintf(there, `{"address": "10.0.0.2/24", "interface": 1}, {"address": "fd00::2/64", "interface": 1}`), "[10.0.0.2 fd00::2]"},
		"of no interface":   {"", fmt.Sprintf(there, `{"address": "10.0.0.2/24"}`), "[10.0.0.2]"},
		"no interfaces":     {"", `{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}`, "[10.0.0.2]"},
		"of another":        {"", fmt.Sprintf(there, `{"address": "10.0.0.2/24", "interface": 0}`), ""},
		"no address":        {"", fmt.Sprintf(there, ""), ""},
		"nobody before":     {"", "null", ""},
		"addresses of ours": {`"ipam": {"type": "tortie"}, `, fmt.Sprintf(there, `{"address": "10.0.0.2/24", "interface": 1}`), ""},
	} {
		c, err := parse([]byte(`{"cniVersion": "1.0.0", "name": "n", "chained": true, `+x.conf+`"prevResult": `+x.prev+`}`), false)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		prev, err := c.previous()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r := agentapi.AttachRequest{Allocate: &agentapi.Allocate{}, MAC: "02:00:00:00:00:01"}
		err = c.behind(prev, attachment{iface: "eth0", netns: "/ns"}, &r)
		if x.want == "" {
			if err == nil {
				t.Errorf("%s: %+v, want an error", name, r)
			}
			continue
		}
		if got := fmt.Sprint(r.Addresses); err != nil || got != x.want || !r.Chained || r.Allocate != nil || r.MAC != "" {
			t.Errorf("%s: %+v %v", name, r, err)
		}
		if out := c.result(attachment{iface: "eth0", netns: "/ns"}, agentapi.AttachResponse{HostIface: "veth1"}, prev, nil); len(out.Interfaces) != len(prev.Interfaces) {
			t.Errorf("%s: the result has what was not made: %v", name, out)
		}
	}
}
