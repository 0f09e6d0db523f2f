package kube

import (
	"context"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// absent is called for each answer that there is no such resource. It returns when it is worth to ask again.
func (f *feed) absent(ctx context.Context) {
	f.mu.Lock()
	f.gone++
	gone := f.gone
	f.mu.Unlock()
	held := f.h.size(f.t) > 0
	// Whoever served it may be just starting, or be the wrong one to ask: what is enforced is not dropped on one answer.
	if gone < f.s.pace.confirm && held {
		f.h.wait(ctx, jitter(min(f.s.pace.maxBackoff, f.s.pace.minBackoff<<min(2*gone, 8))))
		return
	}
	if held {
		f.s.log.Warn("a kind is no longer served, what was read of it is dropped", "resource", f.src.name)
	}
	f.h.replace(f.t, nil)
	f.h.health(f.src, state{health: good})
	delay := f.s.pace.minBackoff
	for ctx.Err() == nil {
		if f.untilDefined(ctx) {
			// It is served soon, or in a version that is not ours.
			delay = min(2*delay, f.s.pace.absent)
			f.h.wait(ctx, jitter(delay))
		} else {
			f.h.wait(ctx, jitter(f.s.pace.absent))
		}
		if _, err := f.list(ctx, metav1.ListOptions{Limit: 1}); !unserved(err) {
			return
		}
	}
}

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// untilDefined returns when there is a CustomResourceDefinition of the resource, so that an idle node need not ask for what
// nobody has installed. It returns false, without waiting, if that can't be watched.
func (f *feed) untilDefined(ctx context.Context) bool {
	if !strings.Contains(f.src.name, ".") {
		return false
	}
	o := metav1.ListOptions{FieldSelector: "metadata.name=" + f.src.name}
	l := &rawList{}
	listing, cancel := context.WithTimeout(ctx, f.s.pace.answer)
	defer cancel()
	err := f.definitions().SpecificallyVersionedParams(options(&o)).MaxRetries(0).Do(listing).Into(l)
	if err != nil {
		return false
	}
	if len(l.Items) > 0 {
		return true
	}
	o.ResourceVersion, o.AllowWatchBookmarks = l.ResourceVersion, true
	for ctx.Err() == nil {
		seconds := int64(jitter(f.s.pace.definition) / time.Second)
		o.TimeoutSeconds = &seconds
		w, err := f.s.startWatch(ctx, f.definitions(), o)
		if err != nil {
			return false
		}
		for e := range w.ResultChan() {
			r, ok := e.Object.(*rawObject)
			if !ok || e.Type != "BOOKMARK" {
				w.Stop()
				return ok
			}
			o.ResourceVersion = r.ResourceVersion
		}
		w.Stop()
		f.h.wait(ctx, jitter(f.s.pace.minBackoff))
	}
	return false
}

func (f *feed) definitions() *rest.Request { return f.s.raw.Get().AbsPath(definitions) }
