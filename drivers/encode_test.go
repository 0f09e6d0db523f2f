package drivers

import (
	"bytes"
	"flag"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fullState is a State in which every field of every type is set somewhere.
func fullState(t *testing.T) *State {
	six, one := uint8(6), uint8(1)
	s := testNode(failsafes, toHost(ToHostReturn), tunnelTo(EncapVXLAN), masquerade("10.0.0.0/8", "10.0.0.0/8"),
		tierOf("a normal out", "t", Pass, rule(Log), rule(Pass)), tierOf("a normal in", "staged", Deny, rule(Deny)),
		tierOf("eth0 forward in", "t", Deny), tierOf("eth0 forward out", "t", Deny), tierOf("eth0 pre-dnat in", "t", Deny),
		tierOf("eth0 untracked in", "t", Deny), tierOf("eth0 untracked out", "t", Deny))
	s.Node.MTU, s.Node.VXLANPort, s.Node.ServiceNAT = 1450, 8472, ServiceNATOwn
	s.Node.CutEstablished, s.Node.AllowEncapFromWorkloads = true, true
	s.Peers["m"].VTEPMAC, s.Peers["m"].VTEPAddrs, s.Peers["m"].WireGuardKey = MAC{1, 2, 3, 4, 5, 6}, addrs("10.0.9.0"), "a key="
	s.Routes[netip.MustParsePrefix("10.0.0.1/32")] = &Route{Dst: netip.MustParsePrefix("10.0.0.1/32"), Iface: ifaceA}
	s.Routes[netip.MustParsePrefix("fd00::/64")] = &Route{Dst: netip.MustParsePrefix("fd00::/64"), Kind: RouteBlackhole, Learned: true}
	s.Sets["s:net"] = NewSet(SetNet, member(t, "10.0.0.1"), member(t, "10.9.0.0/16"), member(t, "fd00::1"))
	s.Sets["n:port"] = NewSet(SetPort, member(t, "10.0.0.2,6:80"), member(t, "fd00::2,17:53"))
	s.Sets["empty"] = NewSet(SetPort)
	side := Side{Nets: prefixes("10.0.0.0/8"), NotNets: prefixes("fd00::/8"), Sets: []SetID{"s:net"}, NotSets: []SetID{"s:net"},
		Ports: []PortRange{{80, 80}, {90, 99}}, PortSets: []SetID{"n:port"}, NotPorts: []PortRange{{1, 2}}, NotPortSets: []SetID{"n:port"},
		Services: []SetID{"n:port"}}
	id := PolicyID{Kind: KindNetworkPolicy, Namespace: "ns", Name: "every clause"}
	p := &Policy{ID: id, Tier: "default", In: []Rule{{Action: Allow, Name: "a rule", Match: Match{IPVersion: 4, Proto: &six, NotProto: &one,
		ICMP: &ICMP{Type: 8, Code: &one}, NotICMP: &ICMP{Type: 0}, Src: side, Dst: side,
		HTTP:        &HTTP{Methods: []string{"GET"}, Paths: []HTTPPath{{Exact: "/a"}, {Prefix: "/b"}}},
		Unsupported: []string{"source.x"}}}}, Out: []Rule{{}}}
	p.SetRuleIDs()
	s.Policies[id] = p
	a, b := s.endpoint("a"), s.endpoint("b")
	a.SourcePrefixes, a.Generation = prefixes("10.5.0.0/16"), 7
	a.Floating = []Floating{{netip.MustParseAddr("192.0.2.7"), a.Addrs[0]}}
	a.Policy.Normal.In.Tiers[0].Order = math.Inf(1)
	a.Policy.Normal.Out.Tiers[0].Order = 0.5
	b.Policy.Normal, b.Degraded = a.Policy.Normal, "two = 2"
	return s
}

// TestFullStateIsFull keeps fullState honest: a field that somebody adds must be set in it.
func TestFullStateIsFull(t *testing.T) {
	set := map[string]bool{}
	var visit func(v reflect.Value)
	visit = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				visit(v.Elem())
			}
		case reflect.Map:
			for _, k := range v.MapKeys() {
				visit(v.MapIndex(k))
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				visit(v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() {
					name := v.Type().Name() + "." + f.Name
					set[name] = set[name] || !v.Field(i).IsZero()
					visit(v.Field(i))
				}
			}
		}
	}
	visit(reflect.ValueOf(fullState(t)))
	for name, ok := range set {
		if !ok {
			t.Errorf("no value of the full state has %s", name)
		}
	}
	if len(set) < 70 {
		t.Errorf("only %d fields seen", len(set))
	}
}

func encode(t *testing.T, s *State) string {
	t.Helper()
	var b bytes.Buffer
	if err := EncodeState(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEncodeIsLossless(t *testing.T) {
	states := []*State{NewState(), fullState(t)}
	for seed := range uint64(100) {
		states = append(states, newGen(seed).state())
	}
	for i, s := range states {
		text := encode(t, s)
		back, err := DecodeState(strings.NewReader(text))
		if err != nil {
			t.Fatalf("state %d: %v\n%s", i, err, text)
		}
		opts := cmp.Options{cmp.Comparer(func(a, b *Set) bool { return a.Equal(b) }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.FilterValues(func(a, b []PortRange) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
			cmp.Comparer(func(a, b *TierList) bool {
				return reflect.DeepEqual(a, b) || a != nil && b != nil && len(a.Tiers)+len(b.Tiers) == 0
			})}
		if d := cmp.Diff(s, back, opts); d != "" {
			t.Fatalf("state %d, there and back (-want +got):\n%s", i, d)
		}
		if again := encode(t, back); again != text {
			t.Fatalf("state %d: encoding it again gives other text", i)
		}
	}
	s := fullState(t)
	back, _ := DecodeState(strings.NewReader(encode(t, s)))
	if a, b := back.endpoint("a").Policy.Normal, back.endpoint("b").Policy.Normal; a.In != b.In || a.Out != b.Out || a.In == nil {
		t.Error("interned tier lists came back apart")
	}
}

func TestEncodeRefusesKeysThatLie(t *testing.T) {
	for name, c := range map[string]change{
		"peer":     func(s *State) { s.Peers["x"] = &Peer{Name: "y"} },
		"route":    func(s *State) { s.Routes[netip.MustParsePrefix("10.0.0.0/8")] = &Route{} },
		"policy":   func(s *State) { s.Policies[PolicyID{Name: "x"}] = &Policy{} },
		"endpoint": func(s *State) { s.Endpoints[EndpointID{Sandbox: "x"}] = &Endpoint{} },
		"action":   func(s *State) { s.Policies[allowAll].In[0].Action = 9 },
	} {
		if err := EncodeState(&bytes.Buffer{}, testNode(c)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	const head = `{"Version":1,"Node":{},"Masquerade":{}`
	for name, c := range map[string]struct{ text, want string }{
		"nothing":             {``, "EOF"},
		"another version":     {`{"Version":2,"Node":{},"Masquerade":{}}`, "version 2"},
		"no version":          {`{}`, "version 0"},
		"an unknown field":    {head + `,"Colour":1}`, "Colour"},
		"one further down":    {head + `,"Policies":[{"ID":{"Name":"p"},"In":[{"Action":"deny","Match":{"Colour":1}}]}]}`, "Colour"},
		"more behind it":      {head + `} {}`, "more behind"},
		"an unknown action":   {head + `,"Policies":[{"ID":{"Name":"p"},"In":[{"Action":"shrug"}]}]}`, "shrug"},
		"a number for one":    {head + `,"Policies":[{"ID":{"Name":"p"},"In":[{"Action":1}]}]}`, "Action"},
		"a policy twice":      {head + `,"Policies":[{"ID":{"Name":"p"}},{"ID":{"Name":"p"}}]}`, "twice"},
		"an empty policy":     {head + `,"Policies":[null]}`, "twice"},
		"a peer twice":        {head + `,"Peers":[{"Name":"p"},{"Name":"p"}]}`, "twice"},
		"a route twice":       {head + `,"Routes":[{"Dst":"10.0.0.0/8"},{"Dst":"10.0.0.0/8"}]}`, "twice"},
		"an endpoint twice":   {head + `,"Endpoints":[{"ID":{}},{"ID":{}}]}`, "twice"},
		"an empty endpoint":   {head + `,"Endpoints":[{}]}`, "empty"},
		"a set twice":         {head + `,"Sets":[{"ID":"a","Set":{"kind":"net"}},{"ID":"a","Set":{"kind":"net"}}]}`, "twice"},
		"a set without a set": {head + `,"Sets":[{"ID":"a"}]}`, "empty"},
		"a set of no kind":    {head + `,"Sets":[{"ID":"a","Set":{}}]}`, "kind"},
		"a port in a net set": {head + `,"Sets":[{"ID":"a","Set":{"kind":"net","members":["10.0.0.1,6:80"]}}]}`, "no member"},
		"a net in a port set": {head + `,"Sets":[{"ID":"a","Set":{"kind":"port","members":["10.0.0.0/8"]}}]}`, "no member"},
		"an unmasked prefix":  {head + `,"Routes":[{"Dst":"10.0.0.1/8"}]}`, "bad addresses"},
		"an unmapped address": {head + `,"Peers":[{"Name":"p","Addrs":["::ffff:1.2.3.4"]}]}`, "bad address"},
		"an empty address":    {head + `,"Peers":[{"Name":"p","Addrs":[""]}]}`, "bad address"},
		"a bad MAC":           {head + `,"Peers":[{"Name":"p","VTEPMAC":"00:11:22:33:44"}]}`, "MAC"},
		"ports upside down":   {head + `,"Policies":[{"ID":{"Name":"p"},"In":[{"Action":"deny","Match":{"Src":{"Ports":[{"First":2,"Last":1}]}}}]}]}`, "ports"},
		"an IP version":       {head + `,"Policies":[{"ID":{"Name":"p"},"Out":[{"Action":"deny","Match":{"IPVersion":5}}]}]}`, "IP version"},
		"a missing tier list": {head + `,"Endpoints":[{"ID":{"Sandbox":"a"},"NormalIn":1}]}`, "no tier list"},
		"a tier without name": {head + `,"TierLists":[[{"Order":"1"}]]}`, "tier"},
		"a tier's bad order":  {head + `,"TierLists":[[{"Name":"t","Default":"deny","Order":"first"}]]}`, "order"},
		"a floating address":  {`{"Version":1,"Node":{},"Masquerade":{},"Endpoints":[{"ID":{"Sandbox":"a"},"Floating":[{"External":"192.0.2.7","Internal":"fd00::1"}]}]}`, "floating address"},
		"a failsafe's net":    {`{"Version":1,"Node":{"FailsafeIn":[{"Net":"10.0.0.1/8"}]},"Masquerade":{}}`, "failsafe"},
	} {
		if _, err := DecodeState(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

// FuzzDecodeState: whatever DecodeState takes, it can write and read again.
func FuzzDecodeState(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Node":{},"Masquerade":{}}`))
	for seed := range uint64(3) {
		var b bytes.Buffer
		if err := EncodeState(&b, newGen(seed).state()); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeState(bytes.NewReader(data))
		if err != nil {
			return
		}
		text := encode(t, s)
		back, err := DecodeState(strings.NewReader(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if d := cmp.Diff(s.String(), back.String()); d != "" || encode(t, back) != text {
			t.Fatalf("there and back (-want +got):\n%s", d)
		}
		NewEvaluator(s).Evaluate(Packet{From: Place{Kind: PlaceWorkload}, To: Place{Kind: PlaceProcess}, Src: genAddrs[0], Dst: genAddrs[1]})
	})
}

func TestDumpGolden(t *testing.T) {
	got := fullState(t).String()
	file := filepath.Join("testdata", "dump.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("dump (-want +got), -update rewrites it:\n%s", d)
	}
}
