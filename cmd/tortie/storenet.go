//go:build !noembed

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/store"
	"github.com/tortie/tortie/store/join"
)

// localStore is the Unix socket of the store on this host: that of --store or TORTIE_STORE, if they name one.
func localStore(cmd *cobra.Command) string {
	if endpoints, err := cmd.Flags().GetStringSlice("store"); err == nil && len(endpoints) > 0 {
		return endpoints[0]
	}
	return store.DefaultListen
}

// output is the format that a command prints in.
type output string

func (o *output) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", "table", "table, json or yaml")
	formats := []string{"table", "json", "yaml"}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (o output) check() error {
	switch o {
	case "table", "json", "yaml":
		return nil
	}
	return usage(fmt.Errorf("there is no output format %q; the formats are table, json and yaml", string(o)))
}

// print writes v, or calls table for people.
func (o output) print(w io.Writer, v any, table func(io.Writer)) error {
	var b []byte
	var err error
	switch o {
	case "json":
		b, err = json.MarshalIndent(v, "", "  ")
		b = append(b, '\n')
	case "yaml":
		b, err = yaml.Marshal(v)
	default:
		tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		table(tw)
		return tw.Flush()
	}
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func tokenCommand() *cobra.Command {
	q := store.TokenRequest{}
	var o output
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token with which a host joins the store",
		Long: `Make a token with which another host joins this store: tortie join TOKEN. Run it on the store's host, as root.

A token is a secret for a short while: it is good for one host (--uses) and one hour (--ttl), and the store keeps no more of
it than a hash. It also says where the store is, and whose certificate it must show, so that nobody can come in between.
With --role admin it is for a person who wants to use this command line on another machine.`,
		Example: `  tortie store token
  tortie store token --name n2 --ttl 10m
  tortie store token --role admin --name ann
  tortie store token list
  tortie store token revoke 0123456789`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			t, err := store.Admin{Socket: localStore(cmd)}.NewToken(cmd.Context(), q)
			if err != nil {
				return fmt.Errorf("making a token: %w", err)
			}
			if o == "table" {
				// The token alone goes to the output, so that it can be handed on by a pipe.
				fmt.Fprintf(cmd.ErrOrStderr(), "For %s, until %s. %s: tortie join TOKEN\n",
					uses(t.Token), t.Expires.Local().Format(time.RFC1123), where(t.Role))
				fmt.Fprintln(cmd.OutOrStdout(), t.Text)
				return nil
			}
			return o.print(cmd.OutOrStdout(), t, nil)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Role, "role", join.RoleNode, "node: for the agent of a host; admin: for a person with this command line")
	f.StringVar(&q.Name, "name", "", "only for this name of a node or administrator")
	f.IntVar(&q.Uses, "uses", 1, "how many hosts may join with it")
	f.DurationVar(&q.TTL, "ttl", time.Hour, "how long it is good")
	roles := cobra.FixedCompletions([]string{join.RoleNode, join.RoleAdmin}, cobra.ShellCompDirectiveNoFileComp)
	_ = cmd.RegisterFlagCompletionFunc("role", roles)
	o.register(cmd)
	cmd.AddCommand(tokenListCommand(), tokenRevokeCommand())
	return cmd
}

func uses(t store.Token) string {
	role := map[string]string{join.RoleNode: "node", join.RoleAdmin: "administrator"}[t.Role]
	switch {
	case t.Name != "":
		return role + " " + t.Name
	case t.Uses == 1:
		return "one " + role
	}
	return fmt.Sprintf("%d %ss", t.Uses, role)
}

func where(role string) string {
	if role == join.RoleAdmin {
		return "On their machine, as themselves"
	}
	return "On the other host, as root"
}

func tokenListCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List tokens: which are valid, and who has used which",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			all, err := store.Admin{Socket: localStore(cmd)}.Tokens(cmd.Context())
			if err != nil {
				return fmt.Errorf("listing tokens: %w", err)
			}
			return o.print(cmd.OutOrStdout(), all, func(w io.Writer) {
				fmt.Fprintln(w, "ID\tROLE\tNAME\tSTATE\tUSES LEFT\tEXPIRES\tUSED BY")
				for _, t := range all {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d of %d\t%s\t%s\n", t.ID, t.Role, cmp.Or(t.Name, "any"), t.State(time.Now()),
						t.Left, t.Uses, stamp(t.Expires), cmp.Or(strings.Join(t.UsedBy, ","), "-"))
				}
			})
		},
	}
	o.register(cmd)
	return cmd
}

func tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID...",
		Short: "Make tokens useless; who has joined with them stays",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range args {
				t, err := store.Admin{Socket: localStore(cmd)}.Revoke(cmd.Context(), id)
				if err != nil {
					return fmt.Errorf("revoking a token: %w", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "token %s revoked\n", t.ID)
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			all, err := store.Admin{Socket: localStore(cmd)}.Tokens(cmd.Context())
			var ids []string
			for _, t := range all {
				if err == nil && !t.Revoked {
					ids = append(ids, t.ID)
				}
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// stamp is a time for a table.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func membersCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:     "members",
		Aliases: []string{"nodes", "member"},
		Short:   "List who has joined: certificates, and who is connected",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			all, err := store.Admin{Socket: localStore(cmd)}.Members(cmd.Context())
			if err != nil {
				return fmt.Errorf("listing members: %w", err)
			}
			return o.print(cmd.OutOrStdout(), all, func(w io.Writer) {
				fmt.Fprintln(w, "NAME\tROLE\tFROM\tJOINED\tISSUED\tEXPIRES\tSEEN")
				for _, m := range all {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Role, m.From, stamp(m.Joined), stamp(m.Issued), stamp(m.Expires), seen(m))
				}
			})
		},
	}
	o.register(cmd)
	return cmd
}

func seen(m store.MemberStatus) string {
	switch {
	case m.Connections > 0:
		return "now"
	case m.Seen != nil:
		return stamp(*m.Seen)
	}
	return "not since the store has started"
}

func expelCommand() *cobra.Command {
	var keep, leftovers bool
	cmd := &cobra.Command{
		Use:   "expel NAME",
		Short: "Take a host's access away, now, and remove what the store holds of it",
		Long: `Take the access of a node (NAME) or an administrator (admin:NAME) away. From that moment its certificate is refused, and
its connections are cut. Tokens that it has joined with are revoked. It needs a new token to come back.

Of a node, what the store holds is removed, too: its Node, its WorkloadEndpoints, and its addresses with their blocks, which
other nodes may then use. If its workloads still run and you want to keep their addresses from others, or if it will come
back, use --keep-objects (and --leftovers later, to remove them after all). Its dataplane stays as it is: run tortie clean there, or switch it off.`,
		Example: "  tortie store expel n3\n  tortie store expel n3 --keep-objects\n  tortie store expel admin:ann",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			socket, out := localStore(cmd), cmd.OutOrStdout()
			if leftovers {
				return removeLeftovers(cmd.Context(), out, socket, args[0])
			}
			done, err := store.Admin{Socket: socket}.Expel(cmd.Context(), args[0])
			if err != nil {
				return fmt.Errorf("expelling %w; tortie store members lists who has joined", err)
			}
			fmt.Fprintf(out, "%s expelled: its certificate is refused, %d connections cut\n", args[0], done.Cut)
			for _, id := range done.Revoked {
				fmt.Fprintf(out, "token %s, which it had joined with, revoked\n", id)
			}
			if keep || strings.HasPrefix(args[0], join.RoleAdmin+":") {
				return nil
			}
			return removeObjects(cmd.Context(), out, socket, args[0])
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			all, _ := store.Admin{Socket: localStore(cmd)}.Members(cmd.Context())
			var names []string
			for _, m := range all {
				names = append(names, m.Label())
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-objects", false, "leave the node's objects and addresses in the store")
	cmd.Flags().BoolVar(&leftovers, "leftovers", false, "only remove what the store still holds of a node that is no member any more")
	cmd.MarkFlagsMutuallyExclusive("keep-objects", "leftovers")
	return cmd
}

// removeLeftovers is for a node that was expelled with --keep-objects, or when removing them failed.
func removeLeftovers(ctx context.Context, out io.Writer, socket, node string) error {
	all, err := store.Admin{Socket: socket}.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Label() == node {
			return fmt.Errorf("%s is a member: expel it without --leftovers", node)
		}
	}
	return removeObjects(ctx, out, socket, node)
}

func removeObjects(ctx context.Context, out io.Writer, socket, node string) error {
	s, err := etcd.Open(etcd.Config{Endpoints: []string{"unix://" + strings.TrimPrefix(socket, "unix://")}})
	if err != nil {
		return err
	}
	defer s.Close()
	gone, err := forgetNode(ctx, s, node)
	fmt.Fprintf(out, "removed: %d workload endpoints, %d addresses, %d blocks\n", gone.Endpoints, gone.Addresses, gone.Blocks)
	for _, b := range gone.Left {
		fmt.Fprintf(out, "left: block %s: other nodes have addresses of it; it goes when they are released (tortie ipam check)\n", b)
	}
	if err != nil {
		return fmt.Errorf("removing what the store holds of %s (its access is gone; go on with --leftovers): %w", node, err)
	}
	return nil
}

func snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save the store to a file, and restore it from one",
		Long: `Save all that the store holds to a file, and restore it from one: the objects, who has joined, and the store's authority.
Keep the file like a key: it holds one.`,
	}
	cmd.AddCommand(snapshotSaveCommand(), snapshotRestoreCommand(), snapshotStatusCommand())
	return cmd
}

func printSnapshot(cmd *cobra.Command, o output, info store.SnapshotInfo) error {
	return o.print(cmd.OutOrStdout(), info, func(w io.Writer) {
		fmt.Fprintf(w, "File\t%s\nRevision\t%d\nKeys\t%d\nSize\t%.1f MiB\nSHA-256\t%s\n", info.File, info.Revision, info.Keys,
			float64(info.Bytes)/(1<<20), info.SHA256)
	})
}

func snapshotSaveCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:     "save FILE",
		Short:   "Save the running store to a file, as of one moment",
		Example: "  tortie store snapshot save /var/backups/tortie.db",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			info, err := store.Admin{Socket: localStore(cmd)}.Snapshot(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printSnapshot(cmd, o, info)
		},
	}
	o.register(cmd)
	return cmd
}

func snapshotRestoreCommand() *cobra.Command {
	var o output
	dir := store.DefaultDir
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a store out of a file, in an empty folder",
		Long: `Make the folder of a store out of a file that tortie store snapshot save has written. Stop the store first, and move its
folder away. Agents notice that the store went back, and compare all that they hold with it. Who joined after the snapshot
was saved must join again; who was expelled after it must be expelled again.`,
		Example: `  systemctl stop tortie-store
  mv /var/lib/tortie/store /var/lib/tortie/store.old
  tortie store snapshot restore /var/backups/tortie.db
  systemctl start tortie-store`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			info, err := store.Restore(args[0], dir, newStoreLog(os.Stderr))
			if err != nil {
				return err
			}
			return printSnapshot(cmd, o, info)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", dir, "folder of the data")
	o.register(cmd)
	return cmd
}

func snapshotStatusCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "status FILE",
		Short: "Check a file, and say what is in it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			info, err := store.SnapshotStatus(args[0])
			if err != nil {
				return err
			}
			return printSnapshot(cmd, o, info)
		},
	}
	o.register(cmd)
	return cmd
}
