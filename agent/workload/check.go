package workload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// checkPatience is how long a check waits for policy that is on its way to the dataplane.
const checkPatience = 5 * time.Second

// Check says what of an attachment is not as Attach has made it.
func (w *Workloads) Check(ctx context.Context, r agentapi.CheckRequest, netns *os.File) error {
	if r.Sandbox == "" || r.Interface == "" || netns == nil {
		return agentapi.Errorf(agentapi.CodeBadRequest, "check: want a sandbox, an interface and a network namespace")
	}
	if w.o.Attacher == nil {
		return agentapi.Errorf(agentapi.CodeUnsupported, "check: this driver can't plug workloads in")
	}
	id := drivers.EndpointID{Kind: drivers.Workload, Sandbox: r.Sandbox, Interface: r.Interface}
	unlock, err := w.locks.lock(ctx, id)
	if err != nil {
		return waitError("check: waiting for another request about this workload", err)
	}
	defer unlock()
	e, ok := w.o.Ledger.Get(id)
	if !ok || e.Phase != ledger.Plugged {
		return agentapi.Errorf(agentapi.CodeNotFound, "interface %s of sandbox %s is not plugged in", r.Interface, r.Sandbox)
	}
	if e.Closed != "" {
		return agentapi.Errorf(agentapi.CodeDiffers, "%s/%s passes nothing: %s", e.Namespace, e.Name, e.Closed)
	}
	var errs []error
	if len(r.Addresses) > 0 && !slices.Equal(sorted(r.Addresses), sorted(e.Addrs)) {
		errs = append(errs, fmt.Errorf("its addresses are %v, not %v", e.Addrs, r.Addresses))
	}
	errs = append(errs, w.attacher(e).Check(ctx, attachment(e, fmt.Sprintf("/proc/self/fd/%d", netns.Fd()))))
	wait, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	errs = append(errs, w.o.Plane.WaitEnforced(wait, id, 0, 0))
	if err := errors.Join(errs...); err != nil {
		return agentapi.Errorf(agentapi.CodeDiffers, "%s/%s: %v", e.Namespace, e.Name, err)
	}
	return nil
}

func sorted(as []netip.Addr) []netip.Addr {
	as = slices.Clone(as)
	slices.SortFunc(as, netip.Addr.Compare)
	return as
}

// List returns the attachments that r speaks of, the oldest first.
func (w *Workloads) List(r agentapi.ListRequest) []agentapi.Attachment {
	var out []agentapi.Attachment
	for _, e := range w.o.Ledger.List() {
		if e.Phase == ledger.Gone || e.Phase == ledger.Allocating || r.Sandbox != "" && r.Sandbox != e.Sandbox ||
			r.Interface != "" && r.Interface != e.Interface || r.Network != "" && r.Network != e.Network {
			continue
		}
		out = append(out, agentapi.Attachment{Sandbox: e.Sandbox, Interface: e.Interface, Network: e.Network, HostIface: e.HostIface,
			Addresses: e.Addrs, Endpoint: e.Namespace + "/" + e.Name, Detaching: e.Phase == ledger.Detaching})
	}
	return out
}
