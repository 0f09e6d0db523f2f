package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/tortie/tortie/datastore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return fmt.Errorf("%w: %w", datastore.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %s", meaning(status.Status()), status.Status().Message)
}

// meaning finds the error of package datastore for what the server says.
func meaning(s metav1.Status) error {
	switch s.Reason {
	case metav1.StatusReasonNotFound:
		return datastore.ErrNotFound
	case metav1.StatusReasonAlreadyExists:
		return datastore.ErrExists
	case metav1.StatusReasonConflict:
		return datastore.ErrConflict
	}
	switch s.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return datastore.ErrForbidden
	case http.StatusNotFound:
		return datastore.ErrNotFound
	case http.StatusConflict:
		return datastore.ErrConflict
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
		http.StatusMethodNotAllowed:
		return datastore.ErrInvalid
	}
	switch {
	case strings.Contains(s.Message, "database space exceeded"):
		return datastore.ErrFull
	case strings.Contains(s.Message, "request is too large"): // by etcd's measure
		return datastore.ErrInvalid
	}
	return datastore.ErrUnavailable
}

// unserved says that the server has no such resource at all (as opposed to an object of it).
func unserved(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != http.StatusNotFound {
		return false
	}
	d := status.Status().Details
	return d == nil || d.Name == ""
}
