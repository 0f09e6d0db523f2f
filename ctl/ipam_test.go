package ctl

import (
	"net/netip"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/ipam"
)

// TestIPAM shows, checks and releases addresses that a node has given: one to a workload, two to nobody.
func TestIPAM(t *testing.T) {
	b := newBench(t)
	b.apply(poolText)
	node := ipam.New(ipam.Config{Store: b.store, Node: "n1"})
	var addrs []netip.Addr
	for _, pod := range []string{"web-1", "gone-1", "gone-2"} {
		got, err := node.Assign(t.Context(), ipam.Request{Handle: ipam.HandleOf(pod, "eth0"), V4: true, Owner: api.Owner{Namespace: "shop", Pod: pod}})
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, got.Addrs[0].Addr)
	}
	used, gone1, gone2 := addrs[0].String(), addrs[1].String(), addrs[2].String()
	b.apply(`
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: web-1, namespace: shop}
spec: {orchestrator: lab, workload: web-1, node: n1, endpoint: eth0, interfaceName: tort1, ipNetworks: [` + used + `/32]}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {}
`)
	b.steps([]step{
		{[]string{"ipam", "show"}, 0, []string{"main   10.65.0.0/16   3", "65533"}},
		{[]string{"ipam", "show", "--blocks"}, 0, []string{"BLOCK", "/26   main   n1   3"}},
		{[]string{"ipam", "show", "-o", "json"}, 0, []string{`"used": 3`, `"cidr": "10.65.0.0/16"`, `"affinity": "host:n1"`}},
		{[]string{"ipam", "show", "-o", "yaml"}, 0, []string{"cidr: 10.65.0.0/16"}},
		{[]string{"ipam", "show", "-o", "xml"}, ExitUsage, []string{"table, json and yaml"}},
		{[]string{"ipam", "show", "--address", used}, 0, []string{"allocated to  shop/web-1", "node          n1", "used by       WorkloadEndpoint/shop/web-1"}},
		{[]string{"ipam", "show", "--address", "10.65.200.1"}, ExitMissing, []string{"nobody has 10.65.200.1"}},
		{[]string{"ipam", "show", "--address", "x"}, ExitUsage, []string{"--address"}},
		{[]string{"ipam", "check"}, ExitDiffers, []string{"leaked   " + gone1 + ": allocated to shop/gone-1 on node n1", gone2}},
		{[]string{"ipam", "check", "-o", "json"}, ExitDiffers, []string{`"leaked"`, `"addr": "` + gone1 + `"`, `"pod": "gone-1"`}},
		{[]string{"ipam", "release"}, ExitUsage, []string{"addresses, or --leaked"}},
		{[]string{"ipam", "release", "x"}, ExitUsage, []string{"x"}},
		{[]string{"ipam", "release", used}, ExitError, []string{"is used by WorkloadEndpoint/shop/web-1", "--force"}},
		{[]string{"ipam", "release", gone1, "--dry-run"}, 0, []string{gone1 + " released (dry run)"}},
		{[]string{"ipam", "release", gone1}, 0, []string{gone1 + " released"}},
		{[]string{"ipam", "release", gone1}, ExitMissing, []string{"nobody has " + gone1}},
		{[]string{"ipam", "release", "--leaked", "--wait", "0s", "--dry-run"}, 0, []string{gone2 + " released (dry run), of shop/gone-2"}},
		{[]string{"ipam", "release", "--leaked", "--wait", "1ms"}, 0, []string{gone2 + " released, of shop/gone-2"}},
		{[]string{"ipam", "release", "--leaked", "--wait", "0s"}, 0, []string{"nothing has leaked"}},
		{[]string{"ipam", "check"}, 0, []string{"1 block, 1 allocated, 1 used"}},
		{[]string{"ipam", "configure"}, 0, []string{"strictAffinity: false"}},
		{[]string{"ipam", "configure", "--strict-affinity", "--max-blocks-per-host", "4"}, 0, []string{"strictAffinity: true", "maxBlocksPerHost: 4"}},
		{[]string{"ipam", "configure", "--max-blocks-per-host", "-1"}, ExitError, []string{"maxBlocksPerHost"}},
		{[]string{"ipam", "configure"}, 0, []string{"strictAffinity: true", "maxBlocksPerHost: 4"}},
	})
}
