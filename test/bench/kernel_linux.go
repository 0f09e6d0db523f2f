package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/lab"
)

// countRules is how many rules of nftables the namespace of a host has: in a lab they are ours.
func countRules(h *lab.Host) (int, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: h.Namespace().FD()})
	if err != nil {
		return 0, fmt.Errorf("counting rules: %w", err)
	}
	defer c.Close()
	if err := c.SetReadBuffer(8 << 20); err != nil {
		return 0, fmt.Errorf("counting rules: %w", err)
	}
	got, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, 0, 0, 0}, // struct nfgenmsg: every family
	})
	if err != nil {
		return 0, fmt.Errorf("counting rules: %w", err)
	}
	return len(got), nil
}

// memory is what a process has resident, now and at most so far, in MB.
func memory(pid int) (now, peak float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	if now, err = statusField(string(b), "VmRSS"); err != nil {
		return 0, 0, err
	}
	peak, err = statusField(string(b), "VmHWM")
	return now, peak, err
}

// statusField reads a field of /proc/PID/status that is in kB, as MB.
func statusField(status, name string) (float64, error) {
	for line := range strings.Lines(status) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == name+":" && f[2] == "kB" {
			v, err := strconv.ParseFloat(f[1], 64)
			return v * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no %s in the status of a process", name)
}

// inside runs a command in a namespace, and returns what it prints.
func inside(ns *netns.Ns, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%v: %w: %s", cmd, err, bytes.TrimSpace(out.Bytes()))
	}
	return out.String(), nil
}
