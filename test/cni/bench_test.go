//go:build linux

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/netns"
)

// object is JSON.
type object = map[string]any

// pluginConf is the plugin's configuration, with some keys more.
func pluginConf(ipamSection object, more object) object {
	c := object{"cniVersion": "1.0.0", "name": "testnet", "type": "tortie-cni", "socket": shared.node.Socket(),
		"notesDir": notesDir(), "ipam": ipamSection, "namespace": "shop"}
	maps.Copy(c, more)
	return c
}

func notesDir() string { return filepath.Join(shared.node.StateDir(), "notes") }

func hostLocal(t testing.TB, subnets ...string) object {
	if len(subnets) == 0 {
		subnets = []string{"10.65.2.0/24", "fd65::2:0/112"}
	}
	var ranges [][]object
	for _, s := range subnets {
		ranges = append(ranges, []object{{"subnet": s}})
	}
	return object{"type": "host-local", "dataDir": t.TempDir(), "ranges": ranges, "routes": []object{{"dst": "0.0.0.0/0"}}}
}

// container is a network namespace. What it has plugged in is unplugged when the test ends.
type container struct {
	t  testing.TB
	id string
	ns *netns.Ns
}

func newContainer(t testing.TB) *container {
	t.Helper()
	ns, err := netns.Create(netns.UniqueName("tortiecni"))
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, id: "c-" + ns.Name(), ns: ns}
	t.Cleanup(func() {
		if err := errors.Join(ns.Close(), netns.Delete(ns.Name())); err != nil {
			t.Error(err)
		}
	})
	// The first socket of a Go program finds out whether there is IPv6: not without a loopback.
	if err := c.ip("link", "set", "lo", "up"); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *container) path() string { return c.ns.Path() }

// onNode runs a command in the network namespace of the node.
func onNode(cmd *exec.Cmd) error { return shared.start(cmd) }

// start starts a program on the node.
func (s *sharedBed) start(cmd *exec.Cmd) error {
	ns, err := netns.OpenNamed(s.node.Netns())
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(cmd.Start)
}

// call is one run of the plugin, as a runtime runs it.
type call struct {
	verb, id, iface, netns, args string
	conf                         object
	bed                          *sharedBed // nil = the shared one
}

func (c call) command(out, stderr *bytes.Buffer) *exec.Cmd {
	b, err := json.Marshal(c.conf)
	if err != nil {
		panic(err) // of the test's own making
	}
	cmd := exec.Command(filepath.Join(shared.bin, "tortie-cni"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+c.verb, "CNI_PATH="+shared.bin+":"+debianPlugins)
	for k, v := range map[string]string{"CNI_CONTAINERID": c.id, "CNI_IFNAME": c.iface, "CNI_NETNS": c.netns, "CNI_ARGS": c.args} {
		if v != "" {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(b), out, stderr
	return cmd
}

// run returns what the plugin printed; an error that it told of is a *types.Error.
func (c call) run() ([]byte, error) {
	var out, stderr bytes.Buffer
	cmd, start := c.command(&out, &stderr), onNode
	if c.bed != nil {
		start = c.bed.start
	}
	if err := start(cmd); err != nil {
		return nil, err
	}
	return outcome(cmd.Wait(), &out, &stderr)
}

func outcome(err error, out, stderr *bytes.Buffer) ([]byte, error) {
	if err == nil {
		return out.Bytes(), nil
	}
	e := &types.Error{}
	if jErr := json.Unmarshal(out.Bytes(), e); jErr != nil {
		return nil, fmt.Errorf("%w: %s%s", err, out, stderr)
	}
	return nil, e
}

// verb runs the plugin for the container's eth0.
func (c *container) verb(verb string, conf object) ([]byte, error) {
	return call{verb: verb, id: c.id, iface: "eth0", netns: c.path(), conf: conf}.run()
}

func (c *container) add(conf object) *current.Result {
	c.t.Helper()
	out, err := c.verb("ADD", conf)
	if err != nil {
		c.t.Fatalf("ADD: %v", err)
	}
	c.t.Cleanup(func() { c.del(conf) })
	return result(c.t, out)
}

func (c *container) del(conf object) {
	c.t.Helper()
	if out, err := c.verb("DEL", conf); err != nil || len(out) > 0 {
		c.t.Errorf("DEL: %s, %v", out, err)
	}
}

func result(t testing.TB, out []byte) *current.Result {
	t.Helper()
	r := &current.Result{}
	if err := json.Unmarshal(out, r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return r
}

// wantCode checks the code of an error, and that it says something.
func wantCode(t testing.TB, what string, err error, code uint, says ...string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: %v, want code %d", what, err, code)
		if e == nil {
			return
		}
	}
	for _, s := range says {
		if !strings.Contains(e.Error(), s) {
			t.Errorf("%s: %q does not say %q", what, e.Error(), s)
		}
	}
}

// attachments is what the agent's ledger has.
func attachments(t testing.TB) []agentapi.Attachment {
	t.Helper()
	l, err := shared.node.Client().List(t.Context(), agentapi.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return l.Attachments
}

// workloadLinks are the node's interfaces of workloads.
func workloadLinks(t testing.TB) []string {
	t.Helper()
	out, err := exec.Command("ip", "-netns", shared.node.Netns(), "-j", "link", "show").Output()
	var links []struct{ Ifname string }
	if err == nil {
		err = json.Unmarshal(out, &links)
	}
	if err != nil {
		t.Fatalf("listing interfaces: %v", err)
	}
	var names []string
	for _, l := range links {
		if strings.HasPrefix(l.Ifname, "tort") {
			names = append(names, l.Ifname)
		}
	}
	return names
}

// nothingLeft checks that no attachment is left anywhere on the node.
func nothingLeft(t testing.TB) {
	t.Helper()
	if a, l := attachments(t), workloadLinks(t); len(a)+len(l) > 0 {
		t.Errorf("left are attachments %v, interfaces %v", a, l)
	}
	if ns, err := agentapi.ReadNotes(notesDir()); err != nil || len(ns) > 0 {
		t.Errorf("left are notes %v, %v", ns, err)
	}
	out, err := shared.tortie(t, "get", "workloadendpoints", "-A", "-o", "name")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("left in the store: %q, %v", out, err)
	}
}

// eventually waits until fn says nothing.
func eventually(t testing.TB, what string, fn func() string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		says := fn()
		if says == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", what, says)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// BenchmarkAdd is ADD from exec to exit, policy enforced, with an empty container each time.
func BenchmarkAdd(b *testing.B) {
	withPools(b)
	labels := object{"labels": object{"role": "web"}}
	b.Run("ipam=host-local", func(b *testing.B) { benchmarkAdd(b, pluginConf(hostLocal(b), labels)) })
	b.Run("ipam=tortie", func(b *testing.B) { benchmarkAdd(b, pluginConf(object{"type": "tortie"}, labels)) })
}

func benchmarkAdd(b *testing.B, conf object) {
	var took []time.Duration
	before := attachSteps(b)
	for b.Loop() {
		b.StopTimer()
		c := newContainer(b)
		b.StartTimer()
		start := time.Now()
		if out, err := c.verb("ADD", conf); err != nil {
			b.Fatalf("%s %v", out, err)
		}
		took = append(took, time.Since(start))
		b.StopTimer()
		c.del(conf)
		b.StartTimer()
	}
	for step, sum := range attachSteps(b) {
		b.ReportMetric(1000*(sum-before[step])/float64(len(took)), step+"-ms")
	}
	report(b, took)
}

// ip runs `ip` in the container.
// BenchmarkAddMany begins ADDs all at once, and at a rate.
func BenchmarkAddMany(b *testing.B) {
	withPools(b)
	conf := pluginConf(object{"type": "tortie"}, object{"labels": object{"role": "web"}})
	for name, every := range map[string]time.Duration{"100-at-once": 0, "50-a-second": 20 * time.Millisecond} {
		b.Run(name, func(b *testing.B) {
			const n = 100
			for b.Loop() {
				b.StopTimer()
				cs := make([]*container, n)
				for i := range cs {
					cs[i] = newContainer(b)
				}
				b.StartTimer()
				report(b, addAll(b, cs, conf, every))
				b.StopTimer()
				for _, c := range cs {
					c.del(conf)
				}
				b.StartTimer()
			}
		})
	}
}

// addAll begins an ADD for each container, one every so often, and says how long each took.
func addAll(b *testing.B, cs []*container, conf object, every time.Duration) []time.Duration {
	b.Helper()
	took, errs := make([]time.Duration, len(cs)), make([]error, len(cs))
	before, begin := attachSteps(b), time.Now()
	agentBefore, storeBefore := cpu(b, shared.node.Agent.Pid()), cpu(b, shared.lab.Store.Pid())
	tick := time.NewTicker(max(1, every))
	defer tick.Stop()
	var wg sync.WaitGroup
	for i, c := range cs {
		if every > 0 {
			<-tick.C
		}
		wg.Go(func() {
			start := time.Now()
			_, errs[i] = c.verb("ADD", conf)
			took[i] = time.Since(start)
		})
	}
	wg.Wait()
	b.ReportMetric(float64(len(cs))/time.Since(begin).Seconds(), "ADDs/s")
	for step, sum := range attachSteps(b) {
		b.ReportMetric(1000*(sum-before[step])/float64(len(cs)), step+"-ms")
	}
	b.ReportMetric(1000*(cpu(b, shared.node.Agent.Pid())-agentBefore).Seconds()/float64(len(cs)), "agent-CPU-ms")
	b.ReportMetric(1000*(cpu(b, shared.lab.Store.Pid())-storeBefore).Seconds()/float64(len(cs)), "store-CPU-ms")
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
	return took
}

// cpu is how much time a process has spent on CPUs. Unlike the clock's it means something on a machine that has other work.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	var ticks time.Duration
	for _, f := range strings.Fields(rest)[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * time.Second / 100 // USER_HZ
}

// report says how ADDs were distributed.
func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[min(len(took)-1, int(q*float64(len(took))))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(1), "max-ms")
}

// attachSteps is how many seconds the agent has spent in each step of all attaches.
func attachSteps(t testing.TB) map[string]float64 {
	t.Helper()
	var text []byte
	err := nodeNs(t).Do(func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:9091") // on this thread, so in the node's namespace
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		text, err = io.ReadAll(conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const prefix = `tortie_workload_attach_step_duration_seconds_sum{step="`
	steps := map[string]float64{}
	for line := range strings.SplitSeq(string(text), "\n") {
		rest, ok := strings.CutPrefix(line, prefix)
		if !ok {
			continue
		}
		step, value, _ := strings.Cut(rest, `"} `)
		if steps[step], err = strconv.ParseFloat(value, 64); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return steps
}

func (c *container) ip(args ...string) error {
	if out, err := exec.Command("ip", append([]string{"-netns", c.ns.Name()}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}
