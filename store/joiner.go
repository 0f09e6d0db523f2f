package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/tortie/tortie/store/join"
)

const (
	joinTimeout = 10 * time.Second // of a whole conversation
	joinAtOnce  = 32               // conversations
	// Guessing a secret of 160 bits is hopeless; the limits are for what answering costs.
	joinBurst, joinEvery         = 100, 20 * time.Millisecond
	joinBurstHost, joinEveryHost = 20, 500 * time.Millisecond
)

// joiner answers hosts that want to join, or to renew their certificate.
type joiner struct {
	authority *authority
	registry  *registry
	access    *access
	conns     *conns
	life      time.Duration // of certificates
	log       *slog.Logger
	limit     *limiter
	now       func() time.Time

	ctx  context.Context // of the server that it is for
	free chan struct{}
	wg   sync.WaitGroup
}

func newJoiner(ctx context.Context, n *network) *joiner {
	return &joiner{authority: n.authority, registry: n.registry, access: n.access, conns: n.conns, life: n.life, log: n.log,
		limit: newLimiter(n.now), now: n.now, ctx: ctx, free: make(chan struct{}, joinAtOnce)}
}

// take answers on a connection in a goroutine of its own, if there are not too many.
func (j *joiner) take(c *tls.Conn) {
	select {
	case j.free <- struct{}{}:
	default:
		_ = c.NetConn().Close()
		return
	}
	j.wg.Go(func() {
		defer func() { <-j.free }()
		defer c.Close()
		defer context.AfterFunc(j.ctx, func() { _ = c.NetConn().Close() })()
		j.answer(c)
	})
}

// wait waits for the last conversation; its context has ended.
func (j *joiner) wait() { j.wg.Wait() }

func (j *joiner) answer(c *tls.Conn) {
	if err := c.SetDeadline(time.Now().Add(joinTimeout)); err != nil {
		return
	}
	from, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(j.ctx, joinTimeout)
	defer cancel()
	var reply join.Reply
	var req join.Request
	if !j.limit.allow(from) {
		reply = join.Reply{Code: join.CodeBusy, Error: "too many hosts are joining: try again in a few seconds"}
	} else if err := join.ReadFrame(c, &req); err != nil {
		reply = join.Reply{Code: join.CodeRequest, Error: "the request can't be read: is this host's tortie of another release?"}
	} else if g, err := j.decide(ctx, req, c.ConnectionState(), from); err != nil {
		reply = refusal(err)
		j.log.Warn("a request to join was refused", "from", from, "code", reply.Code, "err", err)
	} else {
		reply.Grant = &g
	}
	if err := join.WriteFrame(c, reply); err != nil {
		j.log.Debug("answering a host", "from", from, "err", err)
	}
}

// refusal is what a host is told. Of our own troubles it hears no details.
func refusal(err error) join.Reply {
	var r *join.Refused
	if errors.As(err, &r) {
		return join.Reply{Code: r.Code, Error: r.Reason}
	}
	return join.Reply{Code: join.CodeStore, Error: "the store could not do it; its log says why"}
}

func (j *joiner) decide(ctx context.Context, req join.Request, cs tls.ConnectionState, from string) (join.Grant, error) {
	switch {
	case req.Join != nil && req.Renew == nil && !req.Hello:
		return j.join(ctx, *req.Join, from)
	case req.Renew != nil && !req.Hello && req.Join == nil:
		return j.renew(ctx, *req.Renew, cs)
	case req.Hello && req.Join == nil && req.Renew == nil:
		who, _, err := bearer(cs)
		if err != nil {
			return join.Grant{}, &join.Refused{Code: join.CodeRequest, Reason: err.Error()}
		}
		return join.Grant{Name: who.name, Role: who.role, Expires: cs.PeerCertificates[0].NotAfter}, nil
	}
	return join.Grant{}, &join.Refused{Code: join.CodeRequest, Reason: "want one of join, renew, hello"}
}

// keyOf reads the key of a signing request, and checks that the host has it.
func keyOf(csr []byte) (key any, hash []byte, err error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, nil, &join.Refused{Code: join.CodeRequest, Reason: "the signing request is not valid: " + err.Error()}
	}
	sum := sha256.Sum256(r.RawSubjectPublicKeyInfo)
	return r.PublicKey, sum[:], nil
}

func (j *joiner) join(ctx context.Context, q join.JoinRequest, from string) (join.Grant, error) {
	key, hash, err := keyOf(q.CSR)
	if err != nil {
		return join.Grant{}, err
	}
	for range 10 {
		g, again, err := j.tryJoin(ctx, q, key, hash, from)
		if err != nil || !again {
			return g, err
		}
	}
	return join.Grant{}, errBusy
}

// tryJoin checks the token, and notes the new member in one write; again says that somebody else was at it.
func (j *joiner) tryJoin(ctx context.Context, q join.JoinRequest, key any, hash []byte, from string) (g join.Grant, again bool, err error) {
	var t Token
	trev, err := j.registry.read(ctx, tokenPrefix+q.ID, &t)
	if err != nil {
		return g, false, err
	}
	if !t.check(trev != 0, q.Secret) {
		return g, false, &join.Refused{Code: join.CodeToken, Reason: "the store does not know this token: it was revoked or " +
			"expired long ago, or is of another store. Ask for a new one (on the store's host: tortie store token)"}
	}
	who := identity{t.Role, q.Name}
	if err := who.validate(); err != nil {
		return g, false, &join.Refused{Code: join.CodeName, Reason: err.Error() + ": give another one with --name"}
	}
	m, mrev, err := j.registry.member(ctx, who)
	if err != nil {
		return g, false, err
	}
	same := mrev != 0 && bytes.Equal(m.Key, hash)
	used := same && m.Token == t.ID // the answer to an earlier try got lost
	now := j.now()
	if err := t.usable(now, who, used); err != nil {
		return g, false, err
	}
	if mrev != 0 && !same && !q.Replace {
		return g, false, taken(m)
	}
	cert, err := j.authority.issue(who.String(), key, j.life)
	if err != nil {
		return g, false, err
	}
	if !same {
		m = Member{Name: who.name, Role: who.role, Key: hash, Joined: now.UTC().Truncate(time.Second)}
	}
	m.From, m.Token = from, t.ID
	m.addCert(cert.note, now)
	if !used {
		t.Left--
		t.UsedBy = append(t.UsedBy, who.label())
	}
	ok, err := j.registry.write(ctx, change{tokenPrefix + t.ID, trev, t}, change{memberKey(who), mrev, m})
	if err != nil || !ok {
		return g, err == nil, err
	}
	if mrev != 0 && !same {
		j.log.Info("a member was replaced by another host", "name", who.label(), "connections_cut", j.conns.cut(who))
	}
	if err := j.access.grant(ctx, who); err != nil {
		return g, false, err // the next start, or another try, makes up for it
	}
	j.log.Info("joined", "name", who.label(), "from", from, "token", t.ID, "expires", cert.note.Expires)
	return j.grant(who, cert), false, nil
}

func taken(m Member) error {
	const what = "%s has joined already, from %s at %s, with another key. If this host takes its place, add --replace " +
		"(the other one's certificate then counts no more); if not, give this one another name with --name"
	return &join.Refused{Code: join.CodeTaken, Reason: fmt.Sprintf(what, m.identity().label(), m.From, m.Joined.Format(time.RFC3339))}
}

func (j *joiner) grant(who identity, cert issued) join.Grant {
	return join.Grant{Name: who.name, Role: who.role, Cert: cert.pem, CA: j.authority.pem(), Expires: cert.note.Expires}
}

// renew gives the bearer of a good certificate another one for the same key.
func (j *joiner) renew(ctx context.Context, q join.RenewRequest, cs tls.ConnectionState) (join.Grant, error) {
	who, serial, err := bearer(cs)
	if err != nil {
		return join.Grant{}, &join.Refused{Code: join.CodeRequest, Reason: err.Error()}
	}
	key, hash, err := keyOf(q.CSR)
	if err != nil {
		return join.Grant{}, err
	}
	for range 10 {
		m, rev, err := j.registry.member(ctx, who)
		if err != nil {
			return join.Grant{}, err
		}
		if err := j.registry.accepts(ctx, who, serial); err != nil || rev == 0 || !bytes.Equal(m.Key, hash) {
			return join.Grant{}, &join.Refused{Code: join.CodeToken, Reason: "this certificate can't be renewed any more: join again with a new token"}
		}
		cert, err := j.authority.issue(who.String(), key, j.life)
		if err != nil {
			return join.Grant{}, err
		}
		m.addCert(cert.note, j.now())
		ok, err := j.registry.write(ctx, change{memberKey(who), rev, m})
		if err != nil {
			return join.Grant{}, err
		}
		if ok {
			j.log.Info("certificate renewed", "name", who.label(), "expires", cert.note.Expires)
			return j.grant(who, cert), nil
		}
	}
	return join.Grant{}, errBusy
}
