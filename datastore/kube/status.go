package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/tortie/tortie/datastore"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// health is how it goes with one source.
type health uint8

const (
	starting    health = iota
	good               // it is read, or known not to be served
	refused            // we may not
	failing            // the server answers that it can't
	unreachable        // no answer
)

type state struct {
	health
	err error
}

// judge says what an error of a request of a stream means. Some are no news of health; that the server is busy is news if
// it has been so for long.
func judge(err error, long bool) (s state, news bool) {
	if err == nil {
		return state{health: good}, true
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return state{unreachable, fmt.Errorf("%w: %w", datastore.ErrUnavailable, err)}, true
	}
	st := status.Status()
	switch {
	case apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsTooManyRequests(err) && !long,
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge), unserved(err):
		return state{}, false
	case st.Code == http.StatusUnauthorized || st.Code == http.StatusForbidden:
		return state{refused, fmt.Errorf("%w: %s", datastore.ErrForbidden, st.Message)}, true
	}
	return state{failing, fmt.Errorf("%w: %s", datastore.ErrUnavailable, st.Message)}, true
}

// retryable says that the same request may well succeed a moment later, without another list.
func retryable(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	if apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
		return false
	}
	switch status.Status().Code {
	case http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// health notes how it goes with a source, and tells the consumer what has changed.
func (h *hub) health(src *source, s state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.states[src.name]
	h.states[src.name] = s
	if was.health == s.health {
		return
	}
	if was.health == unreachable && s.health != unreachable {
		close(h.kick) // the others need not wait
		h.kick = make(chan struct{})
	}
	next := h.overall()
	next.Since = h.status.Since
	if next.Connected != h.status.Connected {
		next.Since = time.Now()
	}
	news := !alike(h.status, next)
	h.status = next
	h.q.status(next, news)
}

// alike says that a consumer learns nothing from b that a has not told.
func alike(a, b datastore.Status) bool {
	return a.Connected == b.Connected && (a.Err == nil) == (b.Err == nil) &&
		errors.Is(a.Err, datastore.ErrForbidden) == errors.Is(b.Err, datastore.ErrForbidden) &&
		slices.Equal(sorted(a.Kinds), sorted(b.Kinds))
}

// overall is the health of the stream. It is connected if the server answers, but for kinds that it can't or won't give.
func (h *hub) overall() datastore.Status {
	var s datastore.Status
	var errs [unreachable + 1]error
	answers := false
	for _, name := range sorted(h.states) {
		st := h.states[name]
		if errs[st.health] == nil {
			errs[st.health] = st.err
		}
		answers = answers || st.health == good
		if st.health == refused || st.health == failing {
			if s.Kinds == nil {
				s.Kinds = map[string]error{}
			}
			for _, kind := range h.feeds(h.tables[name].src) {
				s.Kinds[kind] = fmt.Errorf("%s: %w", name, st.err)
			}
		}
	}
	switch {
	case errs[unreachable] != nil:
		s.Err = errs[unreachable]
	case answers:
		s.Connected = true
	case errs[failing] != nil:
		s.Err = errs[failing]
	default:
		s.Err = errs[refused]
	}
	return s
}

// feeds are the wanted kinds that a source is needed for.
func (h *hub) feeds(src *source) []string {
	var out []string
	if h.wanted[src.kind] {
		out = append(out, src.kind)
	}
	if joins(src.name) && src.kind != "WorkloadEndpoint" && h.wanted["WorkloadEndpoint"] {
		out = append(out, "WorkloadEndpoint")
	}
	return out
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// wait waits for d, or until the server answers again.
func (h *hub) wait(ctx context.Context, d time.Duration) { waitUnless(ctx, d, h.kicked()) }

// kicked is closed when the server answers again.
func (h *hub) kicked() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kick
}

func waitUnless(ctx context.Context, d time.Duration, kick <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-kick:
	case <-t.C:
	}
}
