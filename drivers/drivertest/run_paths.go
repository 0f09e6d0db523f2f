package drivertest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tortie/tortie/drivers"
)

const stopsPerWalk = 5

// walk makes the scenes of a random walk. The State that they are reached from is an empty one with the driver just opened.
func walk(seed uint64) []Scene {
	g := newGen(seed)
	var scenes []Scene
	for i := range stopsPerWalk {
		s := g.next(scenes)
		if i == stopsPerWalk/2 {
			s = g.state() // one big step
		}
		sc := sceneOf(s, g.probes(s, 12)...)
		sc.Check = true
		scenes = append(scenes, sc)
	}
	return scenes
}

// seeded adds to an error how to repeat it.
func seeded(seed uint64, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("walk from seed %d, %s: %w", seed, what, err)
}

// idleWalk sees, at each stop of a walk, that an Apply with nothing to do writes nothing.
func (r *runner) idleWalk(ctx context.Context, seed uint64) error {
	var scenes []Scene
	for _, sc := range walk(seed) {
		sc.Check, sc.Lines = false, nil
		scenes = append(scenes, sc, again(sc, Event{Kind: Resync}))
	}
	_, err := r.story(ctx, nothingToDo, scenes, nil)
	return seeded(seed, "forward", err)
}

// paths sees that a State is the same however the driver got there.
func (r *runner) paths(ctx context.Context, seed uint64) error {
	scenes := walk(seed)
	known := map[*drivers.State]string{}
	for _, way := range []struct {
		name string
		by   func([]Scene) []Scene
	}{
		{"forward", slices.Clone[[]Scene]}, {"backward", backward}, {"with empty States between", empties}, {"squashed", squashed},
		{"split", split}, {"back and forth", backAndForth}, {"by chance", byChance(seed)},
	} {
		if _, err := r.story(ctx, anyPath, way.by(scenes), known); err != nil {
			return seeded(seed, way.name, err)
		}
	}
	return nil
}

func backward(scenes []Scene) []Scene {
	scenes = slices.Clone(scenes)
	slices.Reverse(scenes)
	return scenes
}

func backAndForth(scenes []Scene) []Scene {
	var out []Scene
	for i := range 3 * len(scenes) {
		out = append(out, scenes[i*3%len(scenes)])
	}
	return out
}

// byChance goes from stop to stop without aim, now and then with a resync.
func byChance(seed uint64) func([]Scene) []Scene {
	return func(scenes []Scene) []Scene {
		g := newGen(seed)
		var out []Scene
		for range 2 * len(scenes) {
			sc := pick(g, scenes)
			if g.chance(25) {
				sc.Before = []Event{{Kind: Resync}}
			}
			out = append(out, sc)
		}
		return out
	}
}

func empties(scenes []Scene) []Scene {
	var out []Scene
	for _, sc := range scenes {
		none := drivers.NewState()
		none.Node = sc.State.Node
		out = append(out, sc, Scene{Title: "state: empty", State: none})
	}
	return out
}

// squashed goes from the first stop to the last in one step whose hint is the sum of all steps: keys that are touched
// without need, sets that are Full.
func squashed(scenes []Scene) []Scene {
	out := slices.Clone(scenes)
	for i := range out[1 : len(out)-1] {
		out[i+1].Before, out[i+1].Lines, out[i+1].Check = []Event{{Kind: Squash}}, nil, false
	}
	return out
}

// split goes from stop to stop in small steps, in each of which every reference resolves: first what is new beside what
// is there, then each endpoint by itself, then what is not needed any more goes.
func split(scenes []Scene) []Scene {
	out := scenes[:1:1]
	for i := range scenes[1:] {
		old, now := scenes[i].State, scenes[i+1].State
		mid := old.Clone()
		pass := func() {
			out = append(out, Scene{Title: "state: on the way", State: mid})
			mid = mid.Clone()
		}
		maps.Copy(mid.Sets, now.Sets)
		pass()
		maps.Copy(mid.Policies, now.Policies)
		maps.Copy(mid.Peers, now.Peers)
		pass()
		for _, id := range sortedKeys(old.Endpoints) {
			if now.Endpoints[id] == nil {
				delete(mid.Endpoints, id)
			} else {
				mid.Endpoints[id] = now.Endpoints[id]
			}
			pass()
		}
		out = append(out, scenes[i+1])
	}
	return out
}

// again is a scene of the State that is there, after some events.
func again(sc Scene, es ...Event) Scene {
	sc.Before = es
	sc.Kept = !slices.ContainsFunc(es, func(e Event) bool { return e.Kind != Stop && e.Kind != Start })
	return sc
}

// olderWorld sees that the dataplane goes on when the driver has gone, that a new driver touches nothing that is right
// already, and that it sweeps what an older one left.
func (r *runner) olderWorld(ctx context.Context, seed uint64) error {
	scenes := walk(seed)
	first, last := scenes[0], scenes[len(scenes)-1]
	_, err := r.story(ctx, restarts, []Scene{
		first, again(first, Event{Kind: Stop}), again(first, Event{Kind: Start}), again(first, Event{Kind: Resync}),
		again(last, Event{Kind: Stop}, Event{Kind: Start}, Event{Kind: Resync}),
	}, nil)
	return seeded(seed, "restarted", err)
}

// foreign sees that what is not the driver's is as it was after everything that a driver does.
func (r *runner) foreign(ctx context.Context, seed uint64) error {
	scenes := walk(seed)
	if err := r.open(ctx, true); err != nil {
		return err
	}
	before, err := r.dump(ctx)
	if err != nil {
		return err
	}
	if before.Foreign == "" {
		return fmt.Errorf("the harness has nothing foreign for the driver to leave alone")
	}
	none := Scene{State: drivers.NewState()}
	none.State.Node = scenes[0].State.Node
	for i, sc := range append(scenes, none, again(scenes[0], Event{Kind: Stop}, Event{Kind: Start}, Event{Kind: Resync})) {
		sc.Check = false
		if f := (&player{runner: r, hint: exact}).play(ctx, []Scene{sc}); f != nil {
			return seeded(seed, "with foreign things around", breach(restarts, f.err))
		}
		after, err := r.dump(ctx)
		if err != nil {
			return err
		}
		if after.Foreign != before.Foreign {
			return seeded(seed, fmt.Sprint("stop ", i), breach(restarts, fmt.Errorf("something foreign has changed:\n%s",
				firstDifference(before.Foreign, after.Foreign))))
		}
	}
	return nil
}

// openWrites sees that Open alone changes nothing, neither on a fresh dataplane nor over an older world.
func (r *runner) openWrites(ctx context.Context, seed uint64) error {
	if err := r.open(ctx, true); err != nil {
		return err
	}
	if err := r.close(); err != nil {
		return err
	}
	sc := walk(seed)[0]
	for _, what := range []string{"a fresh dataplane", "an older world"} {
		before, err := r.dump(ctx)
		if err != nil {
			return err
		}
		if err := r.open(ctx, false); err != nil {
			return err
		}
		after, err := r.dump(ctx)
		if err != nil {
			return err
		}
		if before != after {
			return breach(untouched, fmt.Errorf("opening over %s made %d writes, and changed:\n%s", what, after.Writes-before.Writes,
				firstDifference(before.Ours+before.Foreign, after.Ours+after.Foreign)))
		}
		if _, err := r.apply(ctx, sc.State, noHint); err != nil {
			return breach(untouched, err)
		}
		if err := r.close(); err != nil {
			return err
		}
	}
	return nil
}

// reboot sees that the State that was persisted stands on a fresh dataplane, as it did before; and that the world as it is
// now, when it is known, takes its place and leaves nothing of it.
func (r *runner) reboot(ctx context.Context, seed uint64) error {
	scenes := walk(seed)
	persisted, now := scenes[1], scenes[len(scenes)-1]
	now.Before = []Event{{Kind: Resync}}
	_, err := r.story(ctx, untouched, []Scene{persisted, now}, nil)
	return seeded(seed, "rebooted", err)
}

// unknown sees that nothing comes from or goes to an interface that is named like a workload's and that no State lists: of
// a State with endpoints, and of one that has none (the first thing that a driver is given when nothing was persisted).
// It is so while the driver is open and when it is closed.
func (r *runner) unknown(ctx context.Context, seed uint64) error {
	g := newGen(seed)
	full, none := g.state(), drivers.NewState()
	none.Node = full.Node
	for _, s := range []*drivers.State{full, none} {
		sc := sceneOf(s, g.unknownProbes(s)...)
		if _, err := r.story(ctx, unknownInterfaces, []Scene{sc, again(sc, Event{Kind: Stop}), again(sc, Event{Kind: Start})}, nil); err != nil {
			return seeded(seed, "", err)
		}
	}
	return nil
}

// unknownProbes go from and to every interface that s does not list, in every state of the flow table.
func (g *gen) unknownProbes(s *drivers.State) []Probe {
	var ps []Probe
	for _, from := range sites {
		for _, to := range sites {
			a, b := placeOf(s, from), placeOf(s, to)
			if from.Name == to.Name || a.Kind != drivers.PlaceUnknown && b.Kind != drivers.PlaceUnknown {
				continue
			}
			for _, v6 := range []bool{false, true} {
				for _, ct := range []drivers.CTState{drivers.CTNew, drivers.CTEstablished, drivers.CTUntracked} {
					p := Probe{Packet: drivers.Packet{
						From: a, To: b, Src: ownAddr(from, to, v6, false), Dst: ownAddr(to, from, v6, false), SrcMAC: from.MAC,
						Proto: pick(g, []uint8{protoTCP, protoUDP, protoSCTP}), DstPort: pick(g, portPool), CT: ct,
					}}
					if a.Kind != drivers.PlaceWorkload && a.Kind != drivers.PlaceUnknown {
						p.Packet.SrcMAC = drivers.MAC{}
					}
					if g.ports.assign(&p); CheckProbe(s, p) == nil {
						ps = append(ps, p)
					}
				}
			}
		}
	}
	return ps
}
