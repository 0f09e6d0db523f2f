// Package ledger remembers which sandboxes are plugged in, one small file for each, so that neither a crash of the agent
// nor of the host leaves an interface that nobody knows.
package ledger

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/bounded"
)

const (
	kind    = "tortie-ledger"
	version = 1
	suffix  = ".entry"

	maxEntry = 1 << 20 // of one file, in bytes: an attach request has at most a quarter of that
)

// Phase is where in its life an entry is.
type Phase string

const (
	// Plugged: the interface is there, or about to be made.
	Plugged Phase = ""
	// Allocating: addresses and a WorkloadEndpoint may be in the store; nothing is on the host. Addrs are not known yet.
	Allocating Phase = "allocating"
	// Detaching: a detach has begun, and has to come to its end.
	Detaching Phase = "detaching"
	// Gone: the interface is gone; what is left to do is in the store: to delete the WorkloadEndpoint, and to release the
	// addresses.
	Gone Phase = "gone"
)

// Entry is one interface of one sandbox.
type Entry struct {
	Sandbox   string       `json:"sandbox"`
	Interface string       `json:"interface"` // inside the sandbox
	HostIface string       `json:"hostIface"`
	MAC       drivers.MAC  `json:"mac"`
	Addrs     []netip.Addr `json:"addrs"`
	MTU       int          `json:"mtu,omitempty"`       // as asked for; 0 = the node's
	Allocated bool         `json:"allocated,omitempty"` // addresses of it come from pools
	Chained   bool         `json:"chained,omitempty"`   // another plugin has made the interface, and removes it
	Namespace string       `json:"namespace"`           // of its WorkloadEndpoint
	Name      string       `json:"name"`                // of its WorkloadEndpoint; "" = it is not known
	Network   string       `json:"network,omitempty"`   // the CNI network; "" = none
	UID       string       `json:"uid,omitempty"`       // of the pod; "" = it is none's
	BootID    string       `json:"bootID,omitempty"`
	Created   time.Time    `json:"created"`
	Phase     Phase        `json:"phase,omitempty"`
	// OldFlows: an earlier owner of the addresses may have left flows in the kernel. They are cut before this one is let in; if
	// it is chained, once its policy is enforced.
	OldFlows bool `json:"oldFlows,omitempty"`
	// Closed: why it passes nothing until it is made anew; "" = it passes what policy allows.
	Closed string `json:"closed,omitempty"`
	// ClosedFor are the addresses that it has to hold before it is let in again.
	ClosedFor []netip.Addr `json:"closedFor,omitempty"`
}

// ID is the identity of the entry.
func (e Entry) ID() drivers.EndpointID {
	return drivers.EndpointID{Kind: drivers.Workload, Sandbox: e.Sandbox, Interface: e.Interface}
}

// InUse is an error about an address that another entry holds.
type InUse struct {
	Addr   netip.Addr
	Holder Entry
}

// Error names the address and who has it.
func (e *InUse) Error() string {
	return fmt.Sprintf("address %s is in use by interface %s of sandbox %s (%s/%s)", e.Addr, e.Holder.Interface,
		e.Holder.Sandbox, e.Holder.Namespace, e.Holder.Name)
}

// Bad is an entry that can't be read. The interface that it was about has no endpoint, so its traffic is dropped.
type Bad struct {
	File string // where it was set aside, or where it has stayed
	Err  error
	// Unread: the disk, or the system, would not let it be read. It has stayed where it was, and the next start may read it.
	Unread bool
}

// Ledger is safe for concurrent use; writes of one entry must not overlap.
type Ledger struct {
	dir string
	w   durable.Writer
	bad []Bad

	mu      sync.RWMutex
	entries map[drivers.EndpointID]Entry
	unread  map[string]bool // files
}

// Open reads the ledger in dir, which it makes if it has to. Entries that are damaged are set aside, see Bad.
func Open(dir string, w durable.Writer) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the ledger's directory: %w", err)
	}
	if err := durable.Sweep(dir); err != nil {
		return nil, fmt.Errorf("removing unfinished ledger entries: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("listing the ledger: %w", err)
	}
	l := &Ledger{dir: dir, w: w, entries: map[drivers.EndpointID]Entry{}, unread: map[string]bool{}}
	for _, f := range files {
		e, err := readEntry(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var reading *fs.PathError
		if errors.As(err, &reading) {
			l.unread[f] = true
			l.bad = append(l.bad, Bad{File: f, Err: err, Unread: true})
			continue
		}
		if err != nil {
			to, aErr := durable.SetAside(f, time.Now())
			if aErr != nil {
				return nil, fmt.Errorf("setting aside ledger entry %s (%w): %w", f, err, aErr)
			}
			l.bad = append(l.bad, Bad{File: to, Err: err})
			continue
		}
		l.entries[e.ID()] = e
	}
	return l, nil
}

func readEntry(file string) (Entry, error) {
	var e Entry
	b, err := bounded.ReadFile(file, maxEntry)
	if err != nil {
		return e, err
	}
	payload, v, err := durable.Open(kind, b)
	if err != nil {
		return e, err
	}
	if v != version {
		return e, fmt.Errorf("%w: %d, want %d", durable.ErrVersion, v, version)
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return e, fmt.Errorf("%w: %w", durable.ErrDamaged, err)
	}
	if filepath.Base(file) != fileName(e.ID()) {
		return e, fmt.Errorf("%w: it is about interface %s of sandbox %s, whose file has another name", durable.ErrDamaged,
			e.Interface, e.Sandbox)
	}
	return e, nil
}

func fileName(id drivers.EndpointID) string {
	sum := sha256.Sum256([]byte(id.Sandbox + "\x00" + id.Interface))
	return hex.EncodeToString(sum[:16]) + suffix
}

// Bad returns the entries that Open couldn't read.
func (l *Ledger) Bad() []Bad { return l.bad }

// Get returns the entry of id.
func (l *Ledger) Get(id drivers.EndpointID) (Entry, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	e, ok := l.entries[id]
	return e, ok
}

// List returns all entries, the oldest first.
func (l *Ledger) List() []Entry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	es := make([]Entry, 0, len(l.entries))
	for _, e := range l.entries {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b Entry) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Sandbox, b.Sandbox), strings.Compare(a.Interface, b.Interface))
	})
	return es
}

// Put writes e, new or in the place of the entry with its ID. An address that another entry holds is an *InUse; of two
// that want the same address at the same time one gets it. When Put returns nil, e is on the disk.
func (l *Ledger) Put(e Entry) error {
	payload, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding a ledger entry: %w", err)
	}
	old, had, err := l.reserve(e)
	if err != nil {
		return err
	}
	if err := l.w.WriteFile(l.file(e.ID()), durable.Seal(kind, version, payload)); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if had {
			l.entries[e.ID()] = old
		} else {
			delete(l.entries, e.ID())
		}
		return fmt.Errorf("writing the ledger entry of sandbox %s: %w", e.Sandbox, err)
	}
	return nil
}

func (l *Ledger) reserve(e Entry) (old Entry, had bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Phase == Plugged {
		for id, o := range l.entries {
			if id == e.ID() || o.Phase == Gone {
				continue
			}
			for _, a := range e.Addrs {
				if slices.Contains(o.Addrs, a) {
					return Entry{}, false, &InUse{Addr: a, Holder: o}
				}
			}
		}
	}
	old, had = l.entries[e.ID()]
	l.entries[e.ID()] = e
	return old, had, nil
}

// Forget removes the entry of id if Open could not read it: what it was about is being unplugged.
func (l *Ledger) Forget(id drivers.EndpointID) error {
	l.mu.RLock()
	unread := l.unread[l.file(id)]
	l.mu.RUnlock()
	if !unread {
		return nil
	}
	return l.Remove(id)
}

// Remove removes the entry of id; a missing one is no error.
func (l *Ledger) Remove(id drivers.EndpointID) error {
	if err := l.w.Remove(l.file(id)); err != nil {
		return fmt.Errorf("removing the ledger entry of sandbox %s: %w", id.Sandbox, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, id)
	delete(l.unread, l.file(id))
	return nil
}

func (l *Ledger) file(id drivers.EndpointID) string { return filepath.Join(l.dir, fileName(id)) }
