package cni

import (
	"context"
	"io"
	"os"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/faultpoint"
)

// Versions of the CNI specification that the plugin speaks.
var Versions = version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")

// agent is what the plugin asks.
type agent interface {
	Attach(ctx context.Context, r agentapi.AttachRequest, netns *os.File) (agentapi.AttachResponse, error)
	Detach(ctx context.Context, r agentapi.DetachRequest) error
	Check(ctx context.Context, r agentapi.CheckRequest, netns *os.File) error
	List(ctx context.Context, r agentapi.ListRequest) (agentapi.ListResponse, error)
	Status(ctx context.Context, r agentapi.StatusRequest) (agentapi.Status, error)
}

// Plugin is one run of the plugin.
type Plugin struct {
	out  io.Writer // for results
	dial func(socket string) agent
	exec invoke.Exec // runs IPAM plugins; nil = the library's way
}

// New returns a Plugin that asks real agents and writes results to out.
func New(out io.Writer) *Plugin {
	return &Plugin{out: out, dial: func(socket string) agent { return agentapi.NewClient(socket) }}
}

// Main does what the environment and the standard input say; about is printed if they say nothing. It returns what the
// program exits with.
func Main(about string) int {
	faultpoint.Setup()
	p := New(os.Stdout)
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}, Versions, about)
	if err == nil {
		return 0
	}
	_ = err.Print() // with a broken standard output nobody reads why it is broken
	return 1
}

// attachment is the identity of what a verb is about.
type attachment struct {
	sandbox, iface, netns string
}

func attachmentOf(args *skel.CmdArgs) attachment {
	return attachment{sandbox: args.ContainerID, iface: args.IfName, netns: args.Netns}
}

// openNetns opens the workload's network namespace.
func openNetns(path string) (*os.File, error) {
	f, err := netnsFile(path)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "CNI_NETNS is not the network namespace of a container", err.Error())
	}
	return f, nil
}
