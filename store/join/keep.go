package join

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

// AuthorityName is what a store's own authority is called: how its certificates are told from others.
const AuthorityName = "tortie store authority"

const (
	lookEvery = time.Hour // how often a certificate is looked at, at least: clocks are set
	retryMin  = time.Second
	retryMax  = 10 * time.Minute
)

// Ours says whether the certificate was issued by a store's own authority, and so can be renewed there.
func (f Files) Ours() bool {
	c, err := f.leaf()
	return err == nil && c.Issuer.CommonName == AuthorityName
}

// Keep renews the certificate at addr when two thirds of its life are over, until ctx ends.
func (f Files) Keep(ctx context.Context, addr string, log *slog.Logger) {
	var told string
	for {
		wait := f.due(time.Now())
		if wait <= 0 {
			g, err := f.Renew(ctx, addr)
			switch {
			case err == nil:
				log.Info("certificate renewed", "name", g.Name, "expires", g.Expires)
				told = ""
			case ctx.Err() != nil:
				return
			case err.Error() != told:
				log.Warn("renewing the certificate", "err", err)
				told = err.Error()
			}
			wait = f.retry(err)
		}
		t := time.NewTimer(min(wait, lookEvery))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// due is how long until it is time to renew; never the same for all who joined together.
func (f Files) due(now time.Time) time.Duration {
	from, until, err := f.Validity()
	if err != nil {
		return lookEvery // Renew could do no better: somebody is at the files
	}
	life := until.Sub(from)
	at := from.Add(life / 3 * 2)
	if now.Before(at) {
		return at.Sub(now) + rand.N(life/20+1)
	}
	return 0
}

// retry is how long to wait after a try.
func (f Files) retry(err error) time.Duration {
	if err == nil {
		return retryMin
	}
	from, until, verr := f.Validity()
	if verr != nil || errors.Is(err, ErrRefused) {
		return retryMax
	}
	return min(max(until.Sub(from)/100, retryMin), retryMax)
}
