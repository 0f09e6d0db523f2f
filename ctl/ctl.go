// Package ctl is the verbs of the tortie command line that people use. They speak with the store, with the agent's
// socket, or (-f with explain and validate) with nothing but files.
//
//	ctl.go       Env, and what the verbs share; write.go: what those that write share
//	apply.go     apply -f; create.go: create -f and replace -f
//	patch.go     patch and label
//	edit.go      edit
//	get.go       get; tables.go has the columns of each kind, watch.go is get -w
//	delete.go    delete
//	diff.go      diff -f: what apply would change
//	validate.go  validate -f, offline
//	status.go    status, of the agent on this node
//	explain.go   explain: what happens to a packet, and why; world.go computes the State of every node for it, uplink.go finds
//	             the interfaces
//	preview.go   policy preview: what a change of policy would allow and deny
//	connect.go   connectivity: who may talk to whom; connect_text.go and connect_svg.go draw it
//	ipam.go      ipam show, check, release, configure
//	attach.go    attach and detach: plug a workload's network namespace in by hand
//	migrate.go   migrate calico; package calico has what it does
//	complete.go  completion in the shell, with live names
//
// preview and connectivity ask about every pair of ends, which would be too much if each were asked about by itself:
//
//	ends.go ----- workloads, nodes, and addresses that stand for what is outside
//	probes.go --- kinds of packets: ports between the limits that policies draw
//	prints.go --- which ends no policy and no route tells apart
//	mentions.go - which kinds of packets the policies of an end speak of
//	reach.go ---- one pair of each kind goes through drivers.Path, with each kind of packet, in one world or two;
//	              causes.go: what decides, where the two differ
//	groups.go --- names for sets of ends; rectangles out of pairs. partition.go: groups of ends with the same links
//	scope.go ---- the flags that narrow the question; staged.go: a world in which staged policies are enforced
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/ctl/calico"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/agentapi"
)

// Exit codes, for scripts.
const (
	ExitOK      = 0
	ExitError   = 1 // something went wrong; the message says what
	ExitUsage   = 2 // the call itself is wrong
	ExitMissing = 3 // what was asked for is not there
	ExitDenied  = 4 // explain: the packet is denied
	ExitDiffers = 5 // diff, policy preview --exit-code, ipam check: there is a difference
)

// Env is what the verbs need of the world.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Color    bool   // Out is a terminal that shows colours
	Editor   string // command that edits the file it is given, if the user names none; "" = vi

	Store func(ctx context.Context) (datastore.Store, error) // connects to the store that the flags name
	// OneByOne says whether that store can't write several resources as one; nil = it can.
	OneByOne func() bool
	// Calico reads what Calico has stored in the cluster of a kubeconfig file; "" = the store's, or what kubectl would use.
	// nil = this build can't.
	Calico func(ctx context.Context, kubeconfig string) (calico.Source, error)
	Socket func() string // path of the agent's socket
}

// ExitCoder is an error that knows its exit code. An empty message prints nothing.
type ExitCoder struct {
	Code int
	Err  error
}

func (e *ExitCoder) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

func (e *ExitCoder) Unwrap() error { return e.Err }

// ExitCode returns the code that a command ending with err should exit with.
func ExitCode(err error) int {
	var ec *ExitCoder
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &ec):
		return ec.Code
	case errors.Is(err, datastore.ErrNotFound):
		return ExitMissing
	}
	return ExitError
}

func usage(format string, args ...any) error {
	return &ExitCoder{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Commands returns the verbs.
func Commands(env *Env) []*cobra.Command {
	cmds := []*cobra.Command{
		getCommand(env), applyCommand(env), createCommand(env), replaceCommand(env), patchCommand(env), labelCommand(env),
		editCommand(env), deleteCommand(env), diffCommand(env), validateCommand(env),
		explainCommand(env), policyCommand(env), connectivityCommand(env), ipamCommand(env),
		statusCommand(env), attachCommand(env), detachCommand(env), migrateCommand(env),
	}
	for _, c := range cmds {
		env.completeFlags(c)
	}
	return cmds
}

// withStore runs fn with a connected store.
func (env *Env) withStore(ctx context.Context, fn func(datastore.Store) error) error {
	s, err := env.Store(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(fn(s), s.Close())
	if errors.Is(err, datastore.ErrUnavailable) {
		err = fmt.Errorf("%w\nis the store running? (tortie store; --store or TORTIE_STORE says where it listens)", err)
	}
	return err
}

// agent returns a client of the agent on this node.
func (env *Env) agent() *agentapi.Client { return agentapi.NewClient(env.Socket()) }

// readFiles decodes the objects of all paths ("-" is standard input, a folder means its *.yaml, *.yml and *.json files),
// defaults and validates them. All problems are returned together.
func (env *Env) readFiles(paths []string, namespace string) ([]api.Object, error) {
	files, err := listFiles(paths)
	if err != nil {
		return nil, err
	}
	var objects []api.Object
	var errs []error
	for _, f := range files {
		data, err := env.readFile(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		os, err := api.Decode(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		}
		for _, o := range os {
			if err := prepare(o, namespace); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f, err))
			}
			objects = append(objects, o)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		return nil, usage("no objects in %s", strings.Join(paths, ", "))
	}
	return objects, nil
}

func (env *Env) readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(env.In)
	}
	return os.ReadFile(path)
}

// listFiles replaces folders by the files in them, in the order of their names.
func listFiles(paths []string) ([]string, error) {
	var files []string
	for _, p := range paths {
		if p == "-" {
			files = append(files, p)
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, p)
			continue
		}
		entries, err := os.ReadDir(p)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
				files = append(files, filepath.Join(p, e.Name()))
			}
		}
	}
	return files, nil
}

// prepare gives o its namespace and defaults, and validates it. Each violation names the object and the field.
func prepare(o api.Object, namespace string) error {
	if k, ok := api.KindByName(o.GetKind()); ok && k.Namespaced && o.GetNamespace() == "" {
		o.SetNamespace(namespace)
	}
	api.Default(o)
	return named(o, api.Validate(o))
}

// kindOf finds a kind by any of its names.
func kindOf(name string) (api.KindInfo, error) {
	k, ok := api.KindByName(name)
	if ok {
		return k, nil
	}
	names, all := kindNames(), []string{}
	for _, k := range api.Kinds() {
		all = append(append(all, k.Plural, k.Singular), k.Short...)
	}
	if near := nearest(name, all); near != "" {
		return k, usage("there is no kind %q; did you mean %s? The kinds are %s", name, near, strings.Join(names, ", "))
	}
	return k, usage("there is no kind %q; the kinds are %s", name, strings.Join(names, ", "))
}

// kindNames returns the plurals of all kinds, sorted.
func kindNames() []string {
	var names []string
	for _, k := range api.Kinds() {
		names = append(names, strings.ToLower(k.Plural))
	}
	sort.Strings(names)
	return names
}
