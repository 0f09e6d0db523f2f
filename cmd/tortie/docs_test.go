//go:build linux && !noembed

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tortie/tortie/ctl"
)

var update = flag.Bool("update", false, "write docs/commands.md anew")

// TestCommandsAreDocumented compares docs/commands.md with what the commands say of themselves.
func TestCommandsAreDocumented(t *testing.T) {
	t.Setenv("TORTIE_STORE", "")
	t.Setenv("TORTIE_SOCKET", "")
	root := rootCommand()
	var b bytes.Buffer
	b.WriteString(`# Commands

This page is made from what the commands say of themselves: ` + "`go test ./cmd/tortie -update`" + ` writes it.

` + "`tortie COMMAND --help`" + ` shows the same; ` + "`tortie completion SHELL`" + ` prints what makes the shell complete commands, kinds, and the
names of objects that are there (` + "`tortie completion bash --help`" + ` says where to put it).

## Exit codes

`)
	for _, c := range []struct {
		code int
		what string
	}{
		{ctl.ExitOK, "it is done; what was asked for is so"},
		{ctl.ExitError, "something went wrong; the message says what, and what to do next where that is known"},
		{ctl.ExitUsage, "the call itself is wrong"},
		{ctl.ExitMissing, "what was asked for is not there"},
		{ctl.ExitDenied, "`explain`: the packet is denied"},
		{ctl.ExitDiffers, "`diff`, `policy preview --exit-code`, `ipam check`: there is a difference"},
	} {
		fmt.Fprintf(&b, "- `%d`: %s\n", c.code, c.what)
	}
	b.WriteString("\n## Flags of all commands\n\n")
	writeFlags(&b, root.PersistentFlags())
	b.WriteString("\n")
	writeCommands(&b, root)

	path := filepath.Join("..", "..", "docs", "commands.md")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b.String(), string(have)); d != "" {
		t.Errorf("docs/commands.md is not what the commands say (go test ./cmd/tortie -update writes it anew):\n%s", d)
	}
}

// writeCommands writes a section for each command that does something, in the order of the help.
func writeCommands(b *bytes.Buffer, c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" && sub.Name() != "completion" {
			writeCommand(b, sub)
			writeCommands(b, sub)
		}
	}
}

func writeCommand(b *bytes.Buffer, c *cobra.Command) {
	fmt.Fprintf(b, "## %s\n\n", c.CommandPath())
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	fmt.Fprintf(b, "%s\n\n", strings.TrimSpace(literal(long)))
	if c.HasSubCommands() {
		return
	}
	fmt.Fprintf(b, "```\n%s %s\n```\n\n", c.Parent().CommandPath(), c.Use)
	if c.Example != "" {
		fmt.Fprintf(b, "For example:\n\n```\n%s\n```\n\n", unindent(c.Example))
	}
	if c.LocalNonPersistentFlags().HasAvailableFlags() {
		writeFlags(b, c.LocalNonPersistentFlags())
		b.WriteString("\n")
	}
}

// indented are lines of a text that stand for themselves.
var indented = regexp.MustCompile(`(?m)(?:^  +\S.*\n?)+`)

// literal makes indented lines a block of their own.
func literal(text string) string {
	return indented.ReplaceAllStringFunc(text, func(block string) string {
		return "```\n" + unindent(strings.TrimRight(block, "\n")) + "\n```\n"
	})
}

func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

func writeFlags(b *bytes.Buffer, flags *pflag.FlagSet) {
	b.WriteString("| flag | what it says | default |\n|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		value := ""
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" && f.DefValue != "0" {
			value = "`" + f.DefValue + "`"
		}
		if host, err := os.Hostname(); err == nil && f.DefValue == host {
			value = "the host's name"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, strings.ReplaceAll(f.Usage, "|", `\|`), value)
	})
}
