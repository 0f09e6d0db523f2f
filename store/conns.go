package store

import (
	"net"
	"sync"
	"time"
)

// conns are the connections of members: an expelled one's end with its membership, and its watches with them.
type conns struct {
	now func() time.Time

	mu   sync.Mutex
	of   map[identity]map[*memberConn]bool
	seen map[identity]time.Time // when a connection of it began or ended last
}

// memberConn is a connection of a member, after the handshake.
type memberConn struct {
	net.Conn
	raw  net.Conn // below TLS, which says goodbye when it is closed
	all  *conns
	who  identity
	late *time.Timer // ends it with its certificate
}

func newConns(now func() time.Time) *conns {
	return &conns{now: now, of: map[identity]map[*memberConn]bool{}, seen: map[identity]time.Time{}}
}

// add takes in a connection; it ends when its certificate does, so that the client comes back with its next one.
func (s *conns) add(who identity, c, raw net.Conn, until time.Time) *memberConn {
	m := &memberConn{Conn: c, raw: raw, all: s, who: who}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[who] == nil {
		s.of[who] = map[*memberConn]bool{}
	}
	s.of[who][m] = true
	s.seen[who] = s.now()
	m.late = time.AfterFunc(until.Sub(s.now()), func() { _ = m.Close() })
	return m
}

// Close ends the connection.
func (c *memberConn) Close() error {
	s := c.all
	s.mu.Lock()
	c.late.Stop()
	if s.of[c.who][c] {
		s.seen[c.who] = s.now()
		delete(s.of[c.who], c)
		if len(s.of[c.who]) == 0 {
			delete(s.of, c.who)
		}
	}
	s.mu.Unlock()
	return c.Conn.Close()
}

// cut ends all connections of a member, without waiting for what it has to say.
func (s *conns) cut(who identity) int {
	s.mu.Lock()
	var all []*memberConn
	for c := range s.of[who] {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		_ = c.raw.Close() // first: a goodbye could wait for a client that does not read
		_ = c.Close()
	}
	return len(all)
}

// status is how many connections a member has, and when it was seen last; zero if not since the store has started.
func (s *conns) status(who identity) (n int, seen time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = len(s.of[who]); n > 0 {
		return n, s.now()
	}
	return 0, s.seen[who]
}

// forget drops what is known of an expelled member.
func (s *conns) forget(who identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, who)
}
