package drivertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// EventKind is something that happens before a scene's State is applied.
type EventKind uint8

// Events, by the sections of case files that stand for them.
const (
	Stop   EventKind = iota // "stop": the driver is closed, as if the agent went down
	Start                   // "start": another one is opened over what is there
	Resync                  // "resync": the Apply that follows has no hint; of the same State it must write nothing, with any hint
	Tamper                  // "tamper N": the harness damages something; the Apply that follows has no hint
	Fail                    // "fail N": the N-th write of the Apply that follows fails
	Refuse                  // "refuse policy P", "refuse set S": the dataplane does not take the object
	Squash                  // "squash": the State is not applied; the next hint covers the way through it
)

// Event is one event.
type Event struct {
	Kind   EventKind
	N      uint64
	Object drivers.ObjectRef
}

func (e Event) String() string {
	switch e.Kind {
	case Tamper:
		return fmt.Sprintf("tamper %d", e.N)
	case Fail:
		return fmt.Sprintf("fail %d", e.N)
	case Refuse:
		if e.Object.Kind == drivers.ObjPolicy {
			return "refuse policy " + policyRef(e.Object.Policy)
		}
		return "refuse set " + string(e.Object.Set)
	}
	return map[EventKind]string{Stop: "stop", Start: "start", Resync: "resync", Squash: "squash"}[e.Kind]
}

func (sc *Scene) has(k EventKind) bool {
	for _, e := range sc.Before {
		if e.Kind == k {
			return true
		}
	}
	return false
}

// finding is where and how a script went wrong.
type finding struct {
	err   error
	p     property // that is broken; 0 = what the script is there for
	scene int
	probe *Probe // that shows it; nil = it takes none
	fatal bool   // the harness broke: the contract says nothing of that
}

// player plays scenes.
type player struct {
	*runner
	hint   hint
	direct map[*drivers.State]string // what the direct path leaves, by State as written

	prev    *drivers.State // of the scene before, as written
	told    *drivers.State // what the driver had applied before a Resync; nil = nothing
	allowed int            // packets that the oracle allowed

	failed, refused bool // the last Fail or Refuse had something to bite on
}

// play plays scenes on the dataplane as it is. It returns nil if all went as the contract says.
func (pl *player) play(ctx context.Context, scenes []Scene) *finding {
	for i := range scenes {
		if f := pl.scene(ctx, &scenes[i]); f != nil {
			f.scene = i
			return f
		}
	}
	return nil
}

func (pl *player) scene(ctx context.Context, sc *Scene) *finding {
	before := ""
	for _, e := range sc.Before {
		what, f := pl.before(ctx, e)
		if f != nil {
			return f
		}
		if what != "" {
			before = what
		}
	}
	low, _ := drivers.Lower(sc.State, pl.features(ctx))
	want := low
	var f *finding
	switch e := sc.fault(); {
	case sc.has(Squash):
		pl.owe(Diff(pl.lastOr(low), low))
		pl.last = low
		return nil
	case sc.Kept:
	case e.Kind == Fail:
		if f = pl.fail(ctx, low, int(e.N)); pl.failed {
			return f // nothing can be said of it before the next Apply
		}
	case e.Kind == Refuse:
		want, f = pl.refuse(ctx, low, e.Object)
	default:
		f = pl.applied(ctx, low, sc.has(Resync) && !sc.has(Tamper) && sc.State == pl.prev)
	}
	pl.prev = sc.State
	if f == nil {
		f = pl.look(ctx, sc, want, want != low)
	}
	if f == nil && want != low { // the object is acceptable again
		if pl.owed != nil {
			pl.owed.AfterError()
		}
		if f = pl.applied(ctx, low, false); f == nil {
			f = pl.look(ctx, sc, low, false)
		}
	}
	if f != nil && before != "" {
		f.err = fmt.Errorf("%s: %w", before, f.err)
	}
	return f
}

// fault is the event that lets something go wrong in the scene's Apply.
func (sc *Scene) fault() Event {
	for _, e := range sc.Before {
		if e.Kind == Fail || e.Kind == Refuse {
			return e
		}
	}
	return Event{}
}

// features are the driver's; it is opened if it is not.
func (pl *player) features(ctx context.Context) drivers.Features {
	if pl.d == nil && !pl.down {
		if err := pl.open(ctx, true); err != nil {
			return pl.f
		}
	}
	return pl.f
}

func (pl *player) lastOr(s *drivers.State) *drivers.State {
	if pl.last == nil {
		return s
	}
	return pl.last
}

// owe notes changes that the next hint must name.
func (pl *player) owe(ch *drivers.Changes) {
	if pl.owed == nil {
		pl.owed = drivers.NewChanges()
	}
	addChanges(pl.owed, ch)
}

// before lets an event happen. It says what there is to say of it.
func (pl *player) before(ctx context.Context, e Event) (string, *finding) {
	var err error
	what := ""
	switch e.Kind {
	case Stop:
		err = pl.close()
		pl.down = true
	case Start:
		err = pl.open(ctx, false)
	case Resync:
		pl.told, pl.last, pl.owed = pl.last, nil, nil
	case Tamper:
		pl.last, pl.owed = nil, nil
		if what, err = pl.h.Tamper(ctx, e.N); err != nil {
			return "", &finding{err: fmt.Errorf("tampering: %w", err), fatal: true}
		}
	}
	if err != nil {
		return "", &finding{err: err}
	}
	return what, nil
}

// applied applies low, which must succeed. If idle, it is there already and nothing may be written, whatever the hint is.
func (pl *player) applied(ctx context.Context, low *drivers.State, idle bool) *finding {
	if !idle {
		if err := pl.applyLowered(ctx, low, pl.changes(low, pl.hint)); err != nil {
			return &finding{err: err}
		}
		return nil
	}
	err := pl.idle(ctx, low, pl.told != nil && pl.owed == nil)
	if b := (*Breach)(nil); errors.As(err, &b) {
		return &finding{err: b.What}
	} else if err != nil {
		return &finding{err: err, fatal: true}
	}
	return nil
}

// fail applies low while its n-th write fails; if there is an n-th write the Apply must fail.
func (pl *player) fail(ctx context.Context, low *drivers.State, n int) *finding {
	ch := pl.changes(low, exact)
	owed := pl.changes(low, exact)
	pl.h.Fail(Fault{Write: n})
	err := pl.applyLowered(ctx, low, ch)
	pl.h.Fail(Fault{})
	pl.failed = err != nil
	if err != nil && owed != nil {
		owed.AfterError()
		pl.last, pl.owed = low, owed
	}
	return nil
}

// refuse applies low while the dataplane refuses one object. The Apply must name it and nothing that is innocent. It returns
// what must be enforced then.
func (pl *player) refuse(ctx context.Context, low *drivers.State, poison drivers.ObjectRef) (*drivers.State, *finding) {
	owed := pl.changes(low, exact)
	pl.h.Fail(Fault{Refuse: poison})
	err := pl.applyLowered(ctx, low, pl.changes(low, exact))
	pl.h.Fail(Fault{})
	if pl.refused = err != nil; err == nil {
		return low, nil // a driver need not write an object that has nothing to say
	}
	if owed != nil {
		pl.last, pl.owed = low, owed
	}
	var partly *drivers.ApplyError
	switch {
	case !errors.As(err, &partly):
		return low, &finding{err: fmt.Errorf("%s is refused: got %w, want an ApplyError", poison, err)}
	case partly.Failed[poison] == nil || len(partly.Failed) != 1:
		return low, &finding{err: fmt.Errorf("%s is refused: the error names %w", poison, err)}
	}
	return standIns(low, poison), nil
}

// look compares what the dataplane does and holds with what it should under want, a lowered State, or one with stand-ins.
func (pl *player) look(ctx context.Context, sc *Scene, want *drivers.State, standIns bool) *finding {
	if f := pl.verify(ctx, sc, want, standIns); f != nil {
		return f
	}
	direct, ok := pl.direct[sc.State]
	if !ok || standIns {
		return nil
	}
	now, err := pl.h.Dump(ctx)
	switch {
	case err != nil:
		return &finding{err: fmt.Errorf("dumping: %w", err), fatal: true}
	case now.Ours != direct:
		return &finding{err: fmt.Errorf("the dataplane is not what the direct path makes ('-' direct, '+' this way):\n%s",
			firstDifference(direct, now.Ours))}
	}
	return nil
}

// verify sends the packets of a scene.
func (pl *player) verify(ctx context.Context, sc *Scene, want *drivers.State, standIns bool) *finding {
	var ps []Probe
	var lines []*Line
	for i := range sc.Lines {
		for _, p := range sc.Lines[i].Probes {
			pl.ports.assign(&p)
			ps, lines = append(ps, p), append(lines, &sc.Lines[i])
		}
	}
	if len(ps) == 0 {
		return nil
	}
	rs, err := pl.send(ctx, sc.State, ps)
	if err != nil {
		return &finding{err: err, fatal: true}
	}
	o, written := newOracle(want), newOracle(sc.State)
	var first *finding
	var errs []error
	for i, l := range lines {
		arrives, _ := o.expect(ps[i].Packet)
		err := o.judge(ps[i], rs[i])
		if !standIns && written.widened(ps[i].Packet, arrives) {
			err = fmt.Errorf("lowered for %s, the State allows what is denied as written", pl.f.Driver)
		}
		if arrives {
			pl.allowed++
		}
		if err == nil {
			continue
		}
		if first == nil {
			first = &finding{probe: &ps[i], p: verdicts}
		}
		if l.Pos != "" {
			err = fmt.Errorf("%s: %s\n%w", l.Pos, l.Text, err)
		}
		errs = append(errs, err)
	}
	if first != nil {
		first.err = few(errs)
	}
	return first
}

// few joins the first of many errors, and says how many more there are.
func few(errs []error) error {
	const enough = 3
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if n := len(errs) - enough; n > 0 {
		errs = append(errs[:enough:enough], fmt.Errorf("and %d more", n))
	}
	return errors.Join(errs...)
}

// addChanges adds what more says to ch; sets become Full, as after an error.
func addChanges(ch, more *drivers.Changes) {
	ch.Node, ch.Masquerade = ch.Node || more.Node, ch.Masquerade || more.Masquerade
	maps.Copy(ch.Endpoints, more.Endpoints)
	maps.Copy(ch.Policies, more.Policies)
	maps.Copy(ch.Routes, more.Routes)
	maps.Copy(ch.Peers, more.Peers)
	for id := range more.Sets {
		ch.Sets[id] = &drivers.SetChange{Full: true}
	}
}

// directs adds to known what a driver that goes straight to each checked State leaves.
func (r *runner) directs(ctx context.Context, scenes []Scene, known map[*drivers.State]string) error {
	for i := range scenes {
		s := scenes[i].State
		if _, ok := known[s]; ok || !scenes[i].Check {
			continue
		}
		if err := r.open(ctx, true); err != nil {
			return err
		}
		if _, err := r.apply(ctx, s, noHint); err != nil {
			return err
		}
		d, err := r.h.Dump(ctx)
		if err != nil {
			return fmt.Errorf("dumping: %w", err)
		}
		known[s] = d.Ours
	}
	return nil
}

// story plays scenes on a fresh dataplane to see whether property p holds. If not, it makes a case of what it found.
func (r *runner) story(ctx context.Context, p property, scenes []Scene, known map[*drivers.State]string) (*player, error) {
	pl, f, err := r.fresh(ctx, scenes, known)
	if err != nil || f == nil {
		return pl, err
	}
	return pl, r.report(ctx, p, scenes, f)
}

// fresh plays scenes on a fresh dataplane.
func (r *runner) fresh(ctx context.Context, scenes []Scene, known map[*drivers.State]string) (*player, *finding, error) {
	if known == nil {
		known = map[*drivers.State]string{}
	}
	if err := r.directs(ctx, scenes, known); err != nil {
		return nil, nil, err
	}
	if err := r.open(ctx, true); err != nil {
		return nil, nil, err
	}
	pl := &player{runner: r, hint: exact, direct: checked(scenes, known)}
	return pl, pl.play(ctx, scenes), nil
}

// checked keeps of known what scenes want to be compared with.
func checked(scenes []Scene, known map[*drivers.State]string) map[*drivers.State]string {
	m := map[*drivers.State]string{}
	for _, sc := range scenes {
		if text, ok := known[sc.State]; ok && sc.Check {
			m[sc.State] = text
		}
	}
	return m
}
