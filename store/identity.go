package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/tortie/tortie/store/join"
)

// rootName is etcd's user that may do everything: who comes over the Unix socket, and this process.
const rootName = "root"

// identity is who has a certificate. Its text is the certificate's common name, and etcd's user.
type identity struct{ role, name string }

func (i identity) String() string { return i.role + ":" + i.name }

// label is what operators call it: nodes go by their names alone.
func (i identity) label() string {
	if i.role == join.RoleNode {
		return i.name
	}
	return i.String()
}

func parseIdentity(s string) (identity, bool) {
	role, name, ok := strings.Cut(s, ":")
	i := identity{role, name}
	return i, ok && i.validate() == nil
}

// parseLabel reads what label writes.
func parseLabel(s string) (identity, error) {
	i := identity{join.RoleNode, s}
	if name, ok := strings.CutPrefix(s, join.RoleAdmin+":"); ok {
		i = identity{join.RoleAdmin, name}
	}
	return i, i.validate()
}

// validate keeps out what is no name of a node, and with it all that is special in keys and in etcd.
func (i identity) validate() error {
	switch i.role {
	case join.RoleNode:
		if errs := validation.IsDNS1123Subdomain(i.name); len(errs) > 0 {
			return fmt.Errorf("node name %q: %s", i.name, errs[0])
		}
	case join.RoleAdmin:
		if errs := validation.IsDNS1123Subdomain(strings.Replace(i.name, "@", ".", 1)); len(errs) > 0 {
			return fmt.Errorf("administrator's name %q: lower case letters, digits, dots and dashes, like ann or ann@laptop", i.name)
		}
	default:
		return fmt.Errorf("role %q: want %s or %s", i.role, join.RoleNode, join.RoleAdmin)
	}
	return nil
}

// authInfo is how etcd sees a connection: by the common name of its certificate.
func authInfo(name string) credentials.TLSInfo {
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	return credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}}
}

// asRoot is for calls that this process makes of its own etcd.
func asRoot(ctx context.Context) context.Context {
	ctx = metadata.NewIncomingContext(ctx, metadata.MD{})
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: authInfo(rootName)})
}

// caller is who made a request over the network.
func caller(ctx context.Context) (identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity{}, false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return identity{}, false
	}
	return parseIdentity(info.State.VerifiedChains[0][0].Subject.CommonName)
}

// localCreds let whoever can open the Unix socket be root: its mode lets only root do so.
type localCreds struct{}

func (localCreds) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, authInfo(rootName), nil
}

func (localCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("the credentials of a socket are for servers")
}

func (localCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}
func (l localCreds) Clone() credentials.TransportCredentials { return l }
func (localCreds) OverrideServerName(string) error           { return nil }
