package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// watchRequest is what `get -w` was asked for.
type watchRequest struct {
	kinds     []api.KindInfo
	namespace string // "" = all
	names     []string
	output    string
}

// What happened to an object, in the words of the watch API of Kubernetes.
const (
	eventThere    = "THERE" // from the beginning
	eventAdded    = "ADDED"
	eventModified = "MODIFIED"
	eventDeleted  = "DELETED"
)

// watch streams objects as they change, until ctx ends: what is there first, then each change.
func (env *Env) watch(ctx context.Context, s datastore.Store, r watchRequest) error {
	st := &stream{out: env.Out, request: r, shown: map[api.Key]api.Object{}}
	var kinds []string
	for _, k := range r.kinds {
		kinds = append(kinds, k.Kind)
	}
	trouble := ""
	err := s.Watch(ctx, datastore.WatchOptions{Kinds: kinds}, func(b datastore.Batch) error {
		if now := troubleOf(b.Status); now != trouble {
			trouble = now
			if now == "" {
				now = "the store answers again"
			}
			fmt.Fprintf(env.Err, "%s\n", now)
		}
		return st.take(b)
	})
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil // that is how one ends it
	}
	return err
}

func troubleOf(s datastore.Status) string {
	switch {
	case !s.Connected && s.Err != nil:
		return fmt.Sprintf("waiting for the store: %v", s.Err)
	case len(s.Kinds) > 0:
		var kinds []string
		for k, err := range s.Kinds {
			kinds = append(kinds, fmt.Sprintf("%s (%v)", k, err))
		}
		slices.Sort(kinds)
		return "can't be listed: " + strings.Join(kinds, ", ")
	}
	return ""
}

// stream prints events.
type stream struct {
	out     io.Writer
	request watchRequest
	shown   map[api.Key]api.Object
	synced  bool
	kind    string // of the table that is being printed
	widths  []int
	printed bool // a document
}

func (st *stream) take(b datastore.Batch) error {
	for _, e := range b.Events {
		if !st.wanted(e.Key) || e.Problem != nil {
			continue
		}
		old := st.shown[e.Key]
		if e.Object == nil {
			delete(st.shown, e.Key)
		} else {
			st.shown[e.Key] = e.Object
		}
		switch {
		case !st.synced:
		case e.Object == nil && old != nil:
			if err := st.print(eventDeleted, old); err != nil {
				return err
			}
		case e.Object != nil && old == nil:
			if err := st.print(eventAdded, e.Object); err != nil {
				return err
			}
		case e.Object != nil && old.GetResourceVersion() != e.Object.GetResourceVersion():
			if err := st.print(eventModified, e.Object); err != nil {
				return err
			}
		}
	}
	if st.synced || !b.InSync {
		return nil
	}
	st.synced = true
	return st.snapshot()
}

func (st *stream) wanted(k api.Key) bool {
	r := st.request
	return (k.Namespace == "" || r.namespace == "" || k.Namespace == r.namespace) && (len(r.names) == 0 || slices.Contains(r.names, k.Name))
}

// snapshot prints what is there at the beginning, in the order of kinds and names.
func (st *stream) snapshot() error {
	for _, k := range st.request.kinds {
		var os []api.Object
		for key, o := range st.shown {
			if key.Kind == k.Kind {
				os = append(os, o)
			}
		}
		slices.SortFunc(os, func(a, b api.Object) int {
			return strings.Compare(a.GetNamespace()+"/"+a.GetName(), b.GetNamespace()+"/"+b.GetName())
		})
		st.fit(k.Kind, os)
		for _, o := range os {
			if err := st.print(eventThere, o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (st *stream) print(event string, o api.Object) error {
	switch st.request.output {
	case "json":
		b, err := api.Encode(o)
		if err != nil {
			return err
		}
		if event == eventThere {
			event = eventAdded // as a watch of Kubernetes says it
		}
		line, err := json.Marshal(struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}{event, b})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(st.out, "%s\n", line)
		return err
	case "yaml":
		return st.printYAML(event, o)
	case "name":
		suffix := map[string]string{eventAdded: " added", eventModified: " modified", eventDeleted: " deleted"}[event]
		_, err := fmt.Fprintf(st.out, "%s%s\n", api.KeyOf(o), suffix)
		return err
	}
	return st.printRow(event, o)
}

func (st *stream) printYAML(event string, o api.Object) error {
	if st.printed {
		fmt.Fprintln(st.out, "---")
	}
	st.printed = true
	if event != eventThere {
		fmt.Fprintf(st.out, "# %s %s\n", api.KeyOf(o), strings.ToLower(event))
	}
	if event == eventDeleted {
		return nil
	}
	return printYAML(st.out, []api.Object{o})
}

func (st *stream) cells(event string, o api.Object) []string {
	cells := []string{strings.ToLower(event)}
	if event == eventThere {
		cells[0] = "-"
	}
	for _, c := range columnsOf(o.GetKind(), st.request.output == "wide") {
		cells = append(cells, c.cell(o))
	}
	return cells
}

// fit makes columns wide enough for objs: later rows can't move those that are printed.
func (st *stream) fit(kind string, objs []api.Object) {
	if st.request.output != "table" && st.request.output != "wide" {
		return
	}
	heads := []string{"EVENT"}
	for _, c := range columnsOf(kind, st.request.output == "wide") {
		heads = append(heads, c.head)
	}
	st.kind, st.widths = kind, make([]int, len(heads))
	st.widths[0] = len("modified")
	rows := [][]string{heads}
	for _, o := range objs {
		rows = append(rows, st.cells(eventThere, o))
	}
	for _, row := range rows {
		for i, c := range row {
			st.widths[i] = max(st.widths[i], utf8.RuneCountInString(c))
		}
	}
	if len(objs) > 0 || len(st.request.kinds) == 1 {
		st.row(heads)
	} else {
		st.kind = ""
	}
}

func (st *stream) printRow(event string, o api.Object) error {
	if o.GetKind() != st.kind {
		st.fit(o.GetKind(), []api.Object{o})
	}
	return st.row(st.cells(event, o))
}

func (st *stream) row(cells []string) error {
	var b strings.Builder
	for i, c := range cells {
		b.WriteString(c)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", max(0, st.widths[i]-utf8.RuneCountInString(c))+3))
		}
	}
	_, err := fmt.Fprintln(st.out, b.String())
	return err
}
