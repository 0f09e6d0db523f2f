package socket

import (
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// checkPeer says what the process at the other end of c may do: root's and the agent's own user's everything, one of group,
// if that isn't 0, look. Root of a container with users of its own is none: the kernel gives its id as the agent sees it.
func checkPeer(c *net.UnixConn, group uint32) (rights, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return mayLook, fmt.Errorf("asking who you are: %w", err)
	}
	var cred *unix.Ucred
	var groups []uint32
	var credErr error
	err = raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil && group != 0 {
			groups, credErr = peerGroups(int(fd))
		}
	})
	if err == nil {
		err = credErr
	}
	switch {
	case err != nil:
		return mayLook, fmt.Errorf("asking who you are: %w", err)
	case cred.Uid == 0 || int(cred.Uid) == os.Geteuid():
		return mayChange, nil
	case group != 0 && (cred.Gid == group || slices.Contains(groups, group)):
		return mayLook, nil
	}
	return mayLook, fmt.Errorf("user %d may not ask this agent: be root, or a member of its socketGroup", cred.Uid)
}
