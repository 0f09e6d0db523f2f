package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
)

// revisionBump is how far a restored store is ahead of its snapshot: of more writes than it can have lost, so that no
// client has seen a revision that it will give out. Clients that resume from one before start over with a list.
const revisionBump = 1_000_000_000

const restoring = "restore.tmp" // in the data directory, while a snapshot is restored

// ErrNotEmpty says that a snapshot is not restored over data.
var ErrNotEmpty = errors.New("there is a store in this directory already")

// SnapshotInfo is what a snapshot's file holds.
type SnapshotInfo struct {
	File     string `json:"file"`
	SHA256   string `json:"sha256"`
	Bytes    int64  `json:"bytes"`
	Revision int64  `json:"revision"`
	Keys     int    `json:"keys"`
}

// Snapshot writes all that the running store holds, as of one moment, into a file: users, members and the authority's key
// among it. The file is there whole or not at all, and readable by its owner alone.
func (a Admin) Snapshot(ctx context.Context, path string) (SnapshotInfo, error) {
	conn, err := dial(a.Socket)
	if err != nil {
		return SnapshotInfo{}, err
	}
	defer conn.Close()
	stream, err := pb.NewMaintenanceClient(conn).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return SnapshotInfo{}, plain(a.Socket, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("saving a snapshot: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return SnapshotInfo{}, plain(a.Socket, err)
		}
		if _, err := tmp.Write(part.Blob); err != nil {
			return SnapshotInfo{}, fmt.Errorf("saving a snapshot: %w", err)
		}
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return SnapshotInfo{}, fmt.Errorf("saving a snapshot: %w", err)
	}
	info, err := SnapshotStatus(tmp.Name())
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("what the store sent: %w", err)
	}
	info.File = path
	if err := os.Rename(tmp.Name(), path); err != nil {
		return SnapshotInfo{}, fmt.Errorf("saving a snapshot: %w", err)
	}
	return info, syncDir(filepath.Dir(path))
}

// syncDir puts the names in a directory on the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checksum compares a snapshot with the checksum at its end.
func checksum(path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	// A database is whole pages of 512 bytes or more; the checksum comes on top.
	size := info.Size() - sha256.Size
	if size <= 0 || size%512 != 0 {
		return "", 0, fmt.Errorf("%s is no snapshot, or only a part of one: %d bytes", path, info.Size())
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, size); err != nil {
		return "", 0, err
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return "", 0, err
	}
	if got := h.Sum(nil); string(got) != string(want) {
		return "", 0, fmt.Errorf("%s is damaged: its checksum is %x, it should be %x", path, got, want)
	}
	return fmt.Sprintf("%x", want), info.Size(), nil
}

// SnapshotStatus checks a snapshot, and says what is in it.
func SnapshotStatus(path string) (info SnapshotInfo, err error) {
	sum, size, err := checksum(path)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("reading a snapshot: %w", err)
	}
	defer func() { // bbolt panics at what the checksum can't find: a file that was damaged before it was saved
		if r := recover(); r != nil {
			err = fmt.Errorf("reading snapshot %s: %v", path, r)
		}
	}()
	st, err := snapshot.NewV3(newZap(slog.New(slog.DiscardHandler))).Status(path)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("reading snapshot %s: %w", path, err)
	}
	return SnapshotInfo{File: path, SHA256: sum, Bytes: size, Revision: st.Revision, Keys: st.TotalKey}, nil
}

// Restore makes the data directory of a store out of a snapshot. The directory is empty or not there; a store that was
// interrupted here is begun anew.
func Restore(path, dir string, log *slog.Logger) (SnapshotInfo, error) {
	info, err := SnapshotStatus(path)
	if err != nil {
		return info, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return info, fmt.Errorf("restoring: %w", err)
	}
	defer unlock()
	member := filepath.Join(dir, "member")
	if _, err := os.Lstat(member); !errors.Is(err, os.ErrNotExist) {
		return info, fmt.Errorf("restoring: %s: %w: move it away first (mv %s %s.old), or restore into another with --dir", dir, ErrNotEmpty, dir, dir)
	}
	tmp := filepath.Join(dir, restoring)
	if err := os.RemoveAll(tmp); err != nil {
		return info, fmt.Errorf("restoring: %w", err)
	}
	err = restore(path, tmp, log)
	if err == nil {
		err = os.Rename(filepath.Join(tmp, "member"), member)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err := errors.Join(err, os.RemoveAll(tmp)); err != nil {
		return info, fmt.Errorf("restoring %s: %w", path, err)
	}
	return info, nil
}

func restore(path, dir string, log *slog.Logger) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return snapshot.NewV3(newZap(log.With("component", "etcd"))).Restore(snapshot.RestoreConfig{
		SnapshotPath: path, OutputDataDir: dir, Name: memberName, PeerURLs: []string{peerURL},
		InitialCluster: memberName + "=" + peerURL,
		// Another cluster than before: clients notice, and compare all that they hold.
		InitialClusterToken: rand.Text(),
		RevisionBump:        revisionBump, MarkCompacted: true,
	})
}
