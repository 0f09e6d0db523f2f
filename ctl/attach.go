package ctl

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/internal/agentapi"
)

// netnsDir is where `ip netns` mounts the namespaces that it names.
const netnsDir = "/run/netns"

func attachCommand(env *Env) *cobra.Command {
	r := agentapi.AttachRequest{}
	allocate := agentapi.Allocate{}
	var addrs, portList, labelList, spoof []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "attach NETNS",
		Short: "Plug a network namespace of this node in as a workload",
		Long: `Plug a network namespace of this node in as a workload: it gets an interface, addresses, routes and a WorkloadEndpoint
in the store. The command returns once the workload's policy is enforced. NETNS is a name of "ip netns" or a path.

Giving the same command again is harmless.`,
		Example: `  ip netns add web
  tortie attach web --address 10.65.0.2 --name web --namespace shop --label role=web --port http:TCP:80
  tortie attach web --pool blue -4`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNetns,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := parseAttach(&r, args[0], addrs, portList, labelList, spoof); err != nil {
				return err
			}
			if allocate.V4 || allocate.V6 || len(allocate.Pools) > 0 {
				if len(addrs) > 0 {
					return usage("--address says which address; --pool, -4 and -6 are for one that the agent chooses")
				}
				r.Allocate = &allocate
			}
			r.TimeoutMS = timeout.Milliseconds()
			path := args[0]
			if !strings.Contains(path, "/") {
				path = filepath.Join(netnsDir, path)
			}
			ns, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("%w (ip netns add %s makes one)", err, filepath.Base(path))
			}
			defer ns.Close()
			got, err := env.agent().Attach(cmd.Context(), r, ns)
			if err != nil {
				return err
			}
			var as []string
			for _, a := range got.Addresses {
				as = append(as, a.String())
			}
			fmt.Fprintf(env.Out, "%s attached: %s on %s, policy enforced\n", got.Endpoint, strings.Join(as, ", "), got.HostIface)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&addrs, "address", nil, "address of the workload (may be given several times: IPv4 and IPv6; default: from the address pools)")
	f.StringArrayVar(&allocate.Pools, "pool", nil, "address pool to choose from, by name or prefix (may be given several times; default: any)")
	f.BoolVarP(&allocate.V4, "ipv4", "4", false, "choose an IPv4 address (default: one of each family that there are pools of)")
	f.BoolVarP(&allocate.V6, "ipv6", "6", false, "choose an IPv6 address")
	f.StringVar(&r.Workload.Name, "name", "", "name of the workload (default: the namespace's)")
	f.StringVarP(&r.Workload.Namespace, "namespace", "n", "default", "namespace of the workload")
	f.StringArrayVar(&labelList, "label", nil, "label, as key=value (may be given several times)")
	f.StringArrayVar(&portList, "port", nil, "named port, as name:PROTOCOL:number (may be given several times)")
	f.StringArrayVar(&r.Workload.Profiles, "profile", nil, "profile, in order (may be given several times)")
	f.StringArrayVar(&spoof, "allow-source", nil, "further prefix that the workload may send from")
	f.StringVar(&r.Sandbox, "sandbox", "", "id of the sandbox (default: the namespace's name)")
	f.StringVar(&r.Interface, "interface", "eth0", "interface to make inside the namespace")
	f.StringVar(&r.MAC, "mac", "", "MAC address of the workload's interface")
	f.IntVar(&r.MTU, "mtu", 0, "MTU in bytes (default: the agent's)")
	f.DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait until policy is enforced")
	return cmd
}

func parseAttach(r *agentapi.AttachRequest, ns string, addrs, portList, labelList, spoof []string) error {
	if r.Sandbox == "" {
		r.Sandbox = filepath.Base(ns)
	}
	if r.Workload.Name == "" {
		r.Workload.Name = filepath.Base(ns)
	}
	for _, s := range addrs {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return usage("--address: %w", err)
		}
		r.Addresses = append(r.Addresses, a)
	}
	for _, s := range spoof {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return usage("--allow-source: %w", err)
		}
		r.Workload.SourcePrefixes = append(r.Workload.SourcePrefixes, p)
	}
	for _, s := range portList {
		f := strings.Split(s, ":")
		if len(f) != 3 {
			return usage("--port %s: want name:PROTOCOL:number", s)
		}
		p, err := api.ParsePort(f[2])
		if err != nil || p.Name != "" || p.First != p.Last {
			return usage("--port %s: %q is no port number", s, f[2])
		}
		r.Workload.Ports = append(r.Workload.Ports, agentapi.Port{Name: f[0], Protocol: f[1], Port: p.First})
	}
	for _, s := range labelList {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return usage("--label %s: want key=value", s)
		}
		if r.Workload.Labels == nil {
			r.Workload.Labels = map[string]string{}
		}
		r.Workload.Labels[k] = v
	}
	return nil
}

// namesIn returns the names of a folder's entries; none if it can't be read.
func namesIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func detachCommand(env *Env) *cobra.Command {
	r := agentapi.DetachRequest{}
	cmd := &cobra.Command{
		Use:               "detach NETNS",
		Short:             "Unplug a workload of this node",
		Long:              `Unplug a workload: its flows are cut, its interface and its WorkloadEndpoint go. One that is not there is no error.`,
		Example:           "  tortie detach web",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: env.completeSandboxes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.Sandbox == "" {
				r.Sandbox = filepath.Base(args[0])
			}
			if err := env.agent().Detach(cmd.Context(), r); err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s detached\n", r.Sandbox)
			return nil
		},
	}
	cmd.Flags().StringVar(&r.Sandbox, "sandbox", "", "id of the sandbox (default: the namespace's name)")
	cmd.Flags().StringVar(&r.Interface, "interface", "eth0", "interface inside the namespace")
	return cmd
}
