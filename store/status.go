package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Info is what a store says of itself.
type Info struct {
	Version  string // of etcd
	Revision int64
	Size     int64 // of the file
	InUse    int64 // the part of it that is not free
	Quota    int64
	Full     bool     // it takes only deletes
	Alarms   []string // "NOSPACE", "CORRUPT"
}

// Status asks the store that listens on a Unix socket: a path, or unix:///path.
func Status(ctx context.Context, socket string) (Info, error) {
	endpoint := socket
	if socket != "" && socket[0] == '/' {
		endpoint = "unix://" + socket
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		return Info{}, fmt.Errorf("store at %s: %w", socket, err)
	}
	defer c.Close()
	st, err := c.Status(ctx, endpoint)
	if err != nil {
		return Info{}, fmt.Errorf("store at %s: %w", socket, err)
	}
	info := Info{
		Version:  st.Version,
		Revision: st.Header.Revision,
		Size:     st.DbSize,
		InUse:    st.DbSizeInUse,
		Quota:    st.DbSizeQuota,
	}
	alarms, err := c.AlarmList(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("store at %s: %w", socket, err)
	}
	for _, a := range alarms.Alarms {
		info.Alarms = append(info.Alarms, a.Alarm.String())
		info.Full = info.Full || a.Alarm.String() == "NOSPACE"
	}
	return info, nil
}
