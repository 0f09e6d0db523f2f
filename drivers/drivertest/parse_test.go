package drivertest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tortie/tortie/drivers"
)

// TestOracle holds Evaluate to the verdicts of all cases; no driver takes part.
func TestOracle(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if err := CheckOracle(c); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseErrorsSayWhere(t *testing.T) {
	const head = "It shows something.\n-- state --\nworkload a\n"
	for _, tc := range []struct{ name, text, want string }{
		{"no sentence", "-- state --\n", "x.txtar:1: the first line says"},
		{"no state", "It shows.\n", "x.txtar:1: no state"},
		{"steps first", "It shows.\n-- steps --\n", "x.txtar:2: steps before any state"},
		{"section", head + "-- stats --\n", `x.txtar:4: section "stats"`},
		{"definition", head + "bogus x\n", `x.txtar:4: "bogus" defines nothing`},
		{"clause", head + "policy p\n  in allow tcp to prot=80\n", `x.txtar:5: "prot" is not a clause`},
		{"clause of no end", head + "policy p\n  in allow tcp port=80\n", `x.txtar:5: "port" is not a clause; clauses of an end`},
		{"port", head + "policy p\n  in allow tcp to port=90-80\n", `x.txtar:5: "90-80" is neither a port`},
		{"rule of nothing", head + "  in allow\n", "x.txtar:4: a rule follows its policy"},
		{"missing policy", head + "workload b in=p\n", "x.txtar:2: default/b: in: there is no policy p"},
		{"missing set", head + "policy p\n  in allow from set=s:1\n", "x.txtar:2: policy GlobalNetworkPolicy/p: there is no set s:1"},
		{"set of the other kind", head + "set s:1 port 10.0.0.1,tcp:80\npolicy p\n  in allow from set=s:1\n", "or it is of the other kind"},
		{"verdict", head + "-- steps --\na -> b tcp 80 = maybe\n", `x.txtar:5: "maybe" is not a verdict`},
		{"no such site", head + "-- steps --\nz -> b tcp 80 = deny\n", `x.txtar:5: the topology has no "z"`},
		{"not routed", head + "-- steps --\na -> b@10.9.9.9 tcp 80 = deny\n", "x.txtar:5: 10.9.9.9 is not routed to b"},
		{"no flow is opened so", head + "-- steps --\na -> b pong = deny\n", "x.txtar:5: ICMP type 0 opens no flow"},
		{"without", head + "-- change --\nwithout policy p\n", "x.txtar:5: there is no policy p"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseCase("x.txtar", []byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestTextThereAndBack writes random States and probes as a case and reads them again.
func TestTextThereAndBack(t *testing.T) {
	for seed := range uint64(15) {
		s, ps := Random(seed)
		sc := Scene{State: s}
		for _, p := range ps {
			sc.Lines = append(sc.Lines, sceneOf(s, p).Lines...)
		}
		text := caseText("There and back.", []Scene{sc})
		c, err := ParseCase("x.txtar", []byte(text))
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		opts := cmp.Options{
			cmp.Comparer((*drivers.Set).Equal), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}), cmpopts.EquateEmpty(),
			cmpopts.IgnoreFields(drivers.TierPolicies{}, "Order"),
		}
		if diff := cmp.Diff(s, c.Scenes[0].State, opts); diff != "" {
			t.Fatalf("seed %d: (-made +read)\n%s", seed, diff)
		}
		for i, l := range c.Scenes[0].Lines {
			if diff := cmp.Diff([]Probe{ps[i]}, l.Probes, opts); diff != "" {
				t.Fatalf("seed %d: %s (-made +read)\n%s", seed, l.Text, diff)
			}
		}
		if err := CheckOracle(c); err != nil {
			t.Fatal(err)
		}
	}
}
