//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tortie/tortie/drivers"
)

// Target is a server that the matrix asks.
type Target struct {
	Host *Host
	Port uint16
	Name string // of the column: "web-1:80"
}

// Cell is who may talk to whom, in one family.
type Cell struct {
	Allowed bool // what happened
	Oracle  bool // what the oracle says
	Why     string
}

// Matrix is the connectivity between hosts: a row for each source, a column for each target.
type Matrix struct {
	Sources []*Host
	Targets []Target
	Family  int // 4 or 6
	Cells   [][]Cell
}

// Connectivity opens a TCP connection from each source to each target, all at once, and asks the oracle about each.
func (l *Lab) Connectivity(ctx context.Context, family int, sources []*Host, targets []Target) (*Matrix, error) {
	m := &Matrix{Sources: sources, Targets: targets, Family: family, Cells: make([][]Cell, len(sources))}
	oracle, err := l.Oracle(ctx)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for i, s := range sources {
		m.Cells[i] = make([]Cell, len(targets))
		for j, t := range targets {
			allowed, why := oracle.TCP(s, t.Host.Addr(family), t.Port)
			m.Cells[i][j] = Cell{Oracle: allowed, Why: why}
			wg.Go(func() {
				err := s.Echo(ctx, "tcp", t.Host.Addr(family), t.Port)
				if err != nil && !errors.Is(err, ErrDropped) {
					mu.Lock()
					errs = append(errs, fmt.Errorf("%s to %s: %w", s.Name, t.Name, err))
					mu.Unlock()
				}
				m.Cells[i][j].Allowed = err == nil
			})
		}
	}
	wg.Wait()
	return m, errors.Join(errs...)
}

// Settled takes the matrix again until it equals the oracle's, for at most ten seconds: policy reaches other nodes a few
// milliseconds after the command that changed it has returned.
func (l *Lab) Settled(ctx context.Context, family int, sources []*Host, targets []Target) (*Matrix, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		m, err := l.Connectivity(ctx, family, sources, targets)
		if err == nil {
			err = m.Differences()
		}
		if err == nil || ctx.Err() != nil {
			return m, err
		}
	}
}

// Differences is an error that names the cells in which the network and the oracle disagree; nil if there are none.
func (m *Matrix) Differences() error {
	var errs []error
	for i, s := range m.Sources {
		for j, t := range m.Targets {
			if c := m.Cells[i][j]; c.Allowed != c.Oracle {
				errs = append(errs, fmt.Errorf("IPv%d %s to %s: the network says %s, the oracle %s (%s)", m.Family, s.Name, t.Name,
					verdict(c.Allowed), verdict(c.Oracle), c.Why))
			}
		}
	}
	return errors.Join(errs...)
}

func verdict(allowed bool) string {
	if allowed {
		return "allow"
	}
	return "deny"
}

// Allowed counts the cells that are allowed.
func (m *Matrix) Allowed() (n int) {
	for _, row := range m.Cells {
		for _, c := range row {
			if c.Allowed {
				n++
			}
		}
	}
	return n
}

// PrintMatrices prints matrices of the same hosts as one table: a cell shows one letter for each of them ("46": both
// families may). Cells in which the network and the oracle disagree are marked with "!".
func PrintMatrices(w io.Writer, color bool, ms ...*Matrix) {
	first := ms[0]
	left := len("from / to")
	for _, s := range first.Sources {
		left = max(left, len(s.Name))
	}
	fmt.Fprintf(w, "  %-*s", left, "from / to")
	for _, t := range first.Targets {
		fmt.Fprintf(w, "  %-*s", cellWidth(t), t.Name)
	}
	fmt.Fprintln(w)
	for i, s := range first.Sources {
		fmt.Fprintf(w, "  %-*s", left, s.Name)
		for j, t := range first.Targets {
			text, code := cell(ms, i, j)
			pad := strings.Repeat(" ", cellWidth(t)-len([]rune(text)))
			if color {
				text = "\x1b[" + code + "m" + text + "\x1b[0m"
			}
			fmt.Fprintf(w, "  %s%s", text, pad)
		}
		fmt.Fprintln(w)
	}
}

func cellWidth(t Target) int { return max(len(t.Name), 8) }

// cell gives the text of one cell, and its colour.
func cell(ms []*Matrix, i, j int) (text, code string) {
	var families []string
	wrong, same := false, ms[0].Sources[i] == ms[0].Targets[j].Host
	for _, m := range ms {
		if m.Cells[i][j].Allowed {
			families = append(families, fmt.Sprintf("v%d", m.Family))
		}
		wrong = wrong || m.Cells[i][j].Allowed != m.Cells[i][j].Oracle
	}
	switch {
	case wrong:
		return "! " + strings.Join(families, ","), "1;33"
	case same:
		return "(self)", "90"
	case len(families) == len(ms):
		return "yes", "32"
	case len(families) == 0:
		return "-", "31"
	}
	return slices.Concat([]string{"only"}, families)[0] + " " + strings.Join(families, ","), "33"
}

// Oracle answers from the States that the nodes' agents hold.
type Oracle struct {
	lab   *Lab
	nodes []*nodeView
}

// at finds the node that a workload's address lives on; nil for other addresses.
func (o *Oracle) at(a netip.Addr) *nodeView {
	for _, n := range o.nodes {
		if n.node.Block(4).Contains(a) || n.node.Block(6).Contains(a) || slices.Contains(n.node.Addrs, a) {
			return n
		}
	}
	return nil
}

// nodeView is one node as its agent sees it.
type nodeView struct {
	node  *Node
	state *drivers.State
}

// Oracle asks each agent for the State that it holds.
func (l *Lab) Oracle(ctx context.Context) (*Oracle, error) {
	o := &Oracle{lab: l}
	for _, n := range l.Nodes {
		data, err := n.Client().State(ctx)
		if err != nil {
			return nil, fmt.Errorf("asking %s: %w", n.Name, err)
		}
		s, err := drivers.DecodeState(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("reading the State of %s: %w", n.Name, err)
		}
		o.nodes = append(o.nodes, &nodeView{n, s})
	}
	return o, nil
}

// TCP says whether a new TCP connection is allowed, and why.
func (o *Oracle) TCP(from *Host, to netip.Addr, port uint16) (allowed bool, why string) {
	family := 6
	if to.Is4() {
		family = 4
	}
	flow := drivers.Flow5{Src: from.Addr(family), Dst: to, Proto: 6, SrcPort: 40000, DstPort: port, UplinkA: "eth0", UplinkB: "eth0"}
	a, b := o.at(flow.Src), o.at(flow.Dst)
	if a == nil {
		a, b = b, nil
	}
	var second *drivers.State
	if b != nil {
		second = b.state
	}
	t := drivers.Path(a.state, second, flow)
	last := t.Hops[len(t.Hops)-1].Trace
	if n := len(last.Steps); n > 0 {
		why = last.Steps[n-1].String()
	}
	return t.Verdict == drivers.VerdictAllow, why
}
