package kubebench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/e2e"
)

const (
	memberNS     = "watchers"
	memberPrefix = "member-"
	alive        = 20 // pods at a time: one that comes ends the one that came so many before
	mostMillis   = 500
)

// Watchers measures how soon a pod's address is a member of sets on all nodes, with many who watch what agents watch.
func Watchers(ctx context.Context, o *Options) (t *Table, err error) {
	bed := o.bed()
	defer func() { err = o.down(ctx, bed, err) }()
	if err := bed.Testbed(ctx, "up", "--cni", "none", "--proxy", "iptables", "--nodes", fmt.Sprint(o.Nodes)); err != nil {
		return nil, err
	}
	if err := bed.Install(ctx, e2e.Cluster{Proxy: "iptables"}); err != nil {
		return nil, err
	}
	c, err := open(bed)
	if err != nil {
		return nil, err
	}
	defer c.close()
	r := &churn{cluster: c, o: o}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	alone, err := r.round(ctx, o.Writes/3, slices.Max(o.Rates))
	if err != nil {
		return nil, fmt.Errorf("without watchers: %w", err)
	}
	o.say("without watchers: %s ms, p50 / p99 / largest", alone.everywhere.cell())
	began := time.Now()
	crowd, err := c.join(ctx, o.Watchers)
	if err != nil {
		return nil, err
	}
	defer crowd.leave()
	o.say("%d watches of %d watchers have begun after %.0fs", crowd.opened.Load(), o.Watchers, time.Since(began).Seconds())
	// what there was before is sent at the beginning
	if err := wait(ctx, 5*time.Second); err != nil {
		return nil, err
	}
	t = &Table{Head: []string{"ms: p50 / p99 / largest", "no watchers"}}
	t.Lines = [][]string{
		{"the API server has the write, to member on all nodes", alone.everywhere.cell()},
		{"the same, each node by itself", alone.each.cell()},
		{"the same, to a watcher", "-"},
		{"the same, to the last watcher", "-"},
		{"the CNI plugin, ADD", alone.adds.cell()},
		{fmt.Sprintf("budget of p99 of the first line: <= %d", mostMillis), ""},
	}
	t.Notes = []string{
		fmt.Sprintf("%d and %d pods come, and as many go meanwhile, on %d nodes by turns: the real plugin asks the real agent. There are no kubelets; the pod's object and its status are written as one would, "+
			"in four writes. On each node a pod has a policy that speaks of those pods.", o.Writes/3, o.Writes, o.Nodes),
		"A write's time is that of its request in the API server's audit log, a member's when the kernel says so (netlink), all on one clock.",
		fmt.Sprintf("Each watcher has a connection and, on it, the %d watches that an agent has (%d in all); all of them run on this machine's processors, with the API server, etcd and the nodes. "+
			"Without watchers the rate is the highest.", len(crowd.paths), crowd.opened.Load()),
	}
	for _, rate := range o.Rates {
		m, err := r.among(ctx, crowd, rate)
		if err != nil {
			return nil, fmt.Errorf("with watchers, %g a second: %w", rate, err)
		}
		t.Head = append(t.Head, fmt.Sprintf("%d watchers, %g a second", o.Watchers, rate))
		for i, cell := range []string{m.everywhere.cell(), m.each.cell(), m.all.cell(), m.last.cell(), m.adds.cell(), verdict(m.everywhere.quantile(0.99), mostMillis)} {
			t.Lines[i] = append(t.Lines[i], cell)
		}
		o.say("with watchers, %g a second: %s ms", rate, m.everywhere.cell())
		t.Notes = append(t.Notes, m.note)
	}
	return t, nil
}

// crowded is a round with watchers.
type crowded struct {
	*round
	all, last ms // until watchers know, each, and the last of them
	note      string
}

// among has pods come and go with watchers.
func (r *churn) among(ctx context.Context, crowd *crowd, rate float64) (*crowded, error) {
	before, began, again := crowd.bytes.Load(), time.Now(), crowd.again.Load()
	busy, err := r.processors()
	if err != nil {
		return nil, err
	}
	m := &crowded{}
	if m.round, err = r.round(ctx, r.o.Writes, rate); err != nil {
		return nil, err
	}
	took, err := busy()
	if err != nil {
		return nil, err
	}
	read := float64(crowd.bytes.Load()-before) / time.Since(began).Seconds() / 1e3 / float64(max(r.o.Watchers, 1))
	// those that are last have a moment
	if err := wait(ctx, settle); err != nil {
		return nil, err
	}
	m.note = fmt.Sprintf("At %g a second a watcher reads %.1f kB/s; the API server ended %d watches meanwhile as too slow, and they were begun again, as an agent does. %s", rate, read, crowd.again.Load()-again, took)
	m.all, m.last, err = crowd.seen(m.written)
	return m, err
}

// churn has pods come and go.
type churn struct {
	*cluster
	o       *Options
	nodes   []string
	conf    []byte // of the plugin
	made    int    // pods so far
	members map[string]*members
	pids    map[string]string
}

// round is what pods that came have shown.
type round struct {
	everywhere, each, adds ms
	written                map[string]int64 // pod -> when the API server had the request, by now
}

// member is a pod that comes and goes.
type member struct {
	name, node, ns string
	uid            string
	addr           netip.Addr
	began          int64
	add            float64
	there          chan struct{} // closed when it has been added
}

func (r *churn) close() error {
	var errs []error
	for _, m := range r.members {
		errs = append(errs, m.close())
	}
	return errors.Join(errs...)
}

func (r *churn) prepare(ctx context.Context) (err error) {
	if r.nodes, err = r.Nodes(); err != nil {
		return err
	}
	if err := r.namespace(ctx, memberNS); err != nil {
		return err
	}
	if err := r.gates(ctx); err != nil {
		return err
	}
	// from now on pods are what this program says; nobody minds that nodes have no kubelets
	if err := r.Testbed(ctx, "stop", "hub", "kube-controller-manager"); err != nil {
		return err
	}
	r.members, r.pids = map[string]*members{}, map[string]string{}
	for _, n := range r.nodes {
		if err := r.Testbed(ctx, "stop", n, "kubelet"); err != nil {
			return err
		}
		if err := r.enter(ctx, n); err != nil {
			return err
		}
	}
	list, err := r.Exec(ctx, r.nodes[0], "cat", "/etc/cni/net.d/10-tortie.conflist")
	if err != nil {
		return err
	}
	r.conf, err = pluginConf([]byte(list))
	return err
}

// enter listens to a node's kernel, and makes network namespaces for pods there.
func (r *churn) enter(ctx context.Context, node string) (err error) {
	if r.pids[node], err = r.pid(node); err != nil {
		return err
	}
	ns, err := netns.Open("/proc/" + r.pids[node] + "/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	if r.members[node], err = watchMembers(ns); err != nil {
		return err
	}
	_, err = r.Exec(ctx, node, "sh", "-c", `for i in $(seq 0 $1); do ip netns add pod$i || exit 1; done`, "-", fmt.Sprint(2*alive))
	return err
}

// gates are pods, one on each node, whose policy speaks of those that come and go.
func (r *churn) gates(ctx context.Context) error {
	_, err := r.api.NetworkingV1().NetworkPolicies(memberNS).Create(ctx, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "gate"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "gate"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "member"}}}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for _, n := range r.nodes {
		if _, err := r.api.CoreV1().Pods(memberNS).Create(ctx, newPod(memberNS, "gate-"+n, n, pause, map[string]string{"app": "gate"}), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return until(ctx, "a pod on each node", func() error {
		list, err := r.api.CoreV1().Pods(memberNS).List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err == nil && len(list.Items) != len(r.nodes) {
			err = fmt.Errorf("%d of %d run", len(list.Items), len(r.nodes))
		}
		return err
	})
}

// pluginConf is the configuration of the first plugin of a list, as a runtime hands it over.
func pluginConf(list []byte) ([]byte, error) {
	var l struct {
		CNIVersion, Name string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(list, &l); err != nil || len(l.Plugins) == 0 {
		return nil, fmt.Errorf("reading the configuration of the network: %d plugins, %w", len(l.Plugins), err)
	}
	p := l.Plugins[0]
	p["cniVersion"], p["name"] = l.CNIVersion, l.Name
	delete(p, "capabilities")
	return json.Marshal(p)
}

// round has n pods come, rate of them in a second, and go, and looks at what became of them.
func (r *churn) round(ctx context.Context, n int, rate float64) (*round, error) {
	pods := make([]*member, n)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	do := func(fn func() error) {
		wg.Go(func() {
			if err := fn(); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for i := range n + alive {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if i >= alive {
			old := pods[i-alive]
			do(func() error {
				<-old.there
				return r.remove(ctx, old)
			})
		}
		if i < n {
			pods[i] = &member{name: fmt.Sprint(memberPrefix, r.made), node: r.nodes[r.made%len(r.nodes)], ns: fmt.Sprintf("pod%d", r.made/len(r.nodes)%(2*alive)),
				there: make(chan struct{})}
			r.made++
			do(func() error {
				defer close(pods[i].there)
				return r.add(ctx, pods[i])
			})
		}
	}
	wg.Wait()
	if len(errs) > 0 {
		return nil, errors.Join(errs[:min(len(errs), 3)]...)
	}
	return r.judge(pods)
}

func (r *churn) add(ctx context.Context, m *member) error {
	p := newPod(memberNS, m.name, m.node, pause, map[string]string{"app": "member"})
	p, err := r.api.CoreV1().Pods(memberNS).Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	m.uid = string(p.UID)
	p.Status.Phase = corev1.PodPending
	p.Status.StartTime = &metav1.Time{Time: time.Now()}
	if p, err = r.api.CoreV1().Pods(memberNS).UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
		return err
	}
	m.began = now()
	out, err := r.plugin(ctx, "ADD", m)
	m.add = millis(now() - m.began)
	if err != nil {
		return err
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(out, &result); err != nil || len(result.IPs) != 1 {
		return fmt.Errorf("ADD of %s: %s", m.name, out)
	}
	m.addr = result.IPs[0].Address.Addr()
	p.Status.Phase, p.Status.PodIP = corev1.PodRunning, m.addr.String()
	p.Status.PodIPs = []corev1.PodIP{{IP: m.addr.String()}}
	_, err = r.api.CoreV1().Pods(memberNS).UpdateStatus(ctx, p, metav1.UpdateOptions{})
	return err
}

func (r *churn) remove(ctx context.Context, m *member) error {
	if _, err := r.plugin(ctx, "DEL", m); err != nil {
		return err
	}
	var grace int64
	return r.api.CoreV1().Pods(memberNS).Delete(ctx, m.name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
}

// plugin runs it on the pod's node, as containerd does.
func (r *churn) plugin(ctx context.Context, command string, m *member) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", r.pids[m.node], "-m", "-n", "-p", "-u", "-i", "-C", "--wdns=/", "--", "/opt/cni/bin/tortie-cni")
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + strings.ReplaceAll(m.uid, "-", ""), "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
		"CNI_NETNS=/run/netns/" + m.ns, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + memberNS + ";K8S_POD_NAME=" + m.name + ";K8S_POD_UID=" + m.uid}
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(r.conf), &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s of %s: %w: %s%s", command, m.name, err, out.Bytes(), stderr.Bytes())
	}
	return out.Bytes(), nil
}

// judge finds out when each pod's block was written, and when its address was a member.
func (r *churn) judge(pods []*member) (*round, error) {
	log, err := os.Open(filepath.Join(r.State(), "run/logs/audit.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	out := &round{written: map[string]int64{}}
	byName := map[string]*member{}
	for _, m := range pods {
		byName[m.name] = m
	}
	err = readAudit(log, func(q *request) {
		if q.ObjectRef.Resource != "ipamblocks" || q.Verb != "update" && q.Verb != "create" || q.Status.Code/100 != 2 {
			return
		}
		for _, found := range podMark.FindAllSubmatch(q.Object, -1) {
			name := string(found[1])
			if at := monotonic(q.At); byName[name] != nil && (out.written[name] == 0 || at < out.written[name]) {
				out.written[name] = at
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for _, m := range pods {
		wrote := out.written[m.name]
		if wrote == 0 {
			return nil, fmt.Errorf("no write of a block has %s in it", m.name)
		}
		last := 0.0
		for node, set := range r.members {
			at, err := set.after(m.addr, m.began)
			if err != nil {
				return nil, err
			}
			if at == 0 {
				return nil, fmt.Errorf("%s (%s) never was a member on %s", m.name, m.addr, node)
			}
			took := millis(at - wrote)
			out.each = append(out.each, took)
			last = max(last, took)
		}
		out.everywhere = append(out.everywhere, last)
		out.adds = append(out.adds, m.add)
	}
	slices.Sort(out.everywhere)
	return out, nil
}
