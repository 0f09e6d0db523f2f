package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/store/join"
)

// nodeFiles is where a node keeps what it shows to the store: its agent renews that.
const nodeFiles = "/var/lib/tortie/pki"

// clientFile is in the folder of an administrator: it says how the command line reaches the store.
const clientFile = "client.yaml"

// adminDir is the folder of this person, if there is one.
func adminDir() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "tortie")
}

type joinOptions struct {
	name, dir, config string
	replace, renew    bool
}

func joinCommand() *cobra.Command {
	var o joinOptions
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Join this host to a store on another one",
		Long: `Join this host to the store on another one, with a token that was made there (tortie store token).

The host makes a key, which never leaves it. It checks that the store is the one that the token is of, and gets a
certificate for its own name. Then the agent's settings (` + defaultConfigFile + `) name the store, and tortie agent just starts; it
renews the certificate in time. What else is in the settings stays.

With a token for an administrator it sets up this command line for you instead, in ` + "~/.config/tortie" + `.

Running it again is safe: a host that has joined stays as it is. The name is the host's own unless --name says another; one
that another host has joined with is refused without --replace. Use - instead of the token to have it read from the input.`,
		Example: `  tortie join tortie1.bkWq...
  tortie join tortie1.bkWq... --name n2
  tortie join --renew`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.renew != (len(args) == 0) {
				return usage(errors.New("want a token, or --renew; tortie store token on the store's host makes one"))
			}
			if o.renew {
				return o.runRenew(cmd.Context(), cmd.OutOrStdout())
			}
			text := args[0]
			if text == "-" {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
				if err != nil {
					return fmt.Errorf("reading the token: %w", err)
				}
				text = string(b)
			}
			t, err := join.Parse(text)
			if err != nil {
				return usage(err)
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), t)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of this node (default the one in the settings, or the host's), or of this administrator")
	f.BoolVar(&o.replace, "replace", false, "take the place of another host that has joined with this name: its certificate counts no more")
	f.StringVar(&o.config, "config", defaultConfigFile, "the agent's file of settings")
	f.StringVar(&o.dir, "dir", "", "folder of key and certificate (default "+nodeFiles+"; ~/.config/tortie of an administrator)")
	f.BoolVar(&o.renew, "renew", false, "get another certificate for the one that is there, now")
	return cmd
}

// place fills in what was not said.
func (o *joinOptions) place(role string) (err error) {
	if o.dir != "" {
		if o.dir, err = filepath.Abs(o.dir); err != nil {
			return err
		}
	}
	if role == join.RoleAdmin {
		if o.dir = cmp.Or(o.dir, adminDir()); o.dir == "" {
			return errors.New("you have no home directory: say --dir")
		}
		if o.name == "" {
			o.name = adminName()
		}
		return nil
	}
	o.dir = cmp.Or(o.dir, nodeFiles)
	if o.name != "" {
		return nil
	}
	c, err := config.Load(o.config)
	if errors.Is(err, os.ErrNotExist) {
		c, err = config.Default(), nil
	}
	if err != nil {
		return err
	}
	if o.name = c.NodeName; o.name == "" {
		return errors.New("this host has no name: say --name")
	}
	return nil
}

// adminName is user@host, as far as that is a name.
func adminName() string {
	who, host := "admin", "host"
	if u, err := user.Current(); err == nil && u.Username != "" {
		who = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return strings.ToLower(who + "@" + host)
}

func (o joinOptions) run(ctx context.Context, out io.Writer, t join.Token) error {
	if err := o.place(t.Role); err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	files := join.FilesIn(o.dir, t.Role)
	if g, addr, ok := joined(ctx, files, t, o.name); ok {
		fmt.Fprintf(out, "%s %s has joined already; its certificate is good until %s. The token was not needed\n", g.Role, g.Name, g.Expires.Local())
		return o.settle(out, files, t.Role, addr)
	}
	key, err := files.MakeKey()
	if err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	g, addr, err := t.Ask(ctx, o.name, key, o.replace)
	if err != nil {
		return fmt.Errorf("joining as %s %s: %w", t.Role, o.name, err)
	}
	if err := files.Store(g); err != nil {
		return fmt.Errorf("joining (run it again with the same token): %w", err)
	}
	fmt.Fprintf(out, "joined as %s %s; the certificate is good until %s\n", g.Role, g.Name, g.Expires.Local())
	return o.settle(out, files, t.Role, addr)
}

// joined says whether the store accepts what is on this host already.
func joined(ctx context.Context, files join.Files, t join.Token, name string) (join.Grant, string, bool) {
	if !files.Trusts(t.CA) {
		return join.Grant{}, "", false
	}
	for _, addr := range t.Addrs {
		if g, err := files.Hello(ctx, addr); err == nil && g.Name == name && g.Role == t.Role {
			return g, addr, true
		}
	}
	return join.Grant{}, "", false
}

// settle writes the settings.
func (o joinOptions) settle(out io.Writer, files join.Files, role, addr string) error {
	endpoint := "https://" + addr
	if role == join.RoleAdmin {
		path := filepath.Join(o.dir, clientFile)
		if err := join.WriteFile(path, []byte(files.StoreBlock(endpoint)), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s names the store: tortie get nodes\n", path)
		return nil
	}
	changed, err := writeSettings(o.config, o.name, files, endpoint)
	if err != nil {
		return fmt.Errorf("writing the agent's settings (the certificate is in %s): %w", o.dir, err)
	}
	if changed {
		fmt.Fprintf(out, "%s names the store. Start the agent, or restart it if it runs: systemctl enable tortie && systemctl restart tortie\n", o.config)
	}
	return nil
}

// writeSettings puts the node's name and the store into the agent's file, and leaves the rest.
func writeSettings(path, name string, files join.Files, endpoint string) (changed bool, err error) {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	text := join.SetBlock(string(old), "nodeName", "nodeName: "+name+"\n")
	text = join.SetBlock(text, "store", files.StoreBlock(endpoint))
	c, err := config.Parse([]byte(text))
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if c.NodeName != name || len(c.Store.Endpoints) != 1 || c.Store.Endpoints[0] != endpoint || c.Store.KeyFile != files.Key {
		return false, fmt.Errorf("%s is not written in lines of key: value; put these there:\nnodeName: %s\n%s", path, name, files.StoreBlock(endpoint))
	}
	if text == string(old) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return true, join.WriteFile(path, []byte(text), mode)
}

func (o joinOptions) runRenew(ctx context.Context, out io.Writer) error {
	c, err := config.Load(o.config)
	if o.dir != "" {
		c, err = config.Load(filepath.Join(o.dir, clientFile))
	}
	if err != nil {
		return err
	}
	files, addr, ok := storeFiles(c.Store)
	if !ok {
		return errors.New("these settings name no certificate that a store has issued: join first (tortie join TOKEN)")
	}
	g, err := files.Renew(ctx, addr)
	if err != nil {
		return fmt.Errorf("renewing the certificate: %w", err)
	}
	fmt.Fprintf(out, "certificate of %s %s renewed: good until %s\n", g.Role, g.Name, g.Expires.Local())
	return nil
}

// storeFiles are the files that settings name, and the address of the store, if its own authority has issued them.
func storeFiles(s config.Store) (files join.Files, addr string, ok bool) {
	files = join.Files{Key: s.KeyFile, Cert: s.CertFile, CA: s.CAFile}
	if len(s.Endpoints) == 0 || s.CertFile == "" || !files.Ours() {
		return files, "", false
	}
	u, err := url.Parse(s.Endpoints[0])
	return files, u.Host, err == nil && u.Scheme == "https"
}

// keepCertificate renews the certificate that an agent shows to the store, until stop is called. The connection takes it
// up by itself. There is nothing to do for certificates of other authorities.
func keepCertificate(ctx context.Context, s config.Store, log *slog.Logger) (stop func()) {
	files, addr, ok := storeFiles(s)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		files.Keep(ctx, addr, log)
	}()
	return func() {
		cancel()
		<-done
	}
}
