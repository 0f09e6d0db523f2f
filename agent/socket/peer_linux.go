package socket

import (
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// checkPeer says why the process at the other end of c may not ask: it must be root's, the agent's own user's, or of
// group, if that isn't 0.
func checkPeer(c *net.UnixConn, group uint32) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("asking who you are: %w", err)
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
	if err != nil {
		return fmt.Errorf("asking who you are: %w", err)
	}
	if cred.Uid == 0 || int(cred.Uid) == os.Geteuid() || group != 0 && (cred.Gid == group || slices.Contains(groups, group)) {
		return nil
	}
	return fmt.Errorf("user %d may not ask this agent: be root, or a member of its socketGroup", cred.Uid)
}
