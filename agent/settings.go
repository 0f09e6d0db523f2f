package agent

import (
	"cmp"
	"time"

	"github.com/tortie/tortie/api"
)

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
