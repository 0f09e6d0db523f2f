package ctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
)

func validateCommand(env *Env) *cobra.Command {
	var files []string
	var namespace string
	var strict bool
	cmd := &cobra.Command{
		Use:   "validate -f FILE|FOLDER|-",
		Short: "Check files without a store",
		Long: `Check YAML or JSON files without asking anybody: each mistake is named with its file, object and field. Fields that are
right but have no effect are named as warnings.

The exit code is 0 if all is well, 1 if there is a mistake.`,
		Example: "  tortie validate -f examples/demo/\n  tortie validate --strict -f policies/   # in continuous integration",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if len(files) == 0 {
				return usage("say which file: tortie validate -f FILE")
			}
			objects, err := env.readFiles(files, namespace)
			if err != nil {
				return err
			}
			if err := onceEach(objects); err != nil {
				return err
			}
			env.warn(objects...)
			for _, o := range objects {
				if strict && len(api.Warnings(o)) > 0 {
					return &ExitCoder{Code: ExitError, Err: errors.New("there are warnings, and --strict was asked for")}
				}
			}
			fmt.Fprintf(env.Out, "%s valid\n", count(len(objects), "object"))
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "file or folder; - reads standard input (may be given several times)")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of objects that name none")
	cmd.Flags().BoolVar(&strict, "strict", false, "warnings are mistakes")
	return cmd
}

// onceEach says which objects are there twice: of two that have a name, the last would win.
func onceEach(objects []api.Object) error {
	seen := map[api.Key]int{}
	var errs []error
	for _, o := range objects {
		k := api.KeyOf(o)
		if seen[k]++; seen[k] == 2 {
			errs = append(errs, fmt.Errorf("%s: is there more than once", k))
		}
	}
	return errors.Join(errs...)
}

// count gives "1 object" and "2 objects".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%s %ss", thousands(n), what)
}

// thousands gives a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
