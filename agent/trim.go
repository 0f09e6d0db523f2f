package agent

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"time"
)

const (
	// heapGrowth is by how much of what is live the heap may grow before Go collects garbage, in percent; GOGC in the
	// environment wins. Go's own value is 100: an agent of a large cluster would hold twice of what it needs.
	heapGrowth = 50
	// trimEvery is how often the agent looks at what memory it has of the host.
	trimEvery = 20 * time.Second
	// trimFloor is what it may have beyond what it uses, in bytes, beside an eighth of that.
	trimFloor = 16 << 20
)

// trim gives memory back to the host that the agent does not use: Go keeps what a first snapshot has needed once for as long
// as it may need as much again. A collection costs about a millisecond of one processor for each megabyte that is live, so
// it is not done while there is little to gain.
func trim(ctx context.Context, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			trimNow(log)
		case <-ctx.Done():
			return
		}
	}
}

func trimNow(log *slog.Logger) {
	before := readMemory()
	if !before.wasteful() {
		return
	}
	debug.FreeOSMemory()
	log.Debug("gave memory back to the host", "before", before.resident, "now", readMemory().resident)
}

// memory is in bytes.
type memory struct {
	resident uint64 // that the Go runtime has of the host
	live     uint64 // that the last collection has found in use
}

func (m memory) wasteful() bool { return m.resident > m.live+m.live/8+trimFloor }

func readMemory() memory {
	s := []rtmetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/heap/live:bytes"}}
	rtmetrics.Read(s)
	return memory{resident: s[0].Value.Uint64() - s[1].Value.Uint64(), live: s[2].Value.Uint64()}
}
