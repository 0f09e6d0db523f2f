package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

type explainOptions struct {
	files     []string
	namespace string
	srcPort   uint16
	output    string
	offline   bool
	uplink    string
	rule      string
}

func explainCommand(env *Env) *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain SOURCE DESTINATION [PROTOCOL [PORT]] | explain --rule ID",
		Short: "Say what happens to a new connection, and why",
		Long: `Say what happens to a new connection, and why: every tier, policy and rule that has a say, on the node that it leaves and
on the node that it reaches.

SOURCE and DESTINATION are addresses, or names of workloads (namespace/name) or nodes. PROTOCOL is tcp (the default), udp,
sctp, icmp, icmpv6 or a number; PORT is the destination port, or for ICMP the type or type/code (8/0 by default).

The node on which you call this answers with what its agent holds in the dataplane at this moment; other nodes are
computed from the store, in the way their agents do it. With -f nothing is asked: all is computed from files.

--rule ID says which rule has an id, such as the one that a line of a Log rule in the kernel's log begins with. A rule
that is changed, or moves within its policy, has another id from then on.

The exit code is 0 for a connection that is allowed, 4 for one that is denied.`,
		Example: `  tortie explain 10.65.1.2 10.65.2.3 tcp 5432
  tortie explain shop/web-1 shop/db-2 tcp 5432
  tortie explain -f examples/ shop/web-1 192.0.2.7 icmp
  tortie explain --rule 5f0c9a3be1d27a46`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.rule != "" {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.RangeArgs(2, 4)(cmd, args)
		},
		ValidArgsFunction: env.completeEnds,
		RunE: func(cmd *cobra.Command, args []string) error {
			rule, err := parseRuleID(o.rule)
			if err != nil {
				return err
			}
			w, err := env.explainWorld(cmd.Context(), o)
			if err != nil {
				return err
			}
			if o.rule != "" {
				return env.explainRule(w, o, rule)
			}
			return env.explain(w, o, args)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "answer from files or folders alone (may be given several times)")
	f.StringVarP(&o.namespace, "namespace", "n", "default", "namespace of objects in files that name none")
	f.Uint16Var(&o.srcPort, "source-port", 40000, "source port of the connection")
	f.StringVarP(&o.output, "output", "o", "text", "text, json or yaml")
	f.StringVar(&o.rule, "rule", "", "say which rule has this id, instead of following a connection")
	f.BoolVar(&o.offline, "no-agent", false, "compute every node from the store; don't ask the agent on this one")
	f.StringVar(&o.uplink, "uplink", "",
		"host interface by which nodes reach one another and the world (default: what the kernel says on this node, and what their agents have told of others, else "+uplinkName+")")
	return cmd
}

// explainWorld gathers what is known: files, or the store and the agent on this node. One of the two may be away.
func (env *Env) explainWorld(ctx context.Context, o explainOptions) (*world, error) {
	if len(o.files) > 0 {
		objects, err := env.readFiles(o.files, o.namespace)
		if err != nil {
			return nil, err
		}
		return newWorld(objects, "computed from files"), nil
	}
	var w *world
	s, storeErr := env.Store(ctx)
	if storeErr == nil {
		w, storeErr = storeWorld(ctx, s)
		storeErr = errors.Join(storeErr, s.Close())
	}
	if storeErr != nil {
		if o.offline {
			return nil, storeErr
		}
		w = newWorld(nil, "")
		w.problems = append(w.problems, fmt.Sprintf("the store does not answer, so only this node is known: %v", storeErr))
	}
	if !o.offline {
		if _, err := env.addLive(ctx, w); err != nil {
			if storeErr != nil {
				return nil, errors.Join(storeErr, err)
			}
			w.problems = append(w.problems, fmt.Sprintf("no agent answers here, so all is computed from the store (--no-agent silences this): %v", err))
		}
	}
	return w, nil
}

// explanation is what -o json gives.
type explanation struct {
	Source      string         `json:"source"`
	Destination string         `json:"destination"`
	Flow        explainedFlow  `json:"flow"`
	Verdict     string         `json:"verdict"` // "allow" or "deny"
	Hops        []explainedHop `json:"hops"`
	Problems    []string       `json:"problems,omitempty"`
}

type explainedHop struct {
	Node    string          `json:"node"`
	State   string          `json:"state"` // where the State came from
	Packet  string          `json:"packet"`
	Source  string          `json:"sourceAfter,omitempty"` // if the node changes it
	Verdict string          `json:"verdict"`
	Steps   []explainedStep `json:"steps"`
	lines   []string
}

func (env *Env) explain(w *world, o explainOptions, args []string) error {
	flow, err := w.flow(o, args)
	if err != nil {
		return err
	}
	a, b := w.nodeOf(flow.Src), w.nodeOf(flow.Dst)
	up, far := uplinks{w: w, given: o.uplink}, flow.Dst
	if a == nil {
		a, b, far = b, nil, flow.Src // it comes in from outside
	}
	if a == nil {
		return &ExitCoder{Code: ExitMissing, Err: fmt.Errorf("neither %s nor %s is a workload or node that is known here", flow.Src, flow.Dst)}
	}
	flow.UplinkA, flow.UplinkB = up.of(a, far), up.of(b, flow.Src)
	trace := drivers.Path(a, b, flow)
	w.problems = append(w.problems, up.doubts(trace.Hops)...)
	e := explanation{Source: describe(flow.Src, w.nameOf(flow.Src)), Destination: describe(flow.Dst, w.nameOf(flow.Dst)),
		Flow: explainedFlow(flow), Verdict: trace.Verdict.String(), Problems: w.problems}
	for _, h := range trace.Hops {
		eh := explainedHop{Node: h.Node, State: w.source[h.Node], Packet: h.Packet.String(), Verdict: h.Trace.Verdict.String()}
		if h.Src != h.Packet.Src {
			eh.Source = h.Src.String()
		}
		for _, s := range h.Trace.Steps {
			eh.Steps = append(eh.Steps, newExplainedStep(s))
			eh.lines = append(eh.lines, lineOf(s))
		}
		e.Hops = append(e.Hops, eh)
	}
	switch o.output {
	case "json":
		err = writeJSON(env.Out, e)
	case "yaml":
		err = writeYAML(env.Out, e)
	case "text":
		env.printExplanation(e, trace.Verdict)
	default:
		return usage("there is no output format %q; the formats are text, json and yaml", o.output)
	}
	if err == nil && trace.Verdict != drivers.VerdictAllow {
		return &ExitCoder{Code: ExitDenied}
	}
	return err
}

func (env *Env) printExplanation(e explanation, v drivers.Verdict) {
	word := env.red("DENY")
	if v == drivers.VerdictAllow {
		word = env.green("ALLOW")
	}
	fmt.Fprintf(env.Out, "%s  %s -> %s\n", word, e.Source, e.Destination)
	for _, h := range e.Hops {
		fmt.Fprintf(env.Out, "\non %s (%s)\n  %s\n", h.Node, h.State, h.Packet)
		for i, l := range h.lines {
			if i == len(h.lines)-1 && h.Verdict != "allow" {
				l = env.red(l)
			}
			fmt.Fprintf(env.Out, "    %s\n", l)
		}
		if h.Source != "" {
			fmt.Fprintf(env.Out, "    leaves with the source address %s\n", h.Source)
		}
		fmt.Fprintf(env.Out, "  = %s\n", env.good(h.Verdict == "allow", h.Verdict, h.Verdict))
	}
	toKnow(env.Err, e.Problems)
}

func describe(a netip.Addr, name string) string {
	if name == "" {
		return a.String()
	}
	return fmt.Sprintf("%s (%s)", name, a)
}

// flow reads the command's arguments.
func (w *world) flow(o explainOptions, args []string) (drivers.Flow5, error) {
	var f drivers.Flow5
	var err error
	var like netip.Addr // what is written as an address decides the family of what is written as a name
	for _, t := range args[:2] {
		if a, err := netip.ParseAddr(t); err == nil {
			like = a.Unmap()
		}
	}
	if f.Src, err = w.resolve(args[0], like); err != nil {
		return f, err
	}
	if f.Dst, err = w.resolve(args[1], f.Src); err != nil {
		return f, err
	}
	if f.Src.Is4() != f.Dst.Is4() {
		return f, usage("%s and %s are of different families", f.Src, f.Dst)
	}
	proto, port := "tcp", ""
	if len(args) > 2 {
		proto = args[2]
	}
	if len(args) > 3 {
		port = args[3]
	}
	return f, setProtocol(&f, proto, port, o.srcPort)
}

func setProtocol(f *drivers.Flow5, proto, port string, srcPort uint16) error {
	p := api.Protocol{Name: proto}
	if n, err := strconv.ParseUint(proto, 10, 8); err == nil {
		p = api.Protocol{Number: uint8(n)}
	}
	num, ok := p.Num()
	if !ok {
		return usage("%q is no protocol: write tcp, udp, sctp, icmp, icmpv6 or a number from 1 to 255", proto)
	}
	f.Proto = num
	switch strings.ToLower(proto) {
	case "icmp", "icmpv6", "1", "58":
		f.ICMPType = 8
		if num == 58 {
			f.ICMPType = 128
		}
		if f.Src.Is4() != (num == 1) {
			return usage("%s does not run between IPv%d addresses", proto, map[bool]int{true: 4, false: 6}[f.Src.Is4()])
		}
		if port == "" {
			return nil
		}
		typ, code, _ := strings.Cut(port, "/")
		t, err1 := strconv.ParseUint(typ, 10, 8)
		c, err2 := strconv.ParseUint("0"+code, 10, 8)
		if err1 != nil || err2 != nil {
			return usage("%q is no ICMP type or type/code", port)
		}
		f.ICMPType, f.ICMPCode = uint8(t), uint8(c)
		return nil
	}
	hasPorts := num == 6 || num == 17 || num == 132
	switch {
	case port == "" && hasPorts:
		return usage("which port? for example: tortie explain %s %s %s 80", f.Src, f.Dst, proto)
	case port != "" && !hasPorts:
		return usage("protocol %s has no ports", proto)
	case port == "":
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return usage("%q is no port number", port)
	}
	f.DstPort, f.SrcPort = uint16(n), srcPort
	return nil
}
