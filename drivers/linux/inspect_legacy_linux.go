package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
)

// xtables is how one family's iptables-legacy table is read: by socket options, whose layouts linux/netfilter_ipv4/
// ip_tables.h and its sibling of IPv6 fix for ever. (A program to ask may not be there, and asking by it would load the
// table; reading /proc first does not.)
type xtables struct {
	command, family, names string
	domain, level          int
	ifaces                 int // offset in an entry of the names of its interfaces
	target                 int // offset of target_offset and next_offset
}

var legacyTables = []xtables{
	{"iptables-legacy", "ip", "ip_tables_names", unix.AF_INET, unix.SOL_IP, 16, 88},
	{"ip6tables-legacy", "ip6", "ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6, 64, 140},
}

const (
	xtGetInfo    = 64 // IPT_SO_GET_INFO and IP6T_SO_GET_INFO
	xtGetEntries = 65
	xtNameLen    = 32
	xtHooks      = 5
	xtInfoLen    = xtNameLen + 4 + 4*xtHooks + 4*xtHooks + 4 + 4
	xtHeader     = xtNameLen + 8 // of struct ipt_get_entries: name, size, padding
	xtDrop       = -unixDrop - 1
	xtAccept     = -unixAccept - 1
	unixDrop     = 0
	unixAccept   = 1
)

// legacyChains is foreignChains for iptables-legacy, which nf_tables does not show.
func legacyChains(prefixes []string) ([]drivers.ForeignProblem, error) {
	var problems []drivers.ForeignProblem
	for _, x := range legacyTables {
		names, err := os.ReadFile("/proc/thread-self/net/" + x.names)
		if errors.Is(err, os.ErrNotExist) || err == nil && !slices.Contains(strings.Fields(string(names)), "filter") {
			continue
		}
		if err != nil {
			return nil, err
		}
		t, err := x.read("filter")
		if err != nil {
			return nil, fmt.Errorf("reading %s's table filter: %w", x.command, err)
		}
		for hook, h := range map[int]string{unix.NF_INET_FORWARD: "forward", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_LOCAL_OUT: "output"} {
			if t.policy(hook) == xtDrop && !t.lets(hook, h != "output", h != "input", prefixes) {
				problems = append(problems, problemAt(x.family, "filter", strings.ToUpper(h), h, "policy DROP", x.command, prefixes))
			}
		}
	}
	slices.SortFunc(problems, func(a, b drivers.ForeignProblem) int { return strings.Compare(a.Where, b.Where) })
	return problems, nil
}

// xtTable is a table as the kernel gives it.
type xtTable struct {
	xtables
	start, end [xtHooks]uint32 // of each hook's chain: its first entry, and the one of its policy
	entries    []byte
}

func (x xtables) read(table string) (*xtTable, error) {
	fd, err := unix.Socket(x.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	info := make([]byte, xtInfoLen)
	copy(info, table)
	if err := getsockopt(fd, x.level, xtGetInfo, info); err != nil {
		return nil, err
	}
	t := &xtTable{xtables: x}
	for h := range xtHooks {
		t.start[h] = binary.NativeEndian.Uint32(info[xtNameLen+4+4*h:])
		t.end[h] = binary.NativeEndian.Uint32(info[xtNameLen+4+4*xtHooks+4*h:])
	}
	size := binary.NativeEndian.Uint32(info[xtInfoLen-4:])
	b := make([]byte, xtHeader+int(size))
	copy(b, table)
	binary.NativeEndian.PutUint32(b[xtNameLen:], size)
	if err := getsockopt(fd, x.level, xtGetEntries, b); err != nil {
		return nil, err
	}
	t.entries = b[xtHeader:]
	return t, nil
}

func getsockopt(fd, level, opt int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// verdict is the verdict of the entry at an offset, if its target is a standard one, and the offset of the next entry.
func (t *xtTable) verdict(at uint32) (verdict int32, standard bool, next uint32) {
	if int(at)+t.target+4 > len(t.entries) {
		return 0, false, 0
	}
	e := t.entries[at:]
	target, size := binary.NativeEndian.Uint16(e[t.target:]), binary.NativeEndian.Uint16(e[t.target+2:])
	if int(target)+36 > len(e) || size == 0 {
		return 0, false, 0
	}
	standard = e[target+2] == 0 // the name of the standard target is empty
	return int32(binary.NativeEndian.Uint32(e[target+32:])), standard, at + uint32(size)
}

func (t *xtTable) policy(hook int) int32 {
	v, standard, _ := t.verdict(t.end[hook])
	if !standard {
		return 0
	}
	return v
}

// lets reports whether entries of a hook's chain accept what comes from, and what goes to, interfaces of workloads.
func (t *xtTable) lets(hook int, in, out bool, prefixes []string) bool {
	for at := t.start[hook]; at < t.end[hook]; {
		v, standard, next := t.verdict(at)
		if next <= at {
			break
		}
		e := t.entries[at:]
		iif, oif := ifText(e[t.ifaces:]), ifText(e[t.ifaces+16:])
		for _, p := range prefixes {
			if standard && v == xtAccept {
				in = in && !(iif == p && oif == "")
				out = out && !(oif == p && iif == "")
			}
		}
		at = next
	}
	return !in && !out
}

// ifText is the name in an entry, without the + of a beginning of names, which is kept there.
func ifText(b []byte) string {
	return strings.TrimSuffix(strings.TrimRight(string(b[:16]), "\x00"), "+")
}
