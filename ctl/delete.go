package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func deleteCommand(env *Env) *cobra.Command {
	var files []string
	var namespace string
	var ignoreMissing, dryRun bool
	cmd := &cobra.Command{
		Use:               "delete KIND NAME... | delete -f FILE",
		Short:             "Delete objects by name, or those that a file holds",
		Example:           "  tortie delete networkpolicy allow-web -n shop\n  tortie delete -f examples/demo/",
		ValidArgsFunction: env.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := env.keysToDelete(files, namespace, args)
			if err != nil {
				return err
			}
			return env.withStore(cmd.Context(), func(s datastore.Store) error {
				var errs []error
				for _, k := range keys {
					err := deleteOne(cmd.Context(), s, k, dryRun)
					switch {
					case errors.Is(err, datastore.ErrNotFound) && ignoreMissing:
					case err != nil:
						errs = append(errs, err)
					default:
						fmt.Fprintf(env.Out, "%s deleted%s\n", k, map[bool]string{true: " (dry run)"}[dryRun])
					}
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or folder whose objects to delete; - reads standard input")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace")
	cmd.Flags().BoolVar(&ignoreMissing, "ignore-not-found", false, "a missing object is no error")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check, and say what would happen")
	return cmd
}

func deleteOne(ctx context.Context, s datastore.Store, k api.Key, dryRun bool) error {
	if info, ok := api.KindByName(k.Kind); ok {
		o := info.New()
		o.SetName(k.Name)
		o.SetNamespace(k.Namespace)
		if err := named(o, api.ValidateDelete(o)); err != nil {
			return err
		}
	}
	if dryRun {
		_, err := s.Get(ctx, k)
		return err
	}
	return s.Delete(ctx, k, "")
}

func (env *Env) keysToDelete(files []string, namespace string, args []string) ([]api.Key, error) {
	if len(files) > 0 {
		if len(args) > 0 {
			return nil, usage("give either -f or a kind and names")
		}
		objects, err := env.readFiles(files, namespace)
		keys := make([]api.Key, 0, len(objects))
		for _, o := range objects {
			keys = append([]api.Key{api.KeyOf(o)}, keys...) // what came last goes first
		}
		return keys, err
	}
	if len(args) < 2 {
		return nil, usage("say what to delete: tortie delete KIND NAME, or tortie delete -f FILE")
	}
	k, err := kindOf(args[0])
	if err != nil {
		return nil, err
	}
	if !k.Namespaced {
		namespace = ""
	}
	var keys []api.Key
	for _, name := range args[1:] {
		keys = append(keys, api.Key{Kind: k.Kind, Namespace: namespace, Name: name})
	}
	return keys, nil
}
