package agent

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
)

func felix(name string, spec api.FelixConfigurationSpec) *api.FelixConfiguration {
	return &api.FelixConfiguration{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "FelixConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
}

// put creates a resource or replaces it.
func (n *node) put(o api.Object) {
	n.t.Helper()
	if _, err := n.store.Update(n.t.Context(), o); err != nil {
		n.create(o)
	}
}

// TestSettingsFromTheStore: what FelixConfigurations say takes effect while the agent runs, the node's own before the
// default, the agent's configuration before both, and what they no longer say is as it was.
func TestSettingsFromTheStore(t *testing.T) {
	n := newNode(t)
	parsed, err := config.Parse([]byte("failsafeOut: [\"tcp:5\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	n.cfg.FailsafeOut, n.cfg.Said = parsed.FailsafeOut, parsed.Said
	n.start()
	n.ready()
	toHost := func(want drivers.EndpointToHost, in, out string) {
		t.Helper()
		n.eventually("the settings are in the dataplane", func() error {
			node := n.world.State().Node
			if node.EndpointToHost != want || fmt.Sprint(node.FailsafeIn) != in || fmt.Sprint(node.FailsafeOut) != out {
				return fmt.Errorf("%v in %v out %v", node.EndpointToHost, node.FailsafeIn, node.FailsafeOut)
			}
			return nil
		})
	}
	defaults, five := fmt.Sprint(calcgraph.Default("node1").FailsafeIn), fmt.Sprint([]drivers.Failsafe{{Proto: 6, Port: 5}})
	toHost(drivers.ToHostDrop, defaults, five)
	n.put(felix("default", api.FelixConfigurationSpec{"defaultEndpointToHostAction": "Accept",
		"failsafeInboundHostPorts": []api.ProtoPort{}, "failsafeOutboundHostPorts": []api.ProtoPort{{Port: 6}}}))
	toHost(drivers.ToHostAccept, "[]", five)
	n.put(felix("node.node1", api.FelixConfigurationSpec{"defaultEndpointToHostAction": "Return"}))
	toHost(drivers.ToHostReturn, "[]", five)
	want := "FelixConfiguration/default spec.failsafeOutboundHostPorts does not count on node node1: failsafeOut in the agent's own configuration"
	if problems := fmt.Sprint(n.status().Problems); !strings.Contains(problems, want) {
		t.Errorf("no problem %q in %s", want, problems)
	}
	for _, name := range []string{"node.node1", "default"} {
		if err := n.store.Delete(t.Context(), api.Key{Kind: "FelixConfiguration", Name: name}, ""); err != nil {
			t.Fatal(err)
		}
		if name == "node.node1" {
			toHost(drivers.ToHostAccept, "[]", five)
		}
	}
	toHost(drivers.ToHostDrop, defaults, five)
}

// TestSettingsOfTheAgent: those which are not about the dataplane's content.
func TestSettingsOfTheAgent(t *testing.T) {
	n := newNode(t)
	n.cfg.ResyncInterval = 0
	d := n.deps()
	d.Config, d.LogLevel = n.cfg, &slog.LevelVar{}
	n.startWith(d)
	n.ready()
	applies := func() time.Time { return n.status().Apply.Last }
	n.put(felix("default", api.FelixConfigurationSpec{"logSeverityScreen": "Warning", "routeRefreshInterval": api.Duration(time.Second)}))
	n.eventually("the level", func() error {
		if l := d.LogLevel.Level(); l != slog.LevelWarn {
			return fmt.Errorf("is %v", l)
		}
		return nil
	})
	for range 3 {
		last := applies()
		n.eventually("a resync", func() error {
			if !applies().After(last) {
				return fmt.Errorf("none after %v", last)
			}
			return nil
		})
	}
	n.put(felix("default", api.FelixConfigurationSpec{}))
	n.eventually("the level of before", func() error {
		if l := d.LogLevel.Level(); l != slog.LevelInfo {
			return fmt.Errorf("is %v", l)
		}
		return nil
	})
}
