package cni

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tortie/tortie/internal/agentapi"
)

const orchestratorKubernetes = "k8s"

// cniArgs is CNI_ARGS.
type cniArgs struct {
	ip, mac, namespace, pod, uid string
}

// parseArgs reads "K=V;K=V".
func parseArgs(s string) (cniArgs, error) {
	var a cniArgs
	infra := "" // the pause container, which is the sandbox
	known := map[string]*string{"IP": &a.ip, "MAC": &a.mac, "K8S_POD_NAMESPACE": &a.namespace, "K8S_POD_NAME": &a.pod,
		"K8S_POD_UID": &a.uid, "K8S_POD_INFRA_CONTAINER_ID": &infra}
	ignore := false
	var unknown []string
	for pair := range strings.SplitSeq(s, ";") {
		if pair == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		switch into := known[k]; {
		case !ok:
			return a, argsError("%q is not KEY=VALUE", pair)
		case into != nil:
			*into = v
		case k == "IgnoreUnknown":
			ignore = v == "1" || strings.EqualFold(v, "true")
		default:
			unknown = append(unknown, k)
		}
	}
	if len(unknown) > 0 && !ignore {
		return a, argsError("unknown: %s (IgnoreUnknown=1 lets them pass)", strings.Join(unknown, ", "))
	}
	if (a.pod == "") != (a.namespace == "") {
		return a, argsError("K8S_POD_NAME and K8S_POD_NAMESPACE come together")
	}
	return a, nil
}

func argsError(format string, args ...any) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "invalid CNI_ARGS", fmt.Sprintf(format, args...))
}

// request is an attach without addresses, if another plugin allocates them.
func (c *conf) request(at attachment, a cniArgs) (agentapi.AttachRequest, error) {
	r := agentapi.AttachRequest{Sandbox: at.sandbox, Interface: at.iface, Network: c.Name, MTU: c.MTU, MAC: a.mac}
	if c.Runtime.MAC != "" {
		r.MAC = c.Runtime.MAC
	}
	r.Workload = agentapi.Workload{Namespace: c.Namespace, Labels: maps.Clone(c.Labels), Profiles: c.Profiles, Ports: c.Ports,
		SourcePrefixes: c.Sources}
	if a.pod != "" {
		r.Workload.Orchestrator, r.Workload.Namespace, r.Workload.Name, r.Workload.UID = orchestratorKubernetes, a.namespace, a.pod, a.uid
	}
	for _, l := range c.Args.CNI.Labels {
		if r.Workload.Labels == nil {
			r.Workload.Labels = map[string]string{}
		}
		r.Workload.Labels[l.Key] = l.Value
	}
	if c.delegated() {
		return r, nil // that plugin reads for itself which addresses are wanted
	}
	r.Allocate = &agentapi.Allocate{V4: slices.Contains(c.IPAM.Families, "IPv4"), V6: slices.Contains(c.IPAM.Families, "IPv6"),
		Pools: c.IPAM.Pools}
	var err error
	r.Allocate.Addresses, err = c.wanted(a)
	return r, err
}

// wanted is the fixed addresses that the runtime asks for. What is said in a newer way hides what is said in an older one.
func (c *conf) wanted(a cniArgs) ([]netip.Addr, error) {
	texts, where := c.Runtime.IPs, "runtimeConfig.ips"
	if len(texts) == 0 {
		texts, where = c.Args.CNI.IPs, "args.cni.ips"
	}
	if len(texts) == 0 && a.ip != "" {
		texts, where = []string{a.ip}, "IP in CNI_ARGS"
	}
	var out []netip.Addr
	for _, s := range texts {
		bare, _, _ := strings.Cut(s, "/") // a workload's prefix is a single address, whatever length is said
		ip, err := netip.ParseAddr(bare)
		if err != nil {
			return nil, invalid("%s: %v", where, err)
		}
		out = append(out, ip.Unmap())
	}
	return out, nil
}
