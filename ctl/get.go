package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func getCommand(env *Env) *cobra.Command {
	var namespace, output string
	var all, watch bool
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...]",
		Short: "Show objects: a table for people, or YAML and JSON for machines",
		Long: `Show objects of a kind: a table for people (-o wide has more columns), or YAML, JSON or names for machines.

KIND is a kind's name in any form: networkpolicies, NetworkPolicy, cnp. "all" is every kind.

With -w it shows what is there and then each change, until you interrupt it: a row, or with -o json a line of JSON with
type (ADDED, MODIFIED, DELETED) and object.`,
		Example:           "  tortie get networkpolicies -A\n  tortie get tier default -o yaml\n  tortie get workloadendpoints -A -w",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: env.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			print, ok := printers[output]
			if !ok {
				return usage("there is no output format %q; the formats are table, wide, yaml, json and name", output)
			}
			if all {
				namespace = ""
			}
			if watch {
				kinds, err := kindsOf(args[0])
				if err != nil {
					return err
				}
				return env.withStore(cmd.Context(), func(s datastore.Store) error {
					return env.watch(cmd.Context(), s, watchRequest{kinds: kinds, namespace: namespace, names: args[1:], output: output})
				})
			}
			return env.withStore(cmd.Context(), func(s datastore.Store) error {
				objects, err := fetch(cmd.Context(), s, args[0], namespace, args[1:])
				if len(objects) == 0 && err == nil && (output == "table" || output == "wide") {
					where := "in namespace " + namespace + " (-A looks in all)"
					if k, _ := api.KindByName(args[0]); all || !k.Namespaced {
						where = "in the store"
					}
					fmt.Fprintf(env.Err, "no %s %s\n", strings.ToLower(args[0]), where)
					return nil
				}
				return errors.Join(print(env.Out, objects), err)
			})
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace")
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "objects of all namespaces")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table, wide, yaml, json or name")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on and show each change")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "yaml", "json", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// kindsOf returns the kind of a name, or all kinds for "all".
func kindsOf(name string) ([]api.KindInfo, error) {
	if strings.EqualFold(name, "all") {
		return api.Kinds(), nil
	}
	k, err := kindOf(name)
	return []api.KindInfo{k}, err
}

// fetch lists the objects of a kind, or gets those of names. Missing names are an error, after the others.
func fetch(ctx context.Context, s datastore.Store, kind, namespace string, names []string) ([]api.Object, error) {
	if strings.EqualFold(kind, "all") {
		if len(names) > 0 {
			return nil, usage("\"all\" takes no names")
		}
		var out []api.Object
		for _, k := range api.Kinds() {
			os, err := s.List(ctx, k.Kind, namespaceFor(k, namespace))
			if err != nil {
				return out, err
			}
			out = append(out, os...)
		}
		return out, nil
	}
	k, err := kindOf(kind)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return s.List(ctx, k.Kind, namespaceFor(k, namespace))
	}
	if k.Namespaced && namespace == "" {
		return nil, usage("a name needs its namespace: give -n instead of -A")
	}
	var out []api.Object
	var errs []error
	for _, name := range names {
		o, err := s.Get(ctx, api.Key{Kind: k.Kind, Namespace: namespaceFor(k, namespace), Name: name})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, o)
	}
	return out, errors.Join(errs...)
}

func namespaceFor(k api.KindInfo, namespace string) string {
	if !k.Namespaced {
		return ""
	}
	return namespace
}

var printers = map[string]func(io.Writer, []api.Object) error{
	"table": func(w io.Writer, os []api.Object) error { return printTable(w, os, false) },
	"wide":  func(w io.Writer, os []api.Object) error { return printTable(w, os, true) },
	"yaml":  printYAML,
	"json":  printJSON,
	"name": func(w io.Writer, os []api.Object) error {
		for _, o := range os {
			fmt.Fprintln(w, api.KeyOf(o))
		}
		return nil
	},
}

func printYAML(w io.Writer, objects []api.Object) error {
	for i, o := range objects {
		b, err := api.EncodeYAML(o)
		if err != nil {
			return fmt.Errorf("encoding %s: %w", api.KeyOf(o), err)
		}
		if i > 0 {
			fmt.Fprintln(w, "---")
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// printJSON gives one object as it is and several as a List.
func printJSON(w io.Writer, objects []api.Object) error {
	items := make([]json.RawMessage, 0, len(objects))
	for _, o := range objects {
		b, err := api.Encode(o)
		if err != nil {
			return fmt.Errorf("encoding %s: %w", api.KeyOf(o), err)
		}
		items = append(items, b)
	}
	var v any = map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
	if len(items) == 1 {
		v = items[0]
	}
	return writeJSON(w, v)
}

// printTable prints a table for each run of objects of one kind.
func printTable(w io.Writer, objects []api.Object, wide bool) error {
	for i := 0; i < len(objects); {
		kind, j := objects[i].GetKind(), i
		for j < len(objects) && objects[j].GetKind() == kind {
			j++
		}
		if i > 0 {
			fmt.Fprintln(w)
		}
		cols := columnsOf(kind, wide)
		tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
		heads := make([]string, len(cols))
		for c, col := range cols {
			heads[c] = col.head
		}
		fmt.Fprintln(tw, strings.Join(heads, "\t"))
		for _, o := range objects[i:j] {
			cells := make([]string, len(cols))
			for c, col := range cols {
				cells[c] = col.cell(o)
			}
			fmt.Fprintln(tw, strings.Join(cells, "\t"))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		i = j
	}
	return nil
}
