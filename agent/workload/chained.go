package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// foreign attaches workloads that another plugin has plugged in: it only looks that they are what the ledger says.
type foreign struct{ drivers.Finder }

// Attach makes nothing.
func (f foreign) Attach(ctx context.Context, a drivers.Attachment) (drivers.Attached, error) {
	made, err := f.Find(ctx, a)
	switch {
	case err != nil:
		return made, err
	case made.HostIface != a.HostIface || made.MAC != a.MAC:
		return made, fmt.Errorf("its other half is %s and its MAC %v, not %s and %v", made.HostIface, made.MAC, a.HostIface, a.MAC)
	}
	return made, nil
}

// Detach leaves the interface to who has made it.
func (foreign) Detach(context.Context, drivers.Attachment) error { return nil }

// Check says what differs.
func (f foreign) Check(ctx context.Context, a drivers.Attachment) error {
	_, err := f.Attach(ctx, a)
	return err
}

// attacher is who plugs e in and out.
func (w *Workloads) attacher(e ledger.Entry) drivers.Attacher {
	if !e.Chained {
		return w.o.Attacher
	}
	finder, _ := w.o.Attacher.(drivers.Finder) // chained has seen that it is one
	return foreign{finder}
}

// chained completes the plan of an attach with what another plugin has made.
func (w *Workloads) chained(ctx context.Context, e *ledger.Entry, o *api.WorkloadEndpoint, netns *os.File) error {
	finder, ok := w.o.Attacher.(drivers.Finder)
	if !ok {
		return agentapi.Errorf(agentapi.CodeUnsupported, "attach: this driver can't enforce policy behind another plugin")
	}
	made, err := finder.Find(ctx, attachment(*e, fmt.Sprintf("/proc/self/fd/%d", netns.Fd())))
	if err != nil {
		return agentapi.Errorf(agentapi.CodeBadRequest, "attach: %v", err)
	}
	e.Chained, e.HostIface, e.MAC, e.MTU = true, made.HostIface, made.MAC, made.MTU
	o.Spec.InterfaceName, o.Spec.MAC = e.HostIface, e.MAC.String()
	return nil
}

// planChained checks what is asked for of an interface that is there already.
func planChained(r agentapi.AttachRequest) error {
	switch {
	case len(r.Addresses) == 0:
		return errors.New("the plugin before this one has given interface " + r.Interface + " no address")
	case r.Allocate != nil || r.MAC != "" || r.MTU != 0:
		return errors.New("addresses, MAC and MTU are what the plugin before this one has made: nothing else can be asked for")
	}
	return nil
}

// sameAs reports whether an attach of before was of the same workload.
func sameAs(had, want ledger.Entry) bool {
	return slices.Equal(had.Addrs, want.Addrs) && had.MTU == want.MTU && had.MAC == want.MAC && had.Chained == want.Chained &&
		(!had.Chained || had.HostIface == want.HostIface) && endpointKey(had) == endpointKey(want)
}
