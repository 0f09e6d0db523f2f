package agent

import (
	"context"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/tortie/tortie/agent/pump"
)

// notify tells the service manager how the agent is, until ctx ends. It is up once the host is protected: what was to be
// applied after a reboot has been, or the running dataplane is left as it is. It does not wait for the store.
func (a *agent) notify(ctx context.Context) {
	send := a.d.Notify
	if send == nil {
		send = func(state string) {
			if _, err := daemon.SdNotify(false, state); err != nil {
				a.log.Debug("telling systemd", "err", err)
			}
		}
	}
	defer send(daemon.SdNotifyStopping)
	if a.start.State != nil {
		if a.pump.Wait(ctx, func(v *pump.View) bool { return !v.AllUnapplied }) != nil {
			return
		}
	}
	send(daemon.SdNotifyReady + "\nSTATUS=" + a.oneLine())
	every := 10 * time.Second
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		a.log.Warn("systemd's watchdog", "err", err)
	}
	if watchdog > 0 {
		every = min(every, watchdog/2)
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for told := ""; ; {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if watchdog > 0 && a.live() == nil {
			send(daemon.SdNotifyWatchdog)
		}
		if line := a.oneLine(); line != told {
			told = line
			send("STATUS=" + line)
		}
	}
}

// oneLine is how the agent is, in a line.
func (a *agent) oneLine() string {
	if missing := a.missing(); len(missing) > 0 {
		return "waiting for " + strings.Join(missing, ", ")
	}
	return "ready"
}
