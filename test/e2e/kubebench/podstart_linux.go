package kubebench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/e2e"
	"github.com/tortie/tortie/test/e2e/kubebench/timing"
)

const (
	startNS   = "podstart"
	atOnce    = 50 // pods that stay until the node is cleared
	startNode = "node2"
	askNode   = "node1"

	mostMedian, mostAdd = 30, 120 // ms, of Tortie's plugin
)

// contestant is a network plugin.
type contestant struct {
	name   string
	plugin string   // the one that gives the address
	chain  []string // all that containerd calls for a pod, in that order
	folder string   // below test/e2e/cni; none = Tortie, installed as users do
}

var contestants = []contestant{
	{name: "Tortie", plugin: "tortie-cni", chain: []string{"tortie-cni", "portmap", "bandwidth"}},
	{name: "bridge + host-local", plugin: "bridge", chain: []string{"bridge", "portmap"}, folder: "trivial"},
}

// started is how one pod did, in milliseconds since it was asked for.
type started struct {
	posted     float64 // the API server's answer
	added      float64 // the plugin's begin
	packet     float64 // first answer of any kind
	connection float64
	shown      float64 // the address in the API
	plugin     float64 // what the plugin took
	chain      float64 // from the first plugin's begin to the last one's end
}

// PodStart measures how long pods take.
func PodStart(ctx context.Context, o *Options) (*Table, error) {
	done := map[string][]started{}
	halves := map[string][]ms{}
	var inside []string
	for _, i := range []int{0, 1, 1, 0} { // what drifts meets both
		who := contestants[i]
		o.say("== %d pods with %s", o.Pods/2, who.name)
		got, steps, err := o.startPods(ctx, who)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", who.name, err)
		}
		done[who.name] = append(done[who.name], got...)
		if steps != nil {
			inside = append(inside, steps.String())
		}
		halves[who.name] = append(halves[who.name], column(got, func(s started) float64 { return s.packet }))
	}
	ours, theirs := done[contestants[0].name], done[contestants[1].name]
	t := &Table{Head: []string{"ms: p50 / p99 / largest", contestants[0].name, contestants[1].name, "ratio of p50 / p99"}}
	for _, c := range []struct {
		what string
		of   func(started) float64
	}{
		{"created to first allowed packet", func(s started) float64 { return s.packet }},
		{"of it: the CNI plugin, ADD", func(s started) float64 { return s.plugin }},
		{"of it: all plugins of the chain, ADD", func(s started) float64 { return s.chain }},
		{"of it: before the first plugin (API server, kubelet, containerd)", func(s started) float64 { return s.added }},
		{"created to first connection accepted (the server has to start)", func(s started) float64 { return s.connection }},
		{"created to the address in the API", func(s started) float64 { return s.shown }},
	} {
		a, b := column(ours, c.of), column(theirs, c.of)
		t.Lines = append(t.Lines, []string{c.what, a.cell(), b.cell(), a.against(b)})
	}
	share := func(s started) float64 { return 100 * s.plugin / s.packet }
	t.Lines = append(t.Lines, []string{"the plugin's share of that, of a hundred", column(ours, share).cell(), column(theirs, share).cell(), ""})
	half := func(name string) string {
		return fmt.Sprintf("%s, %s", figure(halves[name][0].quantile(0.5)), figure(halves[name][1].quantile(0.5)))
	}
	t.Lines = append(t.Lines, []string{"created to first allowed packet, p50 of each half", half(contestants[0].name), half(contestants[1].name), ""})
	t.Lines = append(t.Lines, []string{"pods that never answered", "0", "0", ""})
	adds := column(ours, func(s started) float64 { return s.plugin })
	t.Notes = []string{
		fmt.Sprintf("%d pods of each, one after another on %s, in four clusters: %d with Tortie, %d with bridge, %d with bridge, %d with Tortie. The node is cleared after every %d. No image is pulled.",
			len(ours), startNode, o.Pods/2, o.Pods/2, o.Pods/2, o.Pods/2, atOnce),
		"With Tortie a NetworkPolicy selects the pods and lets in one client on the other node, on one port; at the end of each cluster another pod there must be kept out. With bridge there is no policy, and it must not be.",
		"A pod is created with its node's name, so that the scheduler is no part of it. Its client knows the address as soon as the plugin answers, and tries to connect every 2 ms: " +
			"the first allowed packet is the first that the pod answers, be it that nobody listens yet. The API shows the address when the kubelet next looks (it does so once a second).",
		"The plugin's time is from its exec to its exit, taken by a program that stands in front of each plugin, the same for both; bridge has host-local's in its own. All times are of one monotonic clock. " +
			"A pod that is not reached within a minute, or an ADD that fails, fails the run.",
		fmt.Sprintf("The budget of Tortie's plugin: p50 <= %d ms %s, p99 <= %d ms %s.", mostMedian, verdict(adds.quantile(0.5), mostMedian), mostAdd, verdict(adds.quantile(0.99), mostAdd)),
		"Of an ADD, the steps inside the agent, as its metrics have them: ms, mean, of both clusters with Tortie: " + strings.Join(inside, "; ") + ".",
	}
	return t, nil
}

func column(all []started, of func(started) float64) (out ms) {
	for _, s := range all {
		out = append(out, of(s))
	}
	return out
}

// startPods measures half of the pods in a cluster of their own.
func (o *Options) startPods(ctx context.Context, who contestant) (got []started, inside *steps, err error) {
	bed := o.bed()
	kind := e2e.Cluster{Proxy: "iptables"}
	folder := ""
	if who.folder != "" {
		folder = filepath.Join(o.Root, "test/e2e/cni", who.folder)
	}
	defer func() { err = o.down(ctx, bed, err) }()
	if err := bed.Up(ctx, kind, folder); err != nil {
		return nil, nil, err
	}
	if folder == "" {
		if err := bed.Install(ctx, kind); err != nil {
			return nil, nil, err
		}
	}
	c, err := open(bed)
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	r := &starter{cluster: c, o: o, who: who, policy: who.folder == ""}
	if err := r.prepare(ctx); err != nil {
		return nil, nil, errors.Join(err, r.close())
	}
	if got, err = r.run(ctx); err == nil && r.policy {
		inside, err = c.attachSteps(ctx, startNode)
	}
	return got, inside, errors.Join(err, r.close())
}

// starter starts pods in one cluster.
type starter struct {
	*cluster
	o                *Options
	who              contestant
	policy           bool
	plugins          *plugins
	client, stranger *netns.Ns
	stop             func() // the watch

	mu    sync.Mutex
	shown map[string]chan int64 // pod -> when the API had its address
}

func (r *starter) close() error {
	var errs []error
	if r.stop != nil {
		r.stop()
	}
	for _, ns := range []*netns.Ns{r.client, r.stranger} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	if r.plugins != nil {
		errs = append(errs, r.plugins.close())
	}
	return errors.Join(errs...)
}

func (r *starter) prepare(ctx context.Context) (err error) {
	r.shown = map[string]chan int64{}
	if err := r.namespace(ctx, startNS); err != nil {
		return err
	}
	if r.plugins, err = r.listen(ctx, r.o, []string{askNode, startNode}, r.who.chain...); err != nil {
		return err
	}
	if r.policy {
		if _, err := r.api.NetworkingV1().NetworkPolicies(startNS).Create(ctx, onlyClient(), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if r.client, err = r.asker(ctx, "client"); err != nil {
		return err
	}
	if r.stranger, err = r.asker(ctx, "stranger"); err != nil {
		return err
	}
	return r.watch(ctx)
}

func onlyClient() *networkingv1.NetworkPolicy {
	p := intstr.FromInt32(port)
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "only-client"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "server"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				Ports: []networkingv1.NetworkPolicyPort{{Port: &p}},
				From:  []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "client"}}}},
			}},
		},
	}
}

// asker starts a pod that has a network and does nothing, and enters it.
func (r *starter) asker(ctx context.Context, name string) (*netns.Ns, error) {
	p := newPod(startNS, name, askNode, pause, map[string]string{"role": name})
	if _, err := r.api.CoreV1().Pods(startNS).Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	call, err := r.plugins.wait(ctx, "ADD", name, r.who.chain[len(r.who.chain)-1])
	if err != nil {
		return nil, err
	}
	return r.inside(askNode, call.Netns)
}

// watch sees when the API has a pod's address.
func (r *starter) watch(ctx context.Context) error {
	ctx, r.stop = context.WithCancel(ctx)
	w, err := r.api.CoreV1().Pods(startNS).Watch(ctx, metav1.ListOptions{LabelSelector: "app=server"})
	if err != nil {
		return err
	}
	go func() {
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			if !ok || p.Status.PodIP == "" {
				continue
			}
			at := now()
			r.mu.Lock()
			if ch := r.shown[p.Name]; ch != nil {
				ch <- at
				delete(r.shown, p.Name)
			}
			r.mu.Unlock()
		}
	}()
	return nil
}

func (r *starter) run(ctx context.Context) (got []started, err error) {
	random := rand.New(rand.NewPCG(1, 2)) // the same pauses for all
	var last netip.Addr
	for i := range r.o.Pods / 2 {
		if i > 0 && i%atOnce == 0 {
			if err := r.clear(ctx, got[i-atOnce:], i-atOnce); err != nil {
				return nil, err
			}
		}
		// the kubelet looks once a second: pods must not all come at the same time of it
		if err := wait(ctx, time.Duration(random.Int64N(int64(500*time.Millisecond)))); err != nil {
			return nil, err
		}
		s, addr, err := r.start(ctx, server(i))
		if err != nil {
			return nil, fmt.Errorf("pod %d: %w", i, err)
		}
		got, last = append(got, s), addr
		if i%10 == 9 {
			tail := got[i-9:]
			r.o.say("pod %d: packet %s, ADD %s ms (p50 / p99 / largest of 10)", i+1, column(tail, func(s started) float64 { return s.packet }).cell(),
				column(tail, func(s started) float64 { return s.plugin }).cell())
		}
	}
	return got, r.enforced(ctx, last)
}

func server(i int) string { return fmt.Sprintf("server-%d", i) }

// start starts one pod.
func (r *starter) start(ctx context.Context, name string) (s started, addr netip.Addr, err error) {
	p := newPod(startNS, name, startNode, agnhost, map[string]string{"app": "server"}, "netexec", "--http-port", fmt.Sprint(port))
	shown := make(chan int64, 1)
	r.mu.Lock()
	r.shown[name] = shown
	r.mu.Unlock()
	began := now()
	since := func(t int64) float64 { return millis(t - began) }
	if _, err := r.api.CoreV1().Pods(startNS).Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return s, addr, err
	}
	s.posted = since(now())
	call, err := r.plugins.wait(ctx, "ADD", name, r.who.plugin)
	if err != nil {
		return s, addr, err
	}
	if addr, err = address(call); err != nil {
		return s, addr, err
	}
	a, err := probe(ctx, r.client, addr, time.Minute)
	if err != nil {
		return s, addr, err
	}
	s.added, s.plugin, s.packet, s.connection = since(call.Begin), took(call), since(a.packet), since(a.connection)
	end, err := r.plugins.wait(ctx, "ADD", name, r.who.chain[len(r.who.chain)-1])
	if err != nil {
		return s, addr, err
	}
	s.chain = millis(end.End - call.Begin)
	select {
	case at := <-shown:
		s.shown = since(at)
	case <-time.After(time.Minute):
		return s, addr, errors.New("the API has not shown its address within a minute")
	case <-ctx.Done():
		return s, addr, ctx.Err()
	}
	if n := adds(r.plugins.of("ADD", name), r.who.plugin); n != 1 {
		return s, addr, fmt.Errorf("%d ADDs, want one: its sandbox was made again", n)
	}
	return s, addr, nil
}

func adds(calls []*timing.Call, plugin string) (n int) {
	for _, c := range calls {
		if c.Plugin == plugin {
			n++
		}
	}
	return n
}

// enforced says that the policy is, or that there is none.
func (r *starter) enforced(ctx context.Context, server netip.Addr) error {
	_, err := probe(ctx, r.stranger, server, 500*time.Millisecond)
	switch {
	case r.policy && err == nil:
		return errors.New("a pod that the policy keeps out was let in")
	case !r.policy && err != nil:
		return fmt.Errorf("without a policy a pod was kept out: %w", err)
	}
	return nil
}

// clear removes pods, and waits until their plugins have been called, too.
func (r *starter) clear(ctx context.Context, pods []started, from int) error {
	var grace int64
	err := r.api.CoreV1().Pods(startNS).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &grace}, metav1.ListOptions{LabelSelector: "app=server"})
	if err != nil {
		return err
	}
	for i := range pods {
		if _, err := r.plugins.wait(ctx, "DEL", server(from+i), r.who.plugin); err != nil {
			return err
		}
	}
	err = until(ctx, "the pods to go", func() error {
		list, err := r.api.CoreV1().Pods(startNS).List(ctx, metav1.ListOptions{LabelSelector: "app=server"})
		if err != nil {
			return err
		}
		if n := len(list.Items); n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return wait(ctx, settle)
}
