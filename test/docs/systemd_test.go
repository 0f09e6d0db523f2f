//go:build linux

package docs

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The test's binary plays systemctl and journalctl on the machines of a page: as much of them as installing and looking
// after a service takes. It reads the real unit files, and waits for READY as systemd does.

const (
	unitDir    = "/etc/systemd/system"
	serviceDir = "/run/services" // pids and journals
)

// playSystemd runs if the binary was called by one of systemd's names.
func playSystemd(name string, args []string) (code int, played bool) {
	var err error
	switch name {
	case "systemctl":
		err = systemctl(args)
	case "journalctl":
		err = journalctl(args)
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

func systemctl(args []string) error {
	now := slices.Contains(args, "--now")
	args = slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, "--") })
	if len(args) == 0 {
		return errors.New("systemctl: what?")
	}
	verb, units := args[0], args[1:]
	var errs []error
	for _, u := range units {
		u = strings.TrimSuffix(u, ".service")
		switch {
		case verb == "is-active":
			if !active(u) {
				fmt.Println("inactive")
				return errors.New("")
			}
			fmt.Println("active")
		case verb == "start", verb == "enable" && now:
			errs = append(errs, start(u))
		case verb == "stop", verb == "disable" && now:
			errs = append(errs, stop(u))
		case verb == "restart":
			errs = append(errs, stop(u), start(u))
		case verb == "enable", verb == "disable":
		default:
			errs = append(errs, fmt.Errorf("systemctl: there is no %s here", verb))
		}
	}
	if len(units) == 0 && verb != "daemon-reload" {
		errs = append(errs, fmt.Errorf("systemctl %s: which unit?", verb))
	}
	return errors.Join(errs...)
}

// unit is what a unit file says, by key.
func readUnit(name string) (map[string][]string, error) {
	b, err := os.ReadFile(filepath.Join(unitDir, name+".service"))
	if err != nil {
		return nil, err
	}
	u := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if k, v, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			u[k] = append(u[k], v)
		}
	}
	return u, nil
}

func pidFile(unit string) string { return filepath.Join(serviceDir, unit+".pid") }

func pidOf(unit string) int {
	b, _ := os.ReadFile(pidFile(unit))
	n, _ := strconv.Atoi(string(b))
	return n
}

// active says whether a unit's process runs. One that has ended and that nobody waits for has no command line.
func active(unit string) bool {
	pid := pidOf(unit)
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid != 0 && err == nil && len(line) > 0
}

func start(unit string) error {
	if active(unit) {
		return nil
	}
	u, err := readUnit(unit)
	if err != nil {
		return err
	}
	for _, wanted := range u["Wants"] {
		if name, ok := strings.CutSuffix(wanted, ".service"); ok {
			if _, err := readUnit(name); err == nil { // a unit that is not there is not wanted
				if err := start(name); err != nil {
					return err
				}
			}
		}
	}
	for dir, in := range map[string]string{"RuntimeDirectory": "/run", "StateDirectory": "/var/lib"} {
		for _, d := range u[dir] {
			if err := os.MkdirAll(filepath.Join(in, d), 0o700); err != nil {
				return err
			}
		}
	}
	return launch(unit, u)
}

// launch starts a unit's program and waits until it says that it is ready.
func launch(unit string, u map[string][]string) error {
	if err := os.MkdirAll(serviceDir, 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(serviceDir, unit+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	notify := filepath.Join(serviceDir, unit+".notify")
	_ = os.Remove(notify)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer ready.Close()
	env := slices.Concat(os.Environ(), u["Environment"], environmentFiles(u["EnvironmentFile"]))
	words := expand(u["ExecStart"][0], env)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(env, "NOTIFY_SOCKET="+notify)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(pidFile(unit), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	says := make(chan error, 1)
	go func() { says <- awaitReady(ready) }()
	select {
	case err := <-ended:
		tail, _ := os.ReadFile(log.Name())
		return fmt.Errorf("job for %s.service ended before it was ready: %w\n%s", unit, err, tail)
	case err := <-says:
		return err
	}
}

// environmentFiles are the lines of files that may be missing if "-" is before their name.
func environmentFiles(names []string) (env []string) {
	for _, n := range names {
		b, err := os.ReadFile(strings.TrimPrefix(n, "-"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
				env = append(env, k+"="+strings.Trim(v, `"'`))
			}
		}
	}
	return env
}

// expand are the words of a command line; a word that is a variable becomes its words.
func expand(line string, env []string) (words []string) {
	for _, w := range strings.Fields(line) {
		name, ok := strings.CutPrefix(w, "$")
		if !ok {
			words = append(words, w)
			continue
		}
		for _, e := range slices.Backward(env) {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				words = append(words, strings.Fields(v)...)
				break
			}
		}
	}
	return words
}

func awaitReady(c *net.UnixConn) error {
	buf := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("waiting for READY: %w", err)
		}
		if bytes.Contains(buf[:n], []byte("READY=1")) {
			return nil
		}
	}
}

func stop(unit string) error {
	if !active(unit) {
		return nil
	}
	if err := syscall.Kill(pidOf(unit), syscall.SIGTERM); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); active(unit); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not stop", unit)
		}
	}
	return os.Remove(pidFile(unit))
}

// journalctl prints a unit's log: journalctl -u UNIT.
func journalctl(args []string) error {
	i := slices.Index(args, "-u")
	if i < 0 || i+1 == len(args) {
		return errors.New("journalctl: of which unit?")
	}
	b, err := os.ReadFile(filepath.Join(serviceDir, args[i+1]+".log"))
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}
