package kubebench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tortie/tortie/test/e2e/kubebench/timing"
)

// plugins hears of all calls of a cluster's plugins.
type plugins struct {
	conn *net.UnixConn
	dir  string
	wg   sync.WaitGroup

	mu      sync.Mutex
	calls   map[string][]*timing.Call // by pod and command
	changed chan struct{}             // closed and made anew when there is another one
}

// listen puts timed in front of plugins of nodes.
func (c *cluster) listen(ctx context.Context, o *Options, nodes []string, names ...string) (_ *plugins, err error) {
	p := &plugins{calls: map[string][]*timing.Call{}, changed: make(chan struct{})}
	// below the folder that machines see as we do
	if p.dir, err = os.MkdirTemp(c.State(), "timed-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	program, socket := filepath.Join(p.dir, "timed"), filepath.Join(p.dir, timing.Socket)
	if err := o.build(ctx, "./test/e2e/kubebench/timed", program); err != nil {
		return nil, err
	}
	if p.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"}); err != nil {
		return nil, err
	}
	if err := p.conn.SetReadBuffer(4 << 20); err != nil {
		return nil, err
	}
	p.wg.Go(p.receive)
	// A mount, since Tortie's agent, which doesn't see it in its container, puts back what is another file than its plugin.
	const install = `cd /opt/cni/bin && ln -sf "$2" ` + timing.Socket + ` && for p in $3; do
		cp "$p" "$p` + timing.Real + `" && mount --bind "$1" "$p" || exit 1; done`
	list := ""
	for _, n := range names {
		list += n + " "
	}
	for _, n := range nodes {
		if _, err := c.Exec(ctx, n, "sh", "-c", install, "-", program, socket, list); err != nil {
			return nil, fmt.Errorf("standing in front of the plugins: %w", err)
		}
	}
	return p, nil
}

func (p *plugins) close() error {
	var err error
	if p.conn != nil {
		err = p.conn.Close()
	}
	p.wg.Wait()
	return errors.Join(err, os.RemoveAll(p.dir))
}

func (p *plugins) receive() {
	buf := make([]byte, 1<<16)
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			return // closed
		}
		call := &timing.Call{}
		if json.Unmarshal(buf[:n], call) != nil {
			continue // missed by who waits for it
		}
		p.mu.Lock()
		key := podName(call.Args) + " " + call.Command
		p.calls[key] = append(p.calls[key], call)
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// wait waits until the last of a pod's plugins has been called.
func (p *plugins) wait(ctx context.Context, command, pod, plugin string) (*timing.Call, error) {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	for {
		p.mu.Lock()
		calls, changed := p.calls[pod+" "+command], p.changed
		p.mu.Unlock()
		for _, call := range calls {
			if call.Plugin != plugin {
				continue
			}
			if call.Code != 0 {
				return nil, fmt.Errorf("%s %s of %s ended with %d: %s", plugin, command, pod, call.Code, call.Out)
			}
			return call, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no %s of %s has ended: %w", command, pod, ctx.Err())
		}
	}
}

// of are the calls for a pod.
func (p *plugins) of(command, pod string) []*timing.Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[pod+" "+command]
}

// address is what an ADD has answered.
func address(c *timing.Call) (netip.Addr, error) {
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(c.Out, &result); err != nil {
		return netip.Addr{}, fmt.Errorf("reading what %s has answered: %w", c.Plugin, err)
	}
	if len(result.IPs) == 0 {
		return netip.Addr{}, fmt.Errorf("%s has given no address: %s", c.Plugin, c.Out)
	}
	return result.IPs[0].Address.Addr(), nil
}

// took is how long a call was, in milliseconds.
func took(c *timing.Call) float64 { return millis(c.End - c.Begin) }

const settle = 2 * time.Second // after which a kubelet has nothing left to do of what went
