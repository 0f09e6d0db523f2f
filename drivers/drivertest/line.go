package drivertest

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// lineParse is a verdict line on its way to probes.
type lineParse struct {
	s          *drivers.State
	from, to   Site
	src, dst   netip.Addr // invalid = the sites' own
	p          Probe      // without what depends on the family
	what       string     // "tcp", "ping", ...
	families   [2]bool    // IPv4, IPv6
	link       bool
	floating   byte // the same of floating addresses
	service    byte // OrigDst is this one of the service range
	nodePort   bool
	origPort   uint16
	macWritten bool
}

// parseLine reads "a -> b tcp 80 established = allow". s is the State that it is under.
func parseLine(text string, s *drivers.State) (Line, error) {
	l := Line{}
	left, right, ok := strings.Cut(text, " = ")
	if !ok {
		return l, errors.New("want FROM -> TO WHAT = allow|deny")
	}
	if err := parseWant(&l, strings.Fields(right)); err != nil {
		return l, err
	}
	words := strings.Fields(left)
	if len(words) < 4 || words[1] != "->" {
		return l, errors.New("want FROM -> TO WHAT = allow|deny")
	}
	lp := lineParse{s: s, families: [2]bool{true, true}}
	var err1, err2 error
	lp.from, lp.src, err1 = parseSite(words[0])
	lp.to, lp.dst, err2 = parseSite(words[2])
	if err := errors.Join(err1, err2); err != nil {
		return l, err
	}
	rest, err := lp.parseWhat(words[3:])
	if err != nil {
		return l, err
	}
	for _, w := range rest {
		if err := lp.parseFlag(w); err != nil {
			return l, err
		}
	}
	l.Probes, err = lp.probes()
	return l, err
}

func parseWant(l *Line, words []string) error {
	for i := 0; i < len(words); i++ {
		switch w := words[i]; {
		case i == 0 && (w == "allow" || w == "deny"):
			l.Allow = w == "allow"
		case i > 0 && w == "masqueraded":
			l.Masq = true
		case i > 0 && w == "by" && i+1 < len(words):
			i++
			l.By = words[i]
		default:
			return fmt.Errorf("%q is not a verdict", strings.Join(words, " "))
		}
	}
	if len(words) == 0 || l.Masq && !l.Allow {
		return errors.New("want allow or deny; only what is allowed is masqueraded")
	}
	return nil
}

// parseSite reads "a" or "a@10.66.1.7".
func parseSite(w string) (Site, netip.Addr, error) {
	name, addr, hasAddr := strings.Cut(w, "@")
	site, ok := SiteByName(name)
	if !ok {
		return site, netip.Addr{}, fmt.Errorf("the topology has no %q", name)
	}
	if !hasAddr {
		return site, netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(addr)
	return site, a, err
}

// parseWhat reads the protocol and what belongs to it, and returns the words after it.
func (lp *lineParse) parseWhat(words []string) ([]string, error) {
	lp.what = words[0]
	rest := words[1:]
	arg := func() (string, error) {
		if len(rest) == 0 {
			return "", fmt.Errorf("%s what?", lp.what)
		}
		a := rest[0]
		rest = rest[1:]
		return a, nil
	}
	pk := &lp.p.Packet
	switch lp.what {
	case "tcp", "udp", "sctp", "udplite":
		pk.Proto = protoNames[lp.what]
		a, err := arg()
		if err != nil {
			return nil, err
		}
		pk.DstPort, err = parsePort(a)
		return rest, err
	case "icmp", "icmpv6":
		pk.Proto = protoNames[lp.what]
		a, err := arg()
		if err != nil {
			return nil, err
		}
		i, err := parseICMP(a)
		if err != nil {
			return nil, err
		}
		pk.ICMPType = i.Type
		if i.Code != nil {
			pk.ICMPCode = *i.Code
		}
		if isLink(*pk) {
			pk.CT = drivers.CTUntracked
		}
	case "proto":
		a, err := arg()
		if err != nil {
			return nil, err
		}
		n, err := parseProto(a)
		if err != nil {
			return nil, err
		}
		pk.Proto = *n
	case "arp":
		pk.ARP, pk.CT = true, drivers.CTUntracked
	case "ping", "pong", "unreachable":
	default:
		return nil, fmt.Errorf("%q is not a kind of packet", lp.what)
	}
	return rest, nil
}

func (lp *lineParse) parseFlag(w string) error {
	pk := &lp.p.Packet
	key, val, _ := strings.Cut(w, "=")
	var err error
	switch key {
	case "v4", "v6":
		lp.families = [2]bool{key == "v4", key == "v6"}
	case "established", "reply":
		pk.CT, lp.p.Reply = drivers.CTEstablished, key == "reply"
	case "related":
		pk.CT = drivers.CTRelated
	case "invalid":
		pk.CT = drivers.CTInvalid
	case "untracked":
		pk.CT = drivers.CTUntracked
	case "midstream":
		lp.p.MidStream = true
	case "fragmented":
		lp.p.Fragmented = true
	case "extended":
		lp.p.Extended = true
		lp.families[0] = false
	case "link":
		lp.link, pk.HopLimit = true, 255
	case "hop-limit":
		pk.HopLimit, err = parseUint8(val)
	case "sport":
		pk.SrcPort, err = parsePort(val)
	case "mac":
		pk.SrcMAC, err = parseMAC(val)
		lp.macWritten = true
	case "service":
		n, port, _ := strings.Cut(val, ":")
		if lp.service, err = parseUint8(n); err == nil {
			lp.origPort, err = parsePort(port)
		}
	case "floating":
		lp.floating, err = parseUint8(val)
	case "node-port":
		lp.nodePort = true
		lp.origPort, err = parsePort(val)
	case "orig":
		pk.OrigDst, err = netip.ParseAddrPort(val)
	default:
		err = unknown(w)
	}
	return err
}

// probes makes a probe for each family that the line is about.
func (lp *lineParse) probes() ([]Probe, error) {
	pk := lp.p.Packet
	narrow := func(v6 bool) { lp.families[0], lp.families[1] = lp.families[0] && !v6, lp.families[1] && v6 }
	for _, a := range []netip.Addr{lp.src, lp.dst, pk.OrigDst.Addr()} {
		if a.IsValid() {
			narrow(a.Is6())
		}
	}
	if pk.ARP || pk.Proto == protoICMP {
		narrow(false)
	}
	if pk.Proto == protoICMPv6 || pk.Proto == protoIPv6 {
		narrow(true)
	}
	var ps []Probe
	for i, v6 := range []bool{false, true} {
		if !lp.families[i] {
			continue
		}
		p := lp.probe(v6)
		if err := CheckProbe(lp.s, p); err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	if len(ps) == 0 {
		return nil, errors.New("no address family fits")
	}
	return ps, nil
}

func (lp *lineParse) probe(v6 bool) Probe {
	p := lp.p
	pk := &p.Packet
	pk.From, pk.To = placeOf(lp.s, lp.from), placeOf(lp.s, lp.to)
	pk.Src, pk.Dst = lp.src, lp.dst
	if !pk.Src.IsValid() {
		pk.Src = ownAddr(lp.from, lp.to, v6, lp.link)
	}
	if !pk.Dst.IsValid() {
		pk.Dst = ownAddr(lp.to, lp.from, v6, lp.link)
	}
	if pk.ARP && lp.from.Name == "host" && !lp.src.IsValid() {
		pk.Src = Gateway4
	}
	if pk.ARP && lp.to.Name == "host" && !lp.dst.IsValid() {
		pk.Dst = Gateway4
	}
	if !lp.macWritten && pk.From.Kind != drivers.PlaceProcess && lp.from.Place.Kind != drivers.PlaceHostIface {
		pk.SrcMAC = lp.from.MAC
	}
	icmpOfWord(pk, lp.what, v6, p.Reply)
	family := map[bool]int{false: 0, true: 1}[v6]
	switch {
	case lp.service != 0:
		a := ServiceRange[family].Addr().AsSlice()
		a[len(a)-1] = lp.service
		addr, _ := netip.AddrFromSlice(a)
		pk.OrigDst = netip.AddrPortFrom(addr, lp.origPort)
	case lp.floating != 0:
		a := FloatingRange[family].Addr().AsSlice()
		a[len(a)-1] = lp.floating
		addr, _ := netip.AddrFromSlice(a)
		pk.OrigDst = netip.AddrPortFrom(addr, pk.DstPort)
	case lp.nodePort:
		host, _ := SiteByName("host")
		pk.OrigDst = netip.AddrPortFrom(ownAddr(host, lp.from, v6, false), lp.origPort)
	}
	return p
}

// icmpOfWord fills in the ICMP of "ping", "pong" and "unreachable".
func icmpOfWord(pk *drivers.Packet, what string, v6, reply bool) {
	proto, unreachable := uint8(protoICMP), [2]uint8{3, 1}
	if v6 {
		proto, unreachable = protoICMPv6, [2]uint8{1, 0}
	}
	switch {
	case what == "pong" || what == "ping" && reply:
		pk.Proto, pk.ICMPType = proto, echo[proto][1]
	case what == "ping":
		pk.Proto, pk.ICMPType = proto, echo[proto][0]
	case what == "unreachable":
		pk.Proto, pk.ICMPType, pk.ICMPCode = proto, unreachable[0], unreachable[1]
	}
}

// ownAddr is the address that a site is reached at from peer: of the host, the one on the link between them.
func ownAddr(site, peer Site, v6, link bool) netip.Addr {
	family := map[bool]int{false: 0, true: 1}[v6]
	switch {
	case link && site.Name == "host":
		return HostLinkLocal
	case link:
		return site.LinkLocal
	case site.Name == "host" && len(peer.HostAddrs) > 0:
		return peer.HostAddrs[family].Addr()
	}
	return site.Addrs[family]
}

// probeText writes a probe as the left side of a verdict line that parses to it.
func probeText(p Probe) string {
	pk := p.Packet
	from, _ := siteOf(pk.From)
	to, _ := siteOf(pk.To)
	ws := []string{fmt.Sprintf("%s@%s -> %s@%s", from.Name, pk.Src, to.Name, pk.Dst)}
	add := func(when bool, w string) {
		if when {
			ws = append(ws, w)
		}
	}
	switch {
	case pk.ARP:
		ws = append(ws, "arp")
	case hasPorts(pk.Proto):
		ws = append(ws, protoText(&pk.Proto), strconv.Itoa(int(pk.DstPort)))
		add(pk.SrcPort != 0, "sport="+strconv.Itoa(int(pk.SrcPort)))
	case isICMP(pk.Proto):
		ws = append(ws, protoText(&pk.Proto), fmt.Sprintf("%d/%d", pk.ICMPType, pk.ICMPCode))
	default:
		ws = append(ws, "proto", strconv.Itoa(int(pk.Proto)))
	}
	if ct := map[drivers.CTState]string{
		drivers.CTEstablished: "established", drivers.CTRelated: "related", drivers.CTInvalid: "invalid",
		drivers.CTUntracked: "untracked",
	}[pk.CT]; p.Reply {
		ws = append(ws, "reply")
	} else {
		add(ct != "", ct)
	}
	add(p.MidStream, "midstream")
	add(p.Fragmented, "fragmented")
	add(p.Extended, "extended")
	add(pk.HopLimit != 0, "hop-limit="+strconv.Itoa(int(pk.HopLimit)))
	add(pk.OrigDst.IsValid(), "orig="+pk.OrigDst.String())
	add(pk.SrcMAC != drivers.MAC{} && pk.SrcMAC != from.MAC, "mac="+macText(pk.SrcMAC))
	return strings.Join(ws, " ")
}
