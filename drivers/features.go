package drivers

// Features is what a driver enforces on this host. The zero value enforces nothing; All enforces everything. Lower
// rewrites what a driver lacks so that it never allows more. What every driver must enforce, whatever it lacks, is the
// deny stand-in of an endpoint that is Degraded, a host endpoint's too.
type Features struct {
	Driver string `json:"driver"` // for people: "nftables"
	Atomic bool   `json:"atomic"` // each packet sees an old or a new State, never a mixture

	IPv4        bool    `json:"ipv4"`
	IPv6        bool    `json:"ipv6"`
	HostPolicy  bool    `json:"hostPolicy"` // Normal policy of host endpoints
	Forward     bool    `json:"forward"`    // applyOnForward
	PreDNAT     bool    `json:"preDNAT"`
	Untracked   bool    `json:"untracked"`
	Log         bool    `json:"log"`
	ICMPType    bool    `json:"icmpType"` // ICMP type and code clauses
	NotICMP     bool    `json:"notICMP"`
	NotProto    bool    `json:"notProto"`
	NotNets     bool    `json:"notNets"`
	NotPorts    bool    `json:"notPorts"`
	NotSets     bool    `json:"notSets"`
	NamedPorts  bool    `json:"namedPorts"` // PortSets and NotPortSets
	Services    bool    `json:"services"`
	HTTP        bool    `json:"http"`        // an L7 enforcer is there
	SCTP        bool    `json:"sctp"`        // ports of SCTP
	AnyProto    bool    `json:"anyProto"`    // protocols other than TCP, UDP, SCTP, ICMP and ICMPv6
	SourceCheck bool    `json:"sourceCheck"` // anti-spoofing
	Encaps      []Encap `json:"encaps"`      // how packets may reach other nodes
	Masquerade  bool    `json:"masquerade"`
	FloatingNAT bool    `json:"floatingNAT"` // floating addresses of workloads
	CutFlows    bool    `json:"cutFlows"`
}

// AllFeatures returns Features that have everything; a driver starts from it and takes away what it lacks.
func AllFeatures(driver string) Features {
	return Features{
		Driver: driver, Atomic: true, IPv4: true, IPv6: true, HostPolicy: true, Forward: true, PreDNAT: true,
		Untracked: true, Log: true, ICMPType: true, NotICMP: true, NotProto: true, NotNets: true, NotPorts: true,
		NotSets: true, NamedPorts: true, Services: true, HTTP: true, SCTP: true, AnyProto: true, SourceCheck: true,
		Encaps: []Encap{EncapNone, EncapIPIP, EncapVXLAN, EncapWireGuard}, Masquerade: true, FloatingNAT: true, CutFlows: true,
	}
}

// HasEncap reports whether e is in Encaps.
func (f Features) HasEncap(e Encap) bool {
	for _, x := range f.Encaps {
		if x == e {
			return true
		}
	}
	return false
}
