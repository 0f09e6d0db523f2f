package ipam

import "sync"

// maxGone is how many handles are remembered: whoever asks twice does so within minutes.
const maxGone = 4096

// gone remembers handles whose addresses this process has taken back, so that who asks again (the kubelet does, for every
// sandbox) is answered without reading. It is for certain only if
//
//   - something was taken back, by a write that was answered: what was not found may be written late by a process before
//     this one, but no write of before can still change a block that has been written since
//   - no request of this process for the handle ever failed: its write may come late into another block
//   - every block of this node could be read
//
// Only this process gives addresses to its handles: a lock keeps a second agent of the node away.
type gone struct {
	mu      sync.Mutex
	handles map[string]certainty
	order   []string // the oldest first
	blinded bool
}

// certainty is what is known of a handle.
type certainty uint8

const (
	unknown  certainty = iota
	sure               // it has nothing
	doubtful           // it may have what nobody knows of: for good
)

func (g *gone) has(handle string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.handles[handle] == sure && !g.blinded
}

// add notes that a handle's addresses have been taken back.
func (g *gone) add(handle string) { g.set(handle, sure) }

// doubt notes that a handle may have addresses that nobody knows of.
func (g *gone) doubt(handle string) { g.set(handle, doubtful) }

// back notes that addresses are asked for by a handle, maybe once more.
func (g *gone) back(handle string) { g.set(handle, unknown) }

func (g *gone) set(handle string, c certainty) {
	g.mu.Lock()
	defer g.mu.Unlock()
	was, there := g.handles[handle]
	switch {
	case was == doubtful || !there && c == unknown:
		return
	case !there:
		if g.handles == nil {
			g.handles = map[string]certainty{}
		}
		if g.order = append(g.order, handle); len(g.order) > maxGone {
			delete(g.handles, g.order[0])
			g.order = g.order[1:]
		}
	}
	g.handles[handle] = c
}

// blind notes that a block of this node can't be read: what it holds is not known.
func (g *gone) blind() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blinded = true
}
