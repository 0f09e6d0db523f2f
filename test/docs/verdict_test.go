//go:build linux

package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/netns"
)

// verdict is a line of a block of verdicts.
type verdict struct {
	from, to, proto, port string
	allow                 bool
}

var verdictLine = regexp.MustCompile(`^(\S+) +-> +(\S+) +([a-z0-9]+)(?: +(\S+))? += +(allow|deny)$`)

func parseVerdicts(text string) ([]verdict, error) {
	var vs []verdict
	for _, l := range lines(text) {
		m := verdictLine.FindStringSubmatch(l)
		if m == nil {
			return nil, fmt.Errorf("%q is no verdict: \"SOURCE -> DESTINATION PROTOCOL PORT = allow\"", l)
		}
		vs = append(vs, verdict{m[1], m[2], m[3], m[4], m[5] == "allow"})
	}
	return vs, nil
}

// patience is how long a verdict may take to come true: policy reaches the kernel a little after the command has returned.
const patience = 20 * time.Second

// verdicts checks lines all at once: what `tortie explain` says, and what becomes of packets. It returns how many were
// tried with packets.
func (b *bed) verdicts(t *testing.T, text string) (tried int) {
	t.Helper()
	vs, err := parseVerdicts(text)
	if err != nil {
		t.Error(err)
		return 0
	}
	var wg sync.WaitGroup
	packets := make([]bool, len(vs))
	for i, v := range vs {
		wg.Go(func() {
			var err error
			for deadline := time.Now().Add(patience); ; {
				packets[i], err = b.hold(v)
				if err == nil || time.Now().After(deadline) {
					break
				}
			}
			if err != nil {
				t.Errorf("%s -> %s %s %s: %v", v.from, v.to, v.proto, v.port, err)
			}
		})
	}
	wg.Wait()
	for _, p := range packets {
		if p {
			tried++
		}
	}
	return tried
}

// flow is what `tortie explain -o json` says of a connection.
type flow struct {
	Verdict string
	Flow    struct {
		Src, Dst netip.Addr
		DstPort  uint16
	}
}

// hold checks one verdict: the oracle's, then the kernel's. It says whether packets were sent.
func (b *bed) hold(v verdict) (packets bool, err error) {
	cmd := exec.Command("/usr/local/bin/tortie", "explain", "-o", "json", v.from, v.to, v.proto)
	if v.port != "" {
		cmd.Args = append(cmd.Args, v.port)
	}
	cmd.Dir, cmd.Path = "/", b.tools.bin()+"/tortie"
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	runErr := b.hosts[0].machine.Run(cmd)
	var f flow
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		return false, fmt.Errorf("explain: %w: %s", runErr, &stderr)
	}
	if (f.Verdict == "allow") != v.allow {
		return false, fmt.Errorf("tortie explain says %s:\n%s", f.Verdict, &out)
	}
	from, err := b.find(f.Flow.Src)
	if err != nil {
		return false, err
	}
	defer from.Close()
	to, err := b.find(f.Flow.Dst)
	if err != nil {
		return false, err
	}
	defer to.Close()
	switch {
	case v.proto == "tcp" || v.proto == "udp":
		err = try(v.proto, from, to, f.Flow.Src, netip.AddrPortFrom(f.Flow.Dst, f.Flow.DstPort))
	case v.proto == "icmp" && v.port == "": // a ping
		err = ping(from, f.Flow.Src, f.Flow.Dst)
	default:
		return false, nil
	}
	switch {
	case err != nil && !errors.Is(err, errNothing):
		return true, err
	case v.allow && err != nil:
		return true, errors.New("the network lets nothing through")
	case !v.allow && err == nil:
		return true, errors.New("the network lets it through")
	}
	return true, nil
}

// errNothing says that nothing came back.
var errNothing = errors.New("nothing came back")

// answerTime is how long an answer may take before it counts as none.
const answerTime = 400 * time.Millisecond

// find finds the namespace that has an address: of a machine, of a workload on one, or outside.
func (b *bed) find(a netip.Addr) (*netns.Ns, error) {
	paths := []string{b.outside.Path()}
	for _, h := range b.hosts {
		paths = append(paths, h.ns.Path())
		workloads, err := filepath.Glob(h.machine.Path("/run/netns/*"))
		if err != nil {
			return nil, err
		}
		paths = append(paths, workloads...)
	}
	for _, p := range paths {
		ns, err := netns.Open(p)
		if err != nil {
			continue // it has just gone
		}
		var addrs []net.Addr
		err = ns.Do(func() (err error) { addrs, err = net.InterfaceAddrs(); return err })
		for _, have := range addrs {
			if p, perr := netip.ParsePrefix(have.String()); perr == nil && p.Addr() == a {
				return ns, nil
			}
		}
		ns.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("nobody has the address %v", a)
}

// try sends a word to a server that it starts for that, and wants it back.
func try(proto string, from, to *netns.Ns, src netip.Addr, dst netip.AddrPort) error {
	server, err := echo(proto, to, dst)
	if err != nil {
		return err
	}
	defer server.Close()
	var c net.Conn
	err = from.Do(func() (err error) {
		d := net.Dialer{Timeout: answerTime, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))}
		if proto == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
		}
		c, err = d.Dial(proto, dst.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(answerTime))
	if _, err := c.Write([]byte("meow")); err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	if _, err := c.Read(make([]byte, 4)); err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	return nil
}

type closer interface{ Close() error }

// echo answers at an address until it is closed. If another try has a server there, that one will do.
func echo(proto string, in *netns.Ns, at netip.AddrPort) (closer, error) {
	var tcp net.Listener
	var udp net.PacketConn
	err := in.Do(func() (err error) {
		if proto == "tcp" {
			tcp, err = net.Listen("tcp", at.String())
		} else {
			udp, err = net.ListenPacket("udp", at.String())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if udp != nil {
		go func() {
			buf := make([]byte, 64)
			for {
				n, peer, err := udp.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo(buf[:n], peer)
			}
		}()
		return udp, nil
	}
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				_ = c.SetDeadline(time.Now().Add(answerTime))
				if n, err := c.Read(buf); err == nil {
					_, _ = c.Write(buf[:n])
				}
			}()
		}
	}()
	return tcp, nil
}

func ping(from *netns.Ns, src, dst netip.Addr) error {
	cmd := exec.Command("ping", "-n", "-c", "1", "-W", strconv.FormatFloat(answerTime.Seconds(), 'f', 1, 64), "-I", src.String(), dst.String())
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := from.Do(cmd.Start); err != nil {
		return err
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return errNothing
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, &out)
	}
	return nil
}

func TestParseVerdicts(t *testing.T) {
	vs, err := parseVerdicts("shop/web -> 192.0.2.1  tcp 80 = allow\na -> b icmp = deny\n")
	if err != nil || len(vs) != 2 || vs[0] != (verdict{"shop/web", "192.0.2.1", "tcp", "80", true}) || vs[1] != (verdict{"a", "b", "icmp", "", false}) {
		t.Errorf("%v, %v", vs, err)
	}
	for _, bad := range []string{"a -> b tcp 80", "a b tcp 80 = allow", "a -> b tcp 80 = maybe"} {
		if _, err := parseVerdicts(bad); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}
