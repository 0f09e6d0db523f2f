package etcd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// tokens holds the token that stands for user and password. It is fetched when the server asks for one, not before: a
// store that is down must not keep an agent from starting.
type tokens struct {
	user, file string

	mu    sync.Mutex
	token string
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t *tokens) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == "" {
		return nil, nil
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: t.token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (t *tokens) RequireTransportSecurity() bool { return false }

func (t *tokens) current() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token
}

// refresh fetches another token than old, unless somebody has done so.
func (t *tokens) refresh(ctx context.Context, conn *grpc.ClientConn, old string) error {
	if t.current() != old {
		return nil
	}
	password, err := os.ReadFile(t.file)
	if err != nil {
		return fmt.Errorf("reading the password of %q: %w", t.user, err)
	}
	req := &pb.AuthenticateRequest{Name: t.user, Password: strings.TrimRight(string(password), "\r\n")}
	res, err := pb.NewAuthClient(conn).Authenticate(ctx, req)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.token = res.Token
	return nil
}
