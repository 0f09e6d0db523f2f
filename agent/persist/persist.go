// Package persist keeps the last State on disk, so that a host is protected after a reboot before its store answers.
//
//	Apply succeeded ─► Saver (collects for a while) ─► state file: first line with checksum, header, State
//	agent starts ────► Begin: a boot that is new? ───► the State to apply first
package persist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/bounded"
)

const (
	kind    = "tortie-state"
	version = 1

	maxState  = 2 << 30 // a million members of sets take some tens of megabytes
	maxBootID = 256
)

// Header says where a State comes from.
type Header struct {
	Node    string    `json:"node"`
	BootID  string    `json:"bootID"`
	Written time.Time `json:"written"`
}

// Save writes s to path, all or nothing, and returns how many bytes that took.
func Save(w durable.Writer, path string, h Header, s *drivers.State) (int64, error) {
	head, err := json.Marshal(h)
	if err != nil {
		return 0, fmt.Errorf("encoding the header of the State: %w", err)
	}
	var b bytes.Buffer
	b.Write(head)
	b.WriteByte('\n')
	if err := drivers.EncodeState(&b, s); err != nil {
		return 0, fmt.Errorf("encoding the State: %w", err)
	}
	data := durable.Seal(kind, version, b.Bytes())
	if err := w.WriteFile(path, data); err != nil {
		return 0, fmt.Errorf("writing the State: %w", err)
	}
	return int64(len(data)), nil
}

// Load reads what Save wrote. Errors wrap fs.ErrNotExist, durable.ErrDamaged or durable.ErrVersion.
func Load(path string) (*drivers.State, Header, error) {
	var h Header
	b, err := bounded.ReadFile(path, maxState)
	if err != nil {
		return nil, h, err
	}
	payload, v, err := durable.Open(kind, b)
	if err != nil {
		return nil, h, err
	}
	if v != version {
		return nil, h, fmt.Errorf("%w: %d, want %d", durable.ErrVersion, v, version)
	}
	head, body, _ := bytes.Cut(payload, []byte("\n"))
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, h, fmt.Errorf("%w: its header: %w", durable.ErrDamaged, err)
	}
	s, err := drivers.DecodeState(bytes.NewReader(body))
	if err != nil {
		return nil, h, fmt.Errorf("%w: the State in it: %w", durable.ErrVersion, err)
	}
	return s, h, nil
}

// BootID reads the id of this boot of the host; "" if it can't be told.
func BootID(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the boot id: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBootID))
	if err != nil {
		return "", fmt.Errorf("reading the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Start is what an agent does first.
type Start struct {
	// State is applied before the store answers; nil if the kernel has been running and is not touched.
	State *drivers.State
	// Why says, for people, how it came to that.
	Why string
	// Workloads is what is known of the workloads that the dataplane has, in this boot; of each its identity, name,
	// interface and addresses.
	Workloads []drivers.Endpoint
	// Problem says why there was no State to be found where there should have been one; nil if all is well.
	Problem error
}

// BeginOptions is what Begin takes.
type BeginOptions struct {
	Path string // of the State
	// Marker is a file on a file system that a reboot empties. MarkBoot writes it; it says that the dataplane is this
	// boot's, also if the State can't be read.
	Marker string
	BootID string // "" = unknown: then only Marker tells
	Node   drivers.Node
	// Bare says that the dataplane holds nothing of ours, though the host may not have been rebooted.
	Bare bool
}

// Begin finds out whether the dataplane stands as it was last written, which it does unless the host was rebooted or it was
// cleared, and what must stand first.
func Begin(o BeginOptions) Start {
	s, h, err := Load(o.Path)
	if err == nil && h.Node != o.Node.Name {
		err = fmt.Errorf("it is of node %s, and this is %s", h.Node, o.Node.Name)
	}
	var problem error
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problem = setAside(o.Path, err)
	}
	mark, markErr := bounded.ReadFile(o.Marker, maxBootID)
	running := markErr == nil && strings.TrimSpace(string(mark)) == o.BootID
	if err == nil && o.BootID != "" && h.BootID == o.BootID {
		running = true
	}
	var workloads []drivers.Endpoint
	if err == nil && running && h.BootID == o.BootID {
		workloads = workloadsOf(s)
	}
	after := "the host was rebooted"
	if running && o.Bare {
		running, after = false, "the dataplane holds nothing of ours"
	}
	switch {
	case running:
		return Start{Why: "the host has not been rebooted: the dataplane stays as it is until the store has answered",
			Workloads: workloads, Problem: problem}
	case err == nil:
		return Start{State: s, Workloads: workloads, Why: after + ": the State of " + h.Written.Format(time.RFC3339) + " comes first"}
	}
	bare := drivers.NewState()
	bare.Node = o.Node
	return Start{State: bare, Problem: problem,
		Why: after + " and there is no State of before: unknown workload interfaces are closed first"}
}

func workloadsOf(s *drivers.State) []drivers.Endpoint {
	var out []drivers.Endpoint
	for id, e := range s.Endpoints {
		if id.Kind == drivers.Workload {
			out = append(out, drivers.Endpoint{ID: id, Name: e.Name, Iface: e.Iface, Addrs: e.Addrs})
		}
	}
	return out
}

func setAside(path string, why error) error {
	to, err := durable.SetAside(path, time.Now())
	if err != nil {
		return fmt.Errorf("the State of before, %s, is of no use: %w; setting it aside: %w", path, why, err)
	}
	return fmt.Errorf("the State of before is of no use: %w; it was set aside as %s", why, to)
}

// MarkBoot says that the dataplane is this boot's.
func MarkBoot(w durable.Writer, marker, bootID string) error {
	if err := w.WriteFile(marker, []byte(bootID+"\n")); err != nil {
		return fmt.Errorf("marking this boot: %w", err)
	}
	return nil
}
