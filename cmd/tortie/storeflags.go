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
	f.StringSliceVar(&s.endpoints, "store", s.endpoints, "where the store listens: unix:///path or https://host:port (environment: TORTIE_STORE; otherwise what tortie join has set up)")
	f.StringVar(&s.caFile, "store-ca", "", "authority of the store's certificate")
	f.StringVar(&s.certFile, "store-cert", "", "certificate to show to the store")
	f.StringVar(&s.keyFile, "store-key", "", "key of that certificate")
	f.StringVar(&s.username, "store-user", "", "user of the store")
	f.StringVar(&s.passwordFile, "store-password-file", "", "file with the password of that user")
}

func (s *storeFlags) open(context.Context) (datastore.Store, error) {
	if c, ok := s.fromFiles(); ok {
		return etcd.Open(c)
	}
	return etcd.Open(etcd.Config{
		Endpoints: s.endpoints, CAFile: s.caFile, CertFile: s.certFile, KeyFile: s.keyFile,
		User: s.username, PasswordFile: s.passwordFile,
	})
}

// fromFiles is what tortie join has set up, if nobody says where the store is: for this administrator, or else for the
// agent of this host.
func (s *storeFlags) fromFiles() (etcd.Config, bool) {
	if os.Getenv("TORTIE_STORE") != "" || s.flags == nil {
		return etcd.Config{}, false
	}
	said := false
	s.flags.VisitAll(func(f *pflag.Flag) { said = said || f.Changed && strings.HasPrefix(f.Name, "store") })
	if said {
		return etcd.Config{}, false
	}
	for _, path := range []string{filepath.Join(adminDir(), clientFile), defaultConfigFile} {
		c, err := config.Load(path)
		if err != nil || c.Store.CertFile == "" {
			continue // not there, not for us to read, or it names a store without certificates: the default one
		}
		return etcd.Config{Endpoints: c.Store.Endpoints, CAFile: c.Store.CAFile, CertFile: c.Store.CertFile, KeyFile: c.Store.KeyFile}, true
	}
	return etcd.Config{}, false
}
