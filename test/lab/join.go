//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tortie/tortie/store/join"
)

// storePort is where a store on a host of its own listens.
const storePort = "2379"

// addStoreHost makes the host that the store is on.
func (l *Lab) addStoreHost() error {
	if err := l.buildFabric(); err != nil {
		return err
	}
	h, err := l.newHost("store", netip.MustParseAddr("172.31.99.1"), netip.MustParseAddr("fd31::99:1"))
	if err != nil {
		return err
	}
	l.storeHost = h
	return l.plug(h)
}

// StoreAddr is where the store listens on the fabric, in a lab that is joined.
func (l *Lab) StoreAddr() string { return net.JoinHostPort(l.storeHost.Addr(4).String(), storePort) }

// Token makes a join token; args are flags of `tortie store token`.
func (l *Lab) Token(ctx context.Context, args ...string) (string, error) {
	out, err := l.Tortie(ctx, nil, append([]string{"store", "token"}, args...)...)
	return strings.TrimSpace(out), err
}

// Run runs the command line on a host, as who has it for a home. It knows no store.
func (l *Lab) Run(ctx context.Context, h *Host, home string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.Binary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := h.ns.Do(cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("tortie %s on %s: %w: %s", args[0], h.Name, err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// Join lets the node join the store, with a token of its own.
func (n *Node) Join(ctx context.Context, flags ...string) (string, error) {
	token, err := n.lab.Token(ctx)
	if err != nil {
		return "", err
	}
	return n.JoinWith(ctx, token, flags...)
}

// JoinWith lets the node join with a token. What is in its agent's settings stays.
func (n *Node) JoinWith(ctx context.Context, token string, flags ...string) (string, error) {
	if _, err := os.Stat(n.settings()); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(n.settings(), []byte(n.config()), 0o600); err != nil {
			return "", err
		}
	}
	args := append([]string{"join", token, "--name", n.NodeName(), "--config", n.settings(), "--dir", filepath.Dir(n.Files().Key)}, flags...)
	return n.lab.Run(ctx, n.Host, n.dir(), args...)
}

// Files are what the node shows to the store.
func (n *Node) Files() join.Files { return join.FilesIn(filepath.Join(n.dir(), "pki"), join.RoleNode) }
