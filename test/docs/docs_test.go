//go:build linux

package docs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/netns"
)

// notRun is how many blocks of each page can't be run here. The page says why of each.
var notRun = map[string]int{
	"cni.md":                 2,
	"README.md":              3,
	"quickstart.md":          1,
	"install-one-host.md":    1,
	"install-three-hosts.md": 1,
	"kubernetes-crds.md":     3,  // on a cluster: test/e2e/admission
	"install-kubernetes.md":  14, // on a cluster: make e2e
	"migrate-calico.md":      5,
	"troubleshooting.md":     4,
}

// generated pages are made by other tests out of the programs themselves; their commands are examples of help texts.
var generated = []string{"commands.md", "felixconfiguration.md", "api.md", "benchmarks.md"}

var built tools

func TestMain(m *testing.M) {
	if code, played := playSystemd(filepath.Base(os.Args[0]), os.Args[1:]); played {
		os.Exit(code)
	}
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "pages run on machines of namespaces, which only root may make: run this with sudo")
			return 1
		}
		dir := filepath.Join(os.TempDir(), netns.UniqueName(dirPrefix))
		defer os.RemoveAll(dir)
		err := errors.Join(sweep(), os.Mkdir(dir, 0o700))
		if err == nil {
			built, err = prepare(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

const dirPrefix = "tortiedocs"

// sweep removes the programs of tests that were killed; their machines ended with them.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"-*"))
	for _, dir := range dirs {
		if netns.Orphaned(filepath.Base(dir), dirPrefix) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// TestPages does what each page says.
func TestPages(t *testing.T) {
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) < 8 {
		t.Fatalf("pages: %v, %v", paths, err)
	}
	left := maps.Clone(notRun)
	for _, path := range append([]string{"../../README.md"}, paths...) {
		name := filepath.Base(path)
		if slices.Contains(generated, name) {
			continue
		}
		p, err := readPage(path)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, s := range p.steps {
			if s.notRun != "" {
				left[name]--
				t.Logf("%s:%d is not run: %s", name, s.line, s.notRun)
			}
		}
		if n := left[name]; n != 0 {
			t.Errorf("%s: %d blocks are not run, notRun says %d", name, notRun[name]-n, notRun[name])
		}
		if slices.ContainsFunc(p.steps, func(s step) bool {
			return !slices.Contains([]string{"heading", "text", "json", "go", "diff"}, s.kind) && s.notRun == ""
		}) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				(&reader{t: t, bed: newBed(t, built, p.machines), page: p}).read()
			})
		}
	}
}

// reader goes through a page from top to bottom.
type reader struct {
	t       *testing.T
	bed     *bed
	page    *page
	files   []string // applied in this recipe
	recipes bool     // have begun
	token   string   // the last that was printed
	counts  map[string]int
}

// A token is another at each time: the page says TOKEN.
var tokenPattern = regexp.MustCompile(`(?m)^tortie1\.\S+`)

func (r *reader) read() {
	began := time.Now()
	r.counts = map[string]int{}
	for _, s := range r.page.steps {
		if s.notRun != "" {
			continue
		}
		r.counts[s.kind]++
		r.step(s)
		if r.t.Failed() {
			return // what comes next stands on this
		}
	}
	r.endRecipe()
	r.t.Logf("%v in %.1f s", r.counts, time.Since(began).Seconds())
}

func (r *reader) step(s step) {
	switch s.kind {
	case "heading":
		r.endRecipe()
	case "recipes":
		r.recipes = true
	case "console":
		cs, err := consoleCommands(s.text)
		if err != nil {
			r.errorf(s, "%v", err)
			return
		}
		for i, c := range cs {
			code := 0
			if i == len(cs)-1 {
				code = s.exits
			}
			r.counts["command"]++
			if says := r.command(c, code, true); says != "" {
				r.errorf(s, "%s", says)
				return
			}
		}
	case "sh", "run":
		r.script(s)
	case "verdicts":
		n := len(lines(s.text))
		tried := r.bed.verdicts(r.t, s.text)
		r.counts["verdict"] += n
		r.counts["tried with packets"] += tried
		if r.t.Failed() {
			r.errorf(s, "these are not its verdicts")
		}
	}
	if s.file != "" {
		r.file(s)
	} else if s.kind == "yaml" {
		r.validate(s)
	}
}

// script runs a block of sh on the first machine, or on all.
func (r *reader) script(s step) {
	on := r.bed.hosts[:1]
	if s.everywhere {
		on = r.bed.hosts
	}
	for _, h := range on {
		for _, c := range scriptCommands(s.text) {
			r.counts["command"]++
			c.machine = h.name
			if says := r.command(c, s.exits, false); says != "" {
				r.errorf(s, "on %s: %s", h.name, says)
				return
			}
		}
	}
}

func (r *reader) errorf(s step, format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("%s:%d: %s", r.page.name, s.line, fmt.Sprintf(format, args...))
}

// asks are commands that change nothing, or nothing when they are repeated: a reader is slower than a test, so they get
// some time to say what the page says.
var asks = regexp.MustCompile(`^(CNI_COMMAND=STATUS .*)?(ip netns exec \S+ )?(sudo )?(tortie (attach|status|get|explain|connectivity|ipam (show|check)|policy|store (status|members)|diff)|timeout|curl|ping|nft list|/opt/cni/bin/tortie-cni)\b`)

// command runs a command, and says what is wrong with what has come of it.
func (r *reader) command(c command, code int, printed bool) string {
	h, err := r.bed.host(c.machine)
	if err != nil {
		return err.Error()
	}
	if r.token != "" {
		c.text = strings.ReplaceAll(c.text, "TOKEN", r.token)
	}
	began := time.Now()
	defer func() {
		if took := time.Since(began); took > 2*time.Second {
			r.t.Logf("%.1f s for %s", took.Seconds(), c.text)
		}
	}()
	for deadline := began.Add(patience); ; {
		out, got, err := h.shell.run(c.text)
		switch {
		case err != nil:
			return fmt.Sprintf("%s: %v\n%s", c.text, err, out)
		case got == code && (!printed || matches(c.prints, out)):
			r.token = cmp.Or(tokenPattern.FindString(out), r.token)
			return ""
		case asks.MatchString(c.text) && time.Now().Before(deadline):
			continue
		case got != code:
			return fmt.Sprintf("$ %sends with %d, not %d:\n%s", c.text, got, code, out)
		default:
			return fmt.Sprintf("$ %sprints\n%s\nand not\n%s", c.text, out, c.prints)
		}
	}
}

// file writes a block where the page says. Within a recipe it is applied, too.
func (r *reader) file(s step) {
	h := r.bed.hosts[0]
	const mark = "END-OF-THE-BLOCK"
	h.must(r.t, fmt.Sprintf("mkdir -p %q\ncat >%q <<'%s'\n%s%[3]s\n", filepath.Dir(s.file), s.file, mark, s.text))
	if s.kind != "yaml" || !strings.Contains(s.text, "projectcalico.org/v3") {
		return
	}
	if !r.recipes {
		h.must(r.t, "tortie validate -f "+s.file+"\n")
		return
	}
	h.must(r.t, "tortie apply -f "+s.file+"\n")
	r.files = append(r.files, s.file)
}

// validate checks objects that become no file.
func (r *reader) validate(s step) {
	r.bed.hosts[0].must(r.t, "cat >.block.yaml <<'END-OF-THE-BLOCK'\n"+s.text+"END-OF-THE-BLOCK\ntortie validate -f .block.yaml\n")
}

// endRecipe takes back what a recipe has applied.
func (r *reader) endRecipe() {
	for _, f := range slices.Backward(r.files) {
		r.bed.hosts[0].must(r.t, "tortie delete -f "+f+"\n")
	}
	r.files = nil
}
