package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/ipam"
)

func ipamCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ipam",
		Short: "Addresses: who has which, and what is wrong with them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(ipamShowCommand(env), ipamCheckCommand(env), ipamReleaseCommand(env), ipamConfigureCommand(env))
	return cmd
}

// withIPAM runs fn with an allocator that works for no node.
func (env *Env) withIPAM(ctx context.Context, fn func(datastore.Store, *ipam.Allocator) error) error {
	oneByOne := env.OneByOne != nil && env.OneByOne()
	return env.withStore(ctx, func(s datastore.Store) error { return fn(s, ipam.New(ipam.Config{Store: s, OneByOne: oneByOne})) })
}

func ipamShowCommand(env *Env) *cobra.Command {
	var blocks bool
	var addr, output string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show how full the pools are, and who has an address",
		Long: `Show how many addresses of each pool are used and free; with --blocks of each block too; with --address who has one.

The exit code is 3 if nobody has the address that is asked for.`,
		Example: "  tortie ipam show --blocks\n  tortie ipam show --address 10.65.1.7",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" && output != "yaml" {
				return usage("there is no output format %q; the formats are table, json and yaml", output)
			}
			return env.withIPAM(cmd.Context(), func(s datastore.Store, a *ipam.Allocator) error {
				if addr != "" {
					return env.showAddress(cmd.Context(), s, addr)
				}
				u, err := a.Show(cmd.Context())
				if err != nil {
					return err
				}
				switch output {
				case "json":
					return writeJSON(env.Out, u)
				case "yaml":
					return writeYAML(env.Out, u)
				}
				return env.printUsage(u, blocks)
			})
		},
	}
	cmd.Flags().BoolVar(&blocks, "blocks", false, "show each block")
	cmd.Flags().StringVar(&addr, "address", "", "show who has this address")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, noFiles))
	return cmd
}

func (env *Env) printUsage(u ipam.Usage, blocks bool) error {
	if len(u.Pools) == 0 {
		fmt.Fprintln(env.Err, "no pools in the store (tortie apply -f makes an IPPool)")
	}
	tw := tabwriter.NewWriter(env.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(tw, "POOL\tCIDR\tUSED\tCOOLING\tRESERVED\tFREE\tFULL\tBLOCKS")
	for _, p := range u.Pools {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%d\n", p.Name, p.CIDR, p.Used, p.Cooling, amount(p.Reserved), amount(p.Free),
			percent(p.Size-p.Free, p.Size), p.Blocks)
	}
	if err := tw.Flush(); err != nil || !blocks {
		return err
	}
	fmt.Fprintln(env.Out)
	fmt.Fprintln(tw, "BLOCK\tPOOL\tOF\tUSED\tBORROWED\tCOOLING\tRESERVED\tFREE\tFULL")
	for _, b := range u.Blocks {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", b.CIDR, dash(b.Pool), dash(strings.TrimPrefix(b.Affinity, "host:")),
			b.Used, b.Borrowed, b.Cooling, b.Reserved, b.Free, percent(float64(b.Size-b.Free), float64(b.Size)))
	}
	return tw.Flush()
}

// amount gives a count of addresses, which may be more than people read.
func amount(n float64) string {
	if n < 1e7 {
		return strconv.FormatFloat(n, 'f', 0, 64)
	}
	return strconv.FormatFloat(n, 'g', 2, 64)
}

func percent(part, whole float64) string {
	if whole == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*part/whole, 'f', 0, 64) + "%"
}

func (env *Env) showAddress(ctx context.Context, s datastore.Store, text string) error {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return usage("--address: %w", err)
	}
	addr = addr.Unmap()
	blocks, err := s.List(ctx, "IPAMBlock", "")
	if err != nil && len(blocks) == 0 {
		return err
	}
	found := false
	for _, o := range blocks {
		b, ok := o.(*api.IPAMBlock)
		if !ok {
			continue
		}
		for a, owner := range b.Owners() {
			if a != addr {
				continue
			}
			found = true
			who := strings.TrimPrefix(owner.Namespace+"/"+owner.Pod, "/")
			if owner.Type != "" {
				who = strings.TrimSpace(who + " " + owner.Type)
			}
			fmt.Fprintf(env.Out, "%s\n  allocated to  %s\n  node          %s\n  block         %s (of %s)\n", addr, dash(who), dash(owner.Node),
				b.Spec.CIDR, dash(strings.TrimPrefix(b.Spec.Affinity, "host:")))
		}
	}
	users, err := usersOf(ctx, s, addr)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		if !found {
			fmt.Fprintf(env.Out, "%s\n  allocated to  nobody\n", addr)
		}
		fmt.Fprintf(env.Out, "  used by       %s\n", strings.Join(users, ", "))
		found = true
	}
	if !found {
		return &ExitCoder{Code: ExitMissing, Err: fmt.Errorf("nobody has %s", addr)}
	}
	return nil
}

// usersOf returns the workloads that have an address, by what they say themselves.
func usersOf(ctx context.Context, s datastore.Store, addr netip.Addr) ([]string, error) {
	weps, err := s.List(ctx, "WorkloadEndpoint", "")
	var users []string
	for _, o := range weps {
		if wep, ok := o.(*api.WorkloadEndpoint); ok && slices.Contains(ledgerEntry(api.KeyOf(o), wep).Addrs, addr) {
			users = append(users, api.KeyOf(o).String())
		}
	}
	return users, err
}

func ipamCheckCommand(env *Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare addresses that are allocated with those that are used",
		Long: `Compare what blocks, affinities and handles say with the addresses that workloads and nodes use: addresses that nobody
uses (leaked), that are used without having been allocated, and that two have.

The exit code is 0 if all agree, 5 if they don't, and another one if that can't be found out. While workloads come and go,
look twice: what is wrong at both times is wrong.`,
		Example: "  tortie ipam check",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" && output != "yaml" {
				return usage("there is no output format %q; the formats are text, json and yaml", output)
			}
			return env.withIPAM(cmd.Context(), func(_ datastore.Store, a *ipam.Allocator) error {
				r, err := a.Audit(cmd.Context(), ipam.AuditOptions{})
				if err != nil {
					return err
				}
				switch output {
				case "json":
					err = writeJSON(env.Out, r)
				case "yaml":
					err = writeYAML(env.Out, r)
				default:
					env.printReport(r)
				}
				if err == nil && len(r.Leaked)+len(r.Missing)+len(r.Double)+len(r.Objects) > 0 {
					return &ExitCoder{Code: ExitDiffers}
				}
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json", "yaml"}, noFiles))
	return cmd
}

func (env *Env) printReport(r ipam.Report) {
	fmt.Fprintf(env.Out, "%s, %s allocated, %s used\n", count(r.Blocks, "block"), thousands(r.Allocated), thousands(r.Used))
	for _, l := range r.Leaked {
		fmt.Fprintf(env.Out, "%s  %s: allocated to %s on node %s, and nobody uses it\n", env.red("leaked "), l.Addr, dash(who(l)), dash(l.Owner.Node))
	}
	for _, m := range r.Missing {
		fmt.Fprintf(env.Out, "%s  %s: used by %s, and not allocated: somebody else may get it\n", env.red("missing"), m.Addr, m.By)
	}
	for _, d := range r.Double {
		fmt.Fprintf(env.Out, "%s  %s: %s\n", env.red("double "), d.Addr, strings.Join(d.By, ", "))
	}
	for _, f := range r.Objects {
		fmt.Fprintf(env.Out, "%s  %s %s\n", env.red("object "), f.Key, f.Problem)
	}
	if len(r.Leaked) > 0 {
		fmt.Fprintln(env.Out, "\ntortie ipam release --leaked gives back what nobody uses; the controllers do so too, some time later")
	}
}

func who(l ipam.Allocation) string {
	return strings.TrimPrefix(strings.TrimSuffix(l.Owner.Namespace+"/"+cmp.Or(l.Owner.Pod, l.Owner.Type), "/"), "/")
}

func ipamReleaseCommand(env *Env) *cobra.Command {
	var leaked, force, dryRun bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "release ADDRESS... | release --leaked",
		Short: "Take back addresses that nobody uses",
		Long: `Take back addresses that nobody uses: those that are named, or with --leaked all that are allocated and in no workload's or
node's use. --leaked looks twice, some time apart, so that a workload that is being made does not lose its address.

An address that a workload uses is not released without --force: it could be given to another one.`,
		Example: "  tortie ipam release 10.65.1.7\n  tortie ipam release --leaked --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			if leaked == (len(args) > 0) {
				return usage("say what to release: addresses, or --leaked")
			}
			return env.withIPAM(cmd.Context(), func(s datastore.Store, a *ipam.Allocator) error {
				if leaked {
					return env.releaseLeaked(cmd.Context(), a, wait, dryRun)
				}
				return env.release(cmd.Context(), s, a, args, force, dryRun)
			})
		},
	}
	cmd.Flags().BoolVar(&leaked, "leaked", false, "all that are allocated and nobody uses")
	cmd.Flags().DurationVar(&wait, "wait", 15*time.Second, "with --leaked: time between the two looks")
	cmd.Flags().BoolVar(&force, "force", false, "also addresses that a workload uses")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be released")
	return cmd
}

func (env *Env) release(ctx context.Context, s datastore.Store, a *ipam.Allocator, args []string, force, dryRun bool) error {
	var addrs []netip.Addr
	for _, t := range args {
		addr, err := netip.ParseAddr(t)
		if err != nil {
			return usage("%w", err)
		}
		addrs = append(addrs, addr.Unmap())
	}
	for _, addr := range addrs {
		users, err := usersOf(ctx, s, addr)
		if err != nil {
			return err
		}
		if len(users) > 0 && !force {
			return fmt.Errorf("%s is used by %s: detach that first (--force releases the address all the same)", addr, strings.Join(users, ", "))
		}
	}
	if dryRun {
		for _, addr := range addrs {
			fmt.Fprintf(env.Out, "%s released (dry run)\n", addr)
		}
		return nil
	}
	done, err := a.ReleaseAddrs(ctx, addrs...)
	if err != nil {
		return err
	}
	var missing []error
	for _, addr := range addrs {
		if slices.Contains(done, addr) {
			fmt.Fprintf(env.Out, "%s released\n", addr)
		} else {
			missing = append(missing, fmt.Errorf("nobody has %s", addr))
		}
	}
	if len(missing) > 0 {
		return &ExitCoder{Code: ExitMissing, Err: errors.Join(missing...)}
	}
	return nil
}

// releaseLeaked releases what two audits find, by the token of that allocation: one that is new since is another.
func (env *Env) releaseLeaked(ctx context.Context, a *ipam.Allocator, wait time.Duration, dryRun bool) error {
	first, err := a.Audit(ctx, ipam.AuditOptions{})
	if err != nil {
		return err
	}
	if len(first.Leaked) > 0 && wait > 0 {
		fmt.Fprintf(env.Err, "%s; looking again in %s\n", thousands(len(first.Leaked))+" leaked", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	second, err := a.Audit(ctx, ipam.AuditOptions{})
	if err != nil {
		return err
	}
	n := 0
	for _, l := range second.Leaked {
		same := func(o ipam.Allocation) bool { return o.Addr == l.Addr && o.Token == l.Token }
		if !slices.ContainsFunc(first.Leaked, same) {
			continue
		}
		n++
		if dryRun {
			fmt.Fprintf(env.Out, "%s released (dry run), of %s\n", l.Addr, dash(who(l)))
			continue
		}
		done, err := a.Release(ctx, l.Handle, ipam.ReleaseOptions{Held: []ipam.Held{l.Held}})
		if err != nil {
			return err
		}
		for _, addr := range done {
			fmt.Fprintf(env.Out, "%s released, of %s\n", addr, dash(who(l)))
		}
	}
	if n == 0 {
		fmt.Fprintln(env.Out, "nothing has leaked")
	}
	return nil
}

func ipamConfigureCommand(env *Env) *cobra.Command {
	var strict, auto bool
	var blocks, cooldown int
	cmd := &cobra.Command{
		Use:     "configure",
		Short:   "Show or change how addresses are given",
		Long:    `Show how addresses are given, or change it: only what a flag names is changed.`,
		Example: "  tortie ipam configure --strict-affinity --max-blocks-per-host 4",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set := cmd.Flags().Changed
			if !set("strict-affinity") && !set("auto-allocate-blocks") && !set("max-blocks-per-host") && !set("cooldown") {
				return env.showIPAMConfig(cmd.Context())
			}
			return env.withIPAM(cmd.Context(), func(_ datastore.Store, a *ipam.Allocator) error {
				now, err := a.Configure(cmd.Context(), func(c *api.IPAMConfigurationSpec) {
					if set("strict-affinity") {
						c.StrictAffinity = strict
					}
					if set("auto-allocate-blocks") {
						c.AutoAllocateBlocks = &auto
					}
					if set("max-blocks-per-host") {
						c.MaxBlocksPerHost = blocks
					}
					if set("cooldown") {
						c.IPCooldownSeconds = cooldown
					}
				})
				if err != nil {
					return err
				}
				return writeYAML(env.Out, now)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&strict, "strict-affinity", false, "nodes take no addresses of the blocks of other nodes")
	f.BoolVar(&auto, "auto-allocate-blocks", true, "nodes take blocks when they need them")
	f.IntVar(&blocks, "max-blocks-per-host", 0, "most blocks of a node; 0 = 20")
	f.IntVar(&cooldown, "cooldown", 0, "seconds before an address that was released is given again")
	return cmd
}

func (env *Env) showIPAMConfig(ctx context.Context) error {
	return env.withStore(ctx, func(s datastore.Store) error {
		o, err := s.Get(ctx, api.Key{Kind: "IPAMConfiguration", Name: api.IPAMConfigurationName})
		if errors.Is(err, datastore.ErrNotFound) {
			c := &api.IPAMConfiguration{}
			c.Name = api.IPAMConfigurationName
			api.Default(c)
			o, err = c, nil
		}
		if err != nil {
			return err
		}
		return writeYAML(env.Out, o.(*api.IPAMConfiguration).Spec)
	})
}
