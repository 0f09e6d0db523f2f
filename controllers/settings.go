package controllers

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/ipam"
)

// period is how often parts look at everything if nothing changes.
const period = 5 * time.Minute

// settings is what the KubeControllersConfiguration says.
type settings struct {
	grace         time.Duration // before an address that nobody uses is taken back; 0 = never
	period        time.Duration
	hostEndpoints *api.AutoHostEndpoints // nil = none
	level         slog.Level
}

func defaultSettings() settings {
	return settings{grace: ipam.DefaultGrace, period: period, level: slog.LevelInfo}
}

// readSettings reads an object that may be nil.
func readSettings(o *api.KubeControllersConfiguration, level slog.Level) settings {
	s := defaultSettings()
	s.level = level
	if o == nil {
		return s
	}
	switch o.Spec.LogSeverityScreen {
	case "Debug":
		s.level = slog.LevelDebug
	case "Info":
		s.level = slog.LevelInfo
	case "Warning":
		s.level = slog.LevelWarn
	case "Error", "Fatal", "Panic", "None":
		s.level = slog.LevelError
	}
	n := o.Spec.Controllers.Node
	if n == nil {
		return s
	}
	if n.LeakGracePeriod != nil {
		s.grace = time.Duration(*n.LeakGracePeriod)
	}
	if n.ReconcilerPeriod != nil && *n.ReconcilerPeriod > 0 {
		s.period = time.Duration(*n.ReconcilerPeriod)
	}
	if n.HostEndpoint != nil && n.HostEndpoint.AutoCreate == "Enabled" {
		s.hostEndpoints = n.HostEndpoint
	}
	return s
}

// config follows the settings. While the object can't be read the last ones stay.
type config struct {
	w     *world
	level slog.Level     // that the command line says
	apply *slog.LevelVar // nil = the level stays

	mu    sync.Mutex
	now   settings
	known bool // the object has been read once, or there was none
}

func newConfig(w *world, level *slog.LevelVar) *config {
	c := &config{w: w, apply: level, now: defaultSettings()}
	if level != nil {
		c.level = level.Level()
	}
	return c
}

// read returns the settings as they are now.
func (c *config) read() settings {
	s, _, _ := c.look()
	return s
}

// look is read that says why the object can't be read, and whether the settings are what it said once: at the first look
// they are the parts of it that can be.
func (c *config) look() (now settings, known bool, err error) {
	objects, err := listed[*api.KubeControllersConfiguration](c.w, "KubeControllersConfiguration")
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && (c.known || !errors.Is(err, datastore.ErrUnreadable)) {
		return c.now, c.known, err
	}
	c.known = err == nil
	var found *api.KubeControllersConfiguration
	for _, o := range objects {
		if o.Name == api.DefaultConfiguration {
			found = o
		}
	}
	c.now = readSettings(found, c.level)
	if c.apply != nil {
		c.apply.Set(c.now.level)
	}
	return c.now, c.known, err
}

func (c *config) every() time.Duration { return c.read().period }
