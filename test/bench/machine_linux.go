package bench

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ThisMachine describes the machine; what it can't find out stays empty. root is the folder of the sources.
func ThisMachine(root string) Machine {
	m := Machine{CPUs: runtime.NumCPU(), CPU: "unknown CPU", Commit: "unknown", Kernel: "unknown"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = cpuName(string(b))
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(b), " ")
		m.Load, _ = strconv.ParseFloat(first, 64)
	}
	git := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=7")
	git.Dir = root
	if out, err := git.Output(); err == nil {
		m.Commit = string(bytes.TrimSpace(out))
	}
	return m
}

// cpuName is the model's name, or, where that is of no use, the maker with the numbers of family and model.
func cpuName(cpuinfo string) string {
	found := map[string]string{}
	for line := range strings.Lines(cpuinfo) {
		k, v, ok := strings.Cut(line, ":")
		if k = strings.TrimSpace(k); ok && found[k] == "" {
			found[k] = strings.TrimSpace(v)
		}
	}
	if name := found["model name"]; len(name) > 3 {
		return name
	}
	return strings.TrimSpace(found["vendor_id"] + " family " + found["cpu family"] + " model " + found["model"])
}
