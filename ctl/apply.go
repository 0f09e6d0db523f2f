package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func applyCommand(env *Env) *cobra.Command {
	var files []string
	var namespace string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE|FOLDER|-",
		Short: "Create or update objects from YAML or JSON",
		Long: `Create or update objects from YAML or JSON files, folders of them, or standard input (-).

Everything is read and checked before anything is written: a mistake in one object, such as an unknown field, changes
nothing. Each object's spec, labels and annotations become what the file says.`,
		Example: `  tortie apply -f examples/demo/
  cat policy.yaml | tortie apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usage("say what to apply: tortie apply -f FILE")
			}
			objects, err := env.readFiles(files, namespace)
			if err != nil {
				return err
			}
			env.warn(objects...)
			return env.withStore(cmd.Context(), func(s datastore.Store) error {
				return env.apply(cmd.Context(), s, objects, dryRun)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or folder; - reads standard input (may be given several times)")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of objects that name none")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check, and say what would happen")
	return cmd
}

// apply writes objects one after the other and says what it did with each. It goes on after an error.
func (env *Env) apply(ctx context.Context, s datastore.Store, objects []api.Object, dryRun bool) error {
	var errs []error
	for _, o := range objects {
		did, err := applyOne(ctx, s, o, dryRun)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if dryRun {
			did += " (dry run)"
		}
		fmt.Fprintf(env.Out, "%s %s\n", api.KeyOf(o), did)
	}
	return errors.Join(errs...)
}

// applyOne creates or updates o, and retries when somebody else writes it at the same time, unless o itself says which
// version it is based on.
func applyOne(ctx context.Context, s datastore.Store, o api.Object, dryRun bool) (did string, err error) {
	based := o.GetResourceVersion() != ""
	for range tries {
		old, err := s.Get(ctx, api.KeyOf(o))
		switch {
		case errors.Is(err, datastore.ErrNotFound) && based:
			return "", fmt.Errorf("%w (the file is based on version %s of it; leave out metadata.resourceVersion to create it)", err, o.GetResourceVersion())
		case errors.Is(err, datastore.ErrNotFound):
			if dryRun {
				return "created", nil
			}
			_, err = s.Create(ctx, o)
			if errors.Is(err, datastore.ErrExists) {
				continue
			}
			return "created", err
		case errors.Is(err, datastore.ErrUnreadable) && !dryRun:
			_, err = s.Update(ctx, o)
			return "replaced (what was there could not be read)", err
		case err != nil:
			return "", err
		}
		if dryRun {
			return "configured", named(o, api.ValidateUpdate(old, o))
		}
		if !based {
			o.SetResourceVersion(old.GetResourceVersion())
		}
		changed, err := replaceStored(ctx, s, old, o)
		switch {
		case errors.Is(err, datastore.ErrConflict) && !based, errors.Is(err, datastore.ErrNotFound) && !based:
			o.SetResourceVersion("")
			continue
		case errors.Is(err, datastore.ErrConflict):
			return "", fmt.Errorf("%w (the file is based on version %s; it is at %s now)", err, o.GetResourceVersion(), old.GetResourceVersion())
		case err != nil:
			return "", err
		case !changed:
			return "unchanged", nil
		}
		return "configured", nil
	}
	return "", fmt.Errorf("%s: %w, %d times in a row", api.KeyOf(o), datastore.ErrConflict, tries)
}
