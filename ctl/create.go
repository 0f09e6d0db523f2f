package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func createCommand(env *Env) *cobra.Command {
	return fileCommand(env, fileVerb{
		done: "created", one: createOne,
		use: "create -f FILE|FOLDER|-", short: "Create objects that are not there yet",
		long: `Create the objects of YAML or JSON files. One that is there already is an error, and stays as it is; "tortie apply"
creates what is missing and updates the rest.

Everything is read and checked before anything is written.`,
		example: "  tortie create -f policy.yaml",
	})
}

func replaceCommand(env *Env) *cobra.Command {
	return fileCommand(env, fileVerb{
		done: "replaced", one: replaceOne,
		use: "replace -f FILE|FOLDER|-", short: "Replace objects that are there",
		long: `Replace the objects of YAML or JSON files. One that is not there is an error.

A file that has a metadata.resourceVersion, as "tortie get -o yaml" gives it, replaces only that version: if somebody else
has changed the object since, nothing happens to it. Without one, the last to write wins.`,
		example: "  tortie get networkpolicy web -n shop -o yaml > web.yaml\n  vi web.yaml\n  tortie replace -f web.yaml",
	})
}

// fileVerb is a verb that writes each object of some files.
type fileVerb struct {
	use, short, long, example string
	done                      string // past tense
	one                       func(ctx context.Context, s datastore.Store, o api.Object, dryRun bool) error
}

func fileCommand(env *Env, v fileVerb) *cobra.Command {
	var files []string
	var namespace string
	var dryRun bool
	cmd := &cobra.Command{
		Use: v.use, Short: v.short, Long: v.long, Example: v.example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usage("say which file: %s -f FILE", cmd.CommandPath())
			}
			objects, err := env.readFiles(files, namespace)
			if err != nil {
				return err
			}
			env.warn(objects...)
			done := v.done
			if dryRun {
				done += " (dry run)"
			}
			return env.withStore(cmd.Context(), func(s datastore.Store) error {
				var errs []error
				for _, o := range objects {
					if err := v.one(cmd.Context(), s, o, dryRun); err != nil {
						errs = append(errs, err)
						continue
					}
					fmt.Fprintf(env.Out, "%s %s\n", api.KeyOf(o), done)
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or folder; - reads standard input (may be given several times)")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of objects that name none")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check, and say what would happen")
	return cmd
}

func createOne(ctx context.Context, s datastore.Store, o api.Object, dryRun bool) error {
	o.SetResourceVersion("")
	var err error
	if dryRun {
		if _, err = s.Get(ctx, api.KeyOf(o)); err == nil {
			err = fmt.Errorf("%s: %w", api.KeyOf(o), datastore.ErrExists)
		} else if errors.Is(err, datastore.ErrNotFound) {
			err = nil
		}
	} else {
		_, err = s.Create(ctx, o)
	}
	if errors.Is(err, datastore.ErrExists) {
		return fmt.Errorf("%w (tortie apply or tortie replace changes it)", err)
	}
	return err
}

func replaceOne(ctx context.Context, s datastore.Store, o api.Object, dryRun bool) error {
	based := o.GetResourceVersion() != ""
	for range tries {
		old, err := s.Get(ctx, api.KeyOf(o))
		switch {
		case errors.Is(err, datastore.ErrNotFound):
			return fmt.Errorf("%w (tortie create makes it)", err)
		case errors.Is(err, datastore.ErrUnreadable) && !dryRun:
			_, err = s.Update(ctx, o)
			return err
		case err != nil:
			return err
		}
		if based && o.GetResourceVersion() != old.GetResourceVersion() {
			return fmt.Errorf("%s: %w: it is at version %s now, the file is based on %s (get it again, or leave out metadata.resourceVersion to overwrite it)",
				api.KeyOf(o), datastore.ErrConflict, old.GetResourceVersion(), o.GetResourceVersion())
		}
		if dryRun {
			return named(o, api.ValidateUpdate(old, o))
		}
		o.SetResourceVersion(old.GetResourceVersion())
		if _, err = replaceStored(ctx, s, old, o); based || !errors.Is(err, datastore.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("%s: %w, %d times in a row", api.KeyOf(o), datastore.ErrConflict, tries)
}
