// Command tortie is the agent of a node, the store, and the command line of both.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/ctl"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/faultpoint"
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run()) }

func run() int {
	faultpoint.Setup()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	err := root.ExecuteContext(ctx)
	if _, _, unknown := root.Find(os.Args[1:]); unknown != nil {
		err = usage(fmt.Errorf("%w; tortie --help lists them", unknown))
	}
	if err != nil && err.Error() != "" {
		fmt.Fprintf(os.Stderr, "tortie: %v\n", err)
	}
	return ctl.ExitCode(err)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tortie",
		Short: "Network and network policy for containers, virtual machines and hosts",
		Long: `Tortie gives containers, virtual machines and hosts an address, a route and a network policy. It reads the policy API
projectcalico.org/v3.

One binary holds the agent of a node (tortie agent), the store (tortie store), and the commands that people use.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	conn := storeFlags{endpoints: []string{"unix:///run/tortie/store.sock"}}
	if s := os.Getenv("TORTIE_STORE"); s != "" {
		conn.endpoints = []string{s}
	}
	socket := agentapi.DefaultSocket
	if s := os.Getenv("TORTIE_SOCKET"); s != "" {
		socket = s
	}
	conn.register(root.PersistentFlags())
	root.PersistentFlags().StringVar(&socket, "socket", socket, "the agent's socket (environment: TORTIE_SOCKET)")
	env := &ctl.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Color:  isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "",
		Editor: cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR")),
		Store:  conn.open, OneByOne: conn.oneByOne, Calico: conn.calico,
		Socket: func() string { return socket },
	}
	root.AddGroup(&cobra.Group{ID: "daemons", Title: "Daemons:"}, &cobra.Group{ID: "use", Title: "Commands:"})
	for _, c := range ctl.Commands(env) {
		c.GroupID = "use"
		root.AddCommand(c)
	}
	for _, c := range append(storeCommands(), agentCommand(), controllersCommand(), joinCommand(), cleanCommand()) {
		c.GroupID = "daemons"
		root.AddCommand(c)
	}
	root.AddCommand(versionCommand())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	countArgs(root)
	return root
}

func usage(err error) error { return &ctl.ExitCoder{Code: ctl.ExitUsage, Err: err} }

// countArgs gives the exit code for wrong usage to commands that are called with too many or too few arguments.
func countArgs(c *cobra.Command) {
	for _, sub := range c.Commands() {
		countArgs(sub)
	}
	if count := c.Args; count != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := count(cmd, args); err != nil {
				return usage(fmt.Errorf("%w; %s --help says more", err, cmd.CommandPath()))
			}
			return nil
		}
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, and which drivers and parts this binary has",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "tortie %s %s/%s", buildVersion(), runtime.GOOS, runtime.GOARCH)
			fmt.Fprintf(out, " %s\ndrivers:", runtime.Version())
			for _, d := range driverTable {
				fmt.Fprintf(out, " %s", d.Name)
			}
			fmt.Fprintf(out, "\nembedded store: %v\n", hasStore)
		},
	}
}

// buildVersion is what the linker was told, or what the go command knows of a build by `go install`.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); version == "unknown" && ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return version
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
