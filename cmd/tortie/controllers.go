package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/labels"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/agent/health"
	"github.com/tortie/tortie/controllers"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/kube"
)

const (
	controllersListen = "127.0.0.1:9092"
	// ownNamespace is where a pod finds the name of its namespace.
	ownNamespace     = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	defaultNamespace = "tortie-system"
)

func controllersCommand() *cobra.Command {
	var path, listen, namespace, agents string
	over := config.Default()
	cmd := &cobra.Command{
		Use:   "controllers",
		Short: "Do the work of the cluster that no node does, such as taking back addresses that nobody uses",
		Long: fmt.Sprintf(`Do the work of the cluster that no node does:

  - take back addresses that nobody has used for 15 minutes, and what nodes that are gone have left of blocks and affinities
  - keep automatic host endpoints, if the KubeControllersConfiguration asks for them
  - with Kubernetes as the store: make the built-in tiers and keep tiers that have policies, write Events about policies
    that can't be enforced as they are written, and mark nodes that have booted as without network until their agent is up:
    all with Linux, or those that --agent-nodes names

With Kubernetes several may run: one leads, by the Lease %s. tortie store does this work by itself. For another
etcd run one; a second one would do no harm, and no good.

Which store that is, and how to log, is read from the agent's file of settings too.`, controllers.LeaseName),
		Example: "  tortie controllers --store kubernetes\n  tortie controllers --config /etc/tortie/agent.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := agentConfig(cmd.Flags(), path, over)
			if err != nil {
				return usage(err)
			}
			cfg.Listen = listen
			nodes, err := labels.Parse(agents)
			if err != nil {
				return usage(fmt.Errorf("--agent-nodes: %w", err))
			}
			return runControllers(cmd.Context(), cfg, namespace, nodes)
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "config", "", "file of settings (default "+defaultConfigFile+", if it is there)")
	f.StringVar(&listen, "listen", controllersListen, "address of health and metrics; empty = nowhere")
	f.StringVar(&agents, "agent-nodes", "", "labels of the nodes that agents run on, as kubectl's --selector takes them; others are another network plugin's (default all with Linux)")
	f.StringVar(&namespace, "lease-namespace", "", "namespace of the Lease (default $POD_NAMESPACE, or that of the pod, or "+defaultNamespace+")")
	f.TextVar(&over.LogLevel, "log-level", over.LogLevel, "debug, info, warn or error")
	f.StringVar(&over.LogFormat, "log-format", over.LogFormat, "text or json")
	return cmd
}

func runControllers(ctx context.Context, cfg config.Config, namespace string, agents labels.Selector) error {
	level := &slog.LevelVar{}
	level.Set(cfg.LogLevel)
	log := newLog(cfg, level)
	klog.SetSlogLogger(log) // what the libraries of Kubernetes say
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	c := controllers.Config{Log: log, LogLevel: level, Registry: registry, OpenStore: func(ctx context.Context) (datastore.Store, error) {
		return openStore(ctx, cfg.Store, kube.Config{Version: buildVersion(), Log: log})
	}}
	if cfg.Store.Kubernetes != nil {
		k, err := openKubernetes(cfg.Store.Kubernetes, namespace, log)
		if err != nil {
			return err
		}
		k.Agents = agents
		c.Kubernetes = k
	}
	all, err := controllers.New(c)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if cfg.Listen != "" {
		h, err := health.Listen(health.Options{Addr: cfg.Listen, Live: all.Live, Ready: all.Ready, Gatherer: registry, Log: log})
		if err != nil {
			return err
		}
		g.Go(func() error { return h.Serve(ctx) })
	}
	g.Go(func() error { return all.Run(ctx) })
	return g.Wait()
}

// openKubernetes makes clients of the API server. It need not be up.
func openKubernetes(k *config.Kubernetes, namespace string, log *slog.Logger) (*controllers.Kubernetes, error) {
	rc, err := kube.Config{Kubeconfig: k.Kubeconfig, APIServers: k.APIServers, Version: buildVersion(), Log: log}.RESTConfig()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	core, err := corev1client.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	leases, err := coordinationv1client.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return &controllers.Kubernetes{Core: core, Lease: controllers.Lease{Client: leases, Namespace: leaseNamespace(namespace), Identity: identity()}}, nil
}

func leaseNamespace(said string) string {
	if said != "" {
		return said
	}
	if s := os.Getenv("POD_NAMESPACE"); s != "" {
		return s
	}
	if b, err := os.ReadFile(ownNamespace); err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b))
	}
	return defaultNamespace
}

// identity names this process: for people by its host, and no other process has the rest.
func identity() string {
	host, err := os.Hostname()
	if name := os.Getenv("POD_NAME"); name != "" {
		host = name
	} else if err != nil {
		host = "unknown"
	}
	return host + "_" + rand.Text()[:10]
}
