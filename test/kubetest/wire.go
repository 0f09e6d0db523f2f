package kubetest

import (
	"io"
	"net"
	"sync"
)

// Wire passes TCP connections on, until it is told not to.
type Wire struct {
	l    net.Listener
	dial func() (net.Conn, error)

	mu    sync.Mutex
	conns map[net.Conn]bool
	down  bool
	wg    sync.WaitGroup
}

func newWire(dial func() (net.Conn, error)) (*Wire, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &Wire{l: l, dial: dial, conns: map[net.Conn]bool{}}
	w.wg.Go(w.accept)
	return w, nil
}

// URL is where the server is reached through the wire.
func (w *Wire) URL() string { return "https://" + w.l.Addr().String() }

func (w *Wire) accept() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.pass(c) })
	}
}

func (w *Wire) pass(c net.Conn) {
	defer c.Close()
	if !w.take(c) {
		return
	}
	defer w.leave(c)
	s, err := w.dial()
	if err != nil {
		return
	}
	defer s.Close()
	if !w.take(s) {
		return
	}
	defer w.leave(s)
	var wg sync.WaitGroup
	for _, p := range [][2]net.Conn{{c, s}, {s, c}} {
		wg.Go(func() {
			_, _ = io.Copy(p[0], p[1]) // it ends when the other end does
			p[0].Close()
			p[1].Close()
		})
	}
	wg.Wait()
}

func (w *Wire) take(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return false
	}
	w.conns[c] = true
	return true
}

func (w *Wire) leave(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// Cut breaks all connections.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut()
}

func (w *Wire) cut() {
	for c := range w.conns {
		c.Close()
	}
}

// Down breaks all connections and lets none be made.
func (w *Wire) Down() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	w.cut()
}

// Up ends Down.
func (w *Wire) Up() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

// Close ends the wire.
func (w *Wire) Close() {
	w.Down()
	w.l.Close()
	w.wg.Wait()
}
