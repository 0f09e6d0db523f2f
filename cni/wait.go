package cni

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/backoff"
)

const (
	// awayTime is how long the ADD of a pod waits for an agent that can't be asked, before the timeout begins: so long the
	// image of the next one may take to come. Together they are less than the four minutes after which a kubelet makes the
	// sandbox again.
	awayTime = 150 * time.Second
	// answerTime bounds requests that nothing has to be waited for; a shorter timeout of the configuration does, too.
	answerTime = 5 * time.Second
	// detachTime bounds a detach.
	detachTime = 20 * time.Second
	// lastLook bounds the look for an agent after a note was left.
	lastLook = 2 * time.Second
)

// untilDone repeats ask for as long as the agent can't be asked or can't do it yet, until ctx ends. It returns the last
// error that says something.
func untilDone(ctx context.Context, ask func(context.Context) error) error {
	retry := backoff.Backoff{Min: 10 * time.Millisecond, Max: 250 * time.Millisecond}
	var last error
	for {
		err := ask(ctx)
		if answered(err) && !agentapi.Retry(err) {
			return err
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		if retry.Sleep(ctx) != nil {
			return last
		}
	}
}

// reached waits, for a pod, until there is an agent that can be asked, whatever it answers.
func (c *conf) reached(ag agent, at attachment, a cniArgs) {
	if a.pod == "" || c.Away == 0 {
		return
	}
	ctx, cancel := within(c.Away)
	defer cancel()
	_ = untilDone(ctx, func(ctx context.Context) error { // who asks next says what is wrong
		_, err := ag.List(ctx, agentapi.ListRequest{Sandbox: at.sandbox, Interface: at.iface})
		if answered(err) {
			return nil
		}
		return err
	})
}

// ready waits until the agent can attach workloads, and returns the attachment if it is there already.
func ready(ctx context.Context, ag agent, at attachment) (*agentapi.Attachment, error) {
	var resp agentapi.ListResponse
	err := untilDone(ctx, func(ctx context.Context) (err error) {
		resp, err = ag.List(ctx, agentapi.ListRequest{Sandbox: at.sandbox, Interface: at.iface})
		if err == nil && len(resp.NotReady) > 0 {
			err = agentapi.Errorf(agentapi.CodeUnavailable, "it waits for %s", strings.Join(resp.NotReady, ", "))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, a := range resp.Attachments {
		if !a.Detaching {
			return &a, nil
		}
	}
	return nil, nil
}

// attach asks for an attach until policy is enforced.
func attach(ctx context.Context, ag agent, r agentapi.AttachRequest, ns *os.File) (agentapi.AttachResponse, error) {
	var resp agentapi.AttachResponse
	err := untilDone(ctx, func(ctx context.Context) (err error) {
		r.TimeoutMS = agentTime(ctx)
		resp, err = ag.Attach(ctx, r, ns)
		return err
	})
	return resp, err
}

// agentTime is how long the agent may take, in milliseconds: a little less than the plugin waits, so that its reason for
// giving up arrives.
func agentTime(ctx context.Context) int64 {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	left := time.Until(end)
	return max(1, min(left*9/10, maxTimeout).Milliseconds())
}

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
