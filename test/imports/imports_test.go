// Package imports holds the test of who may import whom: docs/architecture.md has the table.
package imports

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/test/build"
)

const module = "github.com/tortie/tortie"

// A rule speaks of the packages under one folder of the module (or, with exact, of that folder alone).
type rule struct {
	dir   string
	exact bool
	// only lists what they may import of the module (folders, each with what is below; "=dir" is the folder alone).
	only []string
	// std says that they import nothing from outside the module and the standard library, but for what is in extern.
	std    bool
	extern []string
	// never lists import path prefixes that must not even be reached through others.
	never []string
}

var rules = []rule{
	{dir: "api", only: []string{"api", "internal"}, std: true, extern: []string{"k8s.io/apimachinery", "sigs.k8s.io/yaml", "sigs.k8s.io/json", "go.yaml.in/yaml/v3"}},
	{dir: "datastore", only: []string{"api", "datastore", "internal"}},
	{dir: "datastore/kube/convert", only: []string{"api"}, std: true, never: []string{"k8s.io/client-go"},
		extern: []string{"k8s.io/api", "k8s.io/apimachinery", "sigs.k8s.io/json", "sigs.k8s.io/network-policy-api/apis"}},
	{dir: "store", only: []string{"api", "internal", "store"}},
	{dir: "store/join", only: []string{"store/join"}, std: true},
	{dir: "drivers", exact: true, std: true},
	{dir: "drivers/drivertest", only: []string{"=drivers", "drivers/drivertest", "internal"}, std: true, extern: []string{"golang.org/x/tools/txtar"}},
	{dir: "drivers/fake", only: []string{"=drivers", "drivers/fake", "internal"}, std: true},
	{dir: "drivers/linux", only: []string{"=drivers", "drivers/linux", "internal"}},
	{dir: "calcgraph", only: []string{"api", "calcgraph", "=drivers", "internal"}, std: true,
		extern: []string{"github.com/RoaringBitmap/roaring/v2", "k8s.io/apimachinery"}},
	{dir: "agent", only: []string{"agent", "api", "calcgraph", "=datastore", "=drivers", "internal", "ipam"},
		never: []string{module + "/drivers/linux", module + "/drivers/ebpf", module + "/drivers/windows", module + "/drivers/vpp", "k8s.io/client-go"}},
	{dir: "controllers", only: []string{"api", "controllers", "=datastore", "internal", "ipam"}},
	{dir: "ctl", only: []string{"api", "calcgraph", "ctl", "datastore", "=drivers", "internal", "ipam"},
		never: []string{module + "/drivers/linux", module + "/agent", "go.etcd.io/etcd/server"}},
	{dir: "cni", only: []string{"cni", "internal"}, std: true, extern: []string{"github.com/containernetworking/cni/pkg", "golang.org/x/sys"},
		never: []string{module + "/calcgraph", module + "/drivers", module + "/api", module + "/agent", "k8s.io", "google.golang.org", "github.com/vishvananda/netlink"}},
	{dir: "cmd/tortie-cni", only: []string{"cni"}, std: true},
	{dir: "ipam", only: []string{"api", "=datastore", "internal", "ipam"}, never: []string{"k8s.io/client-go"}},
	{dir: "internal", only: []string{"internal"}},
	{dir: "internal/agentapi", std: true, extern: []string{"golang.org/x/sys"}},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

func TestImports(t *testing.T) {
	if err := build.TouchSources(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps,Standard", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	standard, ours := map[string]bool{"C": true}, []pkg{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		standard[p.ImportPath] = standard[p.ImportPath] || p.Standard
		if under(p.ImportPath, module) {
			ours = append(ours, p)
		}
	}
	for _, r := range rules {
		seen := 0
		for _, p := range ours {
			if r.speaksOf(p.ImportPath) {
				seen++
				r.check(t, p, standard)
			}
		}
		if seen == 0 {
			t.Errorf("no package under %s: is the rule still of use?", r.dir)
		}
	}
	for _, p := range ours { // nobody imports test/, and only cmd/ and test/ name concrete drivers
		inside := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, i := range p.Imports {
			if under(i, module+"/test") && !under(inside, "test") {
				t.Errorf("%s imports %s: nobody imports test/", p.ImportPath, i)
			}
			if under(i, module+"/drivers/linux") && !under(inside, "cmd") && !under(inside, "test") && !under(inside, "drivers/linux") {
				t.Errorf("%s imports %s: only cmd/ names concrete drivers", p.ImportPath, i)
			}
			if kubernetes(i) && !slices.ContainsFunc(speakKubernetes, func(dir string) bool { return under(inside, dir) }) {
				t.Errorf("%s imports %s: only %v speak to Kubernetes themselves", p.ImportPath, i, speakKubernetes)
			}
		}
	}
}

// speakKubernetes are the packages that may use Kubernetes' client and its types.
var speakKubernetes = []string{"datastore/kube", "controllers", "cmd", "test"}

// kubernetes says that a package is of Kubernetes' client or has its types. (apimachinery is in every object of the API.)
func kubernetes(path string) bool {
	return under(path, "k8s.io/client-go") || under(path, "k8s.io/api") || under(path, "sigs.k8s.io/network-policy-api")
}

func (r rule) speaksOf(path string) bool {
	if r.exact {
		return path == module+"/"+r.dir
	}
	return under(path, module+"/"+r.dir)
}

func (r rule) check(t *testing.T, p pkg, standard map[string]bool) {
	t.Helper()
	for _, i := range p.Imports {
		switch {
		case standard[i]:
		case under(i, module):
			if r.only != nil && !slices.ContainsFunc(r.only, func(o string) bool { return allows(o, i) }) {
				t.Errorf("%s imports %s: %s may import only %v of this module", p.ImportPath, i, r.dir, r.only)
			} else if r.exact {
				t.Errorf("%s imports %s: it may import the standard library only", p.ImportPath, i)
			}
		case r.std && !slices.ContainsFunc(r.extern, func(e string) bool { return under(i, e) }):
			t.Errorf("%s imports %s: %s may import only the standard library and %v", p.ImportPath, i, r.dir, r.extern)
		}
	}
	for _, d := range p.Deps {
		if slices.ContainsFunc(r.never, func(n string) bool { return under(d, n) }) {
			t.Errorf("%s reaches %s, which it must not", p.ImportPath, d)
		}
	}
}

func allows(only, path string) bool {
	if dir, exact := strings.CutPrefix(only, "="); exact {
		return path == module+"/"+dir
	}
	return under(path, module+"/"+only)
}

// under reports whether path is dir or lies below it.
func under(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}
