package ctl

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/agentapi"
)

// completeFlags gives flags that mean the same in many commands their completion.
func (env *Env) completeFlags(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		env.completeFlags(sub)
	}
	for _, name := range []string{"filename", "against", "patch-file"} {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.MarkFlagFilename(name, "yaml", "yml", "json")
		}
	}
	if cmd.Flags().Lookup("namespace") != nil {
		_ = cmd.RegisterFlagCompletionFunc("namespace", env.completeNamespaces)
	}
}

const (
	noFiles = cobra.ShellCompDirectiveNoFileComp
	wrong   = cobra.ShellCompDirectiveError
)

// completeKinds offers kinds for the first argument and names from the store for the others.
func (env *Env) completeKinds(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return kindNames(), noFiles
	}
	k, err := kindOf(args[0])
	if err != nil {
		return nil, noFiles
	}
	ns := ""
	if all, _ := cmd.Flags().GetBool("all-namespaces"); k.Namespaced && !all {
		ns, _ = cmd.Flags().GetString("namespace")
	}
	return env.completeNames(cmd, k.Kind, ns, args[1:], prefix)
}

// completeOne offers a kind and one name of it.
func (env *Env) completeOne(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, noFiles
	}
	return env.completeKinds(cmd, args, prefix)
}

// completeNames offers the names of a kind's objects, but those that are there already.
func (env *Env) completeNames(cmd *cobra.Command, kind, namespace string, taken []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var names []string
	err := env.withStore(cmd.Context(), func(s datastore.Store) error {
		objects, err := s.List(cmd.Context(), kind, namespace)
		for _, o := range objects {
			if n := o.GetName(); strings.HasPrefix(n, prefix) && !slices.Contains(taken, n) {
				names = append(names, n)
			}
		}
		return err
	})
	if err != nil && len(names) == 0 {
		return nil, wrong
	}
	return names, noFiles
}

// completeNamespaces offers the namespaces that something is in.
func (env *Env) completeNamespaces(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	seen := map[string]bool{}
	err := env.withStore(cmd.Context(), func(s datastore.Store) error {
		for _, k := range api.Kinds() {
			if !k.Namespaced {
				continue
			}
			objects, err := s.List(cmd.Context(), k.Kind, "")
			if err != nil && len(objects) == 0 {
				return err
			}
			for _, o := range objects {
				if strings.HasPrefix(o.GetNamespace(), prefix) {
					seen[o.GetNamespace()] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, wrong
	}
	return slices.Sorted(maps.Keys(seen)), noFiles
}

// completeEnds offers what explain takes: workloads, nodes, protocols.
func (env *Env) completeEnds(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0, 1:
	case 2:
		return []string{"tcp", "udp", "sctp", "icmp", "icmpv6"}, noFiles
	default:
		return nil, noFiles
	}
	var names []string
	err := env.withStore(cmd.Context(), func(s datastore.Store) error {
		for _, kind := range []string{"WorkloadEndpoint", "Node"} {
			objects, err := s.List(cmd.Context(), kind, "")
			if err != nil && len(objects) == 0 {
				return err
			}
			for _, o := range objects {
				if name := strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/"); strings.HasPrefix(name, prefix) {
					names = append(names, name)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, wrong
	}
	return names, noFiles
}

// completeSandboxes offers what is plugged in here.
func (env *Env) completeSandboxes(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	got, err := env.agent().List(cmd.Context(), agentapi.ListRequest{})
	if err != nil {
		return nil, wrong
	}
	var names []string
	for _, a := range got.Attachments {
		if strings.HasPrefix(a.Sandbox, prefix) {
			names = append(names, a.Sandbox)
		}
	}
	return names, noFiles
}

// completeNetns offers the names of "ip netns".
func completeNetns(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return namesIn(netnsDir), noFiles
}
