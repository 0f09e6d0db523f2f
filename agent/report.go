package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/agent/feed"
	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/agent/status"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// problemsTimeout bounds how long a report waits for the graph, which may be at work on a large change.
const problemsTimeout = 2 * time.Second

// live returns why the agent should be ended and started again.
func (a *agent) live() (err error) {
	a.pump.Read(func(v *pump.View) {
		if v.Stuck {
			err = fmt.Errorf("the dataplane has not answered since %s", v.Started.Format(time.RFC3339))
		}
	})
	return err
}

// missing is what the agent waits for before it does all of its work.
func (a *agent) missing() []string {
	var out []string
	waiting := a.waitingInputs()
	if waiting[feed.Store] {
		s := a.link.Status()
		switch {
		case len(s.Kinds) > 0:
			for _, kind := range sortedKeys(s.Kinds) {
				out = append(out, fmt.Sprintf("%s from the store (%v)", kind, s.Kinds[kind]))
			}
		case !s.Connected && s.Err != nil:
			out = append(out, fmt.Sprintf("the store (%v)", s.Err))
		default:
			out = append(out, "everything from the store to be read")
		}
	}
	if waiting[feed.Ledger] {
		out = append(out, "the ledger of workloads")
	}
	if waiting[feed.Host] {
		out = append(out, "the host's interfaces")
	}
	a.pump.Read(func(v *pump.View) {
		var partly *drivers.ApplyError
		switch {
		case v.Stuck:
			out = append(out, "the dataplane to answer, since "+v.Started.Format(time.RFC3339))
		case v.Last.Err != nil && !errors.As(v.Last.Err, &partly):
			out = append(out, fmt.Sprintf("the dataplane (%v)", v.Last.Err))
		case len(waiting) == 0 && (!v.InSync || v.AllUnapplied):
			out = append(out, "the dataplane to be brought up to date")
		}
	})
	return out
}

// readiness is what is missing, and what is wrong beside that.
func (a *agent) readiness() (missing, problems []string) {
	missing = a.missing()
	ctx, cancel := context.WithTimeout(context.Background(), problemsTimeout)
	defer cancel()
	for _, p := range a.problems(ctx) {
		line := p.Object + ": " + p.Reason
		if p.Field != "" {
			line = p.Object + ": " + p.Field + ": " + p.Reason
		}
		problems = append(problems, line)
	}
	return missing, problems
}

// attachWaitsFor is missing in one line; "" if workloads can be attached.
func (a *agent) attachWaitsFor() string { return strings.Join(a.missing(), ", ") }

// problems is everything that isn't as its owner wants it.
func (a *agent) problems(ctx context.Context) []agentapi.Problem {
	var out []agentapi.Problem
	add := func(object string, err error) {
		if err != nil {
			out = append(out, agentapi.Problem{Object: object, Reason: err.Error()})
		}
	}
	s := a.link.Status()
	for _, kind := range sortedKeys(s.Kinds) {
		add(kind, s.Kinds[kind])
	}
	_, err := a.registrar.status()
	if s.Connected { // else it is the store's problem, which is told of once
		add("Node/"+a.cfg.NodeName, err)
	}
	for _, b := range a.ledger.Bad() {
		add("ledger entry "+b.File, b.Err)
	}
	for _, err := range a.installer.Problems() {
		add("CNI", err)
	}
	add("State of before", a.start.Problem)
	add("persisted State", a.saver.Status().Err)
	a.pump.Read(func(v *pump.View) {
		for ref, err := range v.Failed {
			add(ref.String(), fmt.Errorf("the dataplane refused it: %w", err))
		}
	})
	graph, err := a.feed.Problems(ctx)
	add("resources", err)
	for _, p := range graph {
		out = append(out, agentapi.Problem{Object: p.Key.String(), Field: p.Field, Reason: p.Reason})
	}
	slices.SortStableFunc(out, func(a, b agentapi.Problem) int { return strings.Compare(a.Object, b.Object) })
	return out
}

// report is all of the above, for people.
func (a *agent) report(ctx context.Context) agentapi.Status {
	addrs, _ := a.registrar.status()
	st := agentapi.Status{
		Node: a.cfg.NodeName, Version: a.d.Version, PID: os.Getpid(), Started: a.started, Addresses: addrs,
		NotReady: a.missing(), Problems: a.problems(ctx), Endpoints: a.endpoints(),
		Driver: agentapi.DriverStatus{Name: a.driver.Features().Driver, Features: a.features()},
	}
	st.Ready = len(st.NotReady) == 0
	s := a.link.Status()
	st.Store = agentapi.StoreStatus{Connected: s.Connected, Since: s.Since, Backlog: a.workloads.Backlog()}
	if s.Err != nil {
		st.Store.Error = s.Err.Error()
	}
	for kind, err := range s.Kinds {
		if st.Store.Kinds == nil {
			st.Store.Kinds = map[string]string{}
		}
		st.Store.Kinds[kind] = err.Error()
	}
	waiting := a.waitingInputs()
	for _, in := range []feed.Input{feed.Store, feed.Ledger, feed.Host} {
		st.Inputs = append(st.Inputs, agentapi.InputStatus{Name: string(in), InSync: !waiting[in]})
	}
	a.pump.Read(func(v *pump.View) { st.Apply, st.Counts = a.applyStatus(v), counts(v.Applied) })
	p := a.saver.Status()
	st.Persisted = agentapi.PersistStatus{Last: p.Last, Bytes: p.Bytes}
	if p.Err != nil {
		st.Persisted.Error = p.Err.Error()
	}
	found, at := a.inspector.last()
	for _, f := range found {
		st.Foreign = append(st.Foreign, agentapi.Foreign{Where: f.Where, What: f.What, Mend: f.Mend})
	}
	if !at.IsZero() {
		st.ForeignAt = &at
	}
	return st
}

func (a *agent) applyStatus(v *pump.View) agentapi.ApplyStatus {
	s := agentapi.ApplyStatus{
		InSync: v.InSync, Started: v.Started, Last: v.Last.At, DurationMS: float64(v.Last.Duration.Microseconds()) / 1000,
		Success: v.Success, Retry: v.Retry, Pending: len(v.Unapplied),
	}
	if a.start.State != nil {
		s.Boot = a.start.Why
	}
	if v.Last.Err != nil {
		s.Error = v.Last.Err.Error()
	}
	for ref, err := range v.Failed {
		s.Failed = append(s.Failed, agentapi.Problem{Object: ref.String(), Reason: err.Error()})
	}
	slices.SortFunc(s.Failed, func(a, b agentapi.Problem) int { return strings.Compare(a.Object, b.Object) })
	return s
}

func counts(s *drivers.State) agentapi.Counts {
	c := agentapi.Counts{Endpoints: len(s.Endpoints), Policies: len(s.Policies), Sets: len(s.Sets), Routes: len(s.Routes), Peers: len(s.Peers)}
	for _, set := range s.Sets {
		c.Members += set.Len()
	}
	return c
}

// endpoints is every endpoint that the dataplane or the ledger knows.
func (a *agent) endpoints() []agentapi.EndpointStatus {
	var out []agentapi.EndpointStatus
	known := map[drivers.EndpointID]bool{}
	for _, e := range a.tracker.Endpoints() {
		x := e.Endpoint
		known[x.ID] = true
		s := agentapi.EndpointStatus{Kind: "workload", Sandbox: x.ID.Sandbox, Interface: x.ID.Interface, Name: x.Name, HostIface: x.Iface,
			Addresses: x.Addrs, Enforced: e.Enforced, Reason: e.Reason}
		if x.ID.Kind == drivers.HostInterface {
			s.Kind, s.Sandbox, s.Interface = "host", "", ""
		}
		for _, l := range e.Losses {
			s.Losses = append(s.Losses, status.Describe(l))
		}
		if a.workloads.Busy(x.ID) {
			s.Phase = "attaching"
		}
		out = append(out, s)
	}
	for _, e := range a.ledger.List() {
		if known[e.ID()] || e.Phase == ledger.Gone {
			continue
		}
		s := agentapi.EndpointStatus{Kind: "workload", Sandbox: e.Sandbox, Interface: e.Interface, Name: e.Namespace + "/" + e.Name,
			HostIface: e.HostIface, Addresses: e.Addrs, Reason: "it is not known to the dataplane yet", Phase: "attaching"}
		if e.Phase == ledger.Detaching {
			s.Phase, s.Reason = "detaching", "it is being unplugged"
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b agentapi.EndpointStatus) int {
		return strings.Compare(a.Kind+"\x00"+a.Name+"\x00"+a.HostIface, b.Kind+"\x00"+b.Name+"\x00"+b.HostIface)
	})
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
