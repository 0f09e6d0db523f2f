package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/ctl/calico"
	"github.com/tortie/tortie/datastore"
)

func migrateCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring along what another system has stored",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(migrateCalicoCommand(env))
	return cmd
}

// migration is what the flags of migrate calico say.
type migration struct {
	files      []string
	kubeconfig string
	output     string
	yes, force bool
	acceptLoss bool
	overwrite  bool
}

func migrateCalicoCommand(env *Env) *cobra.Command {
	var m migration
	cmd := &cobra.Command{
		Use:   "calico",
		Short: "Bring along Calico's policies, pools and addresses in Kubernetes",
		Long: `Bring along what Calico has stored in Kubernetes: objects of crd.projectcalico.org/v1 become those of projectcalico.org/v3.
Those of Calico are read, and never written to.

Without --yes it says what it would do about each object, and why some stay behind. It can be run again, also after it
was killed: what is here already is left alone. Addresses of pods keep their owners, whose UIDs it looks up.

--yes refuses to do anything while Calico's agents may give out addresses: lock Calico first (its ClusterInformation's
datastoreReady must be false; calicoctl datastore migrate lock). --force goes without that, for a cluster on which
Calico does not run any more. It also refuses when something that decides about traffic would be lost, such as a policy
with a field that is not known, or the tunnels of a pool; the plan marks it with "!". --accept-loss goes on without it.`,
		Example: `  tortie migrate calico --store kubernetes
  tortie migrate calico --store kubernetes --yes
  tortie migrate calico -f export.yaml -o yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if m.output != "table" && m.output != "json" && m.output != "yaml" {
				return usage("there is no output format %q; the formats are table, json and yaml", m.output)
			}
			return env.migrateCalico(cmd.Context(), m)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&m.files, "filename", "f", nil, "read what kubectl has exported, instead of a cluster: files, or folders of them")
	f.StringVar(&m.kubeconfig, "kubeconfig", "", "cluster that Calico is in (default: the store's, or what kubectl would use)")
	f.StringVarP(&m.output, "output", "o", "table", "table, json or yaml; the latter with the objects as they are written")
	f.BoolVar(&m.yes, "yes", false, "do it")
	f.BoolVar(&m.force, "force", false, "with --yes: though Calico is not locked")
	f.BoolVar(&m.acceptLoss, "accept-loss", false, "with --yes: though what the plan marks with ! is lost")
	f.BoolVar(&m.overwrite, "overwrite", false, "replace objects that are here and differ")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, noFiles))
	return cmd
}

func (env *Env) migrateCalico(ctx context.Context, m migration) error {
	from, err := env.calicoSource(ctx, m)
	if err != nil {
		return err
	}
	return env.withStore(ctx, func(s datastore.Store) error {
		p, err := calico.Make(ctx, from, s, calico.Options{Kubernetes: env.OneByOne != nil && env.OneByOne(), Overwrite: m.overwrite})
		if err != nil {
			return err
		}
		if !m.yes {
			return env.printPlan(p, m.output)
		}
		err = p.Do(ctx, from, s, calico.Consent{Unlocked: m.force, Loss: m.acceptLoss}, func(step calico.Step) { fmt.Fprintf(env.Out, "%s %sd\n", step.To, step.Action) })
		if errors.Is(err, calico.ErrConflict) {
			_ = env.printPlan(p, m.output)
		}
		if errors.Is(err, calico.ErrLoss) {
			err = fmt.Errorf("%w. Without --yes you are told why; --accept-loss goes on without them", err)
		}
		if errors.Is(err, calico.ErrUnlocked) && !p.Locked {
			err = fmt.Errorf("%w: kubectl patch clusterinformations.crd.projectcalico.org default --type merge -p '{\"spec\":{\"datastoreReady\":false}}' locks it (--force goes without)", err)
		}
		if err == nil {
			fmt.Fprintln(env.Out, summary(p))
		}
		return err
	})
}

func (env *Env) calicoSource(ctx context.Context, m migration) (calico.Source, error) {
	if len(m.files) == 0 {
		if env.Calico == nil {
			return nil, usage("there is no Kubernetes in this build: say -f")
		}
		return env.Calico(ctx, m.kubeconfig)
	}
	paths, err := listFiles(m.files)
	if err != nil {
		return nil, err
	}
	files := &calico.Files{}
	for _, path := range paths {
		data, err := env.readFile(path)
		if err != nil {
			return nil, err
		}
		if err := files.Add(data); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if files.Empty() {
		return nil, usage("there is nothing of %s in %s", calico.GroupVersion, strings.Join(m.files, ", "))
	}
	return files, nil
}

func (env *Env) printPlan(p *calico.Plan, output string) error {
	switch output {
	case "json":
		return writeJSON(env.Out, p)
	case "yaml":
		return writeYAML(env.Out, p)
	}
	w := tabwriter.NewWriter(env.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "ACTION\tOF CALICO\tHERE\tWHY")
	for _, s := range p.Steps {
		from, to := "-", "-"
		if s.From != "" {
			from = s.Kind + "/" + s.From
		}
		if s.To != nil {
			to = s.To.String()
		}
		why := append([]string{}, s.Why...)
		if len(why) == 0 {
			why = []string{""}
		}
		action := string(s.Action)
		if s.Loss {
			action += " !"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", action, from, to, why[0])
		for _, more := range why[1:] {
			fmt.Fprintf(w, "\t\t\t%s\n", more)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "\n%s\n", summary(p))
	if !p.Locked {
		fmt.Fprintln(env.Out, "Calico is not locked: it may still give out addresses, and --yes refuses")
	}
	if n := len(p.Losses()); n > 0 {
		fmt.Fprintf(env.Out, "%d marked with ! decide about traffic, which would not be treated as it was: --yes refuses without --accept-loss\n", n)
	}
	if n := p.Count(calico.Conflict); n > 0 {
		fmt.Fprintln(env.Out, "conflicts have to be resolved before anything is written")
	}
	return nil
}

func summary(p *calico.Plan) string {
	return fmt.Sprintf("%d to create, %d to update, %d unchanged, %d kept as they are here, %d stay behind, %d conflicts", p.Count(calico.Create),
		p.Count(calico.Update), p.Count(calico.Same), p.Count(calico.Keep), p.Count(calico.Skip), p.Count(calico.Conflict))
}
