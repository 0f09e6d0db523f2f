package kubebench

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/e2e/kubebench/timing"
)

// The kernel tells of members in the sets that policies match, and of no others.
func TestMembers(t *testing.T) {
	ns, err := netns.Anonymous()
	if err != nil {
		t.Fatalf("needs root: %v", err)
	}
	defer ns.Close()
	m, err := watchMembers(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	}()
	one, two, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	began := now()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Name: "test", Family: nftables.TableFamilyINet})
	for name, addrs := range map[string][]netip.Addr{"other": {other}, setPrefix + "x": {one, two}} {
		var elements []nftables.SetElement
		for _, a := range addrs {
			elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
		}
		if err := c.AddSet(&nftables.Set{Table: table, Name: name, KeyType: nftables.TypeIPAddr}, elements); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		a, err := m.after(one, began)
		b, err2 := m.after(two, began)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if a != 0 && b != 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the kernel says nothing of the members")
		}
	}
	if at, _ := m.after(other, began); at != 0 {
		t.Error("a member of another set counts")
	}
	if at, _ := m.after(one, now()); at != 0 {
		t.Error("what was before counts")
	}
}

func TestElementsBroken(t *testing.T) {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b, 17)
	if _, err := elements(b); err == nil {
		t.Error("a message that is longer than what there is was taken")
	}
}

func TestBlocks(t *testing.T) {
	long := strings.Repeat("x", 64<<10)
	stream := `{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"},"spec":{"attributes":[{"pod":"member-1"}],"long":"` + long + `"}}}` + "\n" +
		`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}` + "\n" +
		`{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"9"},"spec":{"attributes":[{"pod":"member-1"},{"pod":"member-2"}]}}}` + "\n"
	w := &crowd{versions: map[string]string{}, arrivals: make([][]arrival, 1)}
	var latest atomic.Pointer[string]
	w.blocks(strings.NewReader(stream), 0, &latest)
	if *latest.Load() != "9" {
		t.Errorf("the last version is %s, want 9", *latest.Load())
	}
	if diff := cmp.Diff(map[string]string{"member-1": "7", "member-2": "9"}, w.versions); diff != "" {
		t.Error(diff)
	}
	var versions []string
	for _, a := range w.arrivals[0] {
		versions = append(versions, a.version)
	}
	if !slices.Equal(versions, []string{"7", "9"}) {
		t.Errorf("arrivals of %v, want each block once", versions)
	}
	all, last, err := w.seen(map[string]int64{"member-1": 0, "member-2": 0})
	if err != nil || len(all) != 2 || len(last) != 2 {
		t.Errorf("%v, %v, %v", all, last, err)
	}
	if _, _, err := w.seen(map[string]int64{"member-3": 0}); err == nil {
		t.Error("a block that nobody was told of was taken")
	}
	w.arrivals = append(w.arrivals, nil)
	if _, _, err := w.seen(map[string]int64{"member-1": 0}); err == nil {
		t.Error("a watcher that was told nothing was left out")
	}
}

func TestPlugin(t *testing.T) {
	conf, err := pluginConf([]byte(`{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"a","capabilities":{"ips":true}},{"type":"b"}]}`))
	if want := `{"cniVersion":"1.0.0","name":"net","type":"a"}`; err != nil || string(conf) != want {
		t.Errorf("%s, %v, want %s", conf, err, want)
	}
	if _, err := pluginConf([]byte(`{}`)); err == nil {
		t.Error("a list without plugins was taken")
	}
	if got := podName("IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=y"); got != "y" {
		t.Errorf("got %q", got)
	}
	a, err := address(&timing.Call{Out: []byte(`{"ips":[{"address":"10.0.0.1/32"}]}`)})
	if err != nil || a.String() != "10.0.0.1" {
		t.Errorf("%s, %v", a, err)
	}
	if _, err := address(&timing.Call{Out: []byte(`{}`)}); err == nil {
		t.Error("an answer without an address was taken")
	}
}

func TestIdleTable(t *testing.T) {
	table := idleTable(map[string]map[string]int{"tortie-agent": {"watch pods": 8, "get nodes": 30}, "tortie-controllers": {"update leases": 5}}, 2, 30*time.Minute)
	want := [][]string{
		{"an agent: all but watches", "30", "30.0", "<= 10 **not met**"},
		{"an agent: get nodes", "30", "30.0", ""},
		{"an agent: watches begun again", "8", "8.00", ""},
		{"the controllers, two replicas together: all but watches", "5", "10.0", ""},
		{"the controllers, two replicas together: update leases", "5", "10.0", ""},
		{"the controllers, two replicas together: watches begun again", "0", "0.00", ""},
	}
	if diff := cmp.Diff(want, table.Lines); diff != "" {
		t.Error(diff)
	}
}

func TestSteps(t *testing.T) {
	const name = "tortie_workload_attach_step_duration_seconds"
	s, err := readSteps(strings.NewReader("# HELP x\n" + name + "_bucket{step=\"pod\",le=\"1\"} 4\n" + name + "_sum{step=\"pod\"} 0.02\n" + name + "_count{step=\"pod\"} 4\n" +
		name + "_sum{step=\"wait\"} 0.00001\n" + name + "_count{step=\"wait\"} 4\n" + name + "_sum{step=\"none\"} 0\n" + name + "_count{step=\"none\"} 0\n"))
	if err != nil || s.String() != "pod 5.00" {
		t.Errorf("%q, %v", s, err)
	}
}
