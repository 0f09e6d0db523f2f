package kubebench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/tortie/tortie/internal/netns"
)

const metricsURL = "http://127.0.0.1:9091/metrics"

// steps are what an agent spends on plugging in, by step.
type steps struct {
	names []string // in the order of the agent's page
	sum   map[string]float64
	count map[string]float64
}

// attachSteps asks a node's agent.
func (c *cluster) attachSteps(ctx context.Context, node string) (*steps, error) {
	pid, err := c.pid(node)
	if err != nil {
		return nil, err
	}
	ns, err := netns.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = ns.Do(func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, metricsURL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the agent for its metrics: %w", err)
	}
	defer resp.Body.Close()
	return readSteps(resp.Body)
}

var stepLine = regexp.MustCompile(`^tortie_workload_attach_step_duration_seconds_(sum|count)\{step="(\w+)"\} (\S+)$`)

func readSteps(r io.Reader) (*steps, error) {
	s := &steps{sum: map[string]float64{}, count: map[string]float64{}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		m := stepLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", lines.Text(), err)
		}
		if m[1] == "sum" {
			s.names = append(s.names, m[2])
			s.sum[m[2]] = v
		} else {
			s.count[m[2]] = v
		}
	}
	return s, lines.Err()
}

// String has the mean of each step that takes a tenth of a millisecond.
func (s *steps) String() string {
	var out []string
	for _, name := range s.names {
		if mean := 1000 * s.sum[name] / s.count[name]; s.count[name] > 0 && mean >= 0.1 {
			out = append(out, fmt.Sprintf("%s %s", name, figure(mean)))
		}
	}
	return strings.Join(out, ", ")
}
