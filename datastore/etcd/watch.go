package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/internal/revkv"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const createTimeout = 5 * time.Second

var errNoStream = errors.New("the store does not answer to a watch")

// stream is one watch on one gRPC stream. clientv3's own watcher is not used: it hides lost connections, and holds
// changes without bound while nobody takes them.
type stream struct {
	ctx context.Context
	w   pb.Watch_WatchClient
	mu  sync.Mutex // serialises sends
}

// Follow implements revkv.Backend.
func (b *backend) Follow(ctx context.Context, r revkv.Range, from int64) (revkv.Stream, error) {
	var s *stream
	err := b.do(ctx, func() (err error) {
		s, err = b.open(ctx, r, from)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (b *backend) open(ctx context.Context, r revkv.Range, from int64) (*stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(createTimeout, func() { cancel(errNoStream) })
	s, err := b.create(ctx, r, from)
	if !late.Stop() {
		err = fmt.Errorf("%w within %v", errNoStream, createTimeout)
	}
	if err != nil {
		cancel(err)
		return nil, err
	}
	return s, nil
}

func (b *backend) create(ctx context.Context, r revkv.Range, from int64) (*stream, error) {
	// A member that has lost its cluster ends the stream instead of leaving us blind.
	w, err := pb.NewWatchClient(b.c.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return nil, err
	}
	s := &stream{ctx: ctx, w: w}
	err = s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(r.From), RangeEnd: []byte(r.To), StartRevision: from, ProgressNotify: true, Fragment: true,
	}}})
	if err != nil {
		return nil, err
	}
	res, err := w.Recv()
	switch {
	case err != nil:
		return nil, err
	case res.Canceled:
		return nil, ended(res)
	case !res.Created:
		return nil, errors.New("the store answers a watch with something else")
	}
	return s, nil
}

// ended says why the server ended a watch.
func ended(res *pb.WatchResponse) error {
	if res.CompactRevision != 0 {
		return reason("etcdserver: mvcc: required revision has been compacted")
	}
	if res.CancelReason == "" {
		return errors.New("the store ended the watch")
	}
	return reason(res.CancelReason)
}

func (s *stream) send(req *pb.WatchRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Send(req)
}

// Ping implements revkv.Stream.
func (s *stream) Ping() error {
	return s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// Recv implements revkv.Stream.
func (s *stream) Recv() (revkv.Changes, error) {
	res, err := s.w.Recv()
	if err != nil {
		return revkv.Changes{}, translate(s.ctx, err)
	}
	if res.Canceled {
		return revkv.Changes{}, translate(s.ctx, ended(res))
	}
	if res.Header == nil {
		return revkv.Changes{}, fmt.Errorf("%w: a change without a revision", datastore.ErrUnavailable)
	}
	c := revkv.Changes{Rev: res.Header.Revision, Part: res.Fragment, Entries: make([]revkv.Entry, len(res.Events))}
	for i, e := range res.Events {
		c.Entries[i] = entry(e.Kv)
		if e.Type == mvccpb.Event_DELETE {
			c.Entries[i].Value = nil
		}
		// The header's revision is the store's, which can be ahead of what this watch has been sent.
		c.Rev = e.Kv.ModRevision
	}
	return c, nil
}

var _ revkv.Backend = (*backend)(nil)
