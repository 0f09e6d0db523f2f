package controllers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/tortie/tortie/api"
)

const (
	// eventAgain is when an Event is written again while its cause lasts: API servers forget Events after an hour.
	eventAgain = 45 * time.Minute
	maxMessage = 1000
	component  = "tortie-controllers"
)

// The reasons of Events.
const (
	reasonPartly     = "PolicyPartlyUnsupported" // what can't be said is denied, or not allowed
	reasonUnreadable = "PolicyUnreadable"        // the policy as a whole has no effect
)

// events tells users of policies that are not enforced as they are written: an Event for each object and reason.
type events struct {
	w       *world
	config  *config
	core    corev1client.EventsGetter
	metrics *stepMetrics
	now     func() time.Time

	mu   sync.Mutex
	bad  int                    // policies with problems
	said map[eventKey]eventSaid // what this process has written
}

type eventKey struct {
	policy api.Key
	reason string
}

type eventSaid struct {
	message string
	at      time.Time
}

func (e *events) part() part {
	return part{
		name: "events", step: e.step, needs: e.w.sees, every: e.config.every,
		kinds: []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"},
	}
}

func (e *events) step(ctx context.Context) error {
	now, said, bad := e.now(), map[eventKey]eventSaid{}, 0
	var errs []error
	for key, p := range e.w.allPolicies() {
		reason, message := trouble(p)
		if reason == "" {
			continue
		}
		bad++
		k := eventKey{key, reason}
		if old, ok := e.said[k]; ok && old.message == message && now.Sub(old.at) < eventAgain {
			said[k] = old
			continue
		}
		if err := e.write(ctx, now, k, p, message); err != nil {
			errs = append(errs, err)
			continue
		}
		said[k] = eventSaid{message, now}
	}
	e.said = said
	e.metrics.bad.Set(float64(bad))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bad = bad
	return errors.Join(errs...)
}

// degraded is how many policies have problems.
func (e *events) degraded() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bad
}

// trouble says what is wrong with a policy; "" if nothing is.
func trouble(p policy) (reason, message string) {
	switch {
	case p.problem != nil:
		return reasonUnreadable, clip("it has no effect: " + p.problem.Error())
	case len(p.problems) > 0:
		var texts []string
		for _, x := range p.problems {
			texts = append(texts, x.Error())
		}
		slices.Sort(texts)
		return reasonPartly, clip("parts of it can't be enforced as they are written; they allow nothing, and may deny more than they say: " + strings.Join(slices.Compact(texts), "; "))
	}
	return "", ""
}

func clip(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + " ..."
}

// write makes the Event, or counts it up. Its name follows from what it is about, so that there is one, whoever leads.
func (e *events) write(ctx context.Context, now time.Time, k eventKey, p policy, message string) error {
	ref := source(k.policy)
	ref.UID = p.uid
	sum := sha256.Sum256([]byte(ref.APIVersion + ref.Kind + "\x00" + string(ref.UID) + "\x00" + k.reason))
	name := ref.Name[:min(len(ref.Name), 200)] + "." + hex.EncodeToString(sum[:8])
	namespace := cmp.Or(ref.Namespace, metav1.NamespaceDefault)
	at := metav1.NewTime(now)
	_, err := e.core.Events(namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: name},
		InvolvedObject: ref, Reason: k.reason, Message: message, Type: corev1.EventTypeWarning,
		Source: corev1.EventSource{Component: component}, ReportingController: component,
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	}, metav1.CreateOptions{})
	if !kerrors.IsAlreadyExists(err) {
		return about(err, ref)
	}
	old, err := e.core.Events(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return about(err, ref)
	}
	if old.Message == message && now.Sub(old.LastTimestamp.Time) < eventAgain {
		return nil // another leader has said it
	}
	old.Message, old.LastTimestamp, old.Count = message, at, old.Count+1
	_, err = e.core.Events(namespace).Update(ctx, old, metav1.UpdateOptions{})
	if kerrors.IsConflict(err) {
		return nil
	}
	return about(err, ref)
}

func about(err error, ref corev1.ObjectReference) error {
	// A namespace that is going takes no Events; nobody would read them.
	if err == nil || kerrors.IsNotFound(err) || kerrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return fmt.Errorf("writing an Event about %s %s: %w", ref.Kind, ref.Name, err)
}

// source is the object of the API server that a policy comes from.
func source(key api.Key) corev1.ObjectReference {
	if name, ok := strings.CutPrefix(key.Name, "knp.default."); ok && key.Kind == "NetworkPolicy" {
		return corev1.ObjectReference{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Namespace: key.Namespace, Name: name}
	}
	for _, prefix := range []string{"kcnp.admin.", "kcnp.baseline."} {
		if name, ok := strings.CutPrefix(key.Name, prefix); ok && key.Kind == "GlobalNetworkPolicy" {
			return corev1.ObjectReference{APIVersion: "policy.networking.k8s.io/v1alpha2", Kind: "ClusterNetworkPolicy", Name: name}
		}
	}
	return corev1.ObjectReference{APIVersion: api.GroupVersion, Kind: key.Kind, Namespace: key.Namespace, Name: key.Name}
}
