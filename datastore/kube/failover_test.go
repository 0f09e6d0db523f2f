package kube

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestFailover(t *testing.T) {
	answer := func(name string) *httptest.Server {
		return httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			io.WriteString(w, name+" "+r.URL.RequestURI()+" "+string(body))
		}))
	}
	a, b := answer("a"), answer("b")
	a.Start()
	b.Start()
	defer b.Close()
	var servers []*url.URL
	for _, s := range []string{a.URL, b.URL} {
		u, err := parseServer(s)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, u)
	}
	c := http.Client{Transport: failover(servers)(http.DefaultTransport)}
	ask := func() string {
		res, err := c.Post("http://nowhere.invalid/x?y=z", "text/plain", strings.NewReader("body"))
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return string(body)
	}
	if got := ask(); got != "a /x?y=z body" {
		t.Errorf("first: %s", got)
	}
	address := a.Listener.Addr().String()
	a.CloseClientConnections()
	a.Close()
	for range 3 {
		if got := ask(); got != "b /x?y=z body" {
			t.Errorf("with the first one gone: %s", got)
		}
	}
	b.CloseClientConnections()
	b.Close()
	if got := ask(); !strings.Contains(got, "connection refused") {
		t.Errorf("with all gone: %s", got)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	back := answer("back")
	back.Listener.Close()
	back.Listener = l
	back.Start()
	defer back.Close()
	if got := ask(); !strings.HasPrefix(got, "back") {
		t.Errorf("with the first one back: %s", got)
	}
}

func TestConfig(t *testing.T) {
	for server, ok := range map[string]bool{
		"https://10.0.0.1:6443": true, "https://[fd00::1]:6443": true, "https://api.example.com:443/": true,
		"10.0.0.1:6443": false, "https://10.0.0.1": false, "ftp://x:1": false, "https://x:1/path": false, "": false,
	} {
		if err := (Config{APIServers: []string{server}}).Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", server, err)
		}
	}
	rc, err := Config{Kubeconfig: "testdata/kubeconfig", APIServers: []string{"https://10.0.0.1:6443"}, Node: "n1", Version: "1.2"}.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	if rc.Host != "https://10.0.0.1:6443" || rc.BearerToken != "secret" || !strings.HasPrefix(rc.UserAgent, "tortie/1.2 (") || !strings.HasSuffix(rc.UserAgent, " node/n1") {
		t.Errorf("host %q, user agent %q", rc.Host, rc.UserAgent)
	}
	if _, err := (Config{Kubeconfig: "testdata/none"}).RESTConfig(); err == nil {
		t.Error("a file that is not there does not matter")
	}
}
