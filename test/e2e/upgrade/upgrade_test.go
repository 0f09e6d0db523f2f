//go:build e2e && linux

package upgrade

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// upgrade is a cluster in which there is traffic all the time.
type upgrade struct {
	*bed
	scene   *bedtest.Scene
	twin    *bedtest.Pod // a server as the scene's, on the other node
	flow    *bedtest.Flow
	away    *watch
	leavers map[string][]string // pods of nodes that go while there is no agent
	count   int                 // of policies and pods made
}

// TestUpgrade: from the older release to this tree node by node, back, and forward again, while there is traffic.
func TestUpgrade(t *testing.T) {
	b := open(t)
	b.bare()
	b.install(b.old)
	b.set("logFormat: json") // what the older release does not look at
	b.MakeNamespace()
	u := &upgrade{bed: b, scene: b.Scene(), away: b.watch(), leavers: map[string][]string{}}
	u.twin = b.Start(bedtest.Spec{Name: "twin", Node: "node1", Labels: bedtest.IsServer})[0]
	was := u.addresses()
	for _, node := range b.nodes() {
		for range 2 {
			name := u.names("leaver", 1)[0]
			b.Start(bedtest.Spec{Name: name, Node: node})
			u.leavers[node] = append(u.leavers[node], name)
		}
	}
	b.forget(b.tree, b.nodes()...)
	u.works("with the older release", b.nodes()...)
	u.flow = u.scene.StartPatientFlow()

	first, second := u.begin()
	u.slowPull(first, second, 5*time.Second, func() { b.pull(b.tree, first) })
	u.report("the first node") // its plugin is the old one, which waits for a minute
	u.mixed(first, second)
	u.finish(second)
	u.works("with the new release", b.nodes()...)

	u.undo()
	u.works("back with the older release", b.nodes()...)
	u.again()
	u.works("forward again", b.nodes()...)
	u.slower()

	u.flow.Lossless()
	u.scene.Holds()
	u.NoSandboxRebuilt()
	for name, addr := range was {
		if now := u.addresses()[name]; now != addr {
			t.Errorf("%s had %s, and has %s now", name, addr, now)
		}
	}
	u.noneLost()
}

// begin applies the new manifest, while no node has its image, and returns the node whose agent has gone, and the other. The
// rollout does not go on from there before finish.
func (u *upgrade) begin() (first, second string) {
	u.Helper()
	u.Kubectl("apply", "-f", u.tree.manifest())
	first, second = u.waiting()
	u.pause(true)
	return first, second
}

// waiting is the node whose agent's image is not there, and the other.
func (u *upgrade) waiting() (first, second string) {
	u.Helper()
	waits := func() bool {
		first = strings.TrimSpace(u.Kubectl("-n", bedtest.System, "get", "pods", "-l", "app.kubernetes.io/component=agent", "-o",
			`jsonpath={.items[?(@.status.containerStatuses[0].state.waiting)].spec.nodeName}`))
		return first != "" && !strings.Contains(first, " ")
	}
	if !bedtest.Eventually(patience, waits) {
		u.Fatalf("no node waits for the image: %q", first)
	}
	nodes := u.nodes()
	return first, nodes[1-slices.Index(nodes, first)]
}

// pause has the rollout stop after the node that it has come to, and go on.
func (u *upgrade) pause(on bool) {
	u.Helper()
	strategy := `{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":1,"maxSurge":0}}`
	if on {
		strategy = `{"type":"OnDelete","rollingUpdate":null}`
	}
	u.Kubectl("-n", bedtest.System, "patch", daemonSet, "--type=merge", "-p", `{"spec":{"updateStrategy":`+strategy+`}}`)
}

// slowPull: while a node waits for its next agent's image pods that come there wait, pods go, and the other node works. Then
// the image is there, and no sandbox had to be made again.
func (u *upgrade) slowPull(node, other string, takes time.Duration, arrives func()) {
	u.Helper()
	since := time.Now()
	late := u.names("late", 3)
	for _, name := range late {
		u.Apply(u.Object(bedtest.Spec{Name: name, Node: node, Labels: bedtest.IsClient}))
	}
	leaver := u.leavers[node][0]
	u.leavers[node] = u.leavers[node][1:]
	u.In("delete", "pod", leaver, "--wait", "--timeout="+patience.String())
	u.works("while the agent of "+node+" waits for its image", other)
	for time.Since(since) < takes {
		u.scene.Holds()
	}
	arrives()
	u.begun(late, node)
}

// begun says how long pods waited that came while there was no agent, and that they work.
func (u *upgrade) begun(names []string, node string) {
	u.Helper()
	for _, name := range names {
		u.Allowed(u.Enter(name).Inside, u.serverOn(node).Server())
		u.Logf("%s came while there was no agent: its network was there after %s", name, u.networkTook(name))
	}
	u.In(append([]string{"delete", "pod", "--wait", "--timeout=" + patience.String()}, names...)...)
}

// mixed: a new agent here and an old one there, both enforce what changes, and pods come and go on both.
func (u *upgrade) mixed(node, other string) {
	u.Helper()
	if got := u.version(other); got != u.old.version {
		u.Fatalf("the agent of %s is %s already", other, got)
	}
	if got := u.version(node); got == u.old.version {
		u.Fatalf("the agent of %s is still %s", node, got)
	}
	u.works("with a new agent on "+node+" and an old one on "+other, node, other)
}

// finish lets the rollout go on.
func (u *upgrade) finish(node string) {
	u.Helper()
	u.pause(false)
	gone := func() bool {
		return strings.Contains(u.Kubectl("-n", bedtest.System, "get", "pods", "-l", "app.kubernetes.io/component=agent", "-o",
			`jsonpath={.items[?(@.status.containerStatuses[0].state.waiting)].spec.nodeName}`), node)
	}
	if !bedtest.Eventually(patience, gone) {
		u.Fatalf("the agent of %s is not replaced", node)
	}
	u.pull(u.tree, node)
	u.rolledOut()
	u.running(u.tree)
	u.logsJSON()
	u.report("the second node")
}

// undo goes back, as docs/install-kubernetes.md says: to the older image, with what the new one has written.
func (u *upgrade) undo() {
	u.Helper()
	u.follow("Going back")
	u.rolledOut()
	u.running(u.old)
	u.report("going back")
}

// again goes forward, with an image that is there.
func (u *upgrade) again() {
	u.Helper()
	late := u.names("again", 4)
	u.follow("Upgrading")
	for i, name := range late {
		u.Apply(u.Object(bedtest.Spec{Name: name, Node: u.nodes()[i%2], Labels: bedtest.IsClient}))
	}
	u.rolledOut()
	u.running(u.tree)
	u.logsJSON()
	u.begun(late, u.twin.Node)
	u.report("forward again")
}

// slower: an image that takes longer than the plugin gives an agent that is there.
func (u *upgrade) slower() {
	u.Helper()
	next := release{u.tree.dir, u.tree.version + "-slow"}
	u.forget(next, u.nodes()...)
	u.Kubectl("-n", bedtest.System, "set", "image", daemonSet, "agent="+next.image())
	first, second := u.waiting()
	u.slowPull(first, second, 80*time.Second, func() {
		for _, node := range u.nodes() {
			u.on(node, "ctr -n k8s.io images tag "+u.tree.image()+" "+next.image())
		}
	})
	u.rolledOut()
	u.report("with an image that takes 80 s")
	u.follow("Upgrading")
	u.rolledOut()
	u.running(u.tree)
}

// serverOn is the server of a node.
func (u *upgrade) serverOn(node string) *bedtest.Pod {
	if u.twin.Node == node {
		return u.twin
	}
	return u.scene.Server
}

// works: on these nodes pods come and go, and get to servers there when a policy is made that says so, and not when it is gone.
func (u *upgrade) works(when string, nodes ...string) {
	u.Helper()
	guests := map[string]string{"role": fmt.Sprint("guest-", u.count)}
	names := u.names("guest", len(nodes))
	var pods []*bedtest.Pod
	for i, node := range nodes {
		u.Apply(u.Object(bedtest.Spec{Name: names[i], Node: node, Labels: guests}))
	}
	for _, name := range names {
		pods = append(pods, u.Enter(name))
	}
	all := func(check func(from *bedtest.Pod, to *bedtest.Pod)) {
		for _, from := range pods {
			for _, node := range nodes {
				check(from, u.serverOn(node))
			}
		}
	}
	denied := func(from, to *bedtest.Pod) { u.Denied(from.Inside, to.Server()) }
	all(denied)
	u.Only("guests", bedtest.IsServer, guests)
	all(func(from, to *bedtest.Pod) { u.Allowed(from.Inside, to.Server()) })
	u.In("delete", "networkpolicy", "guests")
	all(denied)
	u.In(append([]string{"delete", "pod", "--wait", "--timeout=" + patience.String()}, names...)...)
	u.Logf("%s: pods come and go, and policy changes, on %s", when, strings.Join(nodes, " and "))
}

// names are n that no pod of the test had.
func (u *upgrade) names(prefix string, n int) []string {
	var names []string
	for range n {
		u.count++
		names = append(names, fmt.Sprintf("%s-%d", prefix, u.count))
	}
	return names
}

var allocated = regexp.MustCompile(`(\d+) allocated, (\d+) used`)

// noneLost says that all addresses are somebody's.
func (u *upgrade) noneLost() {
	u.Helper()
	out := ""
	if !bedtest.Eventually(patience, func() bool {
		out = u.Kubectl("-n", bedtest.System, "exec", daemonSet, "--", "/tortie", "ipam", "check")
		m := allocated.FindStringSubmatch(out)
		return m != nil && m[1] == m[2]
	}) {
		u.Errorf("tortie ipam check:\n%s", out)
	}
}

// networkTook is how long a pod took from being bound to having a network.
func (u *upgrade) networkTook(name string) time.Duration {
	u.Helper()
	f := strings.Fields(u.In("get", "pod", name, "-o", `jsonpath={.metadata.creationTimestamp} {.status.conditions[?(@.type=="PodReadyToStartContainers")].lastTransitionTime}`))
	if len(f) != 2 {
		u.Fatalf("%s: %q is not two times", name, f)
	}
	from, err := time.Parse(time.RFC3339, f[0])
	if err != nil {
		u.Fatal(err)
	}
	to, err := time.Parse(time.RFC3339, f[1])
	if err != nil {
		u.Fatal(err)
	}
	return to.Sub(from)
}

// addresses are those of all pods of the test.
func (u *upgrade) addresses() map[string]string {
	u.Helper()
	all := map[string]string{}
	for line := range strings.Lines(u.In("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[name] = rest
	}
	return all
}

// report says how long nodes were without an agent.
func (u *upgrade) report(what string) {
	u.Helper()
	for _, node := range u.nodes() {
		var longs []string
		for _, g := range u.away.gaps(node) {
			longs = append(longs, g.long().Round(100*time.Millisecond).String())
		}
		u.Logf("%s: %s was without an agent for %s", what, node, strings.Join(longs, ", "))
	}
}
