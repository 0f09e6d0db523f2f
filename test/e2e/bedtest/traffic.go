//go:build linux

package bedtest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tortie/tortie/internal/netns"
)

// Conn is a connection out of a network namespace to a server that says its name.
type Conn struct {
	net.Conn
	r *bufio.Reader
}

// Dial makes a connection.
func Dial(from *netns.Ns, to netip.AddrPort) (*Conn, error) { return dial(from, to, answer) }

func dial(from *netns.Ns, to netip.AddrPort, within time.Duration) (*Conn, error) {
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), within)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Conn{c, bufio.NewReader(c)}, nil
}

// Ask has the server say its name.
func (c *Conn) Ask() error { return c.AskWithin(answer) }

// AskWithin is Ask with more patience.
func (c *Conn) AskWithin(within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("GET /hostname HTTP/1.1\r\nHost: server\r\n\r\n")); err != nil {
		return err
	}
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("the server says %s", r.Status)
	}
	_, err = bufio.NewReader(r.Body).ReadString(0)
	if err != nil && err.Error() != "EOF" {
		return err
	}
	return nil
}

// Try makes a connection and asks once.
func Try(from *netns.Ns, to netip.AddrPort) error { return TryWithin(from, to, answer) }

// TryWithin is Try with more patience: what is lost on the way is sent again.
func TryWithin(from *netns.Ns, to netip.AddrPort, within time.Duration) error {
	c, err := dial(from, to, within)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.AskWithin(within)
}

// Allowed waits until a connection comes through.
func (c *Cluster) Allowed(from *netns.Ns, to netip.AddrPort) {
	c.Helper()
	var err error
	if !Eventually(30*time.Second, func() bool { err = Try(from, to); return err == nil }) {
		c.Fatalf("to %s: %v, want an answer", to, err)
	}
}

// Denied waits until no connection comes through.
func (c *Cluster) Denied(from *netns.Ns, to netip.AddrPort) {
	c.Helper()
	var err error
	if !Eventually(30*time.Second, func() bool { err = Try(from, to); return Dropped(err) }) {
		c.Fatalf("to %s: %v, want that it is dropped", to, err)
	}
}

// Dropped says that an attempt ended since nothing came back.
func Dropped(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// Eventually asks until the answer is yes.
func Eventually(within time.Duration, yes func() bool) bool {
	for end := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		if yes() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// Only is a NetworkPolicy: pods of a label take connections only from those of another.
func (c *Cluster) Only(name string, of, from map[string]string) {
	c.Helper()
	c.Apply(map[string]any{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": map[string]any{"name": name, "namespace": c.NS},
		"spec": map[string]any{
			"podSelector": map[string]any{"matchLabels": of},
			"ingress":     []any{map[string]any{"from": []any{map[string]any{"podSelector": map[string]any{"matchLabels": from}}}}},
		},
	})
}
