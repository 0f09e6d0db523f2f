package kube

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config says where the API server is, and who we are.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file. "" means the service account of the pod that we are in, or else what
	// kubectl would use: the files of $KUBECONFIG, or ~/.kube/config.
	Kubeconfig string
	// APIServers holds https://host:port of API servers, tried in turn instead of the address that the kubeconfig or the
	// pod's environment has: that of a service needs a proxy on the node, which may need us first. Credentials and
	// authority stay the same.
	APIServers []string
	// Node is the host that we run on, if any; with Version, for the server's logs.
	Node, Version string
	Log           *slog.Logger
}

// Validate returns all that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	for _, s := range c.APIServers {
		if _, err := parseServer(s); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func parseServer(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("API server %q: %w", s, err)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("API server %q: want https://host:port", s)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return nil, fmt.Errorf("API server %q: want https://host:port", s)
	}
	return u, nil
}

const (
	// Requests are few; these only bound what a loop gone wild can do.
	qps, burst = 200, 400

	dialTimeout = 3 * time.Second
)

// RESTConfig is c as other clients of Kubernetes' libraries take it.
func (c Config) RESTConfig() (*rest.Config, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	rc, err := c.load()
	if err != nil {
		return nil, err
	}
	rc.QPS, rc.Burst = qps, burst
	rc.UserAgent = c.userAgent()
	rc.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	rc.WarningHandlerWithContext = rest.NoWarnings{}
	if len(c.APIServers) > 0 {
		servers := make([]*url.URL, len(c.APIServers))
		for i, s := range c.APIServers {
			if servers[i], err = parseServer(s); err != nil {
				return nil, err
			}
		}
		rc.Host = c.APIServers[0]
		log := c.Log
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		rc.Wrap(failover(servers, log))
	}
	return rc, nil
}

func (c Config) load() (*rest.Config, error) {
	if c.Kubeconfig == "" {
		rc, err := rest.InClusterConfig()
		if err == nil {
			return rc, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("the pod's service account: %w", err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.Kubeconfig
	rc, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no kubeconfig (set $KUBECONFIG, or say --store kubernetes:<file>), and not in a pod of a cluster")
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return rc, nil
}

func (c Config) userAgent() string {
	s := fmt.Sprintf("tortie/%s (%s/%s)", cmp.Or(c.Version, "unknown"), runtime.GOOS, runtime.GOARCH)
	if c.Node != "" {
		s += " node/" + c.Node
	}
	return s
}
