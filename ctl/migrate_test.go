package ctl

import (
	"strings"
	"testing"
)

const calicoText = `
apiVersion: v1
kind: List
items:
- apiVersion: crd.projectcalico.org/v1
  kind: ClusterInformation
  metadata: {name: default}
  spec: {datastoreReady: LOCK}
- apiVersion: crd.projectcalico.org/v1
  kind: GlobalNetworkPolicy
  metadata: {name: default.deny-all}
  spec: {tier: default, selector: all(), types: [Ingress]}
- apiVersion: crd.projectcalico.org/v1
  kind: GlobalNetworkPolicy
  metadata: {name: default.odd}
  spec: {tier: default, selector: all(), types: [Ingress], ingress: [{action: Allow, moon: full}]}
- apiVersion: crd.projectcalico.org/v1
  kind: IPAMBlock
  metadata: {name: 10-0-0-0-30}
  spec: {cidr: 10.0.0.0/30, affinity: "host:n1", allocations: [null, null, null, null], unallocated: [0, 1, 2, 3], attributes: []}
`

// TestMigrateCalico shows a plan, writes nothing before --yes, and does it once.
func TestMigrateCalico(t *testing.T) {
	b := newBench(t)
	locked := b.file("locked.yaml", replaceLock("false"))
	unlocked := b.file("unlocked.yaml", replaceLock("true"))
	other := b.file("other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")
	b.steps([]step{
		{[]string{"migrate", "calico"}, ExitUsage, []string{"say -f"}},
		{[]string{"migrate", "calico", "-f", other}, ExitUsage, []string{"nothing of crd.projectcalico.org/v1"}},
		{[]string{"migrate", "calico", "-f", locked, "-o", "xml"}, ExitUsage, []string{"table, json and yaml"}},
		{[]string{"migrate", "calico", "-f", unlocked}, 0, []string{"Calico is not locked", "1 to create"}},
		{[]string{"migrate", "calico", "-f", unlocked, "--yes"}, ExitError, []string{"datastoreReady", "--force"}},
		{[]string{"migrate", "calico", "-f", locked}, 0, []string{
			"create   GlobalNetworkPolicy/default.deny-all   GlobalNetworkPolicy/deny-all",
			"skip !   GlobalNetworkPolicy/default.odd        -", "spec.ingress[0].moon", "1 marked with ! decide about traffic",
			"skip     IPAMBlock/10-0-0-0-30                  -", "the store is not the API server of their cluster",
			"1 to create, 0 to update, 0 unchanged, 0 kept as they are here, 3 stay behind, 0 conflicts"}},
		{[]string{"migrate", "calico", "-f", locked, "-o", "yaml"}, 0, []string{"action: create", "name: deny-all", "selector: all()"}},
		{[]string{"migrate", "calico", "-f", locked, "-o", "json"}, 0, []string{`"locked": true`}},
		{[]string{"get", "globalnetworkpolicy", "deny-all"}, ExitMissing, nil},
		{[]string{"migrate", "calico", "-f", locked, "--yes"}, ExitError, []string{"GlobalNetworkPolicy/default.odd", "--accept-loss"}},
		{[]string{"get", "globalnetworkpolicy", "deny-all"}, ExitMissing, nil},
		{[]string{"migrate", "calico", "-f", locked, "--yes", "--accept-loss"}, 0, []string{"GlobalNetworkPolicy/deny-all created"}},
		{[]string{"get", "globalnetworkpolicy", "deny-all"}, 0, []string{"deny-all"}},
		{[]string{"migrate", "calico", "-f", locked, "--yes", "--accept-loss"}, 0, []string{"0 to create, 0 to update, 1 unchanged"}},
	})
}

func replaceLock(ready string) string { return strings.Replace(calicoText, "LOCK", ready, 1) }
