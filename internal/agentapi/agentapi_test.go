//go:build unix

package agentapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func pair(t testing.TB) (client, server *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func openFDs(t testing.TB) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

func TestRequestCarriesADescriptor(t *testing.T) {
	c, s := pair(t)
	f, err := os.CreateTemp(t.TempDir(), "ns")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	want := Request{Version: Version, Verb: VerbAttach, Body: json.RawMessage(`{"sandbox":"` + strings.Repeat("x", 100_000) + `"}`)}
	sent := make(chan error, 1)
	go func() {
		err := WriteRequest(c, want, f)
		if err == nil {
			err = WriteRequest(c, Request{Version: Version, Verb: VerbStatus}, nil)
		}
		sent <- err
	}()
	got, file, err := ReadRequest(s, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if file == nil {
		t.Fatal("no descriptor came")
	}
	defer file.Close()
	b := make([]byte, 5)
	if _, err := file.ReadAt(b, 0); err != nil || string(b) != "hello" {
		t.Errorf("the descriptor reads %q, %v", b, err)
	}
	got, file, err = ReadRequest(s, time.Second)
	if err != nil || got.Verb != VerbStatus || file != nil {
		t.Errorf("second request: %v, %v, %v", got, file, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, _, err := ReadRequest(s, time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("after the client hung up: %v, want EOF", err)
	}
}

func TestByteByByte(t *testing.T) {
	c, s := pair(t)
	go func() {
		for _, b := range frame(`{"version":1,"verb":"status"}`) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
		}
	}()
	r, _, err := ReadRequest(s, 5*time.Second)
	if err != nil || r.Verb != VerbStatus {
		t.Errorf("%v, %v", r, err)
	}
}

func TestGarbageIsRefused(t *testing.T) {
	for name, in := range map[string][]byte{
		"nothing in it":     {0, 0, 0, 0},
		"too long":          binary.BigEndian.AppendUint32(nil, MaxRequest+1),
		"huge":              {0xff, 0xff, 0xff, 0xff},
		"HTTP":              []byte("GET / HTTP/1.1\r\n\r\n"),
		"no JSON":           frame("hello"),
		"an array":          frame("[1,2]"),
		"unknown field":     frame(`{"version":1,"verb":"status","extra":1}`),
		"two values":        frame(`{"version":1,"verb":"status"}{}`),
		"version no number": frame(`{"version":"one"}`),
		"deep":              frame(strings.Repeat("[", 20_000)),
	} {
		t.Run(name, func(t *testing.T) {
			c, s := pair(t)
			if _, err := c.Write(in); err != nil {
				t.Fatal(err)
			}
			if _, f, err := ReadRequest(s, time.Second); !errors.Is(err, ErrFrame) || f != nil {
				t.Errorf("got %v, %v; want ErrFrame", f, err)
			}
		})
	}
	t.Run("half a message", func(t *testing.T) {
		c, s := pair(t)
		if _, err := c.Write(frame(`{"version":1}`)[:8]); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, _, err := ReadRequest(s, time.Second); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a message that never ends", func(t *testing.T) {
		c, s := pair(t)
		if _, err := c.Write(frame(`{"version":1}`)[:8]); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReadRequest(s, 10*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDescriptorsDoNotLeak(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	send := func(t *testing.T, n int, body []byte) (Request, *os.File, error) {
		c, s := pair(t)
		defer c.Close()
		defer s.Close()
		fds := make([]int, n)
		for i := range fds {
			fds[i] = int(f.Fd())
		}
		if _, _, err := c.WriteMsgUnix(body, syscall.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
		return ReadRequest(s, time.Second)
	}
	before := openFDs(t)
	for _, n := range []int{2, maxFDs, maxFDs + 1, 200} {
		if _, file, err := send(t, n, frame(`{"version":1}`)); !errors.Is(err, ErrFrame) || file != nil {
			t.Errorf("%d descriptors: %v, %v", n, file, err)
		}
	}
	if _, file, err := send(t, 1, frame("garbage")); !errors.Is(err, ErrFrame) || file != nil {
		t.Errorf("garbage with a descriptor: %v, %v", file, err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func TestClient(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answers := map[Verb]Response{
		VerbAttach:  {Body: json.RawMessage(`{"hostIface":"tort1","mac":"","mtu":1500,"addresses":["10.0.0.1"],"gateways":["169.254.1.1"],"endpoint":"a/b","newer":1}`)},
		VerbDetach:  {Error: Errorf(CodeUnavailable, "the store is away")},
		VerbState:   {Body: json.RawMessage(`{"a":1}`)},
		VerbExplain: {Body: json.RawMessage(`"x"`)},
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r, _, err := ReadRequest(c.(*net.UnixConn), time.Second)
			if resp, ok := answers[r.Verb]; err == nil && ok {
				_ = WriteFrame(c, resp, MaxResponse) // the test sees what it misses
				c.Close()
			} // others are left hanging
		}
	}()
	ctx := t.Context()
	cl := NewClient(path)

	got, err := cl.Attach(ctx, AttachRequest{Sandbox: "s"}, nil)
	want := AttachResponse{HostIface: "tort1", MTU: 1500, Endpoint: "a/b", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		Gateways: []netip.Addr{netip.MustParseAddr("169.254.1.1")}}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	err = cl.Detach(ctx, DetachRequest{})
	if CodeOf(err) != CodeUnavailable || !Retry(err) || err.Error() != "the store is away" {
		t.Errorf("detach: %v", err)
	}
	if b, err := cl.State(ctx); err != nil || string(b) != `{"a":1}` {
		t.Errorf("state: %s, %v", b, err)
	}
	if _, err := cl.Explain(ctx, ExplainRequest{}); err == nil || CodeOf(err) != "" {
		t.Errorf("an answer of the wrong shape: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := cl.Status(short, StatusRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an agent that hangs: %v", err)
	}
	if _, err := NewClient(path+"x").Status(ctx, StatusRequest{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no agent: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frame(`{"version":1,"verb":"attach","body":{}}`))
	f.Add([]byte{0, 0, 0, 1, '{'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{', '}'})
	f.Fuzz(func(t *testing.T, in []byte) {
		var r Request
		if err := ReadFrame(bytes.NewReader(in), &r, MaxRequest); err != nil {
			return
		}
		// What was understood can be said again.
		var out bytes.Buffer
		if err := WriteFrame(&out, r, MaxResponse); err != nil {
			t.Fatalf("%+v was read but can't be written: %v", r, err)
		}
		var again Request
		if err := ReadFrame(&out, &again, MaxResponse); err != nil {
			t.Fatalf("%+v was written but can't be read: %v", r, err)
		}
		if again.Verb != r.Verb || again.Version != r.Version {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}
