package config

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

var equate = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestDefaultIsValid(t *testing.T) {
	c := Default()
	c.NodeName = "node1" // the host's may be anything
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if c.SocketPath() != "/run/tortie/agent.sock" {
		t.Error(c.SocketPath())
	}
	if n := reflect.TypeOf(c).NumField() - 1 + reflect.TypeOf(c.Store).NumField(); n >= 40 {
		t.Errorf("%d knobs, want fewer than 40", n)
	}
}

func TestParse(t *testing.T) {
	c, err := Parse([]byte(`
nodeName: node1
nodeAddresses: [192.0.2.1/24, 2001:db8::1/64]
store:
  endpoints: [https://a:2379]
  caFile: /ca
endpointToHost: Return
failsafeIn: ["tcp:22", "udp:68:10.1.2.3/8", "tcp:1:2001:db8::/32"]
failsafeOut: []
resyncInterval: 1m30s
logLevel: debug
socket: /x
mtu: 1400
`))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	want := Default()
	want.NodeName, want.MTU, want.Socket, want.EndpointToHost, want.LogLevel = "node1", 1400, "/x", "Return", -4
	want.NodeAddresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	want.Store = Store{Endpoints: []string{"https://a:2379"}, CAFile: "/ca"}
	want.ResyncInterval = Duration(90 * time.Second)
	want.FailsafeIn = []Failsafe{{Proto: 6, Port: 22}, {Proto: 17, Port: 68, Net: netip.MustParsePrefix("10.0.0.0/8")},
		{Proto: 6, Port: 1, Net: netip.MustParsePrefix("2001:db8::/32")}}
	want.FailsafeOut = []Failsafe{}
	want.Said = []string{"endpointToHost", "failsafeIn", "failsafeOut", "logLevel", "mtu", "nodeAddresses", "nodeName", "resyncInterval", "socket", "store"}
	if d := cmp.Diff(want, c, equate); d != "" {
		t.Error(d)
	}
	n := c.Node()
	if n.EndpointToHost != drivers.ToHostReturn || n.MTU != 1400 || len(n.Addresses) != 2 || n.FailsafeIn[0].Port != 22 ||
		len(n.FailsafeOut) != 0 || n.WorkloadPrefixes[0] != "tort" {
		t.Errorf("%+v", n)
	}
}

// TestKubernetes: a store of Kubernetes, from the file and from what flags say.
func TestKubernetes(t *testing.T) {
	c, err := Parse([]byte(`
nodeName: node1
store: {kubernetes: {apiServers: ["https://10.0.0.1:6443"]}}
cni: {binDir: /host/opt/cni/bin, confDir: /host/etc/cni/net.d, ipam: {type: tortie, families: [IPv4]}}
`))
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		t.Fatal(err)
	}
	if k := c.Store.Kubernetes; k == nil || len(k.APIServers) != 1 || c.CNI.ConfName != "10-tortie.conflist" || c.CNI.Network != "tortie" || c.CNI.IPAM["type"] != "tortie" {
		t.Errorf("%+v %+v", c.Store, c.CNI)
	}
	for _, x := range []struct {
		say  []string
		want Store
	}{
		{[]string{"kubernetes"}, Store{Kubernetes: &Kubernetes{Kubeconfig: "/old", APIServers: []string{"https://a"}}}},
		{[]string{"kubernetes:/new"}, Store{Kubernetes: &Kubernetes{Kubeconfig: "/new", APIServers: []string{"https://a"}}}},
		{[]string{"unix:///s"}, Store{Endpoints: []string{"unix:///s"}}},
		{[]string{"https://a:1", "https://b:1"}, Store{Endpoints: []string{"https://a:1", "https://b:1"}}},
	} {
		s := Store{Kubernetes: &Kubernetes{Kubeconfig: "/old", APIServers: []string{"https://a"}}}
		s.Use(x.say)
		if d := cmp.Diff(x.want, s); d != "" {
			t.Errorf("%v: %s", x.say, d)
		}
	}
	// Pods reach what is on their own node, unless somebody says otherwise; a FelixConfiguration still can.
	for text, want := range map[string]string{"store: {kubernetes: {}}": "Accept", "store: {kubernetes: {}}\nendpointToHost: Drop": "Drop", "mtu: 1400": "Drop"} {
		c, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		c.Settle()
		if _, fixed := c.Fixed()["defaultEndpointToHostAction"]; c.EndpointToHost != want || fixed != strings.Contains(text, "endpointToHost") {
			t.Errorf("%s: %s, fixed %v", text, c.EndpointToHost, fixed)
		}
	}
	s := Store{Endpoints: []string{"unix:///s"}}
	if s.Use([]string{"kubernetes"}); s.Kubernetes == nil {
		t.Error("kubernetes over a file with etcd")
	}
}

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	want := Default()
	b, err := yaml.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	got.Said = nil // all that was written has been said
	if d := cmp.Diff(want, got, equate); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"nodename: a", "unknown key nodename, did you mean nodeName?"},
		{"mtuu: 1\nstatDir: /x", "unknown key mtuu, did you mean mtu?\nunknown key statDir, did you mean stateDir?"},
		{"store: {endpoint: [a]}", "unknown key store.endpoint, did you mean endpoints?"},
		{"store: {kubernetes: {kubecfg: x}}", "unknown key store.kubernetes.kubecfg, did you mean kubeconfig?"},
		{"cni: {bindir: x}", "unknown key cni.bindir, did you mean binDir?"},
		{"zzzzzzzzzz: 1", "unknown key zzzzzzzzzz (known: allowEncapFromWorkloads, "},
		{"mtu: big", "mtu: a string doesn't fit here"},
		{"mtu: 1\nmtu: 2", `key "mtu" already set`},
		{"resyncInterval: 10 parsecs", "unknown unit"},
		{"failsafeIn: [icmp]", `failsafe "icmp": want PROTOCOL:PORT`},
		{"failsafeIn: ['tcp:70000']", `failsafe "tcp:70000": want`},
		{"failsafeIn: ['tcp:7:10.0.0.1']", `failsafe "tcp:7:10.0.0.1"`},
		{"failsafeIn: ['tcp:7:::ffff:10.0.0.0/104']", `write it as IPv4`},
		{"nodeAddresses: [10.0.0.1]", "no '/'"},
		{"- a\n- b", "want key: value lines"},
		{"a: b: c", "mapping values"},
	} {
		if _, err := Parse([]byte(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
	}
}

// TestFixed: every key that a FelixConfiguration could change is fixed by being said, with the value that it has anyway too.
func TestFixed(t *testing.T) {
	honoured := map[string]bool{}
	for _, f := range api.FelixFields() {
		if f.Effect == api.Honoured && f.Name != "nodeSelector" && f.Name != "interfacePrefix" {
			honoured[f.Name] = true // what they say of prefixes is added to the agent's own
		}
	}
	c, err := Parse([]byte("endpointToHost: Drop\nfailsafeIn: []\nfailsafeOut: []\nallowEncapFromWorkloads: false\nworkloadSourceSpoofing: Any\nfloatingIPs: Enabled\n" +
		"vxlanPort: 4789\nresyncInterval: 0s\nlogLevel: info\nmtu: 1500\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Graph().Fixed
	for name, key := range got {
		if !honoured[name] || felixNames[key] == nil {
			t.Errorf("%s is fixed by %s", name, key)
		}
	}
	if len(got) != len(honoured) {
		t.Errorf("%d settings are fixed, want %d: %v", len(got), len(honoured), got)
	}
	if n := len(Default().Graph().Fixed); n != 0 {
		t.Errorf("%d settings are fixed by defaults", n)
	}
}

func TestValidateTellsAll(t *testing.T) {
	c := Config{NodeName: "Not A Name", NodeAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("10.0.0.1/8")},
		InterfacePrefix: "muchtoolong", MTU: 5, EndpointToHost: "drop", WorkloadSourceSpoofing: "All", FloatingIPs: "yes", Listen: "nowhere", ResyncInterval: -1,
		Store: Store{Endpoints: []string{"ftp://x"}, CertFile: "x", Username: "y"},
		CNI:   CNI{ConfName: "../x.conflist", Network: "a b", BinDir: "bin", IPAM: map[string]any{"families": "x"}}}
	err := c.Validate()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, field := range []string{"nodeName", "nodeAddresses", "interfacePrefix", "mtu", "endpointToHost", "workloadSourceSpoofing", "floatingIPs", "logFormat", "listen",
		"resyncInterval", "driver", "stateDir", "runDir", "bootIDFile", "applyTimeout", "store.endpoints", "store.certFile", "store.username", "cni.confName",
		"cni.network", "cni.binDir", "cni.ipam.type"} {
		if !strings.Contains(err.Error(), field+":") && !strings.Contains(err.Error(), field+",") {
			t.Errorf("nothing about %s in:\n%v", field, err)
		}
	}
	c.Store.Kubernetes = &Kubernetes{APIServers: []string{"10.0.0.1:6443"}}
	if err := c.Validate(); !strings.Contains(err.Error(), "store.kubernetes.apiServers") || strings.Contains(err.Error(), "store.endpoints") {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if _, err := Load(path); err == nil {
		t.Error("a missing file is no error")
	}
	if err := os.WriteFile(path, []byte("# nothing is said\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if d := cmp.Diff(Default(), c, equate); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

func FuzzFailsafe(f *testing.F) {
	f.Add("tcp:22")
	f.Add("udp:53:2001:db8::/32")
	f.Fuzz(func(t *testing.T, s string) {
		var a, b Failsafe
		if a.UnmarshalText([]byte(s)) != nil {
			return
		}
		out, err := json.Marshal(a)
		if err == nil {
			err = json.Unmarshal(out, &b)
		}
		if err != nil || a != b {
			t.Errorf("%q became %v, then %s, then %v: %v", s, a, out, b, err)
		}
	})
}

// TestLoadMore: files of path.d go over the file, key by key.
func TestLoadMore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent [1].yaml")
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("agent [1].yaml", `
store: {kubernetes: {apiServers: ["https://a:1", "https://b:1"]}}
cni: {binDir: /bin, confDir: /conf}
listen: "127.0.0.1:9091"
mtu: 1400
`)
	write("agent [1].yaml.d/a.yaml", `
store: {kubernetes: {apiServers: ["https://c:1"]}}
cni: {ipam: {type: host-local}}
endpointToHost: Drop
mtu: 1300
`)
	write("agent [1].yaml.d/b.yaml", "mtu: 1200")
	write("agent [1].yaml.d/c.yaml", "")
	write("agent [1].yaml.d/b.yaml~", "mtu: 9")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Settle()
	if k := c.Store.Kubernetes; c.MTU != 1200 || c.Listen != "127.0.0.1:9091" || c.EndpointToHost != "Drop" || c.CNI.BinDir != "/bin" ||
		c.CNI.IPAM["type"] != "host-local" || k == nil || !slices.Equal(k.APIServers, []string{"https://c:1"}) {
		t.Errorf("%+v %+v", c, c.Store.Kubernetes)
	}
	if want := []string{"cni", "endpointToHost", "listen", "mtu", "store"}; !slices.Equal(c.Said, want) {
		t.Errorf("said %v, want %v", c.Said, want)
	}
	write("agent [1].yaml.d/d.yaml", "endpointTooHost: Drop")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "d.yaml") || !strings.Contains(err.Error(), "endpointToHost") {
		t.Errorf("an unknown key: %v", err)
	}
}
