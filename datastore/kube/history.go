package kube

import (
	"context"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A server whose store was restored from a backup begins again at an older revision. It takes a watch that goes on at one
// that it has not come to yet, and tells nothing until it has: what changes meanwhile would never be seen. And once it has
// come there, what happened in between is missed. So a watch that did not end in its time goes on only if the server's
// revision is not an older one, and only soon; else everything is read anew.

// lost notes that there is no watch any more, though its time was not over.
func (f *feed) lost(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away.IsZero() {
		f.away = at
	}
}

// found notes that the server has told, or tells, what there is.
func (f *feed) found() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = time.Time{}
}

// goesOn returns an error if what a watch has told before can't be gone on from.
func (f *feed) goesOn(ctx context.Context, o metav1.ListOptions) error {
	f.mu.Lock()
	away := f.away
	f.mu.Unlock()
	if away.IsZero() || o.SendInitialEvents != nil || o.ResourceVersion == "" || o.ResourceVersion == "0" {
		return nil
	}
	if time.Since(away) > f.s.pace.resume {
		return f.begin("the server was away for too long")
	}
	now, err := f.revision(ctx)
	if err != nil {
		return err
	}
	if was, err := strconv.ParseUint(o.ResourceVersion, 10, 64); err != nil || now < was {
		f.s.log.Warn("the server has gone back to an older revision: everything is read anew", "resource", f.src.name, "was", o.ResourceVersion, "is", now)
		return f.begin("the server has gone back to an older revision")
	}
	return nil
}

// begin has everything read anew, whatever was seen before.
func (f *feed) begin(why string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.anew = true
	return apierrors.NewResourceExpired(why)
}

// beginsAnew says whether everything is to be read anew, once.
func (f *feed) beginsAnew() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	anew := f.anew
	f.anew = false
	return anew
}

// revision is that of the server's store now.
func (f *feed) revision(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, f.s.pace.answer)
	defer cancel()
	l := f.src.newList()
	one := metav1.ListOptions{Limit: 1}
	if err := f.s.request(f.src, "GET", "").SpecificallyVersionedParams(options(&one)).MaxRetries(0).Do(ctx).Into(l); err != nil {
		return 0, err
	}
	m, err := meta.ListAccessor(l)
	if err != nil {
		return 0, err
	}
	rev, err := strconv.ParseUint(m.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the revision of a list: %w", err)
	}
	return rev, nil
}
