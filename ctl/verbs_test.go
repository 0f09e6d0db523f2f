package ctl

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// step is one call of the command line.
type step struct {
	args []string
	code int
	want []string
}

func (b *bench) steps(steps []step) {
	b.t.Helper()
	for _, s := range steps {
		out, code := b.run(s.args...)
		if code != s.code {
			b.t.Errorf("%v: exit code %d, want %d:\n%s", s.args, code, s.code, out)
		}
		wants(b.t, out, s.want...)
	}
}

func (b *bench) apply(text string) {
	b.t.Helper()
	if out, code := b.run("apply", "-f", b.file("given.yaml", text)); code != 0 {
		b.t.Fatal(out)
	}
}

func (b *bench) get(k api.Key) api.Object {
	b.t.Helper()
	o, err := b.store.Get(b.t.Context(), k)
	if err != nil {
		b.t.Fatal(err)
	}
	return o
}

var tierKey = api.Key{Kind: "Tier", Name: "security"}

func TestCreateAndReplace(t *testing.T) {
	b := newBench(t)
	f := b.file("t.yaml", tier)
	b.steps([]step{
		{[]string{"create"}, ExitUsage, []string{"say which file: tortie create -f FILE"}},
		{[]string{"replace", "-f", f}, ExitMissing, []string{"not found (tortie create makes it)"}},
		{[]string{"create", "-f", f, "--dry-run"}, 0, []string{"Tier/security created (dry run)"}},
		{[]string{"create", "-f", f}, 0, []string{"Tier/security created"}},
		{[]string{"create", "-f", f}, ExitError, []string{"exists already (tortie apply or tortie replace changes it)"}},
		{[]string{"create", "-f", f, "--dry-run"}, ExitError, []string{"exists already"}},
	})
	out, _ := b.run("get", "tier", "security", "-o", "yaml")
	old := b.file("old.yaml", out)
	b.file("t.yaml", strings.Replace(tier, "100", "200", 1))
	b.steps([]step{
		{[]string{"replace", "-f", f, "--dry-run"}, 0, []string{"Tier/security replaced (dry run)"}},
		{[]string{"replace", "-f", f}, 0, []string{"Tier/security replaced"}},
		{[]string{"get", "tiers"}, 0, []string{"200"}},
		{[]string{"replace", "-f", old}, ExitError, []string{"changed since it was read", "leave out metadata.resourceVersion"}},
		{[]string{"apply", "-f", old}, ExitError, []string{"changed since it was read", "the file is based on version"}},
		{[]string{"get", "tiers"}, 0, []string{"200"}},
	})
}

const poolText = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: main}
spec: {cidr: 10.65.0.0/16}
`

// TestWhatCannotChange says that fields that can't change are named, by every verb that writes.
func TestWhatCannotChange(t *testing.T) {
	b := newBench(t)
	b.apply(poolText)
	f := b.file("other.yaml", strings.Replace(poolText, "10.65.0.0", "10.66.0.0", 1))
	for _, args := range [][]string{
		{"apply", "-f", f}, {"apply", "-f", f, "--dry-run"}, {"replace", "-f", f}, {"replace", "-f", f, "--dry-run"},
		{"patch", "ippool", "main", "-p", `{"spec": {"cidr": "10.66.0.0/16"}}`},
	} {
		out, code := b.run(args...)
		if code != ExitError {
			t.Errorf("%v: exit code %d", args, code)
		}
		wants(t, out, "IPPool/main: spec.cidr", "can't be changed")
	}
	b.steps([]step{{[]string{"delete", "tier", "default"}, ExitError, []string{"is in every cluster"}}})
}

func TestPatch(t *testing.T) {
	b := newBench(t)
	b.apply(tier + "---" + policy)
	np := func(args ...string) []string { return append([]string{"patch", "np", "web", "-n", "shop"}, args...) }
	file := b.file("p.yaml", "spec:\n  order: 7\n")
	b.steps([]step{
		{np("-p", `{"spec": {"order": 5}}`), 0, []string{"NetworkPolicy/shop/web patched"}},
		{np("-p", `{"spec": {"order": 5}}`), 0, []string{"NetworkPolicy/shop/web unchanged"}},
		{np("-p", `{"spec": {"order": 6}}`, "--dry-run"), 0, []string{"patched (dry run)"}},
		{[]string{"get", "np", "-n", "shop"}, 0, []string{"5"}},
		{np("--patch-file", file), 0, []string{"patched"}},
		{[]string{"get", "np", "-n", "shop"}, 0, []string{"7"}},
		{np("--type", "json", "-p", `[{"op": "add", "path": "/spec/ingress/0/destination/ports/-", "value": 443}]`), 0, []string{"patched"}},
		{[]string{"get", "np", "web", "-n", "shop", "-o", "yaml"}, 0, []string{"- 443"}},
		{np("--type", "json", "-p", `[{"op": "remove", "path": "/spec/egress/3"}]`), ExitError, []string{"patching NetworkPolicy/shop/web", "tortie get networkpolicy web -n shop -o json"}},
		{np("-p", `{"spec": {"oder": 5}}`), ExitError, []string{"spec.oder: unknown field"}},
		{np("-p", `{"spec": {"selector": "role = 'web'"}}`), ExitError, []string{"spec.selector"}},
		{np("-p", `{"metadata": {"name": "other"}}`), ExitUsage, []string{"what an object is called can't be changed"}},
		{np("-p", `{"metadata": {"resourceVersion": "1"}, "spec": {"order": 9}}`), ExitError, []string{"changed since it was read"}},
		{np("-p", `[]`), ExitUsage, []string{"a list of operations is --type json"}},
		{np("-p", `{}`, "--type", "json"), ExitUsage, []string{"a list of operations", "--type merge"}},
		{np("-p", `{}`, "--type", "strategic"), ExitUsage, []string{"no strategic merge"}},
		{np("-p", `{}`, "--type", "magic"), ExitUsage, []string{"the types are merge and json"}},
		{np("-p", `{`), ExitUsage, []string{"neither JSON nor YAML"}},
		{np(), ExitUsage, []string{"give the patch"}},
		{[]string{"patch", "tier", "none", "-p", "{}"}, ExitMissing, []string{"not found"}},
	})
}

// racing is a store in which somebody else is faster, once.
type racing struct {
	datastore.Store
	once sync.Once
	race func()
}

func (s *racing) Update(ctx context.Context, o api.Object) (api.Object, error) {
	s.once.Do(s.race)
	return s.Store.Update(ctx, o)
}

// TestModifyKeepsTheChangesOfOthers says that a change that comes between reading and writing is not lost.
func TestModifyKeepsTheChangesOfOthers(t *testing.T) {
	b := newBench(t)
	b.apply(tier)
	r := &racing{Store: b.store, race: func() {
		o := b.get(tierKey)
		o.SetLabels(map[string]string{"theirs": "1"})
		if _, err := b.store.Update(t.Context(), o); err != nil {
			t.Error(err)
		}
	}}
	changed, err := modify(t.Context(), r, tierKey, func(o api.Object) (api.Object, error) {
		return o, relabel(o, map[string]string{"ours": "1"}, nil, false)
	})
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if l := b.get(tierKey).GetLabels(); l["ours"] != "1" || l["theirs"] != "1" {
		t.Errorf("labels %v", l)
	}
}

func TestLabel(t *testing.T) {
	b := newBench(t)
	b.apply(tier)
	label := func(args ...string) []string { return append([]string{"label", "tier", "security"}, args...) }
	b.steps([]step{
		{label("a=1", "b=2"), 0, []string{"Tier/security labeled"}},
		{label("a=1"), 0, []string{"Tier/security unchanged"}},
		{label("a=2"), ExitUsage, []string{"has a=1 already (--overwrite changes it)"}},
		{label("a=2", "--overwrite", "--dry-run"), 0, []string{"labeled (dry run)"}},
		{label("a=2", "b-", "--overwrite"), 0, []string{"labeled"}},
		{label("gone-"), 0, []string{"unchanged"}},
		{label("a"), ExitUsage, []string{`"a" is no label`}},
		{label("a=1", "a-"), ExitUsage, []string{"to be set and to be taken away"}},
		{label("a=1", "a=2"), ExitUsage, []string{"given twice"}},
		{label("a=not ok", "--overwrite"), ExitError, []string{"metadata.labels"}},
	})
	if l := b.get(tierKey).GetLabels(); l["a"] != "2" || l["b"] != "" {
		t.Errorf("labels %v", l)
	}
}

func TestDiff(t *testing.T) {
	b := newBench(t)
	f := b.file("p.yaml", policy)
	b.steps([]step{
		{[]string{"diff"}, ExitUsage, []string{"say which file"}},
		{[]string{"diff", "-f", f}, ExitDiffers, []string{"--- stored/NetworkPolicy/shop/web", "+kind: NetworkPolicy", "+      - http"}},
		{[]string{"apply", "-f", f}, 0, nil},
	})
	if out, code := b.run("diff", "-f", f); code != 0 || out != "" {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	b.file("p.yaml", strings.Replace(policy, "8080", "8090", 1))
	b.steps([]step{
		{[]string{"diff", "-f", f}, ExitDiffers, []string{"-      - 8000:8080", "+      - 8000:8090", "   selector: role == 'web'"}},
	})
}

func TestValidate(t *testing.T) {
	b := newBench(t)
	good := b.file("good.yaml", tier+"---"+policy)
	bad := b.file("bad.yaml", strings.NewReplacer("role == 'web'", "role = 'web'", "80,", "80000,").Replace(policy)+"---"+strings.Replace(tier, "order", "oder", 1))
	odd := b.file("odd.yaml", strings.Replace(poolText, "spec: {", "spec: {disableBGPExport: true, ", 1))
	b.steps([]step{
		{[]string{"validate"}, ExitUsage, []string{"say which file"}},
		{[]string{"validate", "-f", good}, 0, []string{"2 objects valid"}},
		{[]string{"validate", "-f", bad}, ExitError, []string{"bad.yaml", "Tier/security: spec.oder: unknown field", "80000"}},
		{[]string{"validate", "-f", good, "-f", good}, ExitError, []string{"Tier/security: is there more than once"}},
		{[]string{"validate", "-f", odd}, 0, []string{"warning: IPPool/main: spec.disableBGPExport: has no effect", "1 object valid"}},
		{[]string{"validate", "--strict", "-f", odd}, ExitError, []string{"--strict"}},
		{[]string{"validate", "-f", filepath.Join(b.dir, "none.yaml")}, ExitError, []string{"no such file"}},
		{[]string{"apply", "-f", odd}, 0, []string{"warning: IPPool/main: spec.disableBGPExport"}},
	})
}

// editor writes a script that edits the file that it is given. It notes each text that it was shown.
func (b *bench) editor(script string) (command, shown string) {
	shown = filepath.Join(b.dir, "shown")
	path := b.file("editor.sh", "set -e\ncat \"$1\" >> "+shown+"\necho ==== >> "+shown+"\n"+script)
	return "sh " + path, shown
}

func TestEdit(t *testing.T) {
	for name, c := range map[string]struct {
		script string // $1 is the file; $n counts the calls
		code   int
		want   []string // of the output
		shown  []string // to the editor
		order  float64  // of the tier, afterwards
	}{
		"change":       {script: `sed -i 's/order: 100/order: 50/' $1`, want: []string{"Tier/security edited"}, shown: []string{"# Change what you like"}, order: 50},
		"no change":    {script: `true`, want: []string{"Tier/security unchanged"}, order: 100},
		"only a touch": {script: `echo >> $1`, want: []string{"Tier/security unchanged"}, order: 100},
		"mistake, mended": {
			script: `if [ $n = 1 ]; then sed -i 's/order: 100/oder: 50/' $1; else sed -i 's/oder: 50/order: 60/' $1; fi`,
			want:   []string{"Tier/security edited"}, shown: []string{"# This was not stored:", "spec.oder: unknown field"}, order: 60,
		},
		"mistake, given up": {
			script: `if [ $n = 1 ]; then sed -i 's/order: 100/oder: 50/' $1; fi`,
			code:   ExitError, want: []string{"spec.oder: unknown field", "your text is in "}, order: 100,
		},
		"another name": {
			script: `if [ $n = 1 ]; then sed -i 's/name: security/name: other/' $1; fi`,
			code:   ExitError, want: []string{"the name of Tier/security can't be changed"}, order: 100,
		},
		"nothing left": {script: `if [ $n = 1 ]; then : > $1; fi`, code: ExitError, want: []string{"there are 0 objects"}, order: 100},
		"editor fails": {script: `exit 3`, code: ExitError, want: []string{"exit status 3", "your text is in "}, order: 100},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			t.Setenv("TMPDIR", b.dir)
			b.apply(tier)
			count := filepath.Join(b.dir, "count")
			editor, shown := b.editor("echo >> " + count + "; n=$(wc -l < " + count + ")\n" + c.script + "\n")
			b.edits = editor
			out, code := b.run("edit", "tier", "security")
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			wants(t, out, c.want...)
			text, err := os.ReadFile(shown)
			if err != nil {
				t.Fatal(err)
			}
			wants(t, string(text), c.shown...)
			if got := *b.get(tierKey).(*api.Tier).Spec.Order; got != c.order {
				t.Errorf("order %v, want %v", got, c.order)
			}
			left, _ := filepath.Glob(filepath.Join(b.dir, "tortie-edit-*"))
			if kept := len(left) == 1; kept != (c.code != 0) {
				t.Errorf("files left: %v", left)
			}
		})
	}
}

// TestEditConflict changes the object under the editor's hands: the editor sees both texts, and nothing is lost.
func TestEditConflict(t *testing.T) {
	b := newBench(t)
	t.Setenv("TMPDIR", b.dir)
	b.apply(tier)
	editor, shown := b.editor("echo >> " + b.dir + "/n; n=$(wc -l < " + b.dir + "/n)\n" +
		`if [ $n = 1 ]; then sed -i 's/order: 100/order: 50/' $1; else sed -i '/^# This was not stored/d' $1; fi` + "\n")
	e := &editing{env: &Env{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}, key: tierKey, editor: editor}
	e.store = &racing{Store: b.store, race: func() {
		o := b.get(tierKey)
		o.SetLabels(map[string]string{"theirs": "yes"})
		if _, err := b.store.Update(t.Context(), o); err != nil {
			t.Error(err)
		}
	}}
	if err := e.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(shown)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, string(text), "somebody else has changed the object", "#  metadata:", "# +    theirs:", "order: 50")
	if got := *b.get(tierKey).(*api.Tier).Spec.Order; got != 50 {
		t.Errorf("order %v, want 50", got)
	}
}

// screen is an output that can be waited for.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
	ping chan struct{}
}

func (l *screen) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	select {
	case l.ping <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *screen) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait waits until the output holds text.
func (l *screen) wait(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.ping:
		case <-deadline:
			t.Fatalf("%q does not come; there is:\n%s", text, l.String())
		}
	}
}

func TestGetWatch(t *testing.T) {
	for output, want := range map[string][4]string{
		"table": {"-          security   100     Deny\n", "added      late       7       Deny\n", "modified   security   50      Deny\n", "deleted    late       7       Deny\n"},
		"json":  {`{"type":"ADDED","object":{"kind":"Tier"`, `"name":"late"`, `{"type":"MODIFIED"`, `{"type":"DELETED"`},
		"yaml":  {"kind: Tier\n", "---\n# Tier/late added\n", "# Tier/security modified\n", "# Tier/late deleted\n"},
		"name":  {"Tier/security\n", "Tier/late added\n", "Tier/security modified\n", "Tier/late deleted\n"},
	} {
		t.Run(output, func(t *testing.T) {
			b := newBench(t)
			b.apply(tier)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			out := &screen{ping: make(chan struct{}, 1)}
			env := &Env{Out: out, Err: out}
			k, _ := api.KindByName("tiers")
			done := make(chan error, 1)
			go func() {
				done <- env.watch(ctx, b.store, watchRequest{kinds: []api.KindInfo{k}, output: output})
			}()
			out.wait(t, want[0])
			b.apply(strings.NewReplacer("security", "late", "100", "7").Replace(tier))
			out.wait(t, want[1])
			b.apply(strings.Replace(tier, "100", "50", 1))
			out.wait(t, want[2])
			if _, code := b.run("delete", "tier", "late"); code != 0 {
				t.Fatal(code)
			}
			out.wait(t, want[3])
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGetWatchFilters says that namespace and names count, and that kinds of "all" have tables of their own.
func TestGetWatchFilters(t *testing.T) {
	b := newBench(t)
	b.apply(tier + "---" + policy + "---" + strings.NewReplacer("name: web", "name: other").Replace(policy))
	ctx, stop := context.WithCancel(t.Context())
	out := &screen{ping: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() {
		done <- (&Env{Out: out, Err: out}).watch(ctx, b.store, watchRequest{kinds: api.Kinds(), namespace: "shop", names: []string{"web", "security"}, output: "table"})
	}()
	out.wait(t, "EVENT      NAMESPACE   NETWORKPOLICY   TIER")
	out.wait(t, "-          shop        web")
	stop()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if s := out.String(); strings.Contains(s, "other") || !strings.Contains(s, "TIER       ORDER") {
		t.Errorf("output:\n%s", s)
	}
}

func TestCompletion(t *testing.T) {
	b := newBench(t)
	b.apply(shop + "---" + tier)
	for _, c := range []struct{ args, want, not string }{
		{"get net", "networkpolicies\n", ""},
		{"get np -n shop ", "db\nweb\n", ""},
		{"get np -n shop w", "web\n", "db"},
		{"get np -n shop web ", "db\n", "web"},
		{"get np -n ", "shop\n", ""},
		{"patch tier ", "security\n", ""},
		{"patch tier security ", "", "security"},
		{"label no ", "n1\nn2\n", ""},
		{"edit wep -n shop ", "db-2\nweb-1\n", ""},
		{"explain sh", "shop/db-2\nshop/web-1\n", ""},
		{"explain shop/web-1 n", "n1\nn2\n", ""},
		{"explain shop/web-1 n1 ", "tcp\n", ""},
		{"get tiers -o ", "json\n", ""},
		{"apply -f ", "yaml\n", ""},
	} {
		args := append([]string{"__complete"}, strings.Split(c.args, " ")...)
		out, code := b.run(args...)
		if code != 0 || !strings.Contains(out, c.want) || c.not != "" && strings.Contains(out, c.not) {
			t.Errorf("%s: exit code %d\n%s", c.args, code, out)
		}
	}
}

func TestKindsThatAreMisspelled(t *testing.T) {
	b := newBench(t)
	b.steps([]step{
		{[]string{"get", "networkpolices"}, ExitUsage, []string{`there is no kind "networkpolices"; did you mean networkpolicies?`}},
		{[]string{"get", "teir"}, ExitUsage, []string{"did you mean tier?"}},
		{[]string{"get", "xyzzy"}, ExitUsage, []string{`there is no kind "xyzzy"; the kinds are`}},
	})
}
