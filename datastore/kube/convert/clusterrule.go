package convert

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// destinationNodes is the annotation of a rule that shows to readers which nodes it is about: the field that says it is not
// written out.
const destinationNodes = ownNodeAnnotations + "destination-nodes"

// clusterRule is a rule of either direction of a ClusterNetworkPolicy.
type clusterRule struct {
	egress    bool
	name      string
	action    api.Action // Deny if it can't be read
	peers     []cnp.ClusterNetworkPolicyEgressPeer
	protocols []cnp.ClusterNetworkPolicyProtocol
}

var clusterActions = map[cnp.ClusterNetworkPolicyRuleAction]api.Action{
	cnp.ClusterNetworkPolicyRuleActionAccept: api.Allow,
	cnp.ClusterNetworkPolicyRuleActionDeny:   api.Deny,
	cnp.ClusterNetworkPolicyRuleActionPass:   api.Pass,
}

func readIngress(path string, data []byte) (clusterRule, []api.Problem) {
	var r cnp.ClusterNetworkPolicyIngressRule
	problems := wholly(path, data, &r)
	c := clusterRule{name: r.Name, protocols: r.Protocols}
	for _, p := range r.From {
		c.peers = append(c.peers, cnp.ClusterNetworkPolicyEgressPeer{Namespaces: p.Namespaces, Pods: p.Pods})
	}
	return c, append(problems, c.decide(path+".action", r.Action, problems)...)
}

func readEgress(path string, data []byte) (clusterRule, []api.Problem) {
	var r cnp.ClusterNetworkPolicyEgressRule
	problems := wholly(path, data, &r)
	c := clusterRule{egress: true, name: r.Name, peers: r.To, protocols: r.Protocols}
	return c, append(problems, c.decide(path+".action", r.Action, problems)...)
}

// decide takes the action of a rule, unless it is given twice.
func (c *clusterRule) decide(path string, a cnp.ClusterNetworkPolicyRuleAction, problems []api.Problem) []api.Problem {
	action, ok := clusterActions[a]
	if c.action = api.Deny; !ok {
		return []api.Problem{{Path: path, Reason: fmt.Sprintf("%q is none of Accept, Deny, Pass", a)}}
	}
	if !slices.ContainsFunc(problems, func(p api.Problem) bool { return p.Path == path }) {
		c.action = action
	}
	return nil
}

// closed is what a rule with problems becomes: without a clause, and unreadable, it allows nothing or denies everything.
func (c *clusterRule) closed(problems []api.Problem) api.Rule {
	r := c.rule(api.EntityRule{}, clusterPorts{})
	for _, p := range problems {
		r.Unreadable = append(r.Unreadable, p.Error())
	}
	return r
}

func (c *clusterRule) rule(peer api.EntityRule, ports clusterPorts) api.Rule {
	r := api.Rule{Action: c.action, Protocol: ports.protocol}
	annotations := map[string]string{}
	if c.name != "" {
		annotations["name"] = c.name
	}
	if peer.NodeSelector != "" {
		annotations[destinationNodes] = peer.NodeSelector
	}
	if len(annotations) > 0 {
		r.Metadata = &api.RuleMetadata{Annotations: annotations}
	}
	if c.egress {
		r.Destination = peer
	} else {
		r.Source = peer
	}
	r.Destination.Ports = ports.ports
	return r
}

// rules says a rule in our words: one for each peer with each protocol.
func (c *clusterRule) rules(path string) ([]api.Rule, []api.Problem) {
	field := ".from"
	if c.egress {
		field = ".to"
	}
	var problems []api.Problem
	if len(c.peers) == 0 {
		problems = append(problems, api.Problem{Path: path + field, Reason: "must hold at least one peer"})
	}
	groups, named, bad := groupProtocols(path+".protocols", c.protocols)
	problems = append(problems, bad...)
	var peers []api.EntityRule
	for i := range c.peers {
		at := fmt.Sprintf("%s%s[%d]", path, field, i)
		ends, problem := clusterPeer(at, &c.peers[i])
		if problem == nil && named {
			problem = unnamed(at, &c.peers[i])
		}
		if problem != nil {
			problems = append(problems, *problem)
			continue
		}
		peers = append(peers, ends...)
	}
	var out []api.Rule
	for _, peer := range peers {
		for _, g := range groups {
			out = append(out, c.rule(peer, g))
		}
	}
	return out, problems
}

// unnamed is what is wrong with a peer beside a port's name, if it has no named ports.
func unnamed(path string, p *cnp.ClusterNetworkPolicyEgressPeer) *api.Problem {
	switch {
	case p.Networks != nil:
		path += ".networks"
	case p.Nodes != nil:
		path += ".nodes"
	default:
		return nil
	}
	return &api.Problem{Path: path, Reason: "can't be combined with destinationNamedPort: only pods have named ports"}
}

// clusterPorts is ports of one protocol, or names of ports of any.
type clusterPorts struct {
	protocol *api.Protocol
	ports    []api.Port
}

// groupProtocols returns one group without anything if there are no protocols. named says that there are named ports.
func groupProtocols(path string, protocols []cnp.ClusterNetworkPolicyProtocol) (groups []clusterPorts, named bool, problems []api.Problem) {
	if protocols == nil {
		return []clusterPorts{{}}, false, nil
	}
	if len(protocols) == 0 {
		return nil, false, []api.Problem{{Path: path, Reason: "must hold at least one protocol, if it is there"}}
	}
	for i := range protocols {
		name, port, err := clusterPort(&protocols[i])
		if err != nil {
			problems = append(problems, api.Problem{Path: fmt.Sprintf("%s[%d]", path, i), Reason: err.Error()})
			continue
		}
		named = named || name == ""
		at := slices.IndexFunc(groups, func(g clusterPorts) bool { return protocolName(g.protocol) == name })
		if at < 0 {
			at = len(groups)
			groups = append(groups, clusterPorts{})
			if name != "" {
				groups[at].protocol = &api.Protocol{Name: name}
			}
		}
		groups[at].ports = append(groups[at].ports, port)
	}
	return groups, named, problems
}

func protocolName(p *api.Protocol) string {
	if p == nil {
		return ""
	}
	return p.Name
}

// clusterPort returns the port that an item of protocols means; a named one has no protocol.
func clusterPort(p *cnp.ClusterNetworkPolicyProtocol) (protocol string, port api.Port, err error) {
	var given *cnp.Port
	set := 0
	if p.TCP != nil {
		protocol, given, set = "TCP", p.TCP.DestinationPort, set+1
	}
	if p.UDP != nil {
		protocol, given, set = "UDP", p.UDP.DestinationPort, set+1
	}
	if p.SCTP != nil {
		protocol, given, set = "SCTP", p.SCTP.DestinationPort, set+1
	}
	if p.DestinationNamedPort != "" {
		protocol, set = "", set+1
		if msgs := validation.IsValidPortName(p.DestinationNamedPort); len(msgs) > 0 {
			return "", port, fmt.Errorf("destinationNamedPort %q: %s", p.DestinationNamedPort, msgs[0])
		}
		port.Name = p.DestinationNamedPort
	}
	switch {
	case set != 1:
		return "", port, errors.New("must be exactly one of tcp, udp, sctp and destinationNamedPort")
	case port.Name != "":
		return "", port, nil
	case given == nil:
		return "", port, errors.New("has no destinationPort")
	}
	port, err = clusterPortNumbers(given)
	return protocol, port, err
}

func clusterPortNumbers(p *cnp.Port) (api.Port, error) {
	first, last := p.Number, p.Number
	switch {
	case (p.Number != 0) == (p.Range != nil):
		return api.Port{}, errors.New("destinationPort must be either a number or a range")
	case p.Range != nil:
		first, last = p.Range.Start, p.Range.End
		if first >= last {
			return api.Port{}, fmt.Errorf("the range %d to %d ends before it begins, or where", first, last)
		}
	}
	for _, n := range []int32{first, last} {
		if n < 1 || n > 65535 {
			return api.Port{}, fmt.Errorf("port %d is not between 1 and 65535", n)
		}
	}
	return api.Port{First: uint16(first), Last: uint16(last)}, nil
}

// clusterPeer returns one end of a rule for each family of a peer's networks, else one.
func clusterPeer(path string, p *cnp.ClusterNetworkPolicyEgressPeer) ([]api.EntityRule, *api.Problem) {
	set := 0
	for _, is := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil, p.Networks != nil, p.DomainNames != nil} {
		if is {
			set++
		}
	}
	switch {
	case set == 0:
		return nil, &api.Problem{Path: path, Reason: "has no peer that this release knows"}
	case set > 1:
		return nil, &api.Problem{Path: path, Reason: "must hold exactly one kind of peer"}
	case p.Nodes != nil:
		nodes, err := api.LabelSelector(p.Nodes)
		if err != nil {
			return nil, &api.Problem{Path: path + ".nodes", Reason: err.Error()}
		}
		return []api.EntityRule{{NodeSelector: nodes.String()}}, nil
	case p.DomainNames != nil:
		return nil, &api.Problem{Path: path + ".domainNames", Reason: "domain names are not followed; name networks"}
	case p.Networks != nil:
		return clusterNetworks(path+".networks", p.Networks)
	}
	pods, problem := clusterPods(path, p.Namespaces, p.Pods)
	return []api.EntityRule{pods}, problem
}

// clusterPods returns what selects the pods of namespaces, or pods of namespaces.
func clusterPods(path string, namespaces *metav1.LabelSelector, pods *cnp.NamespacedPod) (api.EntityRule, *api.Problem) {
	within, of := namespaces, &metav1.LabelSelector{}
	at, ofAt := path+".namespaces", ""
	if pods != nil {
		within, of = &pods.NamespaceSelector, &pods.PodSelector
		at, ofAt = path+".pods.namespaceSelector", path+".pods.podSelector"
	}
	ns, err := api.LabelSelector(within)
	if err != nil {
		return api.EntityRule{}, &api.Problem{Path: at, Reason: err.Error()}
	}
	text, err := podsOnly(of)
	if err != nil {
		return api.EntityRule{}, &api.Problem{Path: ofAt, Reason: err.Error()}
	}
	return api.EntityRule{Selector: text, NamespaceSelector: ns.String()}, nil
}

func clusterNetworks(path string, networks []cnp.CIDR) ([]api.EntityRule, *api.Problem) {
	if len(networks) == 0 {
		return nil, &api.Problem{Path: path, Reason: "must hold at least one network"}
	}
	var families [2]api.EntityRule
	for i, n := range networks {
		p, err := netip.ParsePrefix(string(n))
		if err == nil {
			p, err = api.ParsePrefix(p.String())
		}
		if err != nil {
			return nil, &api.Problem{Path: fmt.Sprintf("%s[%d]", path, i), Reason: err.Error()}
		}
		f := &families[0]
		if p.Addr().Is6() {
			f = &families[1]
		}
		f.Nets = append(f.Nets, p.String())
	}
	return slices.DeleteFunc(families[:], func(e api.EntityRule) bool { return len(e.Nets) == 0 }), nil
}
