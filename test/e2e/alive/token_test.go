//go:build e2e && linux

package alive

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// The key that service account tokens are signed with is another one: all tokens that there are, are refused. Agents say
// so, and leave traffic and policy as they are; once the kubelet has brought them new tokens, they go on without being started
// again.
func TestTokensRefused(t *testing.T) {
	s := bedtest.OpenScene(t)
	restarted := []string{restarts(s.Cluster, "node1"), restarts(s.Cluster, "node2")}
	f := s.StartPatientFlow()
	renew := func() {
		stop(s.Cluster, "node1", "kubelet")
		stop(s.Cluster, "node2", "kubelet")
		up(s.Cluster)
	}
	renewed := false
	t.Cleanup(func() {
		if !renewed { // or nothing works after this test
			renew()
		}
	})
	stop(s.Cluster, "hub", "kube-controller-manager", "kube-apiserver")
	newKey(t, filepath.Join(s.Bed.State(), "run/pki"))
	up(s.Cluster)
	led(s.Cluster)
	for _, node := range []string{"node1", "node2"} {
		eventually(s.Cluster, 60*time.Second, "the agent of "+node+" to say that it is refused", func() bool {
			said := readiness(s.Cluster, node)
			return strings.Contains(said, "problem: NetworkPolicy") && strings.Contains(said, "Unauthorized")
		})
	}
	s.Only("nobody", bedtest.IsServer, map[string]string{"role": "nobody"})
	s.In("delete", "networkpolicy", "only-clients")
	undisturbed(f, 20*time.Second, "with tokens that are refused")
	f.Lossless()
	s.Apply(s.Object(bedtest.Spec{Name: "waits", Node: "node1"}))

	// Kubelets renew tokens when they are old, or when they have forgotten how old they are.
	renew()
	renewed = true
	if !bedtest.Eventually(240*time.Second, func() bool { return bedtest.Dropped(bedtest.Try(s.Client.Inside, s.Server.Server())) }) {
		t.Fatalf("the agents have not come to what was written meanwhile; that of node2 says:\n%s", readiness(s.Cluster, "node2"))
	}
	s.AgentsReady()
	s.Only("only-clients", bedtest.IsServer, bedtest.IsClient)
	s.In("delete", "networkpolicy", "nobody")
	s.Holds()
	s.Denied(s.Enter("waits").Inside, s.Server.Server())
	for i, node := range []string{"node1", "node2"} {
		if now := restarts(s.Cluster, node); now != restarted[i] {
			t.Errorf("the agent of %s was started again: %s, was %s", node, now, restarted[i])
		}
	}
}

// newKey writes another key for tokens.
func newKey(t *testing.T, pki string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{
		"sa.key": {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}, "sa.pub": {Type: "PUBLIC KEY", Bytes: public},
	} {
		if err := os.WriteFile(filepath.Join(pki, file), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
