package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/etcd"
)

// storeFlags say how the command line reaches the store.
type storeFlags struct {
	endpoints                 []string
	caFile, certFile, keyFile string
	username, passwordFile    string
}

func (s *storeFlags) register(f *pflag.FlagSet) {
	f.StringSliceVar(&s.endpoints, "store", s.endpoints, "where the store listens: unix:///path or https://host:port (environment: TORTIE_STORE)")
	f.StringVar(&s.caFile, "store-ca", "", "authority of the store's certificate")
	f.StringVar(&s.certFile, "store-cert", "", "certificate to show to the store")
	f.StringVar(&s.keyFile, "store-key", "", "key of that certificate")
	f.StringVar(&s.username, "store-user", "", "user of the store")
	f.StringVar(&s.passwordFile, "store-password-file", "", "file with the password of that user")
}

func (s *storeFlags) open(context.Context) (datastore.Store, error) {
	return etcd.Open(etcd.Config{
		Endpoints: s.endpoints, CAFile: s.caFile, CertFile: s.certFile, KeyFile: s.keyFile,
		User: s.username, PasswordFile: s.passwordFile,
	})
}
