package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tortie/tortie/internal/agentapi"
)

var errGone = errors.New("connection refused")

// desk plays the agent and the IPAM plugin, and writes down what it is asked. Each call is answered with the next of its
// answers (an error, or nil for success), the last one for good.
type desk struct {
	asked   []string
	answers map[string][]error
	status  agentapi.Status
	list    []agentapi.Attachment
	waits   []string // list: the agent waits for it, the first time
	attach  agentapi.AttachRequest
}

func (d *desk) answer(what string) error {
	d.asked = append(d.asked, what)
	as := d.answers[what]
	if len(as) == 0 {
		return nil
	}
	if len(as) > 1 {
		d.answers[what] = as[1:]
	}
	return as[0]
}

func (d *desk) Attach(_ context.Context, r agentapi.AttachRequest, _ *os.File) (agentapi.AttachResponse, error) {
	d.attach = r
	addrs := r.Addresses
	if len(addrs) == 0 {
		addrs = []netip.Addr{netip.MustParseAddr("10.65.0.7")}
	}
	return agentapi.AttachResponse{HostIface: "tort1", HostMAC: "ee:ee:ee:ee:ee:ee", MAC: "02:00:00:00:00:01", MTU: 1500,
		Addresses: addrs, Gateways: []netip.Addr{netip.MustParseAddr("169.254.1.1")}}, d.answer("attach")
}

func (d *desk) Detach(_ context.Context, r agentapi.DetachRequest) error {
	return d.answer("detach " + r.Sandbox + " " + r.Interface)
}

func (d *desk) Check(context.Context, agentapi.CheckRequest, *os.File) error {
	return d.answer("check")
}

func (d *desk) List(context.Context, agentapi.ListRequest) (agentapi.ListResponse, error) {
	waits := d.waits
	d.waits = nil
	return agentapi.ListResponse{NotReady: waits, Attachments: d.list}, d.answer("list")
}

func (d *desk) Status(context.Context, agentapi.StatusRequest) (agentapi.Status, error) {
	return d.status, d.answer("status")
}

// As invoke.Exec:

func (d *desk) FindInPath(plugin string, _ []string) (string, error) { return plugin, nil }

func (d *desk) Decode(b []byte) (version.PluginInfo, error) {
	return (&version.PluginDecoder{}).Decode(b)
}

func (d *desk) ExecPlugin(_ context.Context, path string, _ []byte, environ []string) ([]byte, error) {
	for _, e := range environ {
		if command, ok := strings.CutPrefix(e, "CNI_COMMAND="); ok {
			return []byte(`{"cniVersion":"1.0.0","ips":[{"address":"10.65.0.9/24"}],"dns":{"domain":"x.test"}}`), d.answer(path + " " + command)
		}
	}
	return nil, errors.New("no CNI_COMMAND")
}

func newDesk(t *testing.T) (*desk, *Plugin, *bytes.Buffer) {
	t.Helper()
	d, out := &desk{answers: map[string][]error{}}, &bytes.Buffer{}
	return d, &Plugin{out: out, dial: func(string) agent { return d }, exec: d}, out
}

func args(t *testing.T, netns string, more map[string]any) *skel.CmdArgs {
	t.Helper()
	conf := map[string]any{"cniVersion": "1.1.0", "name": "net", "type": "tortie-cni", "notesDir": filepath.Join(t.TempDir(), "notes")}
	for k, v := range more {
		conf[k] = v
	}
	b, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	return &skel.CmdArgs{ContainerID: "c1", IfName: "eth0", Netns: netns, StdinData: b}
}

func codeOf(err error) uint {
	var e *types.Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return types.ErrInternal
	}
	return 0
}

var delegated = map[string]any{"ipam": map[string]any{"type": "some-ipam"}}

func TestDel(t *testing.T) {
	busy, broken := agentapi.Errorf(agentapi.CodeUnavailable, "busy"), agentapi.Errorf(agentapi.CodeInternal, "broken")
	detach, release := "detach c1 eth0", "some-ipam DEL"
	for _, tc := range []struct {
		name    string
		answers map[string][]error
		want    []string
		code    uint
		notes   int
	}{
		{"the address is released last", nil, []string{detach, release}, 0, 0},
		{"the agent is away", map[string][]error{detach: {errGone}}, []string{detach, detach, release}, 0, 1},
		{"an agent of another release", map[string][]error{detach: {agentapi.Errorf(agentapi.CodeVersion, "1")}}, []string{detach, detach, release}, 0, 1},
		{"the agent comes just then", map[string][]error{detach: {errGone, nil}}, []string{detach, detach, release}, 0, 0},
		{"the agent comes, and fails", map[string][]error{detach: {errGone, broken}}, []string{detach, detach, release}, 0, 1},
		{"the agent is busy", map[string][]error{detach: {busy}}, []string{detach}, types.ErrTryAgainLater, 0},
		{"the agent fails", map[string][]error{detach: {broken}}, []string{detach}, CodeAgent, 0},
		{"the IPAM plugin fails", map[string][]error{release: {types.NewError(55, "no", "")}}, []string{detach, release}, 55, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, p, _ := newDesk(t)
			if tc.answers != nil {
				d.answers = tc.answers
			}
			a := args(t, "", delegated)
			var c struct{ NotesDir string }
			if err := json.Unmarshal(a.StdinData, &c); err != nil {
				t.Fatal(err)
			}
			if err := p.Del(a); codeOf(err) != tc.code {
				t.Errorf("%v, want code %d", err, tc.code)
			}
			if diff := cmp.Diff(tc.want, d.asked); diff != "" {
				t.Error(diff)
			}
			notes, err := agentapi.ReadNotes(c.NotesDir)
			if err != nil || len(notes) != tc.notes {
				t.Errorf("notes: %v, %v; want %d", notes, err, tc.notes)
			}
		})
	}
}

// TestWaiting: what goes away by itself is waited for, as long as the configuration says.
func TestWaiting(t *testing.T) {
	at := attachment{sandbox: "c1", iface: "eth0"}
	notYet := agentapi.Errorf(agentapi.CodeNotEnforced, "policy is not enforced: slow")
	conflict := agentapi.Errorf(agentapi.CodeConflict, "in use")
	for _, tc := range []struct {
		name        string
		list, apply []error
		waits       []string
		code        uint
		says        string
		within      time.Duration
	}{
		{name: "at once", within: 0},
		{name: "an agent that starts", list: []error{errGone, errGone, nil}, waits: []string{"the store"}, within: time.Second},
		{name: "an agent that dies", apply: []error{errGone, nil}, within: time.Second},
		{name: "slow policy", apply: []error{notYet, notYet, nil}, within: time.Second},
		{name: "a pod that is gone", apply: []error{agentapi.Errorf(agentapi.CodeUnknownPod, "no such pod")}, code: types.ErrTryAgainLater, says: "no such pod", within: 0},
		{name: "a conflict", apply: []error{conflict}, code: CodeConflict, says: "in use", within: 0},
		{name: "no agent", list: []error{errGone}, code: types.ErrTryAgainLater, says: "/run/tortie/agent.sock", within: 11 * time.Second},
		{name: "an old agent", list: []error{agentapi.Errorf(agentapi.CodeVersion, "speaks 1")}, code: types.ErrTryAgainLater, says: "upgrade", within: 11 * time.Second},
		{name: "policy that never comes", apply: []error{notYet}, code: types.ErrTryAgainLater, says: "slow", within: 11 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, _, _ := newDesk(t)
				d.answers["list"], d.answers["attach"], d.waits = tc.list, tc.apply, tc.waits
				c := &conf{Socket: agentapi.DefaultSocket}
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := ready(ctx, d, at)
				if err == nil {
					_, err = attach(ctx, d, agentapi.AttachRequest{}, nil)
				}
				if err != nil {
					err = c.asked("adding", err)
				}
				if codeOf(err) != tc.code || tc.says != "" && !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%v, want code %d and %q", err, tc.code, tc.says)
				}
				if took := time.Since(start); took > tc.within || tc.code == types.ErrTryAgainLater && tc.within > 0 && took < 10*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// The ADD of a pod waits longer for an agent that is away, in an upgrade for example, than for one that can't do it yet.
func TestAway(t *testing.T) {
	for _, tc := range []struct {
		name     string
		cniArgs  string
		conf     map[string]any
		list     []error
		min, max time.Duration
	}{
		{"a pod, no agent", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", nil, []error{errGone}, awayTime + defaultTimeout, 4*time.Minute - 10*time.Second},
		{"no pod, no agent", "", nil, []error{errGone}, defaultTimeout, defaultTimeout + time.Second},
		{"a pod, and what it waits at most is said", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", map[string]any{"timeout": "20s"}, []error{errGone},
			20 * time.Second, 21 * time.Second},
		{"a pod, an agent that waits for something", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", nil,
			[]error{errGone, agentapi.Errorf(agentapi.CodeUnavailable, "it waits")}, defaultTimeout, defaultTimeout + time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, _, _ := newDesk(t)
				d.answers["list"] = tc.list
				at := attachment{sandbox: "c1", iface: "eth0"}
				c, err := parse(args(t, "", tc.conf).StdinData, false)
				if err != nil {
					t.Fatal(err)
				}
				a, err := parseArgs(tc.cniArgs)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				c.reached(d, at, a)
				ctx, cancel := within(c.Timeout)
				defer cancel()
				if _, err := ready(ctx, d, at); codeOf(c.asked("adding", err)) != types.ErrTryAgainLater {
					t.Errorf("%v, want code %d", err, types.ErrTryAgainLater)
				}
				if took := time.Since(start); took < tc.min || took > tc.max {
					t.Errorf("it took %v, want %v to %v", took, tc.min, tc.max)
				}
			})
		})
	}
}

func TestGCGoesOn(t *testing.T) {
	d, p, _ := newDesk(t)
	for _, s := range []string{"a", "b", "c", "d"} {
		d.list = append(d.list, agentapi.Attachment{Sandbox: s, Interface: "eth0", Detaching: s == "d"})
	}
	d.answers["detach a eth0"] = []error{agentapi.Errorf(agentapi.CodeInternal, "a breaks")}
	a := args(t, "", map[string]any{"ipam": delegated["ipam"], "cni.dev/valid-attachments": []map[string]string{{"containerID": "b", "ifname": "eth0"}},
		"cni.dev/attachments": nil, "unknown": "key"})
	err := p.GC(a)
	if codeOf(err) != CodeAgent || !strings.Contains(err.Error(), "a breaks") {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"list", "detach a eth0", "detach c eth0", "some-ipam GC"}, d.asked); diff != "" {
		t.Error(diff)
	}
}

func TestStatus(t *testing.T) {
	ready := agentapi.Status{Ready: true}
	for name, tc := range map[string]struct {
		status agentapi.Status
		err    error
		ipam   error
		code   uint
	}{
		"ready":     {status: ready},
		"waiting":   {status: agentapi.Status{NotReady: []string{"the store"}}, code: 50},
		"stuck":     {status: agentapi.Status{NotReady: []string{"the dataplane"}, Apply: agentapi.ApplyStatus{Error: "refused"}}, code: 51},
		"away":      {err: errGone, code: 50},
		"old":       {err: agentapi.Errorf(agentapi.CodeVersion, "1"), code: 50},
		"forbidden": {err: agentapi.Errorf(agentapi.CodeForbidden, "no"), code: 50},
		"no IPAM":   {status: ready, ipam: types.NewError(50, "full", ""), code: 50},
	} {
		t.Run(name, func(t *testing.T) {
			d, p, _ := newDesk(t)
			d.status, d.answers["status"], d.answers["some-ipam STATUS"] = tc.status, []error{tc.err}, []error{tc.ipam}
			if err := p.Status(args(t, "", delegated)); codeOf(err) != tc.code {
				t.Errorf("%v, want %d", err, tc.code)
			}
		})
	}
}

// TestAllocate is what the agent is asked for when it allocates.
func TestAllocate(t *testing.T) {
	addrs := func(as ...string) (out []netip.Addr) {
		for _, a := range as {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for _, tc := range []struct {
		name, conf, args string
		want             *agentapi.Allocate
		mac              string
		fails            bool
	}{
		{name: "nothing said", conf: `{}`, want: &agentapi.Allocate{}},
		{name: "families and pools", conf: `{"ipam":{"type":"tortie","families":["IPv4","IPv6"],"pools":["a","10.0.0.0/8"]}}`,
			want: &agentapi.Allocate{V4: true, V6: true, Pools: []string{"a", "10.0.0.0/8"}}},
		{name: "CNI_ARGS", conf: `{"ipam":{}}`, args: "IP=10.0.0.1/24;MAC=02:00:00:00:00:01", want: &agentapi.Allocate{Addresses: addrs("10.0.0.1")}, mac: "02:00:00:00:00:01"},
		{name: "args before CNI_ARGS", conf: `{"args":{"cni":{"ips":["10.0.0.2","fd00::2/64"]}}}`, args: "IP=10.0.0.1", want: &agentapi.Allocate{Addresses: addrs("10.0.0.2", "fd00::2")}},
		{name: "runtimeConfig before args", conf: `{"args":{"cni":{"ips":["10.0.0.2"]}},"runtimeConfig":{"ips":["10.0.0.3"],"mac":"02:00:00:00:00:03"}}`,
			args: "MAC=02:00:00:00:00:01", want: &agentapi.Allocate{Addresses: addrs("10.0.0.3")}, mac: "02:00:00:00:00:03"},
		{name: "another allocates", conf: `{"ipam":{"type":"host-local","ranges":[]},"runtimeConfig":{"ips":["10.0.0.3"]}}`},
		{name: "no address", conf: `{"runtimeConfig":{"ips":["ten"]}}`, fails: true},
		{name: "family", conf: `{"ipam":{"families":["IPv5"]}}`, fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := parse([]byte(tc.conf), false)
			var r agentapi.AttachRequest
			if err == nil {
				var a cniArgs
				if a, err = parseArgs(tc.args); err == nil {
					r, err = c.request(attachment{sandbox: "c1", iface: "eth0"}, a)
				}
			}
			if tc.fails {
				if codeOf(err) != types.ErrInvalidNetworkConfig {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, r.Allocate, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" || r.MAC != tc.mac {
				t.Errorf("%s MAC %s", diff, r.MAC)
			}
		})
	}
}

// TestErrorsOfTheAgent: each has a code that tells the runtime what to do, and keeps what the agent said.
func TestErrorsOfTheAgent(t *testing.T) {
	c := &conf{Socket: "/s"}
	for code, want := range map[agentapi.Code]uint{
		agentapi.CodeBadRequest: types.ErrInvalidNetworkConfig, agentapi.CodeVersion: types.ErrTryAgainLater, agentapi.CodeForbidden: CodeAgent,
		agentapi.CodeConflict: CodeConflict, agentapi.CodeUnavailable: types.ErrTryAgainLater, agentapi.CodeNotEnforced: types.ErrTryAgainLater,
		agentapi.CodeUnsupported: types.ErrInvalidNetworkConfig, agentapi.CodeNoAddress: CodeNoAddress, agentapi.CodeNotFound: types.ErrUnknownContainer,
		agentapi.CodeDiffers: CodeDiffers, agentapi.CodeUnknownPod: types.ErrTryAgainLater, agentapi.CodeInternal: CodeAgent, "of a newer agent": CodeAgent,
	} {
		err := c.asked("doing it", fmt.Errorf("wrapped: %w", agentapi.Errorf(code, "because")))
		if codeOf(err) != want || !strings.Contains(err.Error(), "doing it") || !strings.Contains(err.Error(), "because") {
			t.Errorf("%s: %v, want code %d", code, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"n","ipam":{"type":"x"},"timeout":"1s","prevResult":{"ips":[{"address":"10.0.0.1/8"}]}}`), "IP=1")
	f.Add([]byte(`{"cniVersion":"0.3.1","prevResult":{"cniVersion":"1.0.0","interfaces":[null]},"args":{"cni":null}}`), "IgnoreUnknown=1;A=B")
	f.Add([]byte(`{"prevResult":null,"runtimeConfig":null,"labels":null,"cni.dev/valid-attachments":[{}]}`), ";;=")
	f.Fuzz(func(t *testing.T, b []byte, cniArgsText string) {
		if _, err := parse(b, true); err != nil && codeOf(err) == types.ErrInternal {
			t.Errorf("an error without a code: %v", err)
		}
		c, err := parse(b, false)
		if err != nil {
			return
		}
		a, err := parseArgs(cniArgsText)
		if err != nil {
			return
		}
		if _, err := c.request(attachment{sandbox: "c", iface: "i"}, a); err != nil && codeOf(err) == types.ErrInternal {
			t.Errorf("an error without a code: %v", err)
		}
		if prev, err := c.previous(); err == nil && prev != nil {
			addressesIn(prev, attachment{iface: "eth0"})
		}
	})
}
