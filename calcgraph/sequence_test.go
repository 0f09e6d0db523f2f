package calcgraph

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write testdata/golden")

// input is one thing that an input of the graph can hold: key names its place, put puts it there or, called with false,
// takes it away.
type input struct {
	key string
	put func(c *checked, there bool)
}

// inputs is a state of all inputs: by key, the name of what is there.
type inputs map[string]string

// move is one change of an input. An empty name takes away what is there.
type move struct{ key, name string }

// library is the things that states are made of, by name.
type library map[string]input

func loadLibrary(t testing.TB) library {
	t.Helper()
	a, err := txtar.ParseFile("testdata/objects.txtar")
	if err != nil {
		t.Fatal(err)
	}
	lib := library{}
	for _, f := range a.Files {
		in, err := readInput(f.Data)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		lib[f.Name] = in
	}
	return lib
}

// readInput reads an object of the store, or one of the tests' own kinds.
func readInput(data []byte) (input, error) {
	var d struct {
		Kind, Sandbox, Name, UID, Iface, MAC, Dst, Via, Peer string
		Addrs                                                []string
		Ifaces                                               []struct {
			Name  string
			Addrs []string
		}
	}
	if err := yaml.Unmarshal(data, &d); err != nil {
		return input{}, err
	}
	switch d.Kind {
	case "Attached":
		e := &LedgerEntry{Iface: d.Iface, UID: d.UID}
		e.Name.Namespace, e.Name.Name, _ = strings.Cut(d.Name, "/")
		if d.MAC != "" {
			fmt.Sscanf(d.MAC, "%x:%x:%x:%x:%x:%x", &e.MAC[0], &e.MAC[1], &e.MAC[2], &e.MAC[3], &e.MAC[4], &e.MAC[5])
		}
		for _, a := range d.Addrs {
			e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
		}
		id := drivers.EndpointID{Sandbox: d.Sandbox, Interface: "eth0"}
		return input{"attached " + d.Sandbox, func(c *checked, there bool) { c.attach(id, map[bool]*LedgerEntry{true: e}[there]) }}, nil
	case "Host":
		var ifaces []drivers.HostIface
		for _, i := range d.Ifaces {
			h := drivers.HostIface{Name: i.Name}
			for _, a := range i.Addrs {
				h.Addrs = append(h.Addrs, netip.MustParsePrefix(a))
			}
			ifaces = append(ifaces, h)
		}
		return input{"host", func(c *checked, there bool) { c.host(map[bool][]drivers.HostIface{true: ifaces}[there]) }}, nil
	case "Learned":
		dst := netip.MustParsePrefix(d.Dst)
		r := &drivers.Route{Dst: dst, Kind: drivers.RouteRemote, NextHop: netip.MustParseAddr(d.Via), Peer: d.Peer, Learned: true}
		return input{"learned " + d.Dst, func(c *checked, there bool) { c.learn(dst, map[bool]*drivers.Route{true: r}[there]) }}, nil
	}
	kind, ok := api.KindByName(d.Kind)
	if !ok {
		return input{}, fmt.Errorf("kind %q is not known", d.Kind)
	}
	o := kind.New()
	if err := yaml.UnmarshalStrict(data, o); err != nil {
		return input{}, err
	}
	key := api.KeyOf(o)
	return input{key.String(), func(c *checked, there bool) {
		if there {
			c.set(o)
		} else {
			c.remove(key)
		}
	}}, nil
}

// sequence is states that the inputs go through.
type sequence struct {
	name   string
	states []inputs
}

func loadSequences(t testing.TB, lib library) []sequence {
	t.Helper()
	a, err := txtar.ParseFile("testdata/sequences.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var out []sequence
	for _, f := range a.Files {
		s := sequence{name: f.Name}
		now := inputs{}
		for line := range strings.Lines(string(f.Data)) {
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			if words[0][0] != '+' && words[0][0] != '-' {
				now = inputs{}
			}
			now = maps.Clone(now)
			taken := false
			for _, w := range words {
				taken = w[0] == '-' || taken && w[0] != '+'
				in, ok := lib[strings.TrimLeft(w, "+-")]
				if !ok {
					t.Fatalf("%s: there is no %s", f.Name, w)
				}
				if taken {
					delete(now, in.key)
				} else {
					now[in.key] = strings.TrimLeft(w, "+")
				}
			}
			s.states = append(s.states, now)
		}
		out = append(out, s)
	}
	return out
}

// moves returns the changes that lead from one state to another, sorted by key.
func moves(from, to inputs) (out []move) {
	for k := range from {
		if to[k] == "" {
			out = append(out, move{k, ""})
		}
	}
	for k, n := range to {
		if from[k] != n {
			out = append(out, move{k, n})
		}
	}
	slices.SortFunc(out, func(a, b move) int { return strings.Compare(a.key, b.key) })
	return out
}

// batches returns the changes of a sequence from nothing through its states.
func batches(states []inputs) (out [][]move) {
	last := inputs{}
	for _, s := range states {
		out = append(out, moves(last, s))
		last = s
	}
	return out
}

// expanders make other sequences of one.
var expanders = map[string]func([]inputs) [][]move{
	"as it is": batches,
	"keys reversed": func(s []inputs) [][]move {
		b := batches(s)
		for _, moves := range b {
			slices.Reverse(moves)
		}
		return b
	},
	"states reversed": func(s []inputs) [][]move {
		s = slices.Clone(s)
		slices.Reverse(s)
		return batches(s)
	},
	"empty between": func(s []inputs) [][]move {
		var out []inputs
		for _, x := range s {
			out = append(out, x, inputs{})
		}
		return batches(append(out, s[len(s)-1]))
	},
	"split": func(s []inputs) (out [][]move) {
		for _, b := range batches(s) {
			out = append(out, b[:len(b)/2], b[len(b)/2:])
		}
		return out
	},
	"squashed": func(s []inputs) [][]move {
		var all []move
		for _, o := range slices.Concat(batches(s)...) {
			all = slices.DeleteFunc(all, func(x move) bool { return x.key == o.key })
			all = append(all, o)
		}
		return [][]move{all}
	},
	"there and back": func(s []inputs) [][]move {
		back := slices.Clone(s)
		slices.Reverse(back)
		return batches(slices.Concat(s, back, s))
	},
}

type strategy struct{ each, twice, spurious, end bool }

// strategies say when the graph is flushed, and how often it is told.
var strategies = map[string]strategy{
	"flush after each key":           {each: true},
	"each key told twice":            {each: true, twice: true},
	"flush after each state":         {},
	"flush at the end":               {end: true},
	"spurious deletes in each state": {spurious: true},
	"spurious deletes, told twice":   {spurious: true, twice: true, end: true},
}

// runner applies moves to a checked graph.
type runner struct {
	*checked
	lib   library
	byKey map[string]input // any that has the key
	now   inputs
}

func newRunner(t testing.TB, lib library) *runner {
	r := &runner{newChecked(t), lib, map[string]input{}, inputs{}}
	for _, in := range lib {
		r.byKey[in.key] = in
	}
	return r
}

func (r *runner) do(m move) {
	if m.name == "" {
		r.byKey[m.key].put(r.checked, false)
		delete(r.now, m.key)
		return
	}
	r.lib[m.name].put(r.checked, true)
	r.now[m.key] = m.name
}

func (r *runner) run(batches [][]move, how strategy) {
	for _, b := range batches {
		for _, m := range b {
			for n := 0; n == 0 || how.twice && n == 1; n++ {
				if how.spurious {
					r.do(move{m.key, ""})
					r.do(move{m.key, ""})
				}
				r.do(m)
				if how.each {
					r.flush()
				}
			}
		}
		if !how.end {
			r.flush()
		}
	}
	r.flush()
}

// TestSequences runs every base sequence in every expansion with every strategy. Where they end the State must be that
// of testdata/golden, which the model must also come to; and then everything is taken away.
func TestSequences(t *testing.T) {
	lib := loadLibrary(t)
	sequences := loadSequences(t, lib)
	if len(sequences) < 40 {
		t.Errorf("there are %d base sequences, want at least 40", len(sequences))
	}
	for _, s := range sequences {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			golden := checkGolden(t, lib, s)
			for ename, expand := range expanders {
				for sname, how := range strategies {
					r := newRunner(t, lib)
					r.run(expand(s.states), how)
					want, ok := golden[describe(r.now)]
					if !ok {
						t.Fatalf("%s, %s: ends in %s, which is no state of the sequence", ename, sname, describe(r.now))
					}
					if d := cmp.Diff(want, r.state.String()); d != "" {
						t.Fatalf("%s, %s (-want +got):\n%s", ename, sname, d)
					}
					r.clear()
				}
			}
		})
	}
}

func describe(s inputs) string { return strings.Join(slices.Sorted(maps.Values(s)), " ") }

// checkGolden makes the State of each state of s from nothing, compares it with the model and the golden file, and
// returns them by what the inputs hold.
func checkGolden(t *testing.T, lib library, s sequence) map[string]string {
	t.Helper()
	states := map[string]string{}
	var text strings.Builder
	for _, in := range s.states {
		r := newRunner(t, lib)
		r.run(batches([]inputs{in}), strategies["flush after each state"])
		states[describe(in)] = r.state.String()
		fmt.Fprintf(&text, "== %s\n%s", describe(in), r.state)
		for _, p := range r.g.Problems() {
			fmt.Fprintf(&text, "problem %s\n", p)
		}
		text.WriteByte('\n')
		if hasBadInput(in) {
			continue // the model reads valid objects only
		}
		if d := cmp.Diff(r.w.state(r.c).String(), r.state.String()); d != "" {
			t.Fatalf("%s (-model +graph):\n%s", describe(in), d)
		}
	}
	file := filepath.Join("testdata", "golden", s.name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text.String()); d != "" {
		t.Fatalf("%s (-golden +got):\n%s", file, d)
	}
	return states
}

func hasBadInput(in inputs) bool {
	for _, n := range in {
		if strings.HasPrefix(n, "unreadable-") || n == "ipip-pool-v6" || n == "node-n2-vtep" || n == "virtual-block" {
			return true
		}
	}
	return false
}

// TestReferentRemoved takes each thing out of each state while everything that refers to it stays, and puts it back: the
// case that a sequence and its reverse don't show.
func TestReferentRemoved(t *testing.T) {
	lib := loadLibrary(t)
	seen := map[string]bool{}
	pairs := map[string]bool{}
	for _, s := range loadSequences(t, lib) {
		for _, in := range s.states {
			if seen[describe(in)] || hasBadInput(in) {
				continue
			}
			seen[describe(in)] = true
			r := newRunner(t, lib)
			r.run(batches([]inputs{in}), strategies["flush after each state"])
			full := r.state.String()
			for key, name := range in {
				for other := range in {
					pairs[kindOf(key)+" "+kindOf(other)] = true
				}
				r.do(move{key, ""})
				r.flush()
				if d := cmp.Diff(r.w.state(r.c).String(), r.state.String()); d != "" {
					t.Fatalf("%s without %s (-model +graph):\n%s", describe(in), name, d)
				}
				r.do(move{key, name})
				r.flush()
				if d := cmp.Diff(full, r.state.String()); d != "" {
					t.Fatalf("%s with %s again (-want +got):\n%s", describe(in), name, d)
				}
			}
			r.clear()
		}
	}
	for _, p := range []string{
		"Tier GlobalNetworkPolicy", "Profile WorkloadEndpoint", "Profile HostEndpoint", "Profile attached", "WorkloadEndpoint attached",
		"WorkloadEndpoint NetworkPolicy", "WorkloadEndpoint GlobalNetworkPolicy", "HostEndpoint host", "host HostEndpoint",
		"GlobalNetworkSet GlobalNetworkPolicy", "NetworkSet NetworkPolicy", "NetworkPolicy attached", "EndpointSlice NetworkPolicy",
		"Node BlockAffinity", "BlockAffinity WorkloadEndpoint", "IPPool BlockAffinity", "IPPool WorkloadEndpoint",
		"Node learned", "BlockAffinity learned", "attached BlockAffinity", "Node WorkloadEndpoint", "StagedNetworkPolicy Tier", "Tier StagedNetworkPolicy",
		"Node FelixConfiguration", "FelixConfiguration Node", "FelixConfiguration HostEndpoint", "FelixConfiguration host",
	} {
		if !pairs[p] {
			t.Errorf("no state has the pair %q", p)
		}
	}
}

func kindOf(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	kind, _, _ = strings.Cut(kind, " ")
	return kind
}
