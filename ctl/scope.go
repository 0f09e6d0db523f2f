package ctl

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
)

// scope is the flags that say which pairs and packets a question is about.
type scope struct {
	from, to string // selectors
	outside  []string
	protocol string
	port     uint16
	family   string
	uplink   string
	limit    int
}

func (sc *scope) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&sc.from, "from", "", "selector of sources, such as \"role == 'web'\"")
	f.StringVar(&sc.to, "to", "", "selector of destinations")
	f.StringArrayVar(&sc.outside, "outside", nil, "address outside of the cluster to ask about too (may be given several times)")
	f.StringVar(&sc.protocol, "protocol", "", "only this protocol: tcp, udp, sctp, icmp or a number")
	f.Uint16Var(&sc.port, "port", 0, "only this destination port (of tcp, unless --protocol says otherwise)")
	f.StringVar(&sc.family, "family", "", "only this family of addresses: 4 or 6")
	f.StringVar(&sc.uplink, "uplink", "", "host interface by which nodes reach one another and the world (default: what the agents of the nodes have told, else "+uplinkName+")")
	f.IntVar(&sc.limit, "limit", maxAsked, "most decisions to compute; above it, pairs are sampled")
	_ = cmd.RegisterFlagCompletionFunc("protocol", cobra.FixedCompletions([]string{"tcp", "udp", "sctp", "icmp"}, noFiles))
	_ = cmd.RegisterFlagCompletionFunc("family", cobra.FixedCompletions([]string{"4", "6"}, noFiles))
}

// question asks about some worlds, within the scope.
func (sc *scope) question(worlds ...*world) (question, error) {
	q := question{worlds: worlds, limit: sc.limit, uplink: sc.uplink}
	var err error
	if q.outside, err = parseOutside(sc.outside); err != nil {
		return q, err
	}
	if q.from, err = bySelector("--from", sc.from); err != nil {
		return q, err
	}
	if q.to, err = bySelector("--to", sc.to); err != nil {
		return q, err
	}
	q.narrow, err = sc.narrowing()
	return q, err
}

func bySelector(flag, text string) (func(*end) bool, error) {
	if text == "" {
		return nil, nil
	}
	s, err := selector.Parse(text)
	if err != nil {
		return nil, usage("%s: %w", flag, err)
	}
	return func(e *end) bool { return s.Matches(selector.Map(e.effective)) }, nil
}

// narrowing leaves only the probes that are asked for.
func (sc *scope) narrowing() (func([]probe) []probe, error) {
	if sc.family != "" && sc.family != "4" && sc.family != "6" {
		return nil, usage("--family is 4 or 6, not %q", sc.family)
	}
	proto := uint8(0)
	switch name := sc.protocol; {
	case name == "" && sc.port != 0:
		proto = protoTCP
	case name != "":
		p := api.Protocol{Name: name}
		if n, err := strconv.ParseUint(name, 10, 8); err == nil {
			p = api.Protocol{Number: uint8(n)}
		}
		num, ok := p.Num()
		if !ok {
			return nil, usage("--protocol: %q is no protocol: write tcp, udp, sctp, icmp or a number from 1 to 255", name)
		}
		proto = num
	}
	if sc.port != 0 && !ported(proto) {
		return nil, usage("--port: protocol %s has no ports", sc.protocol)
	}
	return func(all []probe) []probe { return sc.narrow(all, proto) }, nil
}

func (sc *scope) narrow(all []probe, proto uint8) []probe {
	var out []probe
	for f := range 2 {
		if sc.family != "" && (sc.family == "4") != (f == 0) {
			continue
		}
		in := slices.DeleteFunc(slices.Clone(all), func(p probe) bool { return p.family != f })
		if proto == 0 {
			out = append(out, in...)
			continue
		}
		want := proto
		if proto == protoICMP || proto == protoICMPv6 {
			want = icmpOf(f)
		}
		of := slices.DeleteFunc(slices.Clone(in), func(p probe) bool { return p.proto != want || p.otherProto })
		switch {
		case len(of) == 0: // nothing mentions the protocol
			of = []probe{{family: f, proto: want, first: sc.port, last: sc.port, rest: sc.port == 0}}
		case sc.port != 0:
			of = []probe{{family: f, proto: want, first: sc.port, last: sc.port}}
		}
		out = append(out, of...)
	}
	return out
}

// progress returns what tells people how far a long work is: nothing for a second, then a line every other second.
func (env *Env) progress() func(what string, done, total int) {
	next := time.Now().Add(time.Second)
	return func(what string, done, total int) {
		if now := time.Now(); now.After(next) && total > 0 {
			next = now.Add(2 * time.Second)
			fmt.Fprintf(env.Err, "%s: %d %%\n", what, 100*done/total)
		}
	}
}
