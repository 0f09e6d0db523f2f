package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Info is what a store says of itself.
type Info struct {
	Version  string   `json:"version"` // of etcd
	Revision int64    `json:"revision"`
	Size     int64    `json:"size"`  // of the file
	InUse    int64    `json:"inUse"` // the part of it that is not free
	Quota    int64    `json:"quota"`
	Full     bool     `json:"full"`             // it takes only deletes
	Alarms   []string `json:"alarms,omitempty"` // "NOSPACE", "CORRUPT"
}

// Status asks the store that listens on a Unix socket: a path, or unix:///path. One that is not there says so at once.
func Status(ctx context.Context, socket string) (Info, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
	}
	info, err := ask(ctx, "unix://"+strings.TrimPrefix(socket, "unix://"))
	if err != nil {
		return Info{}, fmt.Errorf("store at %s: %w", socket, err)
	}
	return info, nil
}

func ask(ctx context.Context, target string) (Info, error) {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return Info{}, err
	}
	defer conn.Close()
	m := pb.NewMaintenanceClient(conn)
	st, err := m.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return Info{}, err
	}
	alarms, err := m.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	if err != nil {
		return Info{}, err
	}
	info := Info{
		Version:  st.Version,
		Revision: st.Header.Revision,
		Size:     st.DbSize,
		InUse:    st.DbSizeInUse,
		Quota:    st.DbSizeQuota,
	}
	for _, a := range alarms.Alarms {
		info.Alarms = append(info.Alarms, a.Alarm.String())
		info.Full = info.Full || a.Alarm == pb.AlarmType_NOSPACE
	}
	return info, nil
}
