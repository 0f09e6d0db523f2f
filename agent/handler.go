package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/agent/status"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// handler answers the socket.
type handler struct{ a *agent }

func (h handler) Attach(ctx context.Context, r agentapi.AttachRequest, netns *os.File) (agentapi.AttachResponse, error) {
	return h.a.workloads.Attach(ctx, r, netns)
}

func (h handler) Detach(ctx context.Context, r agentapi.DetachRequest) error {
	return h.a.workloads.Detach(ctx, r)
}

func (h handler) Check(ctx context.Context, r agentapi.CheckRequest, netns *os.File) error {
	return h.a.workloads.Check(ctx, r, netns)
}

func (h handler) List(_ context.Context, r agentapi.ListRequest) (agentapi.ListResponse, error) {
	return agentapi.ListResponse{NotReady: h.a.missing(), Attachments: h.a.workloads.List(r)}, nil
}

func (h handler) Status(ctx context.Context, r agentapi.StatusRequest) (agentapi.Status, error) {
	if r.Inspect {
		if err := h.a.inspector.look(ctx); err != nil {
			return agentapi.Status{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, problemsTimeout)
	defer cancel()
	return h.a.report(ctx), nil
}

// Explain answers from the State that the dataplane has, not from what it should have.
func (h handler) Explain(_ context.Context, r agentapi.ExplainRequest) (agentapi.ExplainResponse, error) {
	var p drivers.Packet
	if (r.Flow == nil) == (r.Packet == nil) {
		return agentapi.ExplainResponse{}, agentapi.Errorf(agentapi.CodeBadRequest, "explain: want a flow or a packet")
	}
	if r.Packet != nil {
		if err := agentapi.Unmarshal(r.Packet, &p); err != nil {
			return agentapi.ExplainResponse{}, agentapi.Errorf(agentapi.CodeBadRequest, "explain: the packet: %v", err)
		}
	} else if !r.Flow.Src.IsValid() || !r.Flow.Dst.IsValid() || r.Flow.Src.Unmap().Is4() != r.Flow.Dst.Unmap().Is4() {
		return agentapi.ExplainResponse{}, agentapi.Errorf(agentapi.CodeBadRequest, "explain: want two addresses of one family")
	}
	by := h.a.uplinkOf(r.Flow)
	var t drivers.Trace
	var pending bool
	var ends []drivers.EndpointID
	h.a.pump.Read(func(v *pump.View) {
		s := v.Applied
		if f := r.Flow; f != nil {
			hop := drivers.Path(s, nil, drivers.Flow5{Src: f.Src, Dst: f.Dst, Proto: f.Proto, SrcPort: f.SrcPort, DstPort: f.DstPort,
				ICMPType: f.ICMPType, ICMPCode: f.ICMPCode, UplinkA: by}).Hops[0]
			p, t = hop.Packet, hop.Trace
		} else {
			t = drivers.Evaluate(s, p)
		}
		pending = !v.Clean()
		for id, e := range s.Endpoints {
			if e.Iface != "" && (e.Iface == p.From.Iface || e.Iface == p.To.Iface) {
				ends = append(ends, id)
			}
		}
	})
	out := agentapi.ExplainResponse{Allowed: t.Verdict == drivers.VerdictAllow, Pending: pending}
	for _, l := range h.a.tracker.LossesOf(ends...) {
		out.Losses = append(out.Losses, status.Describe(l))
	}
	var err error
	if out.Packet, err = json.Marshal(p); err == nil {
		out.Trace, err = json.Marshal(t)
	}
	if err != nil {
		return out, fmt.Errorf("explain: encoding the trace: %w", err)
	}
	return out, nil
}

// State is what the dataplane was given last.
func (h handler) State(context.Context) (json.RawMessage, error) {
	var s *drivers.State
	h.a.pump.Read(func(v *pump.View) { s = v.Applied.Clone() })
	var b bytes.Buffer
	if err := drivers.EncodeState(&b, s); err != nil {
		return nil, fmt.Errorf("encoding the State: %w", err)
	}
	return b.Bytes(), nil
}
