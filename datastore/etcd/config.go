package etcd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
)

// Config says where the store is, and who we are.
type Config struct {
	// Endpoints holds https://host:port, http://host:port, or unix:///path/to.sock. All have one scheme.
	Endpoints []string
	// CAFile, CertFile and KeyFile are for https. Without CAFile the host's authorities count; certificate and key go
	// together. They are read for each connection, so that they can be replaced.
	CAFile, CertFile, KeyFile string
	// User and PasswordFile are for etcd's own authentication. The file is read for each token.
	User, PasswordFile string
	// Prefix of keys; "" = "/tortie/v1/". It ends with a slash. Several clusters can so share one etcd.
	Prefix string
	Log    *slog.Logger
}

// Validate returns all that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("no endpoints"))
	}
	schemes := map[string]bool{}
	for _, e := range c.Endpoints {
		scheme, err := checkEndpoint(e)
		if err != nil {
			errs = append(errs, err)
		}
		schemes[scheme] = true
	}
	if len(schemes) > 1 {
		errs = append(errs, errors.New("endpoints of different schemes"))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("certificate and key go together"))
	}
	if (c.CAFile != "" || c.CertFile != "") && len(schemes) > 0 && !schemes["https"] {
		errs = append(errs, errors.New("certificates are for https endpoints"))
	}
	if (c.User == "") != (c.PasswordFile == "") {
		errs = append(errs, errors.New("user and password file go together"))
	}
	if c.Prefix != "" && (!strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/")) {
		errs = append(errs, fmt.Errorf("prefix %q: it begins and ends with a slash", c.Prefix))
	}
	return errors.Join(errs...)
}

func checkEndpoint(e string) (scheme string, err error) {
	u, err := url.Parse(e)
	if err != nil {
		return "", fmt.Errorf("endpoint %q: %w", e, err)
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return "", fmt.Errorf("endpoint %q: want unix:///path/to.sock", e)
		}
	case "http", "https":
		if _, _, err := net.SplitHostPort(u.Host); err != nil || u.Path != "" && u.Path != "/" {
			return "", fmt.Errorf("endpoint %q: want %s://host:port", e, u.Scheme)
		}
	default:
		return "", fmt.Errorf("endpoint %q: want https://, http:// or unix:///", e)
	}
	return u.Scheme, nil
}
