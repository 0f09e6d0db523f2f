//go:build e2e && linux

package alive

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

const agentUser = "system:serviceaccount:tortie-system:tortie-agent"

// request is one of an agent's, out of the API server's audit log.
type request struct {
	Verb      string
	User      struct{ Username string }
	ObjectRef struct{ Resource, Subresource string }
	Object    json.RawMessage    `json:"requestObject"`
	Status    struct{ Code int } `json:"responseStatus"`
	At        time.Time          `json:"requestReceivedTimestamp"`
}

func (r *request) what() string { return r.Verb + " " + r.ObjectRef.Resource }

func (r *request) writes() bool {
	switch r.Verb {
	case "create", "update", "patch", "delete":
		return true
	}
	return false
}

// requests are those of all agents in a time, by what they are.
func requests(c *bedtest.Cluster, from, to time.Time) map[string][]*request {
	c.Helper()
	f, err := os.Open(filepath.Join(c.Bed.State(), "run/logs/audit.log"))
	if err != nil {
		c.Fatal(err)
	}
	defer f.Close()
	all := map[string][]*request{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		r := &request{}
		if json.Unmarshal(lines.Bytes(), r) == nil && r.User.Username == agentUser && !r.At.Before(from) && r.At.Before(to) {
			all[r.what()] = append(all[r.what()], r)
		}
	}
	if err := lines.Err(); err != nil {
		c.Fatal(err)
	}
	return all
}

// A pod costs one write when it comes and one when it goes, of a block, and an agent that has nothing to do is quiet.
func TestRequests(t *testing.T) {
	c := bedtest.Open(t)
	const pods, quiet = 20, time.Minute
	c.Start(bedtest.Spec{Name: "first", Node: "node1"}) // the node has a block with room, then
	count := func(what string, do func()) map[string][]*request {
		from := time.Now()
		do()
		all := requests(c, from, time.Now())
		for name, rs := range all {
			largest := 0
			for _, r := range rs {
				largest = max(largest, len(r.Object))
			}
			t.Logf("%s: %d %s, the largest of %d bytes", what, len(rs), name, largest)
		}
		return all
	}
	added := count(fmt.Sprintf("%d pods come, one after another", pods), func() {
		for i := range pods {
			c.Start(bedtest.Spec{Name: fmt.Sprint("pod-", i), Node: "node1"})
		}
	})
	removed := count(fmt.Sprintf("%d pods go", pods), func() {
		for i := range pods {
			c.In("delete", "pod", fmt.Sprint("pod-", i), "--now", "--wait=true")
		}
	})
	for what, all := range map[string]map[string][]*request{"coming": added, "going": removed} {
		writes := 0
		for _, rs := range all {
			for _, r := range rs {
				if r.writes() && r.ObjectRef.Resource != "nodes" {
					writes++
				}
				if len(r.Object) > 11<<10 {
					t.Errorf("%s: %s of %d bytes, want at most 11 KB", what, r.what(), len(r.Object))
				}
			}
		}
		if writes > pods+2 { // a block that is full, or one that is given back, costs two more
			t.Errorf("%s: %d writes for %d pods, want one each", what, writes, pods)
		}
	}
	// The kubelet asks for each sandbox that it removes once more, some time later, and each time costs a few reads.
	perHour := 0.0
	for range 4 {
		n := 0
		for name, rs := range count("a minute of nothing", func() { time.Sleep(quiet) }) {
			if !strings.HasPrefix(name, "watch ") {
				n += len(rs)
			}
		}
		if perHour = float64(n) / 2 * float64(time.Hour/quiet); perHour <= 60 {
			return
		}
	}
	t.Errorf("in four minutes of nothing two idle agents never asked for less than %.0f things an hour each, beside watches", perHour)
}
