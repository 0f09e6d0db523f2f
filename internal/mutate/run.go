package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// result is what became of a mutant.
type result struct {
	Name   string
	Source string // hash of the function, as it is without the mistake
	Killed string `json:",omitempty"` // by what: the folder of the tests, or "time"; "" = it survived, or is late

	Late bool `json:",omitempty"` // its tests took too long while others ran: it has to run alone before anything is said

	Refused bool `json:",omitempty"` // by the compiler: it is no mutant
}

func hashOf(m *mutant) string {
	h := sha256.Sum256([]byte(m.source.file.src(m.source.decl)))
	return hex.EncodeToString(h[:8])
}

// results are kept in a file, one line each; the last line about a mutant holds.
type results struct {
	mu   sync.Mutex
	file *os.File
	of   map[string]result
}

func openResults(path string) (*results, error) {
	rs := &results{of: map[string]result{}}
	old, err := os.Open(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		for sc := bufio.NewScanner(old); sc.Scan(); {
			var r result
			if json.Unmarshal(sc.Bytes(), &r) == nil { // a line that was broken off says nothing
				rs.of[r.Name] = r
			}
		}
		old.Close()
	}
	rs.file, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	return rs, err
}

func (rs *results) put(r result) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.of[r.Name] = r
	b, err := json.Marshal(r)
	if err == nil {
		_, err = rs.file.Write(append(b, '\n'))
	}
	return err
}

// outcome is the last result of a mutant if it still holds: its function is as it was.
func (rs *results) outcome(m *mutant) (run, killed bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r, ok := rs.of[m.Name()]
	run = ok && r.Source == hashOf(m) && !r.Refused && !r.Late
	return run, run && r.Killed != ""
}

// compiling are those that the compiler has not refused before.
func (rs *results) compiling(ms []*mutant) []*mutant {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ms), func(m *mutant) bool {
		r := rs.of[m.Name()]
		return r.Refused && r.Source == hashOf(m)
	})
}

// limits of one run of tests: a mistake may make them run for ever, or eat all memory.
const (
	memoryKB = 4 << 20
	slack    = 5 // times what they take without a mistake
	patience = 3 // times that, for a mutant whose tests seemed to run for ever and that runs alone now
)

// once runs one suite with a mutant, 0 for none, and says whether it passed. One failure is enough: the tests run one after
// another, and are ended at the first that fails.
func (b *built) once(ctx context.Context, root string, i, mutant int) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(`ulimit -v %d; exec nice -n 10 "$0" "$@"`, memoryKB),
		b.binaries[i], "-test.failfast", "-test.v", "-test.parallel=1", "-test.run", b.Tests[i].Run, "-test.skip", b.Tests[i].Skip,
		"-test.short="+strconv.FormatBool(b.Tests[i].Short))
	cmd.Dir = filepath.Join(root, b.Tests[i].Dir)
	cmd.Env = append(os.Environ(), variable+"="+strconv.Itoa(mutant), "TORTIE_SEED=1", "GOGC=400", "GOMEMLIMIT=2GiB")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	failed := false
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if strings.HasPrefix(strings.TrimSpace(line), "--- FAIL: ") {
			failed = true
			cancel()
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !failed && !errors.As(err, &exit) {
		return false, err
	}
	return err == nil && !failed, nil
}

// judge runs the suites with a mutant until one fails, each for so many times what it takes without a mistake.
func (b *built) judge(ctx context.Context, root string, m *mutant, baseline []time.Duration, times int) (result, error) {
	r := result{Name: m.Name(), Source: hashOf(m)}
	for i := range b.Tests {
		within, cancel := context.WithTimeout(ctx, 10*time.Second+time.Duration(times)*baseline[i])
		passed, err := b.once(within, root, i, m.ID)
		late := within.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return r, ctx.Err()
		case late:
			r.Killed = "time"
		case err != nil:
			return r, fmt.Errorf("running the tests of %s: %w", b.Tests[i].Dir, err)
		case !passed:
			r.Killed = b.Tests[i].Dir
		}
		if r.Killed != "" {
			break
		}
	}
	return r, nil
}

// run judges every mutant that is not known to be killed.
func (b *built) run(ctx context.Context, root string, rs *results, workers int, say func(string, ...any)) error {
	baseline := make([]time.Duration, len(b.Tests))
	for i, s := range b.Tests {
		start := time.Now()
		passed, err := b.once(ctx, root, i, 0)
		if err != nil || !passed {
			return fmt.Errorf("the tests of %s fail without any mistake (%w)", s.Dir, err)
		}
		baseline[i] = time.Since(start)
	}
	var todo []*mutant
	for _, m := range b.mutants {
		if _, killed := rs.outcome(m); !killed { // the tests may be better now
			todo = append(todo, m)
		}
	}
	// In no order: a run that is broken off has seen a bit of everything.
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	say("%s: %d mutants, %d to run; without a mistake the tests take %v", b.Name, len(b.mutants), len(todo), baseline)
	late, err := b.all(rs, todo, workers, say, func(m *mutant) (result, error) {
		r, err := b.judge(ctx, root, m, baseline, slack)
		if r.Killed == "time" {
			r.Killed, r.Late = "", true
		}
		return r, err
	})
	if err != nil || len(late) == 0 {
		return err
	}
	// Other work may have made them late: each runs once more, alone.
	say("%s: %d seemed to run for ever, once more", b.Name, len(late))
	_, err = b.all(rs, late, 1, say, func(m *mutant) (result, error) {
		return b.judge(ctx, root, m, baseline, slack*patience)
	})
	return err
}

// all judges mutants, keeps what becomes of them, and returns those that are late.
func (b *built) all(rs *results, todo []*mutant, workers int, say func(string, ...any),
	judge func(*mutant) (result, error)) ([]*mutant, error) {
	next := make(chan *mutant)
	errs := make(chan error, workers)
	var done, survived int
	var late []*mutant
	var mu sync.Mutex
	for range workers {
		go func() {
			for m := range next {
				r, err := judge(m)
				if err == nil {
					err = rs.put(r)
				}
				if err != nil {
					errs <- err
					return
				}
				mu.Lock()
				switch done++; {
				case r.Late:
					late = append(late, m)
				case r.Killed == "":
					survived++
				}
				if done%100 == 0 {
					say("%s: %d of %d, %d survive", b.Name, done, len(todo), survived)
				}
				mu.Unlock()
			}
			errs <- nil
		}()
	}
	var failed error
	finished := 0
feed:
	for _, m := range todo {
		select {
		case next <- m:
		case err := <-errs:
			failed, finished = err, 1
			break feed
		}
	}
	close(next)
	for ; finished < workers; finished++ {
		failed = errors.Join(failed, <-errs)
	}
	return late, failed
}
