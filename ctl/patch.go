package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func patchCommand(env *Env) *cobra.Command {
	var namespace, kind, text, file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "patch KIND NAME -p PATCH",
		Short: "Change fields of an object",
		Long: `Change fields of an object. The patch is JSON or YAML, of one of two types:

  merge   (RFC 7386) the fields to change, as they stand in the object; null takes a field away, a list replaces a list
  json    (RFC 6902) a list of operations: add, remove, replace, move, copy, test

The result is checked like any object before it is written. Somebody else's change at the same moment is kept.`,
		Example: `  tortie patch tier security -p '{"spec": {"order": 50}}'
  tortie patch networkpolicy web -n shop --type json -p '[{"op": "remove", "path": "/spec/egress/0"}]'`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: env.completeOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (text == "") == (file == "") {
				return usage("give the patch, either by -p or by --patch-file")
			}
			data := []byte(text)
			if file != "" {
				var err error
				if data, err = env.readFile(file); err != nil {
					return err
				}
			}
			change, err := parsePatch(kind, data)
			if err != nil {
				return err
			}
			key, err := keyFrom(args[0], args[1], namespace)
			if err != nil {
				return err
			}
			return env.modifyAndSay(cmd, key, "patched", dryRun, func(o api.Object) (api.Object, error) { return applyPatch(o, change) })
		},
	}
	f := cmd.Flags()
	f.StringVarP(&namespace, "namespace", "n", "default", "namespace of the object")
	f.StringVar(&kind, "type", "merge", "merge or json")
	f.StringVarP(&text, "patch", "p", "", "the patch")
	f.StringVar(&file, "patch-file", "", "file that holds the patch; - reads standard input")
	f.BoolVar(&dryRun, "dry-run", false, "check, and say what would happen")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"merge", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// errUnwritten ends a dry run.
var errUnwritten = errors.New("dry run")

// modifyAndSay changes one object and says so.
func (env *Env) modifyAndSay(cmd *cobra.Command, key api.Key, done string, dryRun bool, fn func(api.Object) (api.Object, error)) error {
	return env.withStore(cmd.Context(), func(s datastore.Store) error {
		if dryRun {
			s = unwriting{s}
			done += " (dry run)"
		}
		var warn api.Object
		changed, err := modify(cmd.Context(), s, key, func(o api.Object) (out api.Object, err error) {
			out, err = fn(o)
			warn = out
			return out, err
		})
		switch {
		case errors.Is(err, errUnwritten):
		case err != nil:
			return err
		case !changed:
			done = "unchanged"
		}
		env.warn(warn)
		fmt.Fprintf(env.Out, "%s %s\n", key, done)
		return nil
	})
}

// unwriting is a store in which nothing changes.
type unwriting struct{ datastore.Store }

func (unwriting) Update(context.Context, api.Object) (api.Object, error) { return nil, errUnwritten }

// parsePatch returns what a patch does to JSON.
func parsePatch(kind string, data []byte) (func([]byte) ([]byte, error), error) {
	data, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, usage("the patch is neither JSON nor YAML: %w", err)
	}
	isList := strings.HasPrefix(string(data), "[")
	switch kind {
	case "merge":
		if !strings.HasPrefix(string(data), "{") {
			return nil, usage("a merge patch is an object with the fields to change%s", map[bool]string{true: "; a list of operations is --type json"}[isList])
		}
		return func(doc []byte) ([]byte, error) { return jsonpatch.MergePatch(doc, data) }, nil
	case "json":
		if !isList {
			return nil, usage(`a json patch is a list of operations, such as [{"op": "remove", "path": "/spec/order"}]; an object with fields to change is --type merge`)
		}
		p, err := jsonpatch.DecodePatch(data)
		if err != nil {
			return nil, usage("the patch is no list of operations: %w", err)
		}
		return p.Apply, nil
	case "strategic":
		return nil, usage("these kinds have no strategic merge: lists are replaced as a whole (--type merge) or changed item by item (--type json)")
	}
	return nil, usage("there is no patch type %q; the types are merge and json", kind)
}

func applyPatch(o api.Object, change func([]byte) ([]byte, error)) (api.Object, error) {
	doc, err := api.Encode(o)
	if err != nil {
		return nil, err
	}
	patched, err := change(doc)
	if err != nil {
		return nil, fmt.Errorf("patching %s: %w (tortie get %s -o json shows what it is now)", api.KeyOf(o), err, getArgs(api.KeyOf(o)))
	}
	out, err := api.Decode(patched)
	if err != nil {
		return nil, fmt.Errorf("what the patch makes of it is wrong: %w", err)
	}
	if len(out) != 1 {
		return nil, usage("the patch makes %d objects out of %s", len(out), api.KeyOf(o))
	}
	return out[0], nil
}

// getArgs is how a person asks for an object.
func getArgs(k api.Key) string {
	s := strings.ToLower(k.Kind) + " " + k.Name
	if k.Namespace != "" {
		s += " -n " + k.Namespace
	}
	return s
}

func labelCommand(env *Env) *cobra.Command {
	var namespace string
	var overwrite, dryRun bool
	cmd := &cobra.Command{
		Use:               "label KIND NAME KEY=VALUE... KEY-...",
		Short:             "Set and take away labels of an object",
		Long:              `Set labels of an object (KEY=VALUE), and take some away (KEY-). A label that has another value is left alone without --overwrite.`,
		Example:           "  tortie label workloadendpoint web-1 -n shop role=web\n  tortie label node n1 rack=7 zone- --overwrite",
		Args:              cobra.MinimumNArgs(3),
		ValidArgsFunction: env.completeOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyFrom(args[0], args[1], namespace)
			if err != nil {
				return err
			}
			set, drop, err := parseLabels(args[2:])
			if err != nil {
				return err
			}
			return env.modifyAndSay(cmd, key, "labeled", dryRun, func(o api.Object) (api.Object, error) {
				return o, relabel(o, set, drop, overwrite)
			})
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the object")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "change labels that have another value")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check, and say what would happen")
	return cmd
}

func parseLabels(args []string) (set map[string]string, drop []string, err error) {
	set = map[string]string{}
	for _, a := range args {
		k, v, isSet := strings.Cut(a, "=")
		dropped, isDrop := strings.CutSuffix(a, "-")
		switch {
		case isSet && k != "":
			if old, twice := set[k]; twice && old != v {
				return nil, nil, usage("label %s is given twice", k)
			}
			set[k] = v
		case !isSet && isDrop && dropped != "":
			drop = append(drop, dropped)
		default:
			return nil, nil, usage("%q is no label: write KEY=VALUE to set one, KEY- to take one away", a)
		}
	}
	for _, k := range drop {
		if _, both := set[k]; both {
			return nil, nil, usage("label %s is to be set and to be taken away", k)
		}
	}
	return set, drop, nil
}

func relabel(o api.Object, set map[string]string, drop []string, overwrite bool) error {
	labels := o.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	for k, v := range set {
		if old, there := labels[k]; there && old != v && !overwrite {
			return usage("%s has %s=%s already (--overwrite changes it)", api.KeyOf(o), k, old)
		}
		labels[k] = v
	}
	for _, k := range drop {
		delete(labels, k)
	}
	o.SetLabels(labels)
	return nil
}
