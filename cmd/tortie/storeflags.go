package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/datastore/kube"
)

// storeFlags say how the command line reaches the store.
type storeFlags struct {
	endpoints                 []string
	caFile, certFile, keyFile string
	username, passwordFile    string

	flags *pflag.FlagSet
}

func (s *storeFlags) register(f *pflag.FlagSet) {
	s.flags = f
	f.StringSliceVar(&s.endpoints, "store", s.endpoints, "where the store is: unix:///path, https://host:port, or kubernetes[:/path/of/kubeconfig] (environment: TORTIE_STORE; otherwise what tortie join has set up)")
	f.StringVar(&s.caFile, "store-ca", "", "authority of the store's certificate")
	f.StringVar(&s.certFile, "store-cert", "", "certificate to show to the store")
	f.StringVar(&s.keyFile, "store-key", "", "key of that certificate")
	f.StringVar(&s.username, "store-user", "", "user of the store")
	f.StringVar(&s.passwordFile, "store-password-file", "", "file with the password of that user")
}

// settings are what the flags say, or else what was set up on this host.
func (s *storeFlags) settings() config.Store {
	if c, ok := s.fromFiles(); ok {
		return c
	}
	c := config.Store{CAFile: s.caFile, CertFile: s.certFile, KeyFile: s.keyFile, Username: s.username, PasswordFile: s.passwordFile}
	c.Use(s.endpoints)
	return c
}

func (s *storeFlags) open(ctx context.Context) (datastore.Store, error) {
	return openStore(ctx, s.settings(), kube.Config{Version: buildVersion()})
}

// oneByOne reports whether the store can't write several resources as one.
func (s *storeFlags) oneByOne() bool { return s.settings().Kubernetes != nil }

// openStore opens the store that c names; k is what a Kubernetes one is told beside that.
func openStore(ctx context.Context, c config.Store, k kube.Config) (datastore.Store, error) {
	if c.Kubernetes == nil {
		return etcd.Open(etcd.Config{Endpoints: c.Endpoints, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
			User: c.Username, PasswordFile: c.PasswordFile, Log: k.Log})
	}
	k.Kubeconfig, k.APIServers = c.Kubernetes.Kubeconfig, c.Kubernetes.APIServers
	s, err := kube.Open(ctx, k)
	if err != nil {
		return nil, err // not a nil *kube.Store in an interface
	}
	return s, nil
}

// fromFiles is what tortie join or an installation has set up, if nobody says where the store is: for this administrator, or
// else for the agent of this host.
func (s *storeFlags) fromFiles() (config.Store, bool) {
	if os.Getenv("TORTIE_STORE") != "" || s.flags == nil {
		return config.Store{}, false
	}
	said := false
	s.flags.VisitAll(func(f *pflag.Flag) { said = said || f.Changed && strings.HasPrefix(f.Name, "store") })
	if said {
		return config.Store{}, false
	}
	for _, path := range []string{filepath.Join(adminDir(), clientFile), defaultConfigFile} {
		c, err := config.Load(path)
		if err != nil || c.Store.CertFile == "" && c.Store.Kubernetes == nil {
			continue // not there, not for us to read, or it names a store without certificates: the default one
		}
		return config.Store{Kubernetes: c.Store.Kubernetes, Endpoints: c.Store.Endpoints, CAFile: c.Store.CAFile, CertFile: c.Store.CertFile,
			KeyFile: c.Store.KeyFile}, true
	}
	return config.Store{}, false
}
