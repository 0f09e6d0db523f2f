package kubebench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/e2e"
)

const (
	pause   = "registry.k8s.io/pause:3.10.1"
	agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.59"
	port    = 8080
	patient = 2 * time.Minute // what anything may take before the run has failed
)

// Options of a run.
type Options struct {
	Root     string // of the repository
	Out      io.Writer
	Pods     int           // podstart: of each plugin
	Watchers int           // watchers: how many
	Nodes    int           // watchers: that have agents
	Writes   int           // watchers: pods that come, and go
	Rates    []float64     // watchers: of them in a second, one after another
	Idle     time.Duration // idle: how long nothing happens
	// Since is when a cluster that runs already began to idle: it is looked at as it is, and stays.
	Since time.Time
	Flags string // of the command, as the page shows it

	commit string
}

func (o *Options) say(format string, args ...any) { fmt.Fprintf(o.Out, format+"\n", args...) }

// cluster is one that is up.
type cluster struct {
	*e2e.Bed
	hub    *netns.Ns
	config *rest.Config
	api    kubernetes.Interface
}

// bed is the testbed, whose own words are of no interest unless something fails.
func (o *Options) bed() *e2e.Bed { return &e2e.Bed{Root: o.Root, Out: o.Out} }

// down ends a cluster. If something has failed, the logs of all machines stay.
func (o *Options) down(ctx context.Context, bed *e2e.Bed, err error) error {
	if err != nil && ctx.Err() == nil {
		dir := filepath.Join(bed.State(), "results", "kubebench-"+time.Now().Format("20060102-150405"))
		o.say("%v\nlogs, status and rules of all nodes are in %s", err, dir)
		err = errors.Join(err, bed.Keep(ctx, dir))
	}
	return errors.Join(err, bed.Down())
}

func open(bed *e2e.Bed) (*cluster, error) {
	c := &cluster{Bed: bed}
	pid, err := c.pid("hub")
	if err != nil {
		return nil, err
	}
	if c.hub, err = netns.Open("/proc/" + pid + "/ns/net"); err != nil {
		return nil, err
	}
	if c.config, err = clientcmd.BuildConfigFromFlags("", filepath.Join(c.State(), "run/kubeconfig/admin.conf")); err != nil {
		return nil, errors.Join(err, c.hub.Close())
	}
	c.config.QPS = -1
	c.config.Dial = c.dial
	if c.api, err = kubernetes.NewForConfig(c.config); err != nil {
		return nil, errors.Join(err, c.hub.Close())
	}
	return c, nil
}

func (c *cluster) close() error { return c.hub.Close() }

// dial connects out of the network of the control plane.
func (c *cluster) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = c.hub.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// pid is of a machine's first process.
func (c *cluster) pid(machine string) (string, error) {
	b, err := os.ReadFile(filepath.Join(c.State(), "run/pids", machine))
	if err != nil {
		return "", err
	}
	return strings.Fields(string(b))[0], nil
}

// inside opens a network namespace by the path that a node has for it.
func (c *cluster) inside(node, path string) (*netns.Ns, error) {
	pid, err := c.pid(node)
	if err != nil {
		return nil, err
	}
	// a link of the node's would lead into this machine's own folders
	return netns.Open("/proc/" + pid + "/root" + strings.Replace(path, "/var/run/", "/run/", 1))
}

// namespace makes one, with the account that its pods have.
func (c *cluster) namespace(ctx context.Context, name string) error {
	_, err := c.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return until(ctx, "the service account of "+name, func() error {
		_, err := c.api.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// until tries until it works.
func until(ctx context.Context, what string, try func() error) error {
	for end := time.Now().Add(patient); ; {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// wait waits for a while.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newPod(namespace, name, node, image string, labels map[string]string, args ...string) *corev1.Pod {
	var now int64
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: &now,
			Containers: []corev1.Container{{Name: "main", Image: image, Args: args}}},
	}
}

// first takes care that what measures is not what waits: the clusters go before what else the machine does, and so does this
// process, in a control group of its own. It returns what undoes that.
func first() (func(), error) {
	group := "/sys/fs/cgroup/cpu/tortie-kubebench-" + strconv.Itoa(os.Getpid())
	if err := os.Mkdir(group, 0o755); err != nil {
		return nil, fmt.Errorf("making a control group: %w", err)
	}
	undo := func() {
		_ = os.WriteFile("/sys/fs/cgroup/cpu/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0)
		_ = os.Remove(group) // what it has started and is still there keeps it
	}
	for _, f := range [][2]string{{"cpu.shares", "16384"}, {"cgroup.procs", strconv.Itoa(os.Getpid())}} {
		if err := os.WriteFile(filepath.Join(group, f[0]), []byte(f[1]), 0); err != nil {
			undo()
			return nil, fmt.Errorf("joining a control group: %w", err)
		}
	}
	return undo, nil
}

// build builds a program of this module, without C.
func (o *Options) build(ctx context.Context, pkg, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
	cmd.Dir, cmd.Env = o.Root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// podName is of the pod that a call of a plugin is for.
func podName(args string) string {
	for _, a := range strings.Split(args, ";") {
		if name, ok := strings.CutPrefix(a, "K8S_POD_NAME="); ok {
			return name
		}
	}
	return ""
}
