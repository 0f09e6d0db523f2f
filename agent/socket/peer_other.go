//go:build !linux

package socket

import "net"

// checkPeer leaves it to the rights of the socket's file: this system doesn't say who is at the other end.
func checkPeer(*net.UnixConn, uint32) (rights, error) { return mayChange, nil }
