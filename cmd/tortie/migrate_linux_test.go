package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tortie/tortie/test/kubetest"
)

// calicoKinds are Calico's kinds as an API server has them, as far as this test needs them.
func calicoKinds() string {
	var b strings.Builder
	for _, k := range [][2]string{{"IPAMBlock", "ipamblocks"}, {"IPPool", "ippools"}, {"BlockAffinity", "blockaffinities"}, {"IPAMHandle", "ipamhandles"}, {"ClusterInformation", "clusterinformations"}, {"GlobalNetworkPolicy", "globalnetworkpolicies"}} {
		b.WriteString("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: " + k[1] + ".crd.projectcalico.org}\n" +
			"spec: {group: crd.projectcalico.org, scope: Cluster, names: {kind: " + k[0] + ", plural: " + k[1] + "}, versions: [{name: v1, served: true, storage: true, " +
			"schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}\n---\n")
	}
	return b.String()
}

const calicoObjects = `
apiVersion: crd.projectcalico.org/v1
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: false}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 10.0.0.0/24, blockSize: 30, natOutgoing: true, ipipMode: Never, vxlanMode: Never, nodeSelector: all()}
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: default.deny-all}
spec: {tier: default, selector: all(), types: [Ingress]}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMBlock
metadata: {name: 10-0-0-0-30}
spec:
  cidr: 10.0.0.0/30
  affinity: "host:n1"
  strictAffinity: false
  deleted: false
  sequenceNumber: 5
  sequenceNumberForAllocation: {"1": 3, "2": 4}
  allocations: [null, 0, 1, null]
  unallocated: [0, 3]
  attributes:
  - {handle_id: k8s-pod-network.aaaa, secondary: {namespace: default, pod: web, node: n1}}
  - {handle_id: k8s-pod-network.bbbb, secondary: {namespace: default, pod: gone, node: n1}}
---
apiVersion: crd.projectcalico.org/v1
kind: BlockAffinity
metadata: {name: n1-10-0-0-0-30}
spec: {state: confirmed, node: n1, cidr: 10.0.0.0/30, deleted: "false"}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMHandle
metadata: {name: k8s-pod-network.aaaa}
spec: {handleID: k8s-pod-network.aaaa, block: {10.0.0.0/30: 1}, deleted: false}
---
apiVersion: crd.projectcalico.org/v1
kind: IPAMHandle
metadata: {name: k8s-pod-network.bbbb}
spec: {handleID: k8s-pod-network.bbbb, block: {10.0.0.0/30: 1}, deleted: false}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {nodeName: n1, containers: [{name: c, image: none}]}
`

// calicoFiles are objects as users of Calico have them in files.
const calicoFiles = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: allow-web, namespace: default}
spec:
  selector: app == 'web'
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: TCP, source: {selector: role == 'client'}, destination: {ports: [80, "443:444"]}}]
  egress: [{action: Allow}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bad, labels: {threat: feed}}
spec: {nets: [203.0.113.0/24, "2001:db8::/32"]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: block-bad}
spec: {order: 10, selector: all(), types: [Ingress], ingress: [{action: Deny, source: {selector: threat == 'feed'}}]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-eth0, labels: {host: n1}}
spec: {node: n1, interfaceName: eth0, expectedIPs: [192.0.2.1]}
`

// TestMigrateCluster brings Calico's objects along in a real API server, which checks what is written.
func TestMigrateCluster(t *testing.T) {
	s, err := kubetest.Start(t.TempDir(), nil)
	if errors.Is(err, kubetest.ErrNotAsked) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	kubectl := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command(kubetest.Bin("kubectl"), append([]string{"--kubeconfig", s.Kubeconfig()}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	kubectl("", "apply", "--server-side", "-f", "../../deploy/crds")
	kubectl(calicoKinds(), "apply", "-f", "-")
	kubectl("", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	kubectl(calicoObjects, "apply", "-f", "-")
	const theirs = "ipamblocks.crd.projectcalico.org,blockaffinities.crd.projectcalico.org,ipamhandles.crd.projectcalico.org," +
		"ippools.crd.projectcalico.org,globalnetworkpolicies.crd.projectcalico.org"
	ours := strings.ReplaceAll(theirs, ".crd.projectcalico.org", ".projectcalico.org")
	before := kubectl("", "get", theirs, "-o", "yaml")
	// What users have in files applies as it is.
	kubectl(calicoFiles, "apply", "-f", "-")
	mine := kubectl("", "get", ours, "-o", "name")

	tortie := func(args ...string) string {
		t.Helper()
		saved := os.Stdout
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		done := make(chan error)
		go func() { _, err := out.ReadFrom(r); done <- err }()
		os.Stdout = w
		root := rootCommand()
		os.Stdout = saved
		root.SetArgs(append(args, "--store", "kubernetes:"+s.Kubeconfig()))
		err = errors.Join(root.ExecuteContext(t.Context()), w.Close(), <-done)
		if err != nil {
			t.Fatalf("tortie %s: %v\n%s", strings.Join(args, " "), err, out.String())
		}
		return out.String()
	}
	if out := tortie("migrate", "calico"); !strings.Contains(out, "10.0.0.2 stays behind: pod default/gone is gone") || !strings.Contains(out, "4 to create") {
		t.Errorf("the plan:\n%s", out)
	}
	if now := kubectl("", "get", ours, "-o", "name"); now != mine {
		t.Errorf("asking for the plan has written: %s, before it %s", now, mine)
	}
	tortie("migrate", "calico", "--yes")
	// The block is its node's. Handles that are in one block are in that block only: there are no objects of them.
	got := kubectl("", "get", "ipamhandles.projectcalico.org,blockaffinities.projectcalico.org", "-o",
		"jsonpath={range .items[*]}{.kind} {.spec.node} {.spec.cidr} {.spec.state}{end}")
	if got != "BlockAffinity n1 10.0.0.0/30 confirmed" {
		t.Errorf("handles and affinities:\n%s", got)
	}
	if out := tortie("migrate", "calico"); !strings.Contains(out, "0 to create, 0 to update, 4 unchanged") {
		t.Errorf("the plan after it was done:\n%s", out)
	}
	// Blocks and pods are joined by the pods' UIDs.
	if out := tortie("ipam", "show", "--address", "10.0.0.1"); !strings.Contains(out, "used by       WorkloadEndpoint/default/n1-k8s-web-eth0") {
		t.Errorf("10.0.0.1 is pod web's:\n%s", out)
	}
	if after := kubectl("", "get", theirs, "-o", "yaml"); after != before {
		t.Errorf("Calico's objects have changed:\n%s", after)
	}
}
