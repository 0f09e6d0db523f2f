// Package drivertest is the conformance suite: passing it is what being a driver means.
//
//	testdata/*.txtar --> cases --+            +--> Lower --> Driver.Apply --> dataplane --+
//	seed --> States and packets -+--> State --+                                           +--> equal?
//	shrink <-- disagreement -----+  packets --+--> Evaluate(lowered State, packet) -------+
//
// A driver brings a Harness of five methods: its dataplane built as the fixed topology says, and the means to look at it,
// to damage it and to let it fail. Run does the rest: it proves the ten properties of the contract, each in a test of its
// own. No case is skipped for a driver that lacks a feature: the expectation is the oracle's verdict under the State as it
// was lowered for the driver, and it is an error if that allows what the State as written denies. An error is a Breach: it
// names the sentence of the contract, and prints a case file that shows what is wrong, as small as it would go.
//
//	contract.go       the ten properties; Breach
//	harness.go        Harness, Probe, Result, Dump, Fault
//	topology.go       the fixed topology
//	check.go          CheckProbe: what a harness can be asked to send
//	batch.go          source ports, and which probes may go together
//	case.go           cases: files, scenes, events, verdict lines
//	define.go         reads lines of states; build.go makes States of them
//	rule.go           reads and writes rules
//	line.go           reads and writes verdict lines
//	write.go          writes a State as the lines that make it
//	diff.go           Changes between two States
//	script.go         plays scenes and compares: every part but the scale is made of these
//	shrink.go         makes scenes that show something small
//	run.go            Run, and which part proves what; runner.go is what the parts share
//	run_cases.go      1: the cases
//	run_random.go     1: random States and packets; random.go and random_probe.go make them
//	run_paths.go      2, 3, 5, 7, 8: nothing to do, paths, restarts, before the first Apply, unknown interfaces
//	run_faults.go     4, 6: failed writes, refused objects, damage
//	run_live.go       9: packets while drivers restart and States change
//	run_scale.go      10: what an Apply writes
//
// # Case files
//
// A case is a txtar file that reads like a story. Its first line says in a sentence what it shows. Then come sections, in
// the order in which things happen; what follows "#" is a comment:
//
//	A workload's ingress policy names a port.
//	-- state --
//	set s:web net 10.65.0.2 fd65::2
//	policy web tier=default
//	  in allow tcp from set=s:web to port=80,8000-8080
//	workload a in=web profiles=open
//	...
//	-- steps --
//	b -> a tcp 80 = allow
//	c -> a tcp 80 = deny by tier:default
//	-- change: c becomes a web server --
//	set s:web + 10.65.0.3 fd65::3
//	-- steps --
//	c -> a tcp 80 = allow
//
// "state" begins anew; "change" edits what is there: a line replaces what has the same name, "without KIND NAME..." takes
// it out. "steps" are verdicts under the State above them. A section's name may go on after its first word.
//
// Sections without lines are events. They come before the State that is applied next; where none follows, the "steps" after
// them are about the State that is there:
//
//	stop, start               the driver is closed; another one is opened over what is there, and has not applied anything yet
//	resync                    the next Apply has no hint; of the State that is there it must write nothing, with any hint
//	tamper N                  the harness damages something, and the next Apply has no hint
//	fail N                    the N-th write of the next Apply fails; nothing is said before the Apply after that
//	refuse policy|set NAME    the dataplane does not take the object; then it does
//	squash                    the State is not applied: the next hint covers the way through it
//
// At the end of a case of more than one scene the dataplane must hold what the direct path to the last State leaves in it,
// and an Apply with nothing to do must write nothing.
//
// # States
//
//	node [to-host=drop|accept|return] [failsafe-in=tcp:22,udp:68@10.0.0.0/8] [failsafe-out=...] [vxlan-port=N]
//	     [encap-from-workloads] [own-services] [cut-established] [mtu=N]
//	tier NAME [default=deny|pass]          tiers come in the order of their lines; "default" is there at the first policy
//	set ID net PREFIX|ADDRESS...           in a change: set ID + MEMBER... - MEMBER...
//	set ID port ADDRESS,tcp:PORT...
//	policy [KIND:][NAMESPACE/]NAME [tier=NAME]     KIND: staged, staged-k8s, k8s
//	  in RULE                              a rule of the policy or profile above
//	  out RULE
//	profile NAME
//	workload a|b|c [in=POLICY,...] [out=...] [profiles=NAME,...] [addrs=...] [sources=PREFIX,...]
//	         [floating=EXTERNAL>INTERNAL,...] [mac=any|MAC] [degraded=WHY]
//	host IFACE|* [in=] [out=] [forward-in=] [forward-out=] [pre-dnat=] [untracked-in=] [untracked-out=] [profiles=] [degraded=]
//	route PREFIX local IFACE | PREFIX remote NEXTHOP [peer=NAME] [encap=none|ipip|vxlan|wireguard] | PREFIX blackhole
//	peer NAME ADDRESS,... [vtep=MAC@ADDRESS,...] [wireguard=KEY]
//	masquerade from=PREFIX,... except=PREFIX,...
//
// A rule is an action (allow, deny, pass, log), clauses of the packet, and clauses of its ends:
//
//	allow [v4|v6] [tcp|udp|icmp|...|proto=N] [not-proto=P] [icmp=TYPE[/CODE]] [not-icmp=...] [http=GET,/exact,/prefix*]
//	      [unsupported=FIELD] [from CLAUSE...] [to CLAUSE...]
//	CLAUSE: net= not-net= set= not-set= port= not-port= named= not-named= service=   each with a list; named and service
//	        name sets of kind port
//
// # Verdict lines
//
//	FROM -> TO WHAT [FLAG...] = allow|deny [masqueraded] [by WHO]
//
// FROM and TO are sites of the topology, with "@ADDRESS" for another address there. Where nothing in a line says which
// family it is about it counts for both, and two packets are sent. WHAT is one of
//
//	tcp PORT, udp PORT, sctp PORT, udplite PORT, icmp TYPE[/CODE], icmpv6 TYPE[/CODE], proto N, arp
//	ping, pong, unreachable      ICMP echo request, echo reply, destination unreachable, of either family
//
// and FLAG one of
//
//	v4, v6                       this family only
//	established, reply           the flow table holds the flow; reply: the packet goes in its reply direction
//	related, invalid, untracked  what the flow table says of it; without any of these it is new
//	midstream                    a TCP connection that is picked up in its middle
//	fragmented                   in two IP fragments
//	extended                     IPv6, with a header of destination options ahead of what the line says
//	sport=N                      source port; else a free one
//	mac=MAC                      source MAC; else the workload's
//	link                         between link-local addresses, with hop limit 255
//	hop-limit=N
//	service=N:PORT               sent to the N-th service address; what the line says is after translation
//	node-port=PORT               the same, sent to the node's address
//	floating=N                   sent to the N-th floating address, which the driver translates to what the line says
//	orig=ADDRESS:PORT            the same, sent to any
//
// "by" says what decides: a policy as its references are written ("web", "profile:open"), the end of a tier ("tier:NAME"), or
// a stage of drivers.Stage. "masqueraded" says that the packet arrives with an address of the node as its source; without it
// it arrives with its own. The verdicts are what the author expects of the State as written; a test without a driver holds
// the oracle to them.
package drivertest
