package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/internal/revkv"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// translate says what an error of a call with ctx means.
func translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch cause := ctx.Err(); {
	case errors.Is(cause, context.Canceled):
		return cause
	case cause != nil:
		return fmt.Errorf("%w: %w", datastore.ErrUnavailable, cause)
	}
	text := describe(err)
	switch e := rpctypes.Error(err); {
	case errors.Is(e, rpctypes.ErrCompacted):
		return revkv.ErrCompacted
	case errors.Is(e, rpctypes.ErrNoSpace):
		return datastore.ErrFull
	case errors.Is(e, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("%w: %s", datastore.ErrInvalid, text)
	case refused(e):
		return fmt.Errorf("%w: %s", datastore.ErrForbidden, text)
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%w: %s", datastore.ErrForbidden, text)
	}
	// The server's complaint about our certificate comes as a broken connection.
	if strings.Contains(text, alert) {
		return fmt.Errorf("%w: %s (it does not accept this host's certificate: expired, replaced, or the host was expelled; "+
			"join again with a new token: tortie store token, tortie join)", datastore.ErrForbidden, text)
	}
	return fmt.Errorf("%w: %s", datastore.ErrUnavailable, text)
}

func refused(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrAuthFailed) || wantsToken(err)
}

// wantsToken says whether another token may help.
func wantsToken(err error) bool {
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) ||
		errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// describe gives the words of an error without gRPC's frame.
func describe(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	return strings.TrimPrefix(text, "etcdserver: ")
}

// reason is the error that the server gives as text when it ends a watch: "rpc error: code = ... desc = etcdserver: ..."
// or a part of that.
func reason(text string) error {
	if i := strings.Index(text, "etcdserver: "); i >= 0 {
		text = text[i:]
	}
	return rpctypes.Error(status.Error(codes.Unknown, text))
}
