package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// adminService is beside etcd's on the Unix socket, and nowhere else. Its messages are JSON in one bytes field.
const adminService = "tortie.Store"

// NewToken is a token that was made; Text is what a host joins with, and can't be had again.
type NewToken struct {
	Token `json:",inline"`
	Text  string   `json:"token"`
	CA    string   `json:"ca"`
	Addrs []string `json:"addresses"`
}

// MemberStatus is a member as operators see it.
type MemberStatus struct {
	Name        string    `json:"name"`
	Role        string    `json:"role"`
	From        string    `json:"from,omitempty"`
	Joined      time.Time `json:"joined"`
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
	Connections int       `json:"connections"`
	// Seen is when it was connected last; nil if not since the store has started.
	Seen *time.Time `json:"seen,omitempty"`
}

// Label is what the member is called where its role is not said beside: a node's name, or admin:NAME.
func (m MemberStatus) Label() string { return identity{m.Role, m.Name}.label() }

// Expelled is what an expulsion has done.
type Expelled struct {
	Cut     int      `json:"connectionsCut"`
	Revoked []string `json:"tokensRevoked,omitempty"` // that it had used, and that had uses left
}

type empty struct{}

type nameRequest struct {
	Name string `json:"name"`
}

// adminServer answers root.
type adminServer struct{ n *network }

func (s adminServer) token(ctx context.Context, q TokenRequest) (NewToken, error) {
	return s.n.token(ctx, q)
}

func (s adminServer) tokens(ctx context.Context, _ empty) ([]Token, error) {
	all, err := s.n.registry.tokens(ctx)
	for i := range all {
		all[i].Hash = nil
	}
	return all, err
}

func (s adminServer) revoke(ctx context.Context, q nameRequest) (Token, error) {
	t, err := s.n.registry.revoke(ctx, q.Name)
	t.Hash = nil
	return t, err
}

func (s adminServer) members(ctx context.Context, _ empty) ([]MemberStatus, error) {
	all, err := s.n.registry.members(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]MemberStatus, 0, len(all))
	for _, m := range all {
		st := MemberStatus{Name: m.Name, Role: m.Role, From: m.From, Joined: m.Joined, Expires: m.Expires()}
		if len(m.Certs) > 0 {
			st.Issued = m.Certs[len(m.Certs)-1].Issued
		}
		n, seen := s.n.conns.status(m.identity())
		if st.Connections = n; !seen.IsZero() {
			seen = seen.UTC().Truncate(time.Second)
			st.Seen = &seen
		}
		out = append(out, st)
	}
	return out, nil
}

func (s adminServer) expel(ctx context.Context, q nameRequest) (Expelled, error) {
	who, err := parseLabel(q.Name)
	if err != nil {
		return Expelled{}, err
	}
	return s.n.expel(ctx, who)
}

// register adds the service to a server.
func (s adminServer) register(srv *grpc.Server) {
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: adminService, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			method("Token", s.token), method("Tokens", s.tokens), method("Revoke", s.revoke),
			method("Members", s.members), method("Expel", s.expel),
		},
	}, s)
}

// method makes a gRPC method of a function.
func method[Q, R any](name string, f func(context.Context, Q) (R, error)) grpc.MethodDesc {
	serve := func(ctx context.Context, in any) (any, error) {
		var q Q
		if err := json.Unmarshal(in.(*wrapperspb.BytesValue).Value, &q); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		r, err := f(ctx, q)
		if err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
		b, err := json.Marshal(r)
		return wrapperspb.Bytes(b), err
	}
	return grpc.MethodDesc{MethodName: name,
		Handler: func(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			if chain == nil {
				return serve(ctx, in)
			}
			return chain(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + adminService + "/" + name}, serve)
		}}
}

// Admin asks a running store through its Unix socket.
type Admin struct{ Socket string }

// adminCall bounds a call that has no end of its own.
const adminCall = 15 * time.Second

// dial connects to the socket: a path, or unix:///path.
func dial(socket string) (*grpc.ClientConn, error) {
	if strings.Contains(socket, "://") && !strings.HasPrefix(socket, "unix://") {
		return nil, fmt.Errorf("this is done on the store's own host, through its Unix socket; %s is none", socket)
	}
	return grpc.NewClient("unix://"+strings.TrimPrefix(socket, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func ask1[Q, R any](ctx context.Context, a Admin, name string, q Q) (r R, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminCall)
	defer cancel()
	conn, err := dial(a.Socket)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	b, err := json.Marshal(q)
	if err != nil {
		return r, err
	}
	out := new(wrapperspb.BytesValue)
	if err := conn.Invoke(ctx, "/"+adminService+"/"+name, wrapperspb.Bytes(b), out); err != nil {
		return r, plain(a.Socket, err)
	}
	return r, json.Unmarshal(out.Value, &r)
}

// plain takes gRPC's frame off an error.
func plain(socket string, err error) error {
	switch s, _ := status.FromError(err); s.Code() {
	case codes.FailedPrecondition, codes.InvalidArgument:
		return errors.New(s.Message())
	case codes.Unavailable:
		return fmt.Errorf("no store answers at %s: is it running on this host, and are you root? %s", socket, s.Message())
	}
	return fmt.Errorf("store at %s: %w", socket, err)
}

// NewToken makes a join token.
func (a Admin) NewToken(ctx context.Context, q TokenRequest) (NewToken, error) {
	return ask1[TokenRequest, NewToken](ctx, a, "Token", q)
}

// Tokens lists tokens, without their secrets, which nobody knows.
func (a Admin) Tokens(ctx context.Context) ([]Token, error) {
	return ask1[empty, []Token](ctx, a, "Tokens", empty{})
}

// Revoke makes a token useless.
func (a Admin) Revoke(ctx context.Context, id string) (Token, error) {
	return ask1[nameRequest, Token](ctx, a, "Revoke", nameRequest{id})
}

// Members lists who has joined.
func (a Admin) Members(ctx context.Context) ([]MemberStatus, error) {
	return ask1[empty, []MemberStatus](ctx, a, "Members", empty{})
}

// Expel ends a membership. When it returns, nothing of the member is served any more.
func (a Admin) Expel(ctx context.Context, name string) (Expelled, error) {
	return ask1[nameRequest, Expelled](ctx, a, "Expel", nameRequest{name})
}
