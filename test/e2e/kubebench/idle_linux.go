package kubebench

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/test/e2e"
)

// idlePods are what nodes run that have nothing to do: pods, and a policy on them.
const idlePods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle, namespace: default}
spec:
  replicas: 20
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: "` + pause + `"}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: idle, namespace: default}
spec:
  podSelector: {matchLabels: {app: idle}}
  ingress: [{from: [{podSelector: {matchLabels: {app: idle}}}]}]
`

// mostIdle is the budget of a node's agent, of requests that are no watches.
const mostIdle = 10

// Idle counts what a cluster asks the API server for in which nothing happens.
func Idle(ctx context.Context, o *Options) (t *Table, err error) {
	bed := o.bed()
	from := o.Since
	if from.IsZero() {
		defer func() { err = o.down(ctx, bed, err) }()
		kind := e2e.Cluster{Proxy: "iptables"}
		if err := bed.Up(ctx, kind, ""); err != nil {
			return nil, err
		}
		if err := bed.Install(ctx, kind); err != nil {
			return nil, err
		}
		if err := bed.Apply(ctx, idlePods); err != nil {
			return nil, err
		}
		if _, err := bed.Kubectl(ctx, "rollout", "status", "deployment/idle", "--timeout=180s"); err != nil {
			return nil, err
		}
		// what pods that came leave to do is no part of idling
		if err := wait(ctx, 30*time.Second); err != nil {
			return nil, err
		}
		from = time.Now()
		o.say("idling until %s", from.Add(o.Idle).UTC().Format(time.TimeOnly))
		if err := wait(ctx, o.Idle); err != nil {
			return nil, err
		}
	}
	nodes, err := bed.Nodes()
	if err != nil {
		return nil, err
	}
	to := time.Now()
	if !o.Since.IsZero() && o.Idle > 0 && from.Add(o.Idle).Before(to) {
		to = from.Add(o.Idle)
	}
	log, err := os.Open(filepath.Join(bed.State(), "run/logs/audit.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	counts := map[string]map[string]int{"tortie-agent": {}, "tortie-controllers": {}}
	err = readAudit(log, func(r *request) {
		if c := counts[r.who()]; c != nil && !r.At.Before(from) && r.At.Before(to) {
			c[r.what()]++
		}
	})
	if err != nil {
		return nil, err
	}
	return idleTable(counts, len(nodes), to.Sub(from)), nil
}

// idleTable has what was counted as requests in an hour.
func idleTable(counts map[string]map[string]int, nodes int, in time.Duration) *Table {
	t := &Table{Head: []string{"requests", "counted", "in an hour", "budget"}}
	hours := in.Hours()
	line := func(what string, n, of int, budget string) {
		t.Lines = append(t.Lines, []string{what, fmt.Sprint(n), figure(float64(n) / float64(of) / hours), budget})
	}
	for _, who := range []string{"tortie-agent", "tortie-controllers"} {
		watches, others := 0, 0
		for what, n := range counts[who] {
			if strings.HasPrefix(what, "watch ") {
				watches += n
			} else {
				others += n
			}
		}
		name, of, budget := "an agent", nodes, ""
		if who == "tortie-agent" {
			budget = fmt.Sprintf("<= %d %s", mostIdle, verdict(float64(others)/float64(of)/hours, mostIdle))
		} else {
			name, of = "the controllers, two replicas together", 1
		}
		line(name+": all but watches", others, of, budget)
		for _, what := range slices.Sorted(maps.Keys(counts[who])) {
			if !strings.HasPrefix(what, "watch ") {
				line(name+": "+what, counts[who][what], of, "")
			}
		}
		line(name+": watches begun again", watches, of, "")
		t.Notes = append(t.Notes, fmt.Sprintf("Watches of %s, counted: %s.", strings.TrimSuffix(name, ", two replicas together"), list(counts[who], "watch ")))
	}
	t.Notes = append([]string{fmt.Sprintf("%d nodes with ten idle pods each and a policy on them, %v; read out of the API server's audit log. A figure of an agent is for each node.",
		nodes, in.Round(time.Second))}, t.Notes...)
	return t
}

// list writes down counts of what begins so.
func list(counts map[string]int, prefix string) string {
	var out []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		if name, ok := strings.CutPrefix(what, prefix); ok {
			out = append(out, fmt.Sprintf("%s %d", name, counts[what]))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}
