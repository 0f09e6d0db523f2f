package ctl

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func editCommand(env *Env) *cobra.Command {
	var namespace, editor string
	cmd := &cobra.Command{
		Use:   "edit KIND NAME",
		Short: "Change an object in an editor",
		Long: `Change an object in an editor: that of --editor, or of the environment (VISUAL, EDITOR), or vi.

What you write is checked before it is stored. A mistake opens the editor again, with what is wrong as comments at the top
and your text as you left it; so does a change that somebody else made in the meantime. Leaving the editor without a change
ends it; your text then stays in a file, which is named.`,
		Example:           "  tortie edit networkpolicy web -n shop",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: env.completeOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyFrom(args[0], args[1], namespace)
			if err != nil {
				return err
			}
			return env.withStore(cmd.Context(), func(s datastore.Store) error {
				e := &editing{env: env, store: s, key: key, editor: cmp.Or(editor, env.Editor, "vi")}
				return e.run(cmd.Context())
			})
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the object")
	cmd.Flags().StringVar(&editor, "editor", "", "command that edits the file it is given")
	return cmd
}

// editing is one object in an editor.
type editing struct {
	env    *Env
	store  datastore.Store
	key    api.Key
	editor string
	path   string     // of the file
	base   api.Object // what the text is an edit of
}

const editHead = `Change what you like, save, and leave the editor. Lines that begin with # don't count.
Leave without saving a change, and nothing happens.
`

func (e *editing) run(ctx context.Context) error {
	var err error
	if e.base, err = e.store.Get(ctx, e.key); err != nil {
		return err
	}
	was, err := bareYAML(e.base)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "tortie-edit-*.yaml") // mode 0600
	if err != nil {
		return fmt.Errorf("making a file to edit: %w", err)
	}
	e.path = f.Name()
	if err := f.Close(); err != nil {
		return fmt.Errorf("making a file to edit: %w", err)
	}
	head, text := editHead, was
	for first := true; ; first = false {
		shown := comment(head) + text
		if err := os.WriteFile(e.path, []byte(shown), 0o600); err != nil {
			return fmt.Errorf("writing the file to edit: %w", err)
		}
		if err := e.open(ctx); err != nil {
			return e.kept(err)
		}
		data, err := os.ReadFile(e.path)
		if err != nil {
			return fmt.Errorf("reading what was edited: %w", err)
		}
		text = stripComments(string(data))
		switch {
		case first && text == was:
			fmt.Fprintf(e.env.Out, "%s unchanged\n", e.key)
			return os.Remove(e.path)
		case string(data) == shown:
			return e.kept(errors.New(strings.TrimSpace(head)))
		}
		if head = e.write(ctx, []byte(text)); head == "" {
			return os.Remove(e.path)
		}
	}
}

// kept is an error that says where the text is.
func (e *editing) kept(err error) error {
	return fmt.Errorf("%w\n%s is as it was; your text is in %s (tortie apply -f takes it)", err, e.key, e.path)
}

// open lets the person edit. The command may have arguments.
func (e *editing) open(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", e.editor+` "$1"`, "sh", e.path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.env.In, e.env.Out, e.env.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running the editor %q: %w", e.editor, err)
	}
	return nil
}

// write stores an edited text. It returns what keeps it from that, for the person to see; "" = it is done.
func (e *editing) write(ctx context.Context, text []byte) (trouble string) {
	objects, err := api.Decode(text)
	if err == nil && len(objects) != 1 {
		err = fmt.Errorf("there are %d objects; there has to be one, %s", len(objects), e.key)
	}
	if err == nil && api.KeyOf(objects[0]) != e.key {
		err = fmt.Errorf("it is called %s now: the name of %s can't be changed", api.KeyOf(objects[0]), e.key)
	}
	if err == nil {
		err = prepare(objects[0], e.key.Namespace)
	}
	if err != nil {
		return "This was not stored:\n" + err.Error() + "\n"
	}
	o := objects[0]
	o.SetResourceVersion(e.base.GetResourceVersion())
	changed, err := replaceStored(ctx, e.store, e.base, o)
	switch {
	case errors.Is(err, datastore.ErrConflict):
		return e.conflict(ctx)
	case errors.Is(err, datastore.ErrNotFound):
		return "This was not stored: somebody has deleted the object in the meantime. Leave without a change, and\ntortie create -f makes it again from the file that will be named.\n"
	case err != nil:
		return "This was not stored:\n" + err.Error() + "\n"
	}
	e.env.warn(o)
	fmt.Fprintf(e.env.Out, "%s %s\n", e.key, map[bool]string{true: "edited", false: "unchanged"}[changed])
	return ""
}

// conflict takes what is stored now as the new base, and shows how it differs from the old one.
func (e *editing) conflict(ctx context.Context) string {
	now, err := e.store.Get(ctx, e.key)
	if err != nil {
		return "This was not stored: somebody else has changed the object, and reading it again went wrong:\n" + err.Error() + "\n"
	}
	theirs := "(nothing that you can edit)\n"
	a, err1 := bareYAML(e.base)
	b, err2 := bareYAML(now)
	if d := unified("when-you-began", "now", a, b); err1 == nil && err2 == nil && d != "" {
		theirs = d
	}
	e.base = now
	return "This was not stored: somebody else has changed the object in the meantime. Your text below is without that change.\n" +
		"Take over from it what you want, and save; to store your text as it is, delete this line and save.\n\n" + theirs
}

// stripComments takes the comments at the top away.
func stripComments(text string) string {
	rest := []byte(text)
	for len(rest) > 0 && rest[0] == '#' {
		_, after, _ := bytes.Cut(rest, []byte("\n"))
		rest = after
	}
	return string(rest)
}
