package kubebench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tortie/tortie/test/bench"
)

// Run measures a row.
func Run(ctx context.Context, o *Options, row string) (t *Table, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root: it makes a cluster of namespaces")
	}
	measure := map[string]func(context.Context, *Options) (*Table, error){"podstart": PodStart, "watchers": Watchers, "idle": Idle}[row]
	if measure == nil {
		return nil, fmt.Errorf("no row %q; there are %v", row, Rows)
	}
	if err := o.rest(ctx); err != nil {
		return nil, err
	}
	began, machine := time.Now(), bench.ThisMachine(o.Root)
	if o.commit == "" {
		o.commit = machine.Commit // before a page has been written
	}
	machine.Commit = o.commit
	undo, err := first()
	if err != nil {
		return nil, err
	}
	defer undo()
	if t, err = measure(ctx, o); err != nil {
		return nil, err
	}
	t.Row, t.Date, t.Took, t.Machine = row, began, time.Since(began), machine
	t.Command = strings.TrimSpace(fmt.Sprintf("make kubebench ROWS=%s %s", row, o.Flags))
	return t, nil
}

const mostRest = 5 * time.Minute

// rest waits until what was built and measured before is no load any more; other work may go on for longer than that.
func (o *Options) rest(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < mostRest; {
		load := bench.ThisMachine(o.Root).Load
		if load <= busy {
			break
		}
		o.say("the load average is %.2f: waiting until it is %g, at most %v", load, busy, (mostRest - time.Since(began)).Round(time.Second))
		if err := wait(ctx, 20*time.Second); err != nil {
			return err
		}
	}
	return nil
}
