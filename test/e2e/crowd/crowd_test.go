//go:build e2e && linux

package crowd

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/e2e"
)

const (
	namespaces = 100
	pods       = 10_000
	policies   = 1_000
	local      = 100
	// most is the budget of an agent, in a cluster of this size that has settled.
	most = 190 << 10 // KiB
)

type crowd struct {
	*testing.T
	bed *e2e.Bed
	api kubernetes.Interface
}

// The pods are bound to nodes that have no kubelet. The controller manager, which would remove them, stands still meanwhile.
func TestMemory(t *testing.T) {
	c := open(t)
	before := c.memory()
	t.Logf("with nothing in the cluster: %s", before)
	c.testbed("stop", "hub", "kube-controller-manager")
	t.Cleanup(func() {
		c.remove()
		up, err := os.ReadFile(filepath.Join(c.bed.State(), "run/args"))
		if err != nil {
			t.Fatal(err)
		}
		c.testbed(append([]string{"up"}, strings.Fields(string(up))...)...)
	})
	start := time.Now()
	c.make()
	t.Logf("%d pods in %d namespaces and %d policies made in %s", pods, namespaces, policies, time.Since(start).Round(time.Second))
	c.settled()
	after := c.memory()
	t.Logf("with %d pods, %d of them local, and %d policies: %s", pods+local, local, policies, after)
	if after.now > most {
		t.Errorf("the agent holds %d MB, want at most %d MB", after.now>>10, most>>10)
	}
}

func open(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{T: t, bed: &e2e.Bed{Root: "../../..", Out: os.Stderr}}
	pid, err := os.ReadFile(filepath.Join(c.bed.State(), "run/pids/hub"))
	if err != nil {
		t.Fatal(err)
	}
	hub, err := netns.Open("/proc/" + strings.Fields(string(pid))[0] + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hub.Close() })
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.bed.State(), "run/kubeconfig/admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	cfg.Dial = func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = hub.Do(func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
	if c.api, err = kubernetes.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *crowd) testbed(args ...string) {
	c.Helper()
	if err := c.bed.Testbed(context.Background(), args...); err != nil {
		c.Fatal(err)
	}
}

// memory is of node1's agent, in KiB.
type memory struct{ now, peak int }

func (m memory) String() string {
	return fmt.Sprintf("%d MB resident, %d MB at most", m.now>>10, m.peak>>10)
}

func (c *crowd) memory() memory {
	c.Helper()
	const read = `for p in /proc/[0-9]*; do
		case $(tr '\0' ' ' <$p/cmdline 2>/dev/null) in /tortie\ agent*) awk '/VmRSS|VmHWM/ {print $2}' $p/status ;; esac
	done`
	out, err := c.bed.Exec(context.Background(), "node1", "sh", "-c", read)
	f := strings.Fields(out)
	if err != nil || len(f) != 2 {
		c.Fatalf("the memory of the agent: %q, %v", out, err)
	}
	peak, _ := strconv.Atoi(f[0])
	now, _ := strconv.Atoi(f[1])
	return memory{now, peak}
}

// each calls do for all numbers below n, some at a time, and ends the test at an error.
func (c *crowd) each(n int, do func(i int) error) {
	c.Helper()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					mu.Lock()
					first = err
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	if first != nil {
		c.Fatal(first)
	}
}

func ns(i int) string { return fmt.Sprintf("crowd-%d", i%namespaces) }

func (c *crowd) make() {
	ctx := context.Background()
	c.each(namespaces, func(i int) error {
		_, err := c.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns(i), Labels: map[string]string{"team": fmt.Sprint(i % 10)}}}, metav1.CreateOptions{})
		return err
	})
	c.each(namespaces, func(i int) error {
		// the controller that makes these stands still, too
		_, err := c.api.CoreV1().ServiceAccounts(ns(i)).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
		return err
	})
	c.each(policies, func(i int) error {
		_, err := c.api.NetworkingV1().NetworkPolicies(ns(i)).Create(ctx, policy(i), metav1.CreateOptions{})
		return err
	})
	c.each(pods, func(i int) error {
		p, err := c.api.CoreV1().Pods(ns(i)).Create(ctx, pod(i, fmt.Sprintf("elsewhere-%d", i/100)), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		// outside of the cluster's pools: such addresses are taken of the status
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addr(i), PodIPs: []corev1.PodIP{{IP: addr(i)}}}
		_, err = c.api.CoreV1().Pods(ns(i)).UpdateStatus(ctx, p, metav1.UpdateOptions{})
		return err
	})
	c.each(local, func(i int) error {
		_, err := c.api.CoreV1().Pods(ns(i)).Create(ctx, pod(pods+i, "node1"), metav1.CreateOptions{})
		return err
	})
}

func addr(i int) string { return fmt.Sprintf("10.200.%d.%d", i/250, i%250+1) }

func pod(i int, node string) *corev1.Pod {
	no := false
	var now int64
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", i), Labels: map[string]string{
			"app": fmt.Sprintf("app-%d", i/namespaces%20), "tier": []string{"front", "back", "data"}[i%3], "pod-template-hash": fmt.Sprintf("h%d", i/10)}},
		Spec: corev1.PodSpec{
			NodeName: node, AutomountServiceAccountToken: &no, EnableServiceLinks: &no, TerminationGracePeriodSeconds: &now,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "main", Image: "registry.k8s.io/pause:3.10.1"}},
		},
	}
}

func policy(i int) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("policy-%d", i)},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", i/namespaces)}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front"}}},
				{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprint(i % 10)}}},
			}}},
		},
	}
}

// settled waits until the local pods run, and the agent has nothing to do for a while.
func (c *crowd) settled() {
	c.Helper()
	end := time.Now().Add(5 * time.Minute)
	for {
		list, err := c.api.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{FieldSelector: "spec.nodeName=node1,status.phase=Running"})
		if err != nil {
			c.Fatal(err)
		}
		n := 0
		for _, p := range list.Items {
			if strings.HasPrefix(p.Namespace, "crowd-") {
				n++
			}
		}
		if n == local {
			break
		}
		if time.Now().After(end) {
			c.Fatalf("%d of the %d local pods run", n, local)
		}
		time.Sleep(time.Second)
	}
	c.quiet(end)
}

// quiet waits until what the agent holds has hardly changed in ten looks: garbage comes and is given back, some MB at a time.
func (c *crowd) quiet(end time.Time) {
	c.Helper()
	was, same := memory{}, 0
	for same < 10 {
		now := c.memory()
		if d := now.now - was.now; d < 8<<10 && d > -8<<10 {
			same++
		} else {
			same = 0
		}
		was = now
		if time.Now().After(end) {
			c.Fatal("the agent does not come to rest")
		}
		time.Sleep(2 * time.Second)
	}
}

// remove removes the pods itself (nobody else would, without a controller manager), and leaves the namespaces to it.
func (c *crowd) remove() {
	ctx := context.Background()
	var now int64
	for i := range namespaces {
		// a node without a kubelet never says that a pod has ended
		_ = c.api.CoreV1().Pods(ns(i)).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{})
		if err := c.api.CoreV1().Namespaces().Delete(ctx, ns(i), metav1.DeleteOptions{}); err != nil {
			c.Log(err)
		}
	}
}
