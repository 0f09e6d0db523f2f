package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const childEnv = "TORTIE_STORE_TEST_DIR"

// TestMain runs a store instead of tests in a process that a test has started.
func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg := config(dir, &output{})
	cfg.Ready = func() { fmt.Println("ready") }
	if err := Run(ctx, cfg); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// child starts a store in a process of its own.
func child(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(line) != "ready" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	return cmd
}

// TestKill: what was acknowledged is there after kill -9, however often.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cfg := config(dir, &output{})
	acked := map[string]string{}
	for round := range 5 {
		cmd := child(t, dir)
		c := client(t, cfg)
		verify(t, c, acked)
		deadline := time.AfterFunc(time.Duration(100+rand.IntN(200))*time.Millisecond, func() { cmd.Process.Kill() })
		writeUntilError(t, c, round, acked)
		deadline.Stop()
		cmd.Process.Kill()
		cmd.Wait()
		c.Close()
	}
	child(t, dir)
	verify(t, client(t, cfg), acked)
	if len(acked) < 20 {
		t.Errorf("only %d writes", len(acked))
	}
	t.Logf("%d acknowledged writes", len(acked))
}

func writeUntilError(t *testing.T, c *clientv3.Client, round int, acked map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := 0; ; i++ {
		k, v := fmt.Sprintf("k%d-%d", round, i), fmt.Sprint(rand.Uint64())
		if _, err := c.Txn(ctx).Then(clientv3.OpPut(k, v)).Commit(); err != nil {
			if ctx.Err() != nil {
				t.Fatal("it was not killed")
			}
			return
		}
		acked[k] = v
	}
}

func verify(t *testing.T, c *clientv3.Client, acked map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := c.Get(ctx, "k", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, kv := range res.Kvs {
		have[string(kv.Key)] = string(kv.Value)
	}
	for k, v := range acked {
		if have[k] != v {
			t.Errorf("%s was acknowledged with %q, and is %q", k, v, have[k])
		}
	}
}

// TestFullHeals: a store that is full of old revisions heals by itself; one that is full of data as soon as some goes.
func TestFullHeals(t *testing.T) {
	t.Parallel()
	var log output
	cfg := config(shortDir(t), &log)
	cfg.QuotaBytes = 8 << 20
	start(t, cfg)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c := client(t, cfg)
	value := strings.Repeat("x", 256<<10)

	// 15 MB of revisions of one key: refused in between, never for long.
	for i := range 60 {
		putPatiently(t, ctx, c, "same", value+fmt.Sprint(i))
	}
	if !strings.Contains(log.String(), "takes writes again") {
		t.Errorf("the quota was never reached:\n%s", log.String())
	}

	n := 0
	for ; ; n++ {
		if _, err := c.Put(ctx, fmt.Sprintf("key%d", n), value); err != nil {
			if !strings.Contains(err.Error(), "space exceeded") {
				t.Fatal(err)
			}
			if until(t, 2*time.Second, func() bool { return strings.Contains(log.String(), "store full") }) {
				break
			}
		}
		if n > 100 {
			t.Fatal("the quota means nothing")
		}
	}
	info, err := Status(ctx, socketOf(cfg))
	if err != nil || !info.Full || len(info.Alarms) != 1 || info.Quota != cfg.QuotaBytes {
		t.Errorf("full: %+v, %v", info, err)
	}
	for i := range n / 2 {
		if _, err := c.Delete(ctx, fmt.Sprintf("key%d", i)); err != nil {
			t.Fatalf("a full store takes deletes: %v", err)
		}
	}
	putPatiently(t, ctx, c, "after", value)
	if info, err := Status(ctx, socketOf(cfg)); err != nil || info.Full || len(info.Alarms) != 0 {
		t.Errorf("healed: %+v, %v", info, err)
	}
}

func putPatiently(t *testing.T, ctx context.Context, c *clientv3.Client, key, value string) {
	t.Helper()
	var err error
	if !until(t, patience, func() bool {
		_, err = c.Put(ctx, key, value)
		return err == nil
	}) {
		t.Fatalf("put %s: %v", key, err)
	}
}
