package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tortie/tortie/test/lab"
)

const (
	// debianPlugins is where the distribution has the plugins that we compare with.
	debianPlugins = "/usr/lib/cni"
	cniPolicy     = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: cni}
spec: {selector: role == 'web', types: [Ingress], ingress: [{action: Allow, protocol: TCP, source: {selector: role == 'client'}, destination: {ports: [80]}}]}
`
)

// plugin is a CNI plugin with its configuration, and the host that it plugs containers into.
type plugin struct {
	name string
	path string
	conf []byte
	on   *lab.Host
}

func newPlugin(path string, conf map[string]any, on *lab.Host) (plugin, error) {
	conf["cniVersion"], conf["name"], conf["type"] = "1.0.0", "bench", filepath.Base(path)
	b, err := json.Marshal(conf)
	return plugin{name: filepath.Base(path), path: path, conf: b, on: on}, err
}

// plugins are ours on the first node, and the distribution's ptp and bridge with host-local on the plain twins. Those get
// IPv4 only: with IPv6 they wait a second or two for duplicate address detection, which would be no fair comparison.
func (m *measurement) plugins() ([]plugin, error) {
	n, b := m.bed.lab.Nodes[0], m.bed
	hostLocal := func(name string, second int) map[string]any {
		return map[string]any{"type": "host-local", "dataDir": filepath.Join(b.lab.Dir, name), "ranges": [][]map[string]string{{{"subnet": fmt.Sprintf("10.%d.0.0/16", second)}}}}
	}
	var out []plugin
	var errs []error
	for _, p := range []struct {
		path string
		conf map[string]any
		on   *lab.Host
	}{
		{filepath.Join(m.Bin, "tortie-cni"), map[string]any{"socket": n.Socket(), "notesDir": filepath.Join(n.StateDir(), "notes"), "namespace": "bench",
			"labels": map[string]string{"role": "web"}, "ipam": map[string]string{"type": "tortie"}}, n.Host},
		{filepath.Join(debianPlugins, "ptp"), map[string]any{"ipam": hostLocal("ptp", 68)}, b.pair.plainNodes[0]},
		{filepath.Join(debianPlugins, "bridge"), map[string]any{"bridge": "cni0", "isGateway": true, "ipam": hostLocal("bridge", 69)}, b.pair.plainNodes[1]},
	} {
		if _, err := os.Stat(p.path); err != nil {
			errs = append(errs, fmt.Errorf("no CNI plugin (scripts/deps.sh test installs the distribution's): %w", err))
			continue
		}
		made, err := newPlugin(p.path, p.conf, p.on)
		out, errs = append(out, made), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// run runs the plugin as a runtime does, and returns the milliseconds from exec to exit.
func (p plugin) run(ctx context.Context, verb string, c *lab.Host) (float64, error) {
	cmd := exec.CommandContext(ctx, p.path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_PATH="+debianPlugins, "CNI_CONTAINERID="+c.Netns(), "CNI_IFNAME=eth0",
		"CNI_NETNS="+c.Namespace().Path())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(p.conf), &out, &out
	var began time.Time
	err := p.on.Do(func() error {
		began = time.Now()
		return cmd.Start()
	})
	if err == nil {
		err = cmd.Wait()
	}
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w: %s", p.name, verb, err, bytes.TrimSpace(out.Bytes()))
	}
	return float64(took.Nanoseconds()) / 1e6, nil
}

// containers makes namespaces to be plugged in.
func (b *bed) containers(n int) (out []*lab.Host, err error) {
	for range n {
		b.made++
		c, err := b.lab.AddHost(fmt.Sprintf("c%d", b.made))
		if err != nil {
			return out, errors.Join(err, b.remove(out))
		}
		out = append(out, c)
	}
	return out, nil
}

func (b *bed) remove(cs []*lab.Host) error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, b.lab.Remove(c))
	}
	return errors.Join(errs...)
}

// cniRow: one after the other, as many as go, and all at once.
func cniRow(ctx context.Context, m *measurement) (err error) {
	keys, err := m.bed.apply(ctx, cniPolicy)
	defer func() { err = errors.Join(err, m.bed.drop(ctx, keys)) }()
	if err != nil {
		return err
	}
	plugins, err := m.plugins()
	if err != nil {
		return err
	}
	if err := m.addFsync(); err != nil {
		return err
	}
	if err := m.idleADDs(ctx, plugins); err != nil {
		return err
	}
	if err := m.storeWrites(ctx, plugins[0]); err != nil {
		return err
	}
	for _, p := range plugins[:2] {
		if err := m.sustainedADDs(ctx, p, p.name == plugins[0].name); err != nil {
			return err
		}
	}
	for _, n := range m.Size.Bursts {
		for _, p := range plugins[:2] {
			if err := m.burst(ctx, p, n, p.name == plugins[0].name); err != nil {
				return err
			}
		}
	}
	return nil
}

// idleADDs runs ADD and DEL of each plugin in turn, with pauses.
func (m *measurement) idleADDs(ctx context.Context, plugins []plugin) error {
	dels := make([][]float64, len(plugins))
	adds, err := Interleave(m.Size.ADDs, len(plugins), func(i int) (took float64, err error) {
		cs, err := m.bed.containers(1)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, m.bed.remove(cs)) }()
		const rest = 20 * time.Millisecond
		if err := pause(ctx, rest); err != nil {
			return 0, err
		}
		if took, err = plugins[i].run(ctx, "ADD", cs[0]); err != nil {
			return 0, err
		}
		if err := pause(ctx, rest); err != nil {
			return 0, err
		}
		del, err := plugins[i].run(ctx, "DEL", cs[0])
		dels[i] = append(dels[i], del)
		return took, err
	})
	if err != nil {
		return err
	}
	for i, p := range plugins {
		p50, p99 := Budget{}, Budget{}
		if i == 0 {
			p50, p99 = AtMost(30), AtMost(120)
		}
		m.add(quantile(p.name+" add p50", p.name+" ADD, exec to exit, idle", "ms", adds[i], 0.5, p50, false))
		m.add(quantile(p.name+" add p99", p.name+" ADD, exec to exit, idle", "ms", adds[i], 0.99, p99, len(adds[i]) < 200))
		m.add(quantile(p.name+" del p50", p.name+" DEL, idle", "ms", dels[i], 0.5, Budget{}, false))
	}
	for i, p := range plugins[1:] {
		m.add(Result{Name: "ratio " + p.name, What: "ADD against " + p.name + " with host-local, which gives one address and enforces no policy", Unit: "x",
			Spread: Summarize(Ratios(adds[0], adds[1+i]))})
	}
	return nil
}

// storeWrites counts the revisions of the store that ADDs and DELs make, and looks at the largest block.
func (m *measurement) storeWrites(ctx context.Context, p plugin) error {
	const n = 5
	cs, err := m.bed.containers(n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.bed.remove(cs)) }()
	for _, verb := range []string{"ADD", "DEL"} {
		before, err := m.bed.revision(ctx)
		if err != nil {
			return err
		}
		for _, c := range cs {
			if _, err := p.run(ctx, verb, c); err != nil {
				return err
			}
		}
		after, err := m.bed.revision(ctx)
		if err != nil {
			return err
		}
		m.add(Result{Name: verb + " writes", What: "writes of the store for one " + verb, Unit: "writes", Spread: Summarize([]float64{float64(after-before) / n}),
			Budget: AtMost(1)})
	}
	return nil
}

func (b *bed) revision(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := b.raw.Get(ctx, "none")
	if err != nil {
		return 0, fmt.Errorf("reading the store's revision: %w", err)
	}
	return got.Header.Revision, nil
}

// sustainedADDs has some workers ADD as fast as they can.
func (m *measurement) sustainedADDs(ctx context.Context, p plugin, ours bool) (err error) {
	n := m.Size.SustainedADDs
	cs, err := m.bed.containers(n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.bed.unplug(ctx, p, cs)) }()
	began := time.Now()
	if err := atOnce(m.Size.Workers, n, func(i int) error {
		_, err := p.run(ctx, "ADD", cs[i])
		return err
	}); err != nil {
		return err
	}
	budget := Budget{}
	if ours {
		budget = AtLeast(50)
	}
	m.add(Result{Name: p.name + " rate", What: fmt.Sprintf("%s ADDs by %d workers, %d in all", p.name, m.Size.Workers, n), Unit: "/s",
		Spread: Summarize([]float64{float64(n) / time.Since(began).Seconds()}), Budget: budget, Scaled: n < 200})
	return nil
}

// burst has n ADDs begin at once.
func (m *measurement) burst(ctx context.Context, p plugin, n int, ours bool) (err error) {
	cs, err := m.bed.containers(n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.bed.unplug(ctx, p, cs)) }()
	took, errs := make([]float64, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { took[i], errs[i] = p.run(ctx, "ADD", cs[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	budget := Budget{}
	if ours {
		budget = AtMost(5000)
	}
	what := fmt.Sprintf("%s, %d ADDs at once", p.name, n)
	m.add(quantile(fmt.Sprintf("%s burst %d p50", p.name, n), what, "ms", took, 0.5, Budget{}, false))
	m.add(Result{Name: fmt.Sprintf("%s burst %d slowest", p.name, n), What: what + ": the slowest", Unit: "ms", Spread: Summarize([]float64{Quantile(took, 1)}),
		Budget: budget, Scaled: n < 100})
	if ours && n == slices.Max(m.Size.Bursts) {
		return m.blockSize(ctx)
	}
	return nil
}

// unplug runs DEL for containers and removes them, however the row ended.
func (b *bed) unplug(ctx context.Context, p plugin, cs []*lab.Host) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := atOnce(8, len(cs), func(i int) error {
		_, err := p.run(ctx, "DEL", cs[i])
		return err
	})
	return errors.Join(err, b.remove(cs))
}

// blockSize is how many bytes the largest block of addresses has in the store.
func (m *measurement) blockSize(ctx context.Context) error {
	got, err := m.bed.raw.Get(ctx, "/tortie/v1/IPAMBlock/", clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("reading blocks: %w", err)
	}
	largest := 0
	for _, kv := range got.Kvs {
		largest = max(largest, len(kv.Value))
	}
	m.add(Result{Name: "block size", What: "largest block of addresses in the store", Unit: "KB", Spread: Summarize([]float64{float64(largest) / 1e3}), Budget: AtMost(11)})
	return nil
}
