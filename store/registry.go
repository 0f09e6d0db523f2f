package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tortie/tortie/store/join"
)

// A token that can't be used any more is kept for a while, so that who shows it hears why.
const tokenKept = 7 * 24 * time.Hour

// maxCerts of one member are accepted at a time: the newest, and those that it has just replaced by renewal.
const maxCerts = 3

// Token is a join token as the store keeps it: without its secret.
type Token struct {
	ID      string    `json:"id"`
	Hash    []byte    `json:"hash,omitempty"` // SHA-256 of the secret, which is random
	Role    string    `json:"role"`
	Name    string    `json:"name,omitempty"` // the only one that it is for
	Uses    int       `json:"uses"`
	Left    int       `json:"left"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Revoked bool      `json:"revoked,omitempty"`
	UsedBy  []string  `json:"usedBy,omitempty"` // labels
}

// State says whether the token can be used, in one word.
func (t Token) State(now time.Time) string {
	switch {
	case t.Revoked:
		return "revoked"
	case t.Left <= 0:
		return "used"
	case !now.Before(t.Expires):
		return "expired"
	}
	return "valid"
}

// Member is a host or a person with a certificate.
type Member struct {
	Name   string     `json:"name"`
	Role   string     `json:"role"`
	Key    []byte     `json:"key,omitempty"` // SHA-256 of its public key
	Certs  []CertNote `json:"certs"`         // those that are accepted, the newest last
	Joined time.Time  `json:"joined"`
	From   string     `json:"from,omitempty"`  // the address that it joined from
	Token  string     `json:"token,omitempty"` // id of the one that it joined with
}

// CertNote is what is known of a certificate that was issued.
type CertNote struct {
	Serial  string    `json:"serial"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

func (m Member) identity() identity { return identity{m.Role, m.Name} }

// Expires is when the newest certificate does.
func (m Member) Expires() time.Time {
	if len(m.Certs) == 0 {
		return time.Time{}
	}
	return m.Certs[len(m.Certs)-1].Expires
}

// registry knows tokens and members. They are in etcd, so that a crash at any time leaves them whole.
type registry struct {
	kv  clientv3.KV
	now func() time.Time
}

// read gets a value and its revision; 0 if there is none.
func (r *registry) read(ctx context.Context, key string, v any) (int64, error) {
	res, err := r.kv.Get(asRoot(ctx), key)
	if err != nil || len(res.Kvs) == 0 {
		return 0, err
	}
	if err := json.Unmarshal(res.Kvs[0].Value, v); err != nil {
		return 0, fmt.Errorf("reading %s: %w", key, err)
	}
	return res.Kvs[0].ModRevision, nil
}

// readAll gets all values below a prefix, in the order of keys.
func readAll[T any](ctx context.Context, kv clientv3.KV, prefix string) ([]T, error) {
	res, err := kv.Get(asRoot(ctx), prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	out := make([]T, 0, len(res.Kvs))
	for _, e := range res.Kvs {
		var v T
		if err := json.Unmarshal(e.Value, &v); err != nil {
			return nil, fmt.Errorf("reading %s: %w", e.Key, err)
		}
		out = append(out, v)
	}
	return out, nil
}

// change is one write; guarded by the revision that was read.
type change struct {
	key string
	rev int64
	v   any // nil = delete
}

// write does all changes if nothing has changed since, or none.
func (r *registry) write(ctx context.Context, cs ...change) (bool, error) {
	var ifs []clientv3.Cmp
	var ops []clientv3.Op
	for _, c := range cs {
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(c.key), "=", c.rev))
		if c.v == nil {
			ops = append(ops, clientv3.OpDelete(c.key))
			continue
		}
		b, err := json.Marshal(c.v)
		if err != nil {
			return false, err
		}
		ops = append(ops, clientv3.OpPut(c.key, string(b)))
	}
	res, err := r.kv.Txn(asRoot(ctx)).If(ifs...).Then(ops...).Commit()
	if err != nil {
		return false, err
	}
	return res.Succeeded, nil
}

func memberKey(i identity) string { return memberPrefix + i.String() }

func (r *registry) member(ctx context.Context, i identity) (Member, int64, error) {
	var m Member
	rev, err := r.read(ctx, memberKey(i), &m)
	return m, rev, err
}

func (r *registry) members(ctx context.Context) ([]Member, error) {
	return readAll[Member](ctx, r.kv, memberPrefix)
}

var errNotMember = errors.New("it has not joined this store, or was expelled")

// accepts says whether a certificate is one of a member's, now.
func (r *registry) accepts(ctx context.Context, i identity, serial string) error {
	m, rev, err := r.member(ctx, i)
	switch {
	case err != nil:
		return err
	case rev == 0:
		return errNotMember
	case !slices.ContainsFunc(m.Certs, func(c CertNote) bool { return c.Serial == serial }):
		return errors.New("its certificate was replaced")
	}
	return nil
}

// addCert notes a new certificate beside the ones that are still good.
func (m *Member) addCert(c CertNote, now time.Time) {
	m.Certs = slices.DeleteFunc(m.Certs, func(old CertNote) bool { return !now.Before(old.Expires) })
	m.Certs = append(m.Certs, c)
	m.Certs = m.Certs[max(0, len(m.Certs)-maxCerts):]
}

// TokenRequest asks for a token.
type TokenRequest struct {
	Role string        `json:"role"`
	Name string        `json:"name,omitempty"` // the only one that it is for
	Uses int           `json:"uses"`
	TTL  time.Duration `json:"ttl"`
}

// Bounds of tokens.
const (
	maxTTL  = 30 * 24 * time.Hour
	maxUses = 1000
)

func (q TokenRequest) validate() error {
	switch {
	case q.Role != join.RoleNode && q.Role != join.RoleAdmin:
		return fmt.Errorf("role %q: want %s or %s", q.Role, join.RoleNode, join.RoleAdmin)
	case q.TTL < time.Second || q.TTL > maxTTL:
		return fmt.Errorf("validity %v: want 1s to %v", q.TTL, maxTTL)
	case q.Uses < 1 || q.Uses > maxUses:
		return fmt.Errorf("%d uses: want 1 to %d", q.Uses, maxUses)
	case q.Name != "" && q.Uses > 1:
		return fmt.Errorf("a token for one name has one use")
	case q.Name != "":
		return identity{q.Role, q.Name}.validate()
	}
	return nil
}

// newToken makes a token, and forgets those that nobody will ask for any more.
func (r *registry) newToken(ctx context.Context, q TokenRequest) (Token, join.Token, error) {
	var t join.Token
	if err := q.validate(); err != nil {
		return Token{}, t, err
	}
	rand.Read(t.ID[:])
	rand.Read(t.Secret[:])
	hash := sha256.Sum256(t.Secret[:])
	now := r.now().UTC().Truncate(time.Second)
	rec := Token{ID: t.IDString(), Hash: hash[:], Role: q.Role, Name: q.Name, Uses: q.Uses, Left: q.Uses,
		Created: now, Expires: now.Add(q.TTL)}
	all, err := r.tokens(ctx)
	if err != nil {
		return rec, t, err
	}
	for _, old := range all {
		if now.Sub(old.Expires) > tokenKept {
			if _, err := r.kv.Delete(asRoot(ctx), tokenPrefix+old.ID); err != nil {
				return rec, t, err
			}
		}
	}
	ok, err := r.write(ctx, change{tokenPrefix + rec.ID, 0, rec})
	if err == nil && !ok {
		err = errors.New("a token of that id is there already: try again")
	}
	return rec, t, err
}

func (r *registry) tokens(ctx context.Context) ([]Token, error) {
	return readAll[Token](ctx, r.kv, tokenPrefix)
}

var errBusy = errors.New("others write the same: try again")

// revoke makes a token useless.
func (r *registry) revoke(ctx context.Context, id string) (Token, error) {
	for range 10 {
		var t Token
		rev, err := r.read(ctx, tokenPrefix+id, &t)
		if err != nil {
			return t, err
		}
		if rev == 0 {
			return t, fmt.Errorf("there is no token %q: `tortie store token list` shows them", id)
		}
		if t.Revoked {
			return t, nil
		}
		t.Revoked = true
		if ok, err := r.write(ctx, change{tokenPrefix + id, rev, t}); ok || err != nil {
			return t, err
		}
	}
	return Token{}, errBusy
}

// remove ends a membership, and the tokens that the member has used: it may have kept one with uses left.
func (r *registry) remove(ctx context.Context, i identity) (revoked []string, err error) {
	for range 10 {
		_, rev, err := r.member(ctx, i)
		if err != nil {
			return nil, err
		}
		if rev == 0 {
			return nil, errNotMember
		}
		cs := []change{{memberKey(i), rev, nil}}
		revoked = nil
		res, err := r.kv.Get(asRoot(ctx), tokenPrefix, clientv3.WithPrefix())
		if err != nil {
			return nil, err
		}
		for _, e := range res.Kvs {
			var t Token
			if err := json.Unmarshal(e.Value, &t); err != nil || !slices.Contains(t.UsedBy, i.label()) || t.Revoked {
				continue
			}
			if t.State(r.now()) == "valid" {
				revoked = append(revoked, t.ID)
			}
			t.Revoked = true
			cs = append(cs, change{string(e.Key), e.ModRevision, t})
		}
		if ok, err := r.write(ctx, cs...); ok || err != nil {
			return revoked, err
		}
	}
	return nil, errBusy
}

// check says whether a secret opens a token. It takes the same time whether the id or the secret is wrong.
func (t Token) check(found bool, secret []byte) bool {
	hash := sha256.Sum256(secret)
	want := t.Hash
	if !found || len(want) != len(hash) {
		want = make([]byte, len(hash))
	}
	return subtle.ConstantTimeCompare(hash[:], want) == 1 && found
}

// usable says why a token, whose secret was shown, can't be used for a name; again says that it was, by the same key.
func (t Token) usable(now time.Time, i identity, again bool) error {
	const how = ": ask for a new one (on the store's host: tortie store token)"
	switch {
	case t.Name != "" && t.Name != i.name:
		return &join.Refused{Code: join.CodeName, Reason: fmt.Sprintf("this token is only for the name %q, not for %q: give --name %s", t.Name, i.name, t.Name)}
	case t.Revoked:
		return &join.Refused{Code: join.CodeToken, Reason: "this token was revoked" + how}
	case !now.Before(t.Expires):
		return &join.Refused{Code: join.CodeToken, Reason: "this token expired at " + t.Expires.Format(time.RFC3339) + how}
	case t.Left <= 0 && !again:
		return &join.Refused{Code: join.CodeToken, Reason: "this token has been used already, by " + strings.Join(t.UsedBy, ", ") + how}
	}
	return nil
}
