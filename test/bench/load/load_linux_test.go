package load

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// loopback is a namespace with servers on its loopback.
func loopback(t *testing.T, servers ...string) *netns.Ns {
	t.Helper()
	ns := netnstest.New(t)
	run(t, ns, "ip", "link", "set", "lo", "up")
	if len(servers) == 0 {
		return ns
	}
	ready := make(chan error, 1)
	go func() {
		ready <- ns.Do(func() error { return Serve(servers, func() { ready <- nil }) })
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return ns
}

func run(t *testing.T, ns *netns.Ns, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v: %s", cmd, err, &out)
	}
}

var local = netip.MustParseAddr("127.0.0.1")

func at(port uint16) netip.AddrPort { return netip.AddrPortFrom(local, port) }

func TestRateAndStream(t *testing.T) {
	ns := loopback(t, "crr:8000", "sink:8001")
	for _, c := range []Client{Connect, Request} {
		err := ns.Do(func() error {
			r, err := Rate(at(8000), 50*time.Millisecond, c)
			if err == nil && (r.N < 10 || r.Failed > 0 || r.P50 <= 0 || r.P99 < r.P50 || r.PerSecond < 100) {
				t.Errorf("%s: %+v", c, r)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	err := ns.Do(func() error {
		perSecond, err := Stream(at(8001), 50*time.Millisecond)
		if perSecond < 1e7 {
			t.Errorf("%v bytes per second", perSecond)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	err = ns.Do(func() error {
		if _, err := Rate(at(8009), time.Millisecond, Request); err == nil {
			t.Error("a port that nobody serves gave a rate")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// flowsEnv makes the test binary run Flows for so long, and print what it saw: its connections are made by goroutines, so
// that the whole process must be inside the namespace.
const flowsEnv = "TORTIE_LOAD_FLOWS"

// TestFlows has every 20th first packet dropped: that must be noticed.
func TestFlows(t *testing.T) {
	if text := os.Getenv(flowsEnv); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		f, err := Flows(ctx, at(8002), 200, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
			t.Fatal(err)
		}
		return
	}
	ns := loopback(t, "echo:8002")
	flow := func(d time.Duration) (f Flowed) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestFlows$")
		cmd.Env = append(os.Environ(), flowsEnv+"="+d.String())
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := ns.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, &out)
		}
		if err := json.NewDecoder(&out).Decode(&f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := flow(300 * time.Millisecond); f.New < 20 || f.Kept < 5 || f.NewLost+f.KeptLost > 0 {
		t.Errorf("without losses: %+v", f)
	}
	run(t, ns, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; };"+
		"add rule inet t in tcp dport 8002 tcp flags & (syn | ack) == syn numgen inc mod 20 19 drop")
	if f := flow(200 * time.Millisecond); f.NewLost == 0 || f.NewLost > f.New/2 || f.FirstErr == "" {
		t.Errorf("with every 20th dropped: %+v", f)
	}
}

// TestProber closes a port and opens it again, and wants to know when.
func TestProber(t *testing.T) {
	ns := loopback(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p, err := StartProber(Probing{From: ns, To: ns, Dest: at(8003)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if _, err := p.AwaitOpen(ctx); err != nil {
		t.Fatal(err)
	}
	between := func(what string, change string, await func(context.Context) (time.Time, error)) {
		t.Helper()
		p.Mark()
		before := time.Now()
		run(t, ns, "nft", change)
		after := time.Now()
		at, err := await(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if at.Before(before.Add(-time.Millisecond)) || at.After(after.Add(100*time.Millisecond)) {
			t.Errorf("%s %v after the change began, which took %v", what, at.Sub(before), after.Sub(before))
		}
	}
	between("shut", "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in udp dport 8003 drop", p.AwaitShut)
	between("open", "flush table inet t", p.AwaitOpen)
	between("shut again", "add rule inet t in udp dport 8003 drop", p.AwaitShut)
	// From another address it is let through.
	run(t, ns, "nft", "flush table inet t; add rule inet t in ip saddr 127.0.0.1 udp dport 8003 drop")
	if _, err := p.AwaitShut(ctx); err != nil {
		t.Fatal(err)
	}
	p.Mark()
	p.SetSource(netip.MustParseAddr("127.0.0.9"))
	if _, err := p.AwaitOpen(ctx); err != nil {
		t.Fatal(err)
	}
}
