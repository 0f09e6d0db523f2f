package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Suite is a set of specs that somebody else, or ./alive, has written.
type Suite struct {
	Name  string
	Title string // in the report
	// Focus chooses specs of Kubernetes's suite by their whole names. It is empty for suites that are Go tests.
	Focus string
	// Dual is what a cluster of both families runs more.
	Dual string
	// Skips say which of them are not run, and why.
	Skips []Skip
	// Program is the test binary of a suite that is a Go test, Args what it is called with.
	Program string
	Args    []string
	Package string // of this module that the program is built of
	// Where are the clusters that it runs in, unless one is asked for.
	Where   Where
	Minutes float64 // that it takes on two processors
	Beside  bool    // it has pods and policies of its own and mostly waits: it runs beside others where there are processors for it
}

// Where says which clusters a suite runs in.
type Where int

// Where suites run.
const (
	Everywhere Where = iota // in all whose pods have addresses of Tortie
	BothStacks              // in those with IPv4
	Once                    // in the first
	Beside                  // in those whose pods have addresses of others
)

// In reports whether a suite runs in the n-th cluster of a run.
func (s Suite) In(c Cluster, n int) bool {
	switch s.Where {
	case Beside:
		return c.From != FromPools
	case Once:
		return n == 0
	case BothStacks:
		return c.From == FromPools && !c.IPv6
	}
	return c.From == FromPools
}

// Clusters are those of a whole run.
func Clusters() []Cluster {
	return []Cluster{
		{Proxy: "iptables"}, {Proxy: "nftables", Dual: true}, {Proxy: "nftables", IPv6: true},
		{Proxy: "nftables", From: FromAnother}, {Proxy: "iptables", From: FromHostLocal},
	}
}

// Skip is a reason not to run specs.
type Skip struct{ Match, Reason string }

const noSCTP = "the kernel that this runs on has no SCTP"

// Suites are all suites, in the order in which they run.
func Suites() []Suite {
	return []Suite{
		{
			Name: "netpol", Title: "Kubernetes: NetworkPolicy (`Netpol`)",
			Focus:   `\[sig-network\] Netpol`,
			Skips:   []Skip{{`\[Feature:SCTPConnectivity\]`, noSCTP}},
			Minutes: 9,
		},
		{
			Name: "conformance", Title: "Kubernetes: sig-network, all of `[Conformance]`",
			Focus: `\[sig-network\].*\[Conformance\]`, Minutes: 1.5,
			Skips: []Skip{{`\[Feature:SCTPConnectivity\]`, noSCTP}},
		},
		{
			Name: "network", Title: "Kubernetes: other specs of sig-network that a network plugin decides",
			Focus: `\[sig-network\] (Networking Granular Checks: Services|NoSNAT|Connectivity Pod Lifecycle should be able to connect|` +
				`Services should (allow pods to hairpin|preserve source pod IP|be rejected when no endpoints exist))`,
			Dual:  `\[sig-network\] \[Feature:IPv6DualStack\]`,
			Where: BothStacks, Minutes: 3.5,
			Skips: []Skip{{`\[Feature:SCTPConnectivity\]`, noSCTP}, {`\[Slow\]`, "they wait for minutes to see what the others see"}},
		},
		{
			Name: "cnp", Title: "network-policy-api v0.2.0: ClusterNetworkPolicy",
			Program: "cnp.test", Args: []string{"-supported-features=ClusterNetworkPolicyNamedPorts,ClusterNetworkPolicyEgressNodePeers"},
			Beside: true, Where: Once, Minutes: 10,
		},
		{
			Name: "admission", Title: "Schemas and admission policies (test/e2e/admission)",
			Program: "admission.test", Package: "./test/e2e/admission", Where: Once, Minutes: 0.5,
		},
		{
			Name: "alive", Title: "Staying alive (test/e2e/alive)",
			Program: "alive.test", Package: "./test/e2e/alive", Where: Once, Minutes: 8,
		},
		{
			Name: "crowd", Title: "10,000 pods and 1,000 policies: what an agent holds (test/e2e/crowd)",
			Program: "crowd.test", Package: "./test/e2e/crowd", Where: Once, Minutes: 5,
		},
		{
			Name: "beside", Title: "Kubernetes: `Netpol` where pods have addresses of others (a choice)",
			Focus: `\[sig-network\] Netpol .* should (` + strings.Join([]string{
				"support a 'default-deny-ingress' policy", "enforce policy based on PodSelector and NamespaceSelector",
				"enforce policy based on Ports", "enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
				"deny egress from pods based on PodSelector", "allow egress access to server in CIDR block",
				"allow ingress access from updated pod",
			}, "|") + `) `, Where: Beside, Minutes: 2,
			Skips: []Skip{{`\[Feature:SCTPConnectivity\]`, noSCTP}},
		},
		{ // the last: it takes Tortie off the cluster, and puts it on anew
			Name: "upgrade", Title: "Installing, upgrading, going back and removing (test/e2e/upgrade)",
			Program: "upgrade.test", Package: "./test/e2e/upgrade", Where: Once, Minutes: 8,
		},
	}
}

// Spec is one spec's result.
type Spec struct {
	Name    string  `json:"name"`
	State   State   `json:"state"`
	Reason  string  `json:"reason,omitempty"` // why it was skipped, or what failed
	Seconds float64 `json:"seconds"`
	Again   bool    `json:"again,omitempty"` // failed among others and was run again alone: this is the second result
}

// State is how a spec ended.
type State string

// States of a spec.
const (
	Passed  State = "passed"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Run is how a suite went in a cluster.
type Run struct {
	Suite   string    `json:"suite"`
	Cluster Cluster   `json:"cluster"`
	Date    time.Time `json:"date"`
	Tortie  string    `json:"tortie"` // the agents' version
	Seconds float64   `json:"seconds"`
	Specs   []Spec    `json:"specs"`
}

// Count is how many specs ended so.
func (r *Run) Count(s State) int { return count(r.Specs, s) }

func count(specs []Spec, s State) int {
	n := 0
	for _, spec := range specs {
		if spec.State == s {
			n++
		}
	}
	return n
}

// Options of a run of suites.
type Options struct {
	Focus string // only specs whose names match
	Procs int    // specs at once, of suites that can
	Dir   string // for logs and reports
}

// Run runs a suite in the cluster that is up.
func (b *Bed) Run(ctx context.Context, s Suite, c Cluster, o Options) (*Run, error) {
	start, tortie := time.Now(), b.tortie(ctx)
	run := b.runGinkgo
	if s.Program != "" {
		run = b.runGoTest
	}
	specs, err := run(ctx, s, c, o)
	slices.SortFunc(specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
	r := &Run{Suite: s.Name, Cluster: c, Date: start.UTC().Truncate(time.Second), Seconds: time.Since(start).Seconds(), Tortie: tortie, Specs: specs}
	if err == nil && r.Count(Passed)+r.Count(Failed) == 0 {
		err = fmt.Errorf("suite %s ran no spec at all", s.Name)
	}
	return r, err
}

// skip is the reason why a spec is not run; "" if it is.
func (s Suite) skip(name string) string {
	for _, k := range s.Skips {
		if regexp.MustCompile(k.Match).MatchString(name) {
			return k.Reason
		}
	}
	return ""
}
