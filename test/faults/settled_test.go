//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/datastore/etcd"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/ipam"
	"github.com/tortie/tortie/test/lab"
)

// settled looks, after a fault, for all that must not be left of it. The probes have ended: it empties the nodes' tables
// and routes, to compare what was there with what agents make of nothing.
func (s *scene) settled(t *testing.T) {
	t.Helper()
	for i, n := range s.Nodes {
		eventually(t, 30*time.Second, "a node at rest", func() error { return s.atRest(t.Context(), n, s.attached[i+1]) })
	}
	s.audited(t)
	for _, n := range s.Nodes {
		was, err := dump(n)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(was, "table inet tortie") {
			t.Fatalf("%s has no table", n.Name)
		}
		if err := empty(n); err != nil {
			t.Fatal(err)
		}
		var diff string
		err = poll(30*time.Second, func() error {
			is, err := dump(n)
			if diff = cmp.Diff(is, was); diff != "" && err == nil {
				err = errors.New(diff)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s held something else ('+') than what is made from nothing ('-'): %v", n.Name, err)
		}
	}
}

// atRest is an error as long as the agent is not ready, or holds something else than the given number of workloads.
func (s *scene) atRest(ctx context.Context, n *lab.Node, workloads int) error {
	st, err := n.Client().Status(ctx, agentapi.StatusRequest{})
	if err != nil {
		return err
	}
	if !st.Ready || len(st.NotReady)+len(st.Problems) > 0 {
		return fmt.Errorf("not ready: %v, problems: %v", st.NotReady, st.Problems)
	}
	list, err := n.Client().List(ctx, agentapi.ListRequest{})
	if err != nil {
		return err
	}
	links, err := run("ip", "-netns", n.Netns(), "-br", "link")
	if err != nil {
		return err
	}
	count := func(pattern string) int {
		files, _ := filepath.Glob(filepath.Join(n.StateDir(), pattern))
		return len(files)
	}
	got := []int{len(list.Attachments), strings.Count("\n"+links, "\ntort"), count("ledger/*.entry"), count("ledger/*") - count("ledger/*.entry") - count("ledger/*.bad-*"), count("notes/*.detach")}
	if want := []int{workloads, workloads, workloads, 0, 0}; !cmp.Equal(got, want) {
		return fmt.Errorf("attachments, interfaces, ledger entries, unfinished files, notes: %v, want %v", got, want)
	}
	return nil
}

// audited compares the store's addresses and endpoints with the workloads that there are.
func (s *scene) audited(t *testing.T) {
	t.Helper()
	store, err := etcd.Open(etcd.Config{Endpoints: []string{s.StoreEndpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	total := 0
	for _, n := range s.attached {
		total += n
	}
	a := ipam.New(ipam.Config{Store: store, Node: "auditor"})
	eventually(t, 30*time.Second, "a clean audit of addresses", func() error {
		r, err := a.Audit(t.Context(), ipam.AuditOptions{})
		if err != nil {
			return err
		}
		if len(r.Leaked)+len(r.Missing)+len(r.Double)+len(r.Objects) > 0 || r.Used != 2*total || r.Allocated != 2*total {
			return fmt.Errorf("want %d addresses: %+v", 2*total, r)
		}
		return nil
	})
	weps, err := store.List(t.Context(), "WorkloadEndpoint", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(weps) != total {
		t.Errorf("the store has %d endpoints, want %d", len(weps), total)
	}
}

// dump is what a node's kernel holds of ours.
func dump(n *lab.Node) (string, error) {
	var b strings.Builder
	for _, args := range [][]string{
		{"netns", "exec", n.Netns(), "nft", "-s", "-n", "list", "ruleset"},
		{"-netns", n.Netns(), "-4", "route", "show", "table", "all", "proto", "84"},
		{"-netns", n.Netns(), "-6", "route", "show", "table", "all", "proto", "84"},
		{"-netns", n.Netns(), "neigh", "show", "nud", "permanent"},
	} {
		out, err := run("ip", args...)
		if err != nil {
			return "", err
		}
		b.WriteString(sorted(out))
	}
	return b.String(), nil
}

// sorted brings lines, and the chains and sets of tables, into a fixed order: they are listed in that of their making.
func sorted(text string) string {
	var blocks []string
	table, block := "", ""
	for _, line := range strings.Split(text, "\n") {
		switch {
		case line == "" || line == "}":
		case strings.HasPrefix(line, "table "):
			table = line
		case strings.HasPrefix(line, "\t"):
			block += line + "\n"
			if line == "\t}" {
				blocks = append(blocks, table+"\n"+block)
				block = ""
			}
		default:
			blocks = append(blocks, line+"\n")
		}
	}
	slices.Sort(blocks)
	return strings.Join(append(blocks, block), "")
}

// empty removes our tables and routes behind the agent's back.
func empty(n *lab.Node) error {
	_, err1 := run("ip", "netns", "exec", n.Netns(), "nft", "delete table inet tortie; delete table arp tortie")
	_, err2 := run("ip", "-netns", n.Netns(), "-4", "route", "flush", "table", "main", "proto", "84")
	_, err3 := run("ip", "-netns", n.Netns(), "-6", "route", "flush", "table", "main", "proto", "84")
	return errors.Join(err1, err2, err3)
}

// descriptors counts the open files of a process.
func descriptors(p *lab.Process) int {
	es, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	if err != nil {
		return -1
	}
	return len(es)
}
