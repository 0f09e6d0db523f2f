package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/test/lab"
)

// bed is a lab with a client of its store, and the processes that make traffic in it.
type bed struct {
	lab   *lab.Lab
	store *etcd.Store
	raw   *clientv3.Client // for what resources have no words for: revisions, sizes
	bin   string
	procs []*process
	made  int   // containers
	pair  *pair // of the bed "pair"
	gate  *gate // of the beds on which policies change
}

// newBed brings up a lab. before, if not nil, is called once there is a store and ahead of the agents.
func newBed(ctx context.Context, m *measurement, o lab.Options, before func(*bed) error) (_ *bed, err error) {
	b := &bed{bin: m.Bin}
	o.Binary = filepath.Join(m.Bin, "tortie")
	o.Started = func(l *lab.Lab) error {
		b.lab = l
		if err := b.open(); err != nil {
			return err
		}
		if before == nil {
			return nil
		}
		return before(b)
	}
	if b.lab, err = lab.New(ctx, o); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bed) open() (err error) {
	if b.store, err = etcd.Open(etcd.Config{Endpoints: []string{b.lab.StoreEndpoint()}}); err != nil {
		return err
	}
	b.raw, err = clientv3.New(clientv3.Config{Endpoints: []string{b.lab.StoreEndpoint()}, DialTimeout: 10 * time.Second})
	return err
}

func (b *bed) close() error {
	var errs []error
	if b.store != nil {
		errs = append(errs, b.store.Close())
	}
	if b.raw != nil {
		errs = append(errs, b.raw.Close())
	}
	b.store, b.raw = nil, nil
	return errors.Join(errs...)
}

// down takes everything down.
func (b *bed) down() error {
	for _, p := range b.procs {
		p.stop()
	}
	return errors.Join(b.close(), b.lab.Down())
}

// logs are the last lines of the processes, for the error of a row.
func (b *bed) logs() string {
	var out strings.Builder
	for _, n := range b.lab.Nodes {
		if n.Agent != nil {
			fmt.Fprintf(&out, "\nlog of the agent on %s:\n%s", n.NodeName(), n.Agent.Tail())
		}
	}
	return out.String()
}

// batch is how many writes go into one transaction.
const batch = 100

// put creates objects, many at once, and returns their keys.
func (b *bed) put(ctx context.Context, objects []api.Object) ([]api.Key, error) {
	keys := make([]api.Key, len(objects))
	ops := make([]datastore.Op, len(objects))
	for i, o := range objects {
		keys[i], ops[i] = api.KeyOf(o), datastore.Op{Verb: datastore.Create, Object: o}
	}
	return keys, b.write(ctx, ops)
}

// drop deletes objects, however the row ended.
func (b *bed) drop(ctx context.Context, keys []api.Key) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	ops := make([]datastore.Op, len(keys))
	for i, k := range keys {
		ops[i] = datastore.Op{Verb: datastore.Delete, Key: k}
	}
	return b.write(ctx, ops)
}

// write commits operations in transactions, a few of them at once.
func (b *bed) write(ctx context.Context, ops []datastore.Op) error {
	const writers = 8
	var wg sync.WaitGroup
	work := make(chan []datastore.Op)
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			for ops := range work {
				if errs[i] == nil {
					errs[i] = b.store.Txn(ctx, ops...)
				}
			}
		})
	}
	for len(ops) > 0 {
		n := min(batch, len(ops))
		if big(ops[0]) {
			n = 1
		}
		work <- ops[:n]
		ops = ops[n:]
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}

// big reports whether an object is so large that a hundred of them are too much for one transaction.
func big(op datastore.Op) bool {
	s, ok := op.Object.(*api.GlobalNetworkSet)
	return ok && len(s.Spec.Nets) > 200
}

// apply creates objects that are written as YAML.
func (b *bed) apply(ctx context.Context, yaml string) ([]api.Key, error) {
	objects, err := api.Decode([]byte(yaml))
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		api.Default(o)
	}
	return b.put(ctx, objects)
}

// status asks the agent of a node.
func status(ctx context.Context, n *lab.Node) (agentapi.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return n.Client().Status(ctx, agentapi.StatusRequest{})
}

// settled waits until the agent of n has so many policies, and nothing on its way to the kernel.
func settled(ctx context.Context, n *lab.Node, policies int) error {
	return poll(ctx, 50*time.Millisecond, func() error {
		st, err := status(ctx, n)
		switch {
		case err != nil:
			return err
		case !st.Ready:
			return fmt.Errorf("the agent waits for %s", strings.Join(st.NotReady, ", "))
		case st.Apply.Error != "":
			return fmt.Errorf("the agent: %s", st.Apply.Error)
		case st.Counts.Policies < policies || st.Apply.Pending > 0 || !st.Apply.Started.IsZero():
			return fmt.Errorf("the agent has %d of %d policies, and %d objects on their way", st.Counts.Policies, policies, st.Apply.Pending)
		}
		return nil
	})
}

// poll tries until it goes well or ctx ends; then it says what was in the way.
func poll(ctx context.Context, every time.Duration, try func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error // that is not just ctx's end
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-tick.C:
		}
	}
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// process is a server that makes traffic. It ends when its input does, and so with this process, however that ends.
type process struct {
	cmd   *exec.Cmd
	input io.Closer
}

func (p *process) stop() {
	p.input.Close()
	// What it has to say of a closed input is of no interest.
	_ = p.cmd.Wait()
}

// serve starts servers inside a host, and returns when they listen.
func (b *bed) serve(ctx context.Context, h *lab.Host, specs ...string) error {
	cmd := exec.Command(filepath.Join(b.bin, "tortie-bench"), append([]string{"load", "serve"}, specs...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is ours to handle
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.Do(cmd.Start); err != nil {
		return fmt.Errorf("starting servers on %s: %w", h.Name, err)
	}
	b.procs = append(b.procs, &process{cmd, in})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("starting servers on %s: %q, %w", h.Name, line, err)
	}
	return ctx.Err()
}

// client runs a client inside a host, and reads what it has measured into result.
func (b *bed) client(ctx context.Context, h *lab.Host, result any, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "tortie-bench"), append([]string{"load"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * time.Second
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := h.Do(cmd.Start); err != nil {
		return fmt.Errorf("starting a client on %s: %w", h.Name, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("client on %s, %s: %w: %s", h.Name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return json.Unmarshal(out.Bytes(), result)
}

func target(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
