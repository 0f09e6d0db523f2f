package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/internal/revkv"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
)

// Store is a datastore.Store in etcd.
type Store struct{ *revkv.Store }

// Open returns a store at cfg's endpoints. It does not wait for them: each call finds out.
func Open(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	b := &backend{}
	opts := []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
		MinConnectTimeout: 3 * time.Second,
	})}
	opts = append(opts, grpc.WithChainUnaryInterceptor(failFast))
	if strings.HasPrefix(cfg.Endpoints[0], "https:") {
		opts = append(opts, grpc.WithTransportCredentials(newFileCreds(cfg)))
	}
	if cfg.User != "" {
		b.tokens = &tokens{user: cfg.User, file: cfg.PasswordFile}
		opts = append(opts, grpc.WithPerRPCCredentials(b.tokens))
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints,
		// A peer that is gone without a word is noticed after 15 s; servers refuse to be asked more often than each 5 s.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		MaxUnaryRetries:      1, // package revkv knows what can be retried
		DialOptions:          opts,
		Logger:               zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	b.c = c
	return &Store{revkv.New(b, revkv.Options{Prefix: cfg.Prefix, Log: cfg.Log})}, nil
}

// failFast makes a call to a store that can't be reached say so at once. clientv3 would wait until the context ends.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return call(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}

// backend is a revkv.Backend.
type backend struct {
	c      *clientv3.Client
	tokens *tokens // nil without a user
}

func (b *backend) Close() error {
	if err := b.c.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing the connection to the store: %w", err)
	}
	return nil
}

const (
	tokenTries = 3
	authTries  = 50
	authPause  = 2 * time.Millisecond
)

// pause waits a moment, of no fixed length.
func pause(ctx context.Context) error {
	t := time.NewTimer(authPause/2 + rand.N(authPause))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// do makes a call, with another token if the server asks for one.
func (b *backend) do(ctx context.Context, call func() error) error {
	conn := b.c.ActiveConnection()
	if conn.GetState() == connectivity.TransientFailure {
		// Somebody wants to know now. Those who ask have a back-off of their own.
		conn.ResetConnectBackoff()
	}
	for try := 1; ; try++ {
		if try > 1 && b.tokens == nil {
			if err := pause(ctx); err != nil {
				return translate(ctx, err)
			}
		}
		var old string
		if b.tokens != nil {
			old = b.tokens.current()
		}
		err := call()
		e := rpctypes.Error(err)
		switch {
		case b.tokens == nil && errors.Is(e, rpctypes.ErrAuthOldRevision):
			// Users or roles have changed while the call was under way, as when a host joins: asking again cures it.
			if try == authTries {
				return fmt.Errorf("%w: its users and roles change all the time: %s", datastore.ErrUnavailable, describe(err))
			}
		case err == nil || try == tokenTries || !wantsToken(e):
			return translate(ctx, err)
		case b.tokens != nil:
			if err := b.tokens.refresh(ctx, conn, old); err != nil {
				return translate(ctx, err)
			}
		default:
			return translate(ctx, err)
		}
	}
}

func entry(kv *mvccpb.KeyValue) revkv.Entry {
	v := kv.Value
	if v == nil {
		v = []byte{} // nil stands for no value at all
	}
	return revkv.Entry{Key: string(kv.Key), Value: v, Mod: kv.ModRevision}
}

func position(h *pb.ResponseHeader) revkv.Position {
	return revkv.Position{Cluster: h.ClusterId, Term: h.RaftTerm, Rev: h.Revision}
}

// entries reads the answers to one get for each of keys.
func entries(keys []string, rs []*pb.ResponseOp) []revkv.Entry {
	es := make([]revkv.Entry, len(keys))
	for i, k := range keys {
		es[i].Key = k
		if kvs := rs[i].GetResponseRange().Kvs; len(kvs) > 0 {
			es[i] = entry(kvs[0])
		}
	}
	return es
}

func gets(keys []string) []clientv3.Op {
	ops := make([]clientv3.Op, len(keys))
	for i, k := range keys {
		ops[i] = clientv3.OpGet(k)
	}
	return ops
}

// Get implements revkv.Backend.
func (b *backend) Get(ctx context.Context, keys ...string) (es []revkv.Entry, err error) {
	err = b.do(ctx, func() error {
		res, err := b.c.Txn(ctx).Then(gets(keys)...).Commit()
		if err == nil {
			es = entries(keys, res.Responses)
		}
		return err
	})
	return es, err
}

// Page implements revkv.Backend.
func (b *backend) Page(ctx context.Context, r revkv.PageRequest) (p revkv.Page, err error) {
	opts := []clientv3.OpOption{clientv3.WithRange(r.To), clientv3.WithLimit(int64(r.Limit)), clientv3.WithRev(r.At)}
	if r.KeysOnly {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	err = b.do(ctx, func() error {
		res, err := b.c.Get(ctx, r.From, opts...)
		if err != nil {
			return err
		}
		p = revkv.Page{More: res.More, Now: position(res.Header), Entries: make([]revkv.Entry, len(res.Kvs))}
		for i, kv := range res.Kvs {
			p.Entries[i] = entry(kv)
		}
		return nil
	})
	return p, err
}

// Commit implements revkv.Backend.
func (b *backend) Commit(ctx context.Context, guards []revkv.Guard, writes []revkv.Write) (r revkv.Result, err error) {
	keys := make([]string, len(guards))
	cmps := make([]clientv3.Cmp, len(guards))
	for i, g := range guards {
		keys[i] = g.Key
		cmps[i] = clientv3.Compare(clientv3.ModRevision(g.Key), "=", g.Mod)
	}
	ops := make([]clientv3.Op, len(writes))
	for i, w := range writes {
		if w.Value == nil {
			ops[i] = clientv3.OpDelete(w.Key)
		} else {
			ops[i] = clientv3.OpPut(w.Key, string(w.Value))
		}
	}
	err = b.do(ctx, func() error {
		res, err := b.c.Txn(ctx).If(cmps...).Then(ops...).Else(gets(keys)...).Commit()
		if err != nil {
			return err
		}
		r = revkv.Result{OK: res.Succeeded, Rev: res.Header.Revision}
		if !res.Succeeded {
			r.Current = entries(keys, res.Responses)
		}
		return nil
	})
	return r, err
}
