package agent

import (
	"cmp"
	"time"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/uplink"
)

// nodeInfo is what there is to tell of this node to who computes its State elsewhere.
func (a *agent) nodeInfo(host []drivers.HostIface) calcgraph.NodeInfo {
	return calcgraph.NewNodeInfo(a.cfg.Graph(), host, uplink.ToTheWorld())
}

// settings follows what FelixConfigurations say that is not about the State: the graph does the rest. What they don't say
// is as the agent's own configuration has it. It is called by the goroutine of the feed.
func (a *agent) settings(s api.NodeSettings) {
	round := cmp.Or(s.ResyncInterval, (*time.Duration)(&a.cfg.ResyncInterval))
	level := cmp.Or(s.LogLevel, &a.cfg.LogLevel)
	a.pump.SetResync(*round)
	if a.d.LogLevel != nil && a.d.LogLevel.Level() != *level {
		a.log.Info("the level of this log is another one from now on", "level", *level)
		a.d.LogLevel.Set(*level)
	}
}

// uplinkOf returns the host interface by which a flow reaches or leaves this node, if its other end is elsewhere: the
// kernel knows. "" if there is no saying, or no flow.
func (a *agent) uplinkOf(f *agentapi.Flow) string {
	if f == nil {
		return ""
	}
	far := f.Dst
	a.pump.Read(func(v *pump.View) {
		if v.Applied.Locate(f.Src, "").Kind == drivers.PlaceHostIface {
			far = f.Src // it comes from outside
		}
	})
	return uplink.To(far)
}
