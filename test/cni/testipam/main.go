// Command testipam is an IPAM plugin for tests: it knows CNI 1.1, writes down what it is asked, and fails when it is told to.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// ipamConf is the configuration: a directory with a file for each address, named like it and holding whose it is, beside
// "log". A file "fail" there makes the next ADD fail after it has allocated; "full" is a STATUS.
type ipamConf struct {
	types.NetConf
	IPAM struct {
		Dir    string `json:"dir"`
		Subnet string `json:"subnet"` // "10.65.0.", of which it takes addresses from 10 on
		V6     string `json:"v6"`     // "fd65::"
	} `json:"ipam"`
}

func main() { os.Exit(run()) }

func run() int {
	verb := func(fn func(c *ipamConf, args *skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error {
			c := &ipamConf{}
			if err := json.Unmarshal(args.StdinData, c); err != nil {
				return err
			}
			if err := c.log(os.Getenv("CNI_COMMAND"), args); err != nil {
				return err
			}
			return fn(c, args)
		}
	}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: verb(ipamAdd), Del: verb(ipamDel), Check: verb(ipamCheck), GC: verb(ipamGC),
		Status: verb(ipamStatus)}, version.All, "testipam")
	if err == nil {
		return 0
	}
	_ = err.Print()
	return 1
}

func owner(args *skel.CmdArgs) string { return args.ContainerID + " " + args.IfName }

// log writes a line: the verb, and the workload interfaces that there are.
func (c *ipamConf) log(command string, args *skel.CmdArgs) error {
	ifaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	line := command + " " + owner(args)
	for _, i := range ifaces {
		if strings.HasPrefix(i.Name, "tort") {
			line += " " + i.Name
		}
	}
	f, err := os.OpenFile(filepath.Join(c.IPAM.Dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, line)
	return err
}

// held returns the addresses of an owner.
func (c *ipamConf) held(who func(string) bool) ([]string, error) {
	es, err := os.ReadDir(c.IPAM.Dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range es {
		b, err := os.ReadFile(filepath.Join(c.IPAM.Dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if net.ParseIP(e.Name()) != nil && who(string(b)) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

func ipamAdd(c *ipamConf, args *skel.CmdArgs) error {
	has, err := c.held(func(s string) bool { return s == owner(args) })
	if err != nil {
		return err
	}
	if len(has) > 0 {
		return fmt.Errorf("%v is held already", has)
	}
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion, DNS: types.DNS{Nameservers: []string{"192.0.2.53"}}}
	for _, net1 := range []struct{ prefix, mask string }{{c.IPAM.Subnet, "/24"}, {c.IPAM.V6, "/64"}} {
		for n := 10; net1.prefix != ""; n++ {
			addr := net1.prefix + strconv.Itoa(n)
			f, err := os.OpenFile(filepath.Join(c.IPAM.Dir, addr), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if os.IsExist(err) {
				continue
			}
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.WriteString(owner(args)); err != nil {
				return err
			}
			ipn, err := types.ParseCIDR(addr + net1.mask)
			if err != nil {
				return err
			}
			res.IPs = append(res.IPs, &current.IPConfig{Address: *ipn})
			break
		}
	}
	if _, err := os.Stat(filepath.Join(c.IPAM.Dir, "fail")); err == nil {
		return types.NewError(123, "told to fail", "")
	}
	return types.PrintResult(res, c.CNIVersion)
}

func (c *ipamConf) drop(who func(string) bool) error {
	has, err := c.held(who)
	for _, a := range has {
		if err == nil {
			err = os.Remove(filepath.Join(c.IPAM.Dir, a))
		}
	}
	return err
}

func ipamDel(c *ipamConf, args *skel.CmdArgs) error {
	return c.drop(func(s string) bool { return s == owner(args) })
}

func ipamCheck(c *ipamConf, args *skel.CmdArgs) error {
	has, err := c.held(func(s string) bool { return s == owner(args) })
	if err == nil && len(has) == 0 {
		err = fmt.Errorf("%s holds no address", owner(args))
	}
	return err
}

func ipamGC(c *ipamConf, _ *skel.CmdArgs) error {
	valid := map[string]bool{}
	for _, a := range c.ValidAttachments {
		valid[a.ContainerID+" "+a.IfName] = true
	}
	return c.drop(func(s string) bool { return !valid[s] })
}

func ipamStatus(c *ipamConf, _ *skel.CmdArgs) error {
	if _, err := os.Stat(filepath.Join(c.IPAM.Dir, "full")); err == nil {
		return types.NewError(50, "no address is left", "")
	}
	return nil
}
