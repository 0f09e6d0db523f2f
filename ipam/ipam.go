package ipam

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// Uses of an address: what IPPool.spec.allowedUses speaks of.
const (
	UseWorkload     = "Workload"
	UseTunnel       = "Tunnel"
	UseLoadBalancer = "LoadBalancer"
)

// Store is what is needed of a datastore.Store.
type Store interface {
	Get(ctx context.Context, key api.Key) (api.Object, error)
	List(ctx context.Context, kind, namespace string) ([]api.Object, error)
	Update(ctx context.Context, o api.Object) (api.Object, error)
	Txn(ctx context.Context, ops ...datastore.Op) error
}

// Config says for whom an Allocator works.
type Config struct {
	Store Store
	Node  string
	// Virtual is for blocks that belong to no host: those of a load balancer. Node is then its name.
	Virtual bool
	// OneByOne is for a store that can't write several objects as one (Kubernetes).
	OneByOne bool
	// Settings says what pools, reservations and configuration there are; nil = read them from the store each time.
	Settings func(context.Context) (Settings, error)
	Clock    func() time.Time // nil = time.Now
	Log      *slog.Logger     // nil = none
}

// Request asks for addresses: those in Addrs, or else one of each family that is wanted.
type Request struct {
	// Handle is what the addresses are released by: HandleOf(sandbox, interface). A handle that has fitting addresses
	// gets those again.
	Handle string
	Owner  api.Owner // whose they are; Node may be left out
	V4, V6 bool
	Addrs  []netip.Addr // exactly these, also if they are reserved
	// Pools are names or prefixes of pools: of a family that has one here no others count, whatever selectors say.
	Pools           []string
	NamespaceLabels map[string]string
	Use             string // "" = Workload
	// Ops gives what is written together with the addresses, all or nothing. It is called once for each try. Not for
	// stores that write one by one.
	Ops func(Result) []datastore.Op
}

func (r *Request) use() string {
	if r.Use == "" {
		return UseWorkload
	}
	return r.Use
}

// describe names who asks, for people.
func (r *Request) describe() string {
	if r.Owner.Pod != "" {
		return fmt.Sprintf("%s/%s on node", r.Owner.Namespace, r.Owner.Pod)
	}
	return "node"
}

func (r *Request) validate(oneByOne bool) error {
	var errs []error
	if r.Handle == "" {
		errs = append(errs, errors.New("it has no handle"))
	}
	if !r.V4 && !r.V6 && len(r.Addrs) == 0 {
		errs = append(errs, errors.New("it asks for nothing"))
	}
	if !slices.Contains([]string{UseWorkload, UseTunnel, UseLoadBalancer}, r.use()) {
		errs = append(errs, fmt.Errorf("its use is %q, not %s, %s or %s", r.Use, UseWorkload, UseTunnel, UseLoadBalancer))
	}
	for i, a := range r.Addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || slices.Contains(r.Addrs[:i], a) {
			errs = append(errs, fmt.Errorf("it asks for address %q", a))
		}
	}
	if r.Ops != nil && oneByOne {
		errs = append(errs, errors.New("this store can't write anything together with addresses"))
	}
	if len(errs) > 0 {
		return fmt.Errorf("allocating: %w: %w", ErrInvalid, errors.Join(errs...))
	}
	return nil
}

// Result is the addresses that were given: as in Request.Addrs, or IPv4 before IPv6.
type Result struct {
	Addrs []Held
}

// Held is an address that somebody has.
type Held struct {
	Addr  netip.Addr   `json:"addr"`
	Block netip.Prefix `json:"block"`
	Pool  string       `json:"pool,omitempty"`
	// Token names this allocation. The next one of the address has another, also if it is to the same handle.
	Token string `json:"token,omitempty"`
}

// HandleOf is the handle of an interface of a sandbox: short, since it is in the block for each address, and beginning
// like the sandbox's id, so that people find it.
func HandleOf(sandbox, iface string) string {
	sum := sha256.Sum256([]byte(sandbox + "\x00" + iface))
	hash := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:13])
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(sandbox))
	return id[:min(len(id), 12)] + "." + hash
}

// Allocator gives and takes addresses for one node. It is safe for concurrent use; requests that come while a write is
// under way share the next one.
type Allocator struct {
	store    Store
	node     string
	affinity string // of the blocks of this node
	oneByOne bool
	settings func(context.Context) (Settings, error)
	now      func() time.Time
	log      *slog.Logger
	wait     func(ctx context.Context, try int) error // before another try

	queue queue
	gone  gone

	// All below belongs to who leads the queue.
	loaded   bool
	blocks   map[netip.Prefix]*known
	survey   survey
	ranges   ranges
	suspects map[string]time.Time // see Collect
	empties  map[string]time.Time // see Tidy
}

// known is a block that this node uses.
type known struct {
	*block
	// affinity is that of this node; nil for a block of another one, of which addresses are borrowed. Until it is
	// confirmed, the block has never been written by us.
	affinity *api.BlockAffinity
	stale    bool // it is not what is stored: to be read before it is used
}

// New returns an allocator. It reads nothing yet.
func New(c Config) *Allocator {
	a := &Allocator{
		store: c.Store, node: c.Node, affinity: "host:" + c.Node, oneByOne: c.OneByOne,
		settings: c.Settings, now: c.Clock, log: c.Log, wait: pause, queue: queue{patient: companyPatience},
		blocks: map[netip.Prefix]*known{}, suspects: map[string]time.Time{},
	}
	if c.Virtual {
		a.affinity = "virtual:" + c.Node
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.settings == nil {
		a.settings = func(ctx context.Context) (Settings, error) { return ReadSettings(ctx, a.store, a.log) }
	}
	return a
}

// Assign gives addresses to a handle: all that the request asks for, or none. After an error that is not about the
// request, Release makes sure that nothing is left.
func (a *Allocator) Assign(ctx context.Context, req Request) (Result, error) {
	if err := req.validate(a.oneByOne); err != nil {
		return Result{}, err
	}
	if req.Owner.Node == "" {
		req.Owner.Node = a.node
	}
	a.gone.back(req.Handle)
	j := &assign{req: &req}
	if err := a.queue.do(ctx, j, a.process); err != nil {
		a.gone.doubt(req.Handle) // an answer may have got lost on its way
		return Result{}, fmt.Errorf("allocating for %s: %w", req.Handle, err)
	}
	return j.result, nil
}

// ReleaseOptions says more about a release.
type ReleaseOptions struct {
	// Held are the allocations to release; nil = all that the handle has. One whose address was given anew since, also to
	// the same handle, is left alone.
	Held []Held
	// Everywhere looks for the handle in every block of the cluster if it is not where it should be.
	Everywhere bool
	// Ops is written together with the release, also if there is nothing to release.
	Ops []datastore.Op
	// Announced is what Announce returned for this release, if it was called.
	Announced *Coming
}

// Announce says that a release comes soon: those that come before it wait for it for a moment, to share a write. It ends
// with the release, or with Cancel.
func (a *Allocator) Announce() *Coming { return a.queue.announce() }

// all says that a release is of all that a handle has, and of nothing else.
func (o ReleaseOptions) all() bool { return o.Held == nil && len(o.Ops) == 0 && !o.Everywhere }

// Release takes back what a handle has, and returns it. It is no error if that is nothing. Whoever asks again for a handle
// whose addresses this Allocator has taken back is answered without the store.
func (a *Allocator) Release(ctx context.Context, handle string, o ReleaseOptions) ([]netip.Addr, error) {
	if handle == "" {
		return nil, fmt.Errorf("releasing: %w: no handle", ErrInvalid)
	}
	if len(o.Ops) > 0 && a.oneByOne {
		return nil, fmt.Errorf("releasing %s: %w: this store can't write anything together with addresses", handle, ErrInvalid)
	}
	if o.all() && a.gone.has(handle) {
		o.Announced.Cancel()
		return nil, nil
	}
	j := &release{handle: handle, held: o.Held, byToken: o.Held != nil, everywhere: o.Everywhere, ops: o.Ops, coming: o.Announced}
	if err := a.queue.do(ctx, j, a.process); err != nil {
		return nil, fmt.Errorf("releasing %s: %w", handle, err)
	}
	if o.Held == nil && len(j.released) > 0 {
		a.gone.add(handle)
	}
	return j.released, nil
}

// ReleaseAddrs takes addresses back, whoever has them, and returns those that somebody had: for an operator who knows
// that nobody uses them.
func (a *Allocator) ReleaseAddrs(ctx context.Context, addrs ...netip.Addr) ([]netip.Addr, error) {
	j := &release{addrs: addrs}
	if err := a.queue.do(ctx, j, a.process); err != nil {
		return nil, fmt.Errorf("releasing addresses: %w", err)
	}
	return j.released, nil
}
