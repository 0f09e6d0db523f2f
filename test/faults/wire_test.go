//go:build linux

package faults

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// wire passes bytes between Unix sockets: late, and not many at a time, if it is told so.
type wire struct {
	path, to string
	l        net.Listener
	mu       sync.Mutex
	delay    time.Duration // of each piece, in each direction
	piece    int           // bytes of a piece; 0 = as they come
	conns    map[net.Conn]bool
	wg       sync.WaitGroup
}

func newWire(t *testing.T, path, to string) *wire {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{path: path, to: to, l: l, conns: map[net.Conn]bool{}}
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() { w.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.set(0, 0)
		w.cut()
		w.wg.Wait()
		os.Remove(path)
	})
	return w
}

func (w *wire) set(delay time.Duration, piece int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay, w.piece = delay, piece
}

// cut breaks all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
}

func (w *wire) track(c net.Conn, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if on {
		w.conns[c] = true
	} else {
		delete(w.conns, c)
	}
}

func (w *wire) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", w.to)
	if err != nil {
		return
	}
	defer server.Close()
	for _, c := range []net.Conn{client, server} {
		w.track(c, true)
		defer w.track(c, false)
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			w.copy(way[1], way[0])
			way[0].Close()
			way[1].Close()
		})
	}
	both.Wait()
}

func (w *wire) copy(to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) > 0; {
			w.mu.Lock()
			delay, piece := w.delay, w.piece
			w.mu.Unlock()
			if piece == 0 || piece > len(b) {
				piece = len(b)
			}
			pause(delay)
			if _, err := to.Write(b[:piece]); err != nil {
				return
			}
			b = b[piece:]
		}
	}
}
