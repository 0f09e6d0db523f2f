//go:build linux

package cni

import (
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/internal/agentapi"
)

// TestVersions adds and deletes in every version, and reads the result as that version has it.
func TestVersions(t *testing.T) {
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(v, func(t *testing.T) {
			pool := newIPAM(t)
			conf := pluginConf(pool.section(), object{"cniVersion": v})
			c := newContainer(t)
			out, err := c.verb("ADD", conf)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				CNIVersion string `json:"cniVersion"`
				Interfaces []struct {
					Name, Mac, Sandbox string
					Mtu                int
				}
				IPs []struct {
					Version, Address, Gateway string
					Interface                 int
				}
				Routes []struct{ Dst, GW string }
				DNS    struct{ Nameservers []string }
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			if got.CNIVersion != v || len(got.Interfaces) != 2 || len(got.IPs) != 2 || len(got.Routes) != 2 {
				t.Fatalf("%s", out)
			}
			host, in := got.Interfaces[0], got.Interfaces[1]
			if !strings.HasPrefix(host.Name, "tort") || host.Mac != "ee:ee:ee:ee:ee:ee" || host.Sandbox != "" {
				t.Errorf("host's side: %+v", host)
			}
			if in.Name != "eth0" || in.Sandbox != c.path() || len(in.Mac) != 17 {
				t.Errorf("container's side: %+v", in)
			}
			if strings.HasPrefix(v, "1.") && (in.Mtu != 1500 || host.Mtu != 1500) {
				t.Errorf("MTU: %+v %+v", host, in)
			}
			if strings.HasPrefix(v, "0.") && (got.IPs[0].Version != "4" || got.IPs[1].Version != "6") {
				t.Errorf("addresses: %+v", got.IPs)
			}
			for i, want := range []struct{ addr, gw, dst string }{{"10.65.1.10/32", "169.254.1.1", "0.0.0.0/0"}, {"fd65::1:10/128", "fe80::1", "::/0"}} {
				if ip, r := got.IPs[i], got.Routes[i]; ip.Address != want.addr || ip.Gateway != want.gw || ip.Interface != 1 ||
					r.Dst != want.dst || r.GW != want.gw {
					t.Errorf("%+v %+v, want %+v", ip, r, want)
				}
			}
			if d := cmp.Diff([]string{"192.0.2.53"}, got.DNS.Nameservers); d != "" {
				t.Error(d)
			}
			c.del(conf)
			nothingLeft(t)
			if pool.held() != 0 {
				t.Error("an address was not released")
			}
		})
	}
	t.Run("VERSION", func(t *testing.T) {
		out, err := call{verb: "VERSION", conf: object{"cniVersion": "1.1.0"}}.run()
		var got struct{ SupportedVersions []string }
		if jErr := json.Unmarshal(out, &got); err != nil || jErr != nil {
			t.Fatal(err, jErr)
		}
		if d := cmp.Diff([]string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}, got.SupportedVersions); d != "" {
			t.Error(d)
		}
	})
}

// TestRepeatedAdd: the same result, the same address, and no second one from the IPAM plugin.
func TestRepeatedAdd(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), object{"dns": object{"nameservers": []string{"192.0.2.1"}}})
	c := newContainer(t)
	first := c.add(conf)
	second := result(t, must(c.verb("ADD", conf)))
	if d := cmp.Diff(first, second); d != "" {
		t.Error(d)
	}
	if pool.held() != 2 {
		t.Errorf("%d addresses are held", pool.held())
	}
	// The same container in another way is a conflict, and leaves the first as it was.
	_, err := call{verb: "ADD", id: c.id, iface: "eth0", netns: c.path(), args: "MAC=02:00:00:00:00:01", conf: conf}.run()
	wantCode(t, "with another MAC", err, 100, "detach it first")
	if third := result(t, must(c.verb("ADD", conf))); cmp.Diff(first, third) != "" {
		t.Errorf("after the conflict: %v", third)
	}
}

// TestAddInAnotherNamespace: a runtime that lost the first one makes another, and asks again for the same container.
func TestAddInAnotherNamespace(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), nil)
	lost, c := newContainer(t), newContainer(t)
	first := result(t, must(call{verb: "ADD", id: c.id, iface: "eth0", netns: lost.path(), conf: conf}.run()))
	second := c.add(conf)
	if d := cmp.Diff(first.IPs, second.IPs); d != "" || pool.held() != 2 {
		t.Errorf("%d addresses are held, and of the first one: %s", pool.held(), d)
	}
	if links := output(t, lost.ns, "ip", "-o", "link"); strings.Contains(links, "eth0") {
		t.Errorf("the first namespace has it, too: %s", links)
	}
	c.echo("80")
	if err := talk(nodeNs(t), netip.Addr{}, addrOf(t, second, 0), 80); err != nil {
		t.Error(err)
	}
	c.del(conf)
	nothingLeft(t)
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestDelOfTheUnknown(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), nil)
	c := newContainer(t)
	c.del(conf)
	for _, path := range []string{"", "/run/netns/no-such-namespace", "/proc/self/ns/net"} {
		if _, err := (call{verb: "DEL", id: "nobody", iface: "eth0", netns: path, conf: conf}).run(); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	// Whatever has become of the configuration since.
	if _, err := c.verb("DEL", pluginConf(pool.section(), object{"lables": object{"a": "b"}, "mtu": "many"})); err != nil {
		t.Error(err)
	}
	nothingLeft(t)
}

// TestDelOrder: the address is released when the interface is gone, also if the namespace was gone before.
func TestDelOrder(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), nil)
	c := newContainer(t)
	c.add(conf)
	if out, err := (call{verb: "DEL", id: c.id, iface: "eth0", conf: conf}).run(); err != nil || len(out) > 0 {
		t.Fatalf("%s %v", out, err)
	}
	who := c.id + " eth0"
	if d := cmp.Diff([]string{"ADD " + who, "DEL " + who}, pool.log()); d != "" {
		t.Errorf("an interface was there when the address was released, or more was asked: %s", d)
	}
	nothingLeft(t)
}

// TestAddTakesBack: what fails leaves nothing, least of all an address.
func TestAddTakesBack(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), nil)
	c := newContainer(t)

	pool.touch("fail")
	_, err := c.verb("ADD", conf)
	wantCode(t, "the IPAM plugin fails", err, 123, ipamName, "told to fail")
	if pool.held() != 0 {
		t.Error("an address is held that nobody has")
	}
	if err := os.Remove(filepath.Join(pool.dir, "fail")); err != nil {
		t.Fatal(err)
	}

	// Killed between the IPAM plugin and the agent: the next ADD gets an address, and the old one is not lost.
	stale := filepath.Join(pool.dir, "10.65.1.10")
	if err := os.WriteFile(stale, []byte(c.id+" eth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.add(conf)
	if pool.held() != 2 {
		t.Errorf("%d addresses are held, want 2", pool.held())
	}

	// The interface's name is taken in the namespace.
	d := newContainer(t)
	if err := d.ip("link", "add", "eth0", "type", "bridge"); err != nil {
		t.Fatal(err)
	}
	_, err = d.verb("ADD", conf)
	wantCode(t, "eth0 is taken", err, 103, "has an interface eth0")
	if pool.held() != 2 || len(attachments(t)) != 1 {
		t.Errorf("%d addresses, attachments %v", pool.held(), attachments(t))
	}
}

func TestRefused(t *testing.T) {
	pool := newIPAM(t)
	c := newContainer(t)
	with := func(more object) object { return pluginConf(pool.section(), more) }
	eth0 := call{id: c.id, iface: "eth0", netns: c.path(), verb: "ADD"}
	for _, tc := range []struct {
		name   string
		change func(*call)
		code   uint
		says   string
	}{
		{"unknown key", func(k *call) { k.conf = with(object{"lables": object{"a": "b"}}) }, 2, `"lables": {"a":"b"}`},
		{"key of another case", func(k *call) { k.conf = with(object{"Labels": object{"a": "b"}}) }, 2, `"Labels"`},
		{"foreign key", func(k *call) { k.conf = with(object{"portMappings": true}) }, 2, `"portMappings"`},
		{"another plugin's capability", func(k *call) {
			k.conf = with(object{"runtimeConfig": object{"portMappings": []object{{"hostPort": 80}}}})
		}, 2, `add the plugin "portmap"`},
		{"ipMasq", func(k *call) { k.conf = with(object{"ipMasq": true}) }, 2, `"ipMasq": true`},
		{"wrong type", func(k *call) { k.conf = with(object{"mtu": "1500"}) }, 7, "mtu"},
		{"unknown key of a port", func(k *call) { k.conf = with(object{"ports": []object{{"name": "http", "number": 80}}}) }, 7, "number"},
		{"timeout", func(k *call) { k.conf = with(object{"timeout": "soon"}) }, 7, "timeout"},
		{"MTU", func(k *call) { k.conf = with(object{"mtu": -1}) }, 7, "mtu"},
		{"label", func(k *call) { k.conf = with(object{"labels": object{"no/such/key": "b"}}) }, 7, "label"},
		{"MAC", func(k *call) { k.conf = with(object{"runtimeConfig": object{"mac": "01:00:00:00:00:01"}}) }, 7, "mac"},
		{"no name", func(k *call) { delete(k.conf, "name") }, 7, "name"},
		{"no IPAM plugin", func(k *call) { k.conf = with(object{"ipam": object{"type": "no-such"}}) }, 999, "no-such"},
		{"no pools", func(k *call) { k.conf = with(object{"ipam": object{"type": "tortie"}}) }, 102, "IPPool"},
		{"no ipam", func(k *call) { delete(k.conf, "ipam") }, 102, "IPPool"},
		{"ipam of ours", func(k *call) { k.conf = with(object{"ipam": object{"type": "tortie", "ranges": 1}}) }, 7, "ranges"},
		{"an old version", func(k *call) { k.conf = with(object{"cniVersion": "0.2.0"}) }, 1, "0.2.0"},
		{"no namespace", func(k *call) { k.netns = "" }, 4, "CNI_NETNS"},
		{"namespace that is gone", func(k *call) { k.netns = "/run/netns/no-such" }, 8, "no-such"},
		{"a file", func(k *call) { k.netns = "/etc/hostname" }, 8, "not a network namespace"},
		{"the node's own namespace", func(k *call) { k.netns = "/run/netns/" + shared.node.Netns() }, 8, "node's own"},
		{"no container", func(k *call) { k.id = "" }, 4, "CNI_CONTAINERID"},
		{"bad container", func(k *call) { k.id = "../x" }, 4, "containerID"},
		{"long interface name", func(k *call) { k.iface = "eth0123456789012" }, 4, "interface name"},
		{"unknown argument", func(k *call) { k.args = "IP=10.0.0.1;FOO=BAR" }, 4, "FOO"},
		{"half a pod", func(k *call) { k.args = "K8S_POD_NAME=a" }, 4, "K8S_POD_NAMESPACE"},
		{"no argument", func(k *call) { k.args = "IgnoreUnknown" }, 4, "KEY=VALUE"},
		{"CHECK of old", func(k *call) { k.verb, k.conf = "CHECK", with(object{"cniVersion": "0.3.1"}) }, 1, "CHECK"},
		{"CHECK without a result", func(k *call) { k.verb = "CHECK" }, 7, "prevResult"},
		{"GC of old", func(k *call) { k.verb = "GC" }, 1, "GC"},
		{"STATUS of old", func(k *call) { k.verb = "STATUS" }, 1, "STATUS"},
		{"verb", func(k *call) { k.verb = "MEND" }, 4, "MEND"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := eth0
			k.conf = with(nil)
			tc.change(&k)
			out, err := k.run()
			wantCode(t, string(out), err, tc.code, tc.says)
		})
	}
	nothingLeft(t)
	if pool.held() != 0 {
		t.Errorf("%d addresses are held", pool.held())
	}
	// Keys for others, and what a runtime may add, are none of the plugin's business.
	ok := with(object{"_comment": 1, "x-site": 2, "cni.dev/x": 3, "capabilities": object{"mac": true}, "runtimeConfig": object{"cgroupPath": "/x"},
		"args": object{"other": 1}, "ipMasq": false})
	c.add(ok)
}

// TestIdentity looks at what the workload has become in the store.
func TestIdentity(t *testing.T) {
	pool := newIPAM(t)
	get := func(name string) map[string]any {
		t.Helper()
		out, err := shared.tortie(t, "get", "workloadendpoint", name, "-n", "shop", "-o", "json")
		if err != nil {
			t.Fatal(err)
		}
		var o struct {
			Metadata struct{ Labels map[string]string }
			Spec     map[string]any
		}
		if err := json.Unmarshal([]byte(out), &o); err != nil {
			t.Fatal(err)
		}
		o.Spec["role"], o.Spec["tier"] = o.Metadata.Labels["role"], o.Metadata.Labels["tier"]
		return o.Spec
	}
	more := object{
		"labels": object{"role": "web"}, "profiles": []string{"base"}, "mtu": 1400,
		"ports":                 []object{{"name": "http", "protocol": "TCP", "port": 80}},
		"allowedSourcePrefixes": []string{"192.0.2.0/24"},
		"args":                  object{"cni": object{"labels": []object{{"key": "tier", "value": "front"}}}},
		"runtimeConfig":         object{"mac": "02:00:00:00:00:07", "dns": object{"servers": []string{"192.0.2.9"}, "searches": []string{"x.test"}}},
		"dns":                   object{"nameservers": []string{"192.0.2.1"}},
	}
	conf := pluginConf(pool.section(), more)
	pod, plain := newContainer(t), newContainer(t)
	k := call{verb: "ADD", id: pod.id, iface: "eth0", netns: pod.path(), conf: conf,
		args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0;K8S_POD_INFRA_CONTAINER_ID=" + pod.id + ";K8S_POD_UID=u-1;X=Y"}
	res := result(t, must(k.run()))
	defer pod.del(conf)
	if in := res.Interfaces[1]; in.Mac != "02:00:00:00:00:07" || in.Mtu != 1400 {
		t.Errorf("%+v", in)
	}
	if d := cmp.Diff(res.DNS.Nameservers, []string{"192.0.2.9"}); d != "" || len(res.DNS.Search) != 1 {
		t.Errorf("%+v", res.DNS)
	}
	spec := get("n1-k8s-db--0-eth0")
	for key, want := range (object{"pod": "db-0", "orchestrator": "k8s", "containerID": pod.id, "role": "web", "tier": "front",
		"profiles": []any{"base"}, "mac": "02:00:00:00:00:07", "allowSpoofedSourcePrefixes": []any{"192.0.2.0/24"},
		"ports": []any{object{"name": "http", "protocol": "TCP", "port": 80.0}}}) {
		if d := cmp.Diff(want, spec[key]); d != "" {
			t.Errorf("%s: %s", key, d)
		}
	}
	plainConf := pluginConf(pool.section(), nil)
	res = plain.add(plainConf)
	spec = get("n1-cni-" + strings.ReplaceAll(plain.id, "-", "--") + "-eth0")
	if spec["orchestrator"] != "cni" || spec["containerID"] != plain.id || spec["interfaceName"] != res.Interfaces[0].Name {
		t.Errorf("%v", spec)
	}
	if d := cmp.Diff([]string{"192.0.2.53"}, res.DNS.Nameservers); d != "" {
		t.Errorf("DNS of the IPAM plugin: %s", d)
	}
}

func TestGC(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), object{"cniVersion": "1.1.0"})
	other := pluginConf(pool.section(), object{"cniVersion": "1.1.0", "name": "othernet"})
	keep, drop, elsewhere, manual := newContainer(t), newContainer(t), newContainer(t), newContainer(t)
	keep.add(conf)
	drop.add(conf)
	elsewhere.add(other)
	if _, err := shared.tortie(t, "attach", manual.path(), "--address", "10.65.0.9", "--sandbox", manual.id); err != nil {
		t.Fatal(err)
	}
	defer shared.node.Client().Detach(t.Context(), agentapi.DetachRequest{Sandbox: manual.id, Interface: "eth0"})
	pool.log()

	gc := maps.Clone(conf)
	gc["cni.dev/valid-attachments"] = []object{{"containerID": keep.id, "ifname": "eth0"}, {"containerID": drop.id, "ifname": "eth1"},
		{"containerID": elsewhere.id, "ifname": "eth0"}}
	if out, err := (call{verb: "GC", conf: gc}).run(); err != nil || len(out) > 0 {
		t.Fatalf("%s %v", out, err)
	}
	var left []string
	for _, a := range attachments(t) {
		left = append(left, a.Sandbox)
	}
	if d := cmp.Diff([]string{keep.id, elsewhere.id, manual.id}, left); d != "" {
		t.Error(d)
	}
	if log := pool.log(); len(log) != 1 || !strings.HasPrefix(log[0], "GC") {
		t.Errorf("the IPAM plugin was asked %v", log)
	}
	if pool.held() != 4 {
		t.Errorf("%d addresses are held, want those of two containers", pool.held())
	}
	// Nothing is valid any more.
	if out, err := (call{verb: "GC", conf: conf}).run(); err != nil || len(out) > 0 {
		t.Fatalf("%s %v", out, err)
	}
	if got := attachments(t); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestStatus(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), object{"cniVersion": "1.1.0"})
	if out, err := (call{verb: "STATUS", conf: conf}).run(); err != nil || len(out) > 0 {
		t.Errorf("%s %v", out, err)
	}
	pool.touch("full")
	_, err := call{verb: "STATUS", conf: conf}.run()
	wantCode(t, "the IPAM plugin has none left", err, 50, "no address is left")
	_, err = call{verb: "STATUS", conf: pluginConf(pool.section(), object{"cniVersion": "1.1.0", "socket": "/run/no-such.sock"})}.run()
	wantCode(t, "no agent", err, 50, "/run/no-such.sock", "tortie agent")
}

// TestChainedBehindAnother: what came before stays in the result.
func TestChainedBehindAnother(t *testing.T) {
	pool := newIPAM(t)
	prev := object{"cniVersion": "1.0.0", "interfaces": []object{{"name": "other0", "sandbox": "/x"}},
		"ips": []object{{"address": "192.0.2.7/24", "interface": 0}}, "dns": object{"domain": "before.test"}}
	c := newContainer(t)
	res := c.add(pluginConf(pool.section(), object{"prevResult": prev, "dns": object{}}))
	if len(res.Interfaces) != 3 || res.Interfaces[0].Name != "other0" || len(res.IPs) != 3 || *res.IPs[0].Interface != 0 || *res.IPs[1].Interface != 2 {
		t.Errorf("%v", res)
	}
	if a, _ := netip.AddrFromSlice(res.IPs[1].Address.IP); a.Unmap() != netip.MustParseAddr("10.65.1.10") {
		t.Errorf("%v", res.IPs[1])
	}
}
