package store

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	keepEvery = time.Minute
	// How often a full store is looked at; a client that was refused, or has deleted something, makes it sooner.
	fullEvery = 2 * time.Second
	kickDelay = 200 * time.Millisecond
	// Defragmentation stops the store for some 100 ms for each 100 MB that are in use, so it must be worth it.
	defragFloor = 64 << 20
)

// keeper gives space back to the file system, and makes a full store writable again.
type keeper struct {
	srv   *etcdserver.EtcdServer
	quota int64
	log   *slog.Logger
	kick  chan struct{}

	told bool // that it is full and can't be healed yet
}

func newKeeper(srv *etcdserver.EtcdServer, quota int64, log *slog.Logger) *keeper {
	return &keeper{srv: srv, quota: quota, log: log, kick: make(chan struct{}, 1)}
}

// intercept sees the answers to clients: the first "no space" starts healing, and so does each later one, and each
// delete in a full store, which may have made room.
func (k *keeper) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	res, err := h(ctx, req)
	if status.Code(err) == codes.ResourceExhausted || err == nil && mayFree(req) && k.full() {
		select {
		case k.kick <- struct{}{}:
		default:
		}
	}
	return res, err
}

func mayFree(req any) bool {
	switch req.(type) {
	case *pb.TxnRequest, *pb.DeleteRangeRequest, *pb.CompactionRequest:
		return true
	}
	return false
}

func (k *keeper) run(ctx context.Context) {
	for {
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			k.log.Error("store upkeep", "err", err)
		}
		every := keepEvery
		if k.full() {
			every = fullEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
			continue
		case <-k.kick:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(kickDelay):
		}
	}
}

func (k *keeper) full() bool {
	for _, a := range k.srv.Alarms() {
		if a.Alarm == pb.AlarmType_NOSPACE {
			return true
		}
	}
	return false
}

// look does what the size of the data asks for.
func (k *keeper) look(ctx context.Context) error {
	be := k.srv.Backend()
	size, used := be.Size(), be.SizeInUse()
	switch {
	case k.full():
		return k.heal(ctx)
	case size > defragFloor && used < size/2, size > k.quota/4*3 && used < size/4*3:
		return k.defrag()
	case size > k.quota/10*9:
		// Old revisions may be most of it: better to lose them before the store is full than after.
		if err := k.compact(ctx); err != nil {
			return err
		}
		if be.SizeInUse() < size/4*3 {
			return k.defrag()
		}
	}
	return nil
}

// heal frees what can be freed in a full store, and lets clients write again if that was enough. If not, it waits for
// deletes.
func (k *keeper) heal(ctx context.Context) error {
	be := k.srv.Backend()
	before := be.Size()
	if err := k.compact(ctx); err != nil {
		return err
	}
	if used := be.SizeInUse(); used > k.quota/10*9 {
		if !k.told {
			k.log.Error("store full: it takes only deletes until there is room", "bytes", used, "quota", k.quota)
		}
		k.told = true
		return nil
	}
	// What is in use fits, so the file will fit when it has been rewritten.
	if err := k.defrag(); err != nil {
		return err
	}
	for _, a := range k.srv.Alarms() {
		if a.Alarm != pb.AlarmType_NOSPACE {
			continue
		}
		req := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm}
		if _, err := k.srv.Alarm(ctx, req); err != nil {
			return fmt.Errorf("disarming the space alarm: %w", err)
		}
	}
	k.told = false
	k.log.Warn("store was full and takes writes again", "bytes_before", before, "bytes", be.Size(), "quota", k.quota)
	return nil
}

// compact forgets all old revisions; watches that lag start over with a list.
func (k *keeper) compact(ctx context.Context) error {
	if rev := k.srv.KV().Rev(); k.srv.KV().FirstRev() < rev {
		if _, err := k.srv.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: true}); err != nil {
			return fmt.Errorf("compacting: %w", err)
		}
	}
	// Pages count as free from the second commit on: until then readers of the state before may need them.
	k.srv.Backend().ForceCommit()
	k.srv.Backend().ForceCommit()
	return nil
}

func (k *keeper) defrag() error {
	be := k.srv.Backend()
	before, start := be.Size(), time.Now()
	if err := k.srv.Defragment(); err != nil {
		return fmt.Errorf("defragmenting: %w", err)
	}
	k.log.Info("store defragmented", "bytes_before", before, "bytes", be.Size(), "took", time.Since(start))
	return nil
}
