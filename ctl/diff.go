package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func diffCommand(env *Env) *cobra.Command {
	var files []string
	var namespace string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|FOLDER|-",
		Short: "Show what applying files would change",
		Long: `Show how the objects of YAML or JSON files differ from those in the store, after defaulting: what "tortie apply" would
change. What the packets would feel of it is another question, which "tortie policy preview" answers.

The exit code is 0 if nothing differs, 5 if something does, and another one after an error.`,
		Example: "  tortie diff -f examples/demo/",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usage("say which file: tortie diff -f FILE")
			}
			objects, err := env.readFiles(files, namespace)
			if err != nil {
				return err
			}
			differ := false
			err = env.withStore(cmd.Context(), func(s datastore.Store) error {
				var errs []error
				for _, o := range objects {
					text, err := diffOne(cmd.Context(), s, o)
					errs = append(errs, err)
					differ = differ || text != ""
					fmt.Fprint(env.Out, env.paint(text))
				}
				return errors.Join(errs...)
			})
			if err == nil && differ {
				return &ExitCoder{Code: ExitDiffers}
			}
			return err
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or folder; - reads standard input (may be given several times)")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of objects that name none")
	return cmd
}

// diffOne compares one object with the stored one; "" = no difference.
func diffOne(ctx context.Context, s datastore.Store, o api.Object) (string, error) {
	old, err := s.Get(ctx, api.KeyOf(o))
	was := ""
	switch {
	case errors.Is(err, datastore.ErrNotFound):
	case err != nil:
		return "", err
	default:
		if was, err = bareYAML(old); err != nil {
			return "", err
		}
	}
	is, err := bareYAML(o)
	if err != nil {
		return "", err
	}
	name := api.KeyOf(o).String()
	return unified("stored/"+name, "file/"+name, was, is), nil
}

// unified compares two texts line by line; "" = they are the same.
func unified(fromName, toName, from, to string) string {
	d, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: lines(from), B: lines(to), FromFile: fromName, ToFile: toName, Context: 4,
	})
	if err != nil { // only writing can go wrong, and it writes to memory
		panic(err)
	}
	return d
}

func lines(text string) []string {
	return slices.Collect(strings.Lines(text))
}

// paint gives a unified diff its colours.
func (env *Env) paint(diff string) string {
	if !env.Color {
		return diff
	}
	lines := strings.SplitAfter(diff, "\n")
	for i, l := range lines {
		text, end := strings.CutSuffix(l, "\n")
		switch {
		case strings.HasPrefix(l, "@@"):
			text = env.color("36", text)
		case strings.HasPrefix(l, "+"):
			text = env.green(text)
		case strings.HasPrefix(l, "-"):
			text = env.red(text)
		}
		lines[i] = text
		if end {
			lines[i] += "\n"
		}
	}
	return strings.Join(lines, "")
}
