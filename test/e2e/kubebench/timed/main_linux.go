// Command timed stands in front of a CNI plugin: NAME starts NAME.real with what it was given, and says on a socket how
// long that took, what it was asked and what it answered. test/e2e/kubebench puts it there.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tortie/tortie/test/e2e/kubebench/timing"
)

func main() { os.Exit(run()) }

func run() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "timed:", err)
		return 1
	}
	var out bytes.Buffer
	cmd := exec.Command(self + timing.Real)
	cmd.Stdin, cmd.Stderr, cmd.Stdout = os.Stdin, os.Stderr, io.MultiWriter(os.Stdout, &out)
	c := timing.Call{Plugin: filepath.Base(self), Command: os.Getenv("CNI_COMMAND"), Sandbox: os.Getenv("CNI_CONTAINERID"),
		Interface: os.Getenv("CNI_IFNAME"), Netns: os.Getenv("CNI_NETNS"), Args: os.Getenv("CNI_ARGS")}
	c.Begin = timing.Now()
	err = cmd.Run()
	c.End = timing.Now()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		c.Code = exit.ExitCode()
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "timed:", err)
		return 1
	}
	if json.Valid(out.Bytes()) {
		c.Out = out.Bytes()
	}
	// what is lost is missed by who measures: a plugin must not fail for it
	_ = c.Tell(filepath.Join(filepath.Dir(self), timing.Socket))
	return c.Code
}
