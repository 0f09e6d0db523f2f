package crdgen

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/crdgen/cases"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The servers are made once: to compile all rules takes longer than to ask them.
var (
	makeServers sync.Once
	allServers  = map[string]*server{}
)

// servers returns a server for every kind.
func servers(t testing.TB) map[string]*server {
	t.Helper()
	makeServers.Do(func() {
		files := generated(t)
		for _, k := range Kinds() {
			allServers[k.Kind] = newServer(t, files[FileName(k)])
		}
	})
	if len(allServers) != len(Kinds()) {
		t.Fatal("the servers could not be made; an earlier test says why")
	}
	return allServers
}

// objects returns the good and bad objects of the kinds that are CRDs.
func objects(t testing.TB) []cases.Case {
	t.Helper()
	all, err := cases.Read("../testdata/validate")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(c cases.Case) bool { return slices.Contains(derived, c.Kind.Kind) })
}

// TestAgreement: the API server takes every good object, and no bad one but those of Differences.
func TestAgreement(t *testing.T) {
	all, differ := servers(t), differing()
	good, bad := 0, 0
	seen := map[string]bool{}
	for _, c := range objects(t) {
		seen[c.Name()] = true
		if c.Good {
			good++
		} else {
			bad++
		}
		t.Run(c.Name(), func(t *testing.T) {
			_, err := all[c.Kind.Kind].create(t.Context(), c.Object)
			switch listed := differ[c.Name()]; {
			case c.Good && err != nil:
				t.Errorf("is good and is refused: %v", err)
			case !c.Good && err == nil && !listed:
				t.Errorf("is bad and is accepted: %v", c.Object)
			case listed && err != nil:
				t.Errorf("is listed as a difference and is refused: %v", err)
			}
		})
	}
	for name := range differ {
		if !seen[name] {
			t.Errorf("%s is listed as a difference and is no case", name)
		}
	}
	t.Logf("%d good and %d bad objects, %d listed differences", good, bad, len(differ))
	if good < 200 || bad < 650 {
		t.Error("these are too few")
	}
}

// decode reads what is stored.
func decode(t *testing.T, object map[string]any) api.Object {
	t.Helper()
	b, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	o, err := api.Decode(b)
	if err != nil || len(o) != 1 {
		t.Fatal(o, err)
	}
	return o[0]
}

// TestDefaults: the API server's defaults are those of api.Default, which then has less to do and comes to the same.
func TestDefaults(t *testing.T) {
	all := servers(t)
	filled := 0
	for _, c := range objects(t) {
		if !c.Good {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			stored, err := all[c.Kind.Kind].create(t.Context(), c.Object)
			if err != nil {
				t.Fatal(err)
			}
			if !cmp.Equal(stored.Object, c.Object) {
				filled++
			}
			want, got := decode(t, c.Object), decode(t, stored.Object)
			api.Default(want)
			api.Default(got)
			if diff := cmp.Diff(encoded(t, want), encoded(t, got)); diff != "" {
				t.Errorf("with the server's defaults (-without +with):\n%s", diff)
			}
		})
	}
	if filled < 20 {
		t.Errorf("the server has filled in something in %d objects only", filled)
	}
}

func encoded(t *testing.T, o api.Object) string {
	t.Helper()
	b, err := api.Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestExamples: what the docs and examples show can be applied.
func TestExamples(t *testing.T) {
	all := servers(t)
	n := 0
	for _, pattern := range []string{"../../examples/*.yaml", "../../examples/*/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := api.Decode(b)
			if err != nil {
				continue // of Kubernetes itself, or the agent's configuration
			}
			for _, o := range objects {
				s := all[o.GetKind()]
				if s == nil {
					continue
				}
				n++
				u := unstructured.Unstructured{}
				if err := u.UnmarshalJSON([]byte(encoded(t, o))); err != nil {
					t.Fatal(err)
				}
				if _, err := s.create(t.Context(), u.Object); err != nil {
					t.Errorf("%s: %s: %v", f, api.KeyOf(o), err)
				}
			}
		}
	}
	if n == 0 {
		t.Error("no example was found")
	}
}

// TestUpdates: what can't be changed.
func TestUpdates(t *testing.T) {
	all := servers(t)
	for _, c := range []struct {
		name, kind, from, to string
		refused              bool
	}{
		{"pool, nothing", "IPPool", `{"cidr":"10.0.0.0/16"}`, `{"cidr":"10.0.0.0/16"}`, false},
		{"pool, what may change", "IPPool", `{"cidr":"10.0.0.0/16"}`, `{"cidr":"10.0.0.0/16","disabled":true,"natOutgoing":true,"vxlanMode":"Always","nodeSelector":"has(a)"}`, false},
		{"pool, range", "IPPool", `{"cidr":"10.0.0.0/16"}`, `{"cidr":"10.1.0.0/16"}`, true},
		{"pool, larger range", "IPPool", `{"cidr":"10.0.0.0/16"}`, `{"cidr":"10.0.0.0/15"}`, true},
		{"pool, blocks", "IPPool", `{"cidr":"10.0.0.0/16","blockSize":26}`, `{"cidr":"10.0.0.0/16","blockSize":27}`, true},
		{"pool, blocks from the default", "IPPool", `{"cidr":"10.0.0.0/16"}`, `{"cidr":"10.0.0.0/16","blockSize":27}`, true},
		{"pool, the default is written down", "IPPool", `{"cidr":"10.0.0.0/16"}`, `{"cidr":"10.0.0.0/16","blockSize":26}`, false},
		{"pool, the default of IPv6 is left out", "IPPool", `{"cidr":"fd00::/64","blockSize":122}`, `{"cidr":"fd00::/64"}`, false},
		{"pool, blocks to the default", "IPPool", `{"cidr":"fd00::/64","blockSize":121}`, `{"cidr":"fd00::/64"}`, true},
		{"identity given", "ClusterInformation", `{}`, `{"clusterGUID":"a"}`, false},
		{"identity given to nothing", "ClusterInformation", `{"clusterGUID":""}`, `{"clusterGUID":"a"}`, false},
		{"identity kept", "ClusterInformation", `{"clusterGUID":"a"}`, `{"clusterGUID":"a","calicoVersion":"x"}`, false},
		{"identity changed", "ClusterInformation", `{"clusterGUID":"a"}`, `{"clusterGUID":"b"}`, true},
		{"identity taken away", "ClusterInformation", `{"clusterGUID":"a"}`, `{}`, true},
		{"default tier, order", "Tier", `{"order":1000000}`, `{"order":5}`, true},
		{"default tier, action", "Tier", `{"order":1000000,"defaultAction":"Deny"}`, `{"order":1000000,"defaultAction":"Pass"}`, true},
		{"default tier, values written down", "Tier", `{}`, `{"order":1000000,"defaultAction":"Deny"}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := object(t, c.kind, c.from), object(t, c.kind, c.to)
			err := all[c.kind].update(t.Context(), from, to)
			if (err != nil) != c.refused {
				t.Errorf("refused: %v, want %v", err, c.refused)
			}
			// Go says the same.
			before, after := decode(t, from), decode(t, to)
			api.Default(before)
			api.Default(after)
			errs := append(api.Validate(after), api.ValidateUpdate(before, after)...)
			if (len(errs) > 0) != c.refused {
				t.Errorf("api refuses: %v, want %v", errs, c.refused)
			}
		})
	}
}

func object(t *testing.T, kind, spec string) map[string]any {
	t.Helper()
	u := unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(`{"apiVersion":"` + api.GroupVersion + `","kind":"` + kind + `","metadata":{"name":"default"},"spec":` + spec + `}`)); err != nil {
		t.Fatal(err)
	}
	return u.Object
}

// TestLargestPolicy: a policy as large as a store takes stays below what CEL may cost at run time.
func TestLargestPolicy(t *testing.T) {
	rule := map[string]any{"action": "Allow", "protocol": "TCP"}
	var nets, ports []any
	for range 40 {
		nets = append(nets, "10.1.2.3/32")
		ports = append(ports, "8000:9000")
	}
	rule["source"] = map[string]any{"nets": nets, "selector": "app == 'web' && has(role)"}
	rule["destination"] = map[string]any{"nets": nets, "ports": ports}
	o := object(t, "NetworkPolicy", `{}`)
	o["metadata"].(map[string]any)["namespace"] = "prod"
	o["spec"] = map[string]any{"ingress": slices.Repeat([]any{rule}, 1024)}
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) < 1<<20 {
		t.Fatalf("%d bytes are not what a store can hold at most", len(b))
	}
	if _, err := servers(t)["NetworkPolicy"].create(t.Context(), o); err != nil {
		t.Error(err)
	}
}
