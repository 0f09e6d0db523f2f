package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/store/join"
)

// guard stands before etcd on network listeners. etcd's roles say which prefixes of keys a node may write; whose of the
// objects below them are its own only their content tells, and that the guard reads.
//
// A node writes such an object in a transaction that compares its mod revision (as package datastore always does). So
// what the guard has looked at is what etcd will compare with, and nothing can come in between.
type guard struct {
	kv       ranger
	now      func() time.Time
	complain *complaints
}

// ranger reads etcd's keys: mvcc.KV does.
type ranger interface {
	Range(ctx context.Context, key, end []byte, o mvcc.RangeOptions) (*mvcc.RangeResult, error)
}

// What members may call. Nothing of Tortie needs leases, members, alarms, snapshots or etcd's users.
var (
	memberCalls  = [...]string{"/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.KV/DeleteRange", "/etcdserverpb.KV/Txn"}
	memberStream = "/etcdserverpb.Watch/Watch"
)

func refuse(format string, args ...any) error {
	return status.Error(codes.PermissionDenied, fmt.Sprintf(format, args...))
}

// intercept judges a request.
func (g *guard) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	who, ok := caller(ctx)
	if !ok {
		return nil, refuse("who calls is not known")
	}
	if !slices.Contains(memberCalls[:], info.FullMethod) {
		return nil, refuse("%s may not call %s over the network", who.label(), info.FullMethod)
	}
	if err := g.judge(ctx, who, req); err != nil {
		g.complain.tell("a write is refused", who, err)
		return nil, err
	}
	return h(ctx, req)
}

// interceptStream lets watches through: etcd's roles say what may be watched.
func (g *guard) interceptStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	who, ok := caller(ss.Context())
	if !ok || info.FullMethod != memberStream {
		return refuse("%s may not call %s over the network", who.label(), info.FullMethod)
	}
	return h(srv, ss)
}

func (g *guard) judge(ctx context.Context, who identity, req any) error {
	if who.role != join.RoleNode {
		return nil // etcd's role has all that is to be said
	}
	t := &trial{g: g, ctx: ctx, node: who.name, revs: map[string]int64{}}
	switch r := req.(type) {
	case *pb.PutRequest:
		t.put(r)
	case *pb.DeleteRangeRequest:
		t.remove(r)
	case *pb.TxnRequest:
		t.txn(r)
	}
	return t.verdict()
}

// trial is the writes of one request of a node.
type trial struct {
	g    *guard
	ctx  context.Context
	node string

	revs   map[string]int64 // that the request compares
	writes []intent
	bad    error
}

// intent is one write.
type intent struct {
	key    string
	value  []byte
	remove bool

	kind, namespace, name string
	old, new              api.Object // nil = none
	oldErr                error      // what is there can't be read
}

func (t *trial) fail(format string, args ...any) {
	if t.bad == nil {
		t.bad = refuse(format, args...)
	}
}

func (t *trial) put(r *pb.PutRequest) {
	if r.Lease != 0 || r.IgnoreLease || r.IgnoreValue {
		t.fail("nodes write without leases")
	}
	t.writes = append(t.writes, intent{key: string(r.Key), value: r.Value})
}

func (t *trial) remove(r *pb.DeleteRangeRequest) {
	if len(r.RangeEnd) > 0 {
		t.fail("nodes delete one key at a time")
	}
	t.writes = append(t.writes, intent{key: string(r.Key), remove: true})
}

func (t *trial) txn(r *pb.TxnRequest) {
	for _, c := range r.Compare {
		if c.Target == pb.Compare_MOD && c.Result == pb.Compare_EQUAL && len(c.RangeEnd) == 0 {
			t.revs[string(c.Key)] = c.GetModRevision()
		}
	}
	for _, op := range r.Success {
		switch {
		case op.GetRequestPut() != nil:
			t.put(op.GetRequestPut())
		case op.GetRequestDeleteRange() != nil:
			t.remove(op.GetRequestDeleteRange())
		case op.GetRequestRange() == nil:
			t.fail("nodes don't nest transactions")
		}
	}
	for _, op := range r.Failure {
		if op.GetRequestRange() == nil {
			t.fail("nodes write only if their comparisons hold")
		}
	}
}

// verdict judges the writes together: etcd does all of them or none.
func (t *trial) verdict() error {
	for i := range t.writes {
		w := &t.writes[i]
		if !w.parse() {
			return refuse("node %s may not write %q", t.node, w.key)
		}
	}
	for i := range t.writes {
		if t.bad != nil {
			return t.bad
		}
		if moot, err := t.load(&t.writes[i]); err != nil || moot {
			return err
		}
	}
	for i := range t.writes {
		if err := t.one(&t.writes[i]); err != nil {
			return err
		}
	}
	return t.bad
}

// parse reads a key of a resource: kind, namespace (or nothing) and name.
func (w *intent) parse() bool {
	rest, ok := strings.CutPrefix(w.key, dataPrefix)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 || parts[2] == "" {
		return false
	}
	w.kind, w.namespace, w.name = parts[0], parts[1], parts[2]
	info, ok := api.KindByName(w.kind)
	return ok && info.Kind == w.kind && info.Namespaced == (w.namespace != "")
}

func (w *intent) String() string {
	if w.namespace != "" {
		return w.kind + " " + w.namespace + "/" + w.name
	}
	return w.kind + " " + w.name
}

// load reads what a write is about, at the revision that the request compares. moot says that the request can do
// nothing, since that revision is gone for good: etcd will answer it with what is there.
func (t *trial) load(w *intent) (moot bool, err error) {
	if w.kind == "Node" {
		return false, nil // the name alone counts
	}
	if !slices.Contains(nodeKinds[:], w.kind) {
		return false, refuse("node %s may not write %s: it needs a certificate of an administrator (tortie store token --role admin)", t.node, w)
	}
	rev, compared := t.revs[w.key]
	if !compared {
		return false, refuse("node %s may write %s only in a transaction that compares its mod revision", t.node, w)
	}
	r, err := t.g.kv.Range(t.ctx, []byte(w.key), nil, mvcc.RangeOptions{})
	if err != nil {
		return false, status.Error(codes.Unavailable, err.Error())
	}
	var mod int64
	if len(r.KVs) > 0 {
		mod = r.KVs[0].ModRevision
	}
	switch {
	case rev == mod && mod != 0:
		w.old, _, w.oldErr = api.DecodeStored(w.kind, r.KVs[0].Value)
	case rev == mod, rev == 0: // as if there were none: if there is one, the comparison fails or it goes first
	case rev > r.Rev:
		return false, refuse("%s was not written at revision %d", w, rev)
	default:
		return true, nil
	}
	if w.remove {
		return false, nil
	}
	var problems []api.Problem
	if w.new, problems, err = api.DecodeStored(w.kind, w.value); err != nil {
		return false, refuse("node %s writes a %s that can't be read: %v", t.node, w, err)
	}
	if len(problems) > 0 && w.kind != "WorkloadEndpoint" {
		return false, refuse("node %s writes a %s with a problem: %v", t.node, w, problems[0])
	}
	return false, nil
}

// one judges one write.
func (t *trial) one(w *intent) error {
	if w.oldErr != nil {
		return refuse("node %s may not write %s, which can't be read: %v", t.node, w, w.oldErr)
	}
	switch w.kind {
	case "Node":
		if w.name != t.node {
			return refuse("node %s may not write Node %s", t.node, w.name)
		}
	case "WorkloadEndpoint":
		return t.endpoint(w)
	case "BlockAffinity":
		return t.affinity(w)
	case "IPAMHandle":
		return t.handle(w)
	case "IPAMBlock":
		return t.block(w)
	}
	return nil
}

// endpoint: a node writes the workload endpoints that are on it, under names that begin with its own.
func (t *trial) endpoint(w *intent) error {
	if o, ok := w.old.(*api.WorkloadEndpoint); ok && o.Spec.Node != t.node {
		return refuse("node %s may not write %s of node %s", t.node, w, o.Spec.Node)
	}
	n, ok := w.new.(*api.WorkloadEndpoint)
	if !ok {
		return nil
	}
	if n.Spec.Node != t.node {
		return refuse("node %s may not write %s for node %s", t.node, w, n.Spec.Node)
	}
	if begin := strings.ReplaceAll(t.node, "-", "--") + "-"; w.old == nil && !strings.HasPrefix(w.name, begin) {
		return refuse("node %s may not make %s: the names of its endpoints begin with %q", t.node, w, begin)
	}
	return nil
}

// annotationNode says on an IPAMHandle which node it is of: see package ipam.
const annotationNode = "tortie.io/node"

// handle: a node writes the records of its own handles.
func (t *trial) handle(w *intent) error {
	for _, o := range []api.Object{w.old, w.new} {
		if o != nil && o.GetAnnotations()[annotationNode] != t.node {
			return refuse("node %s may not write %s of node %q", t.node, w, o.GetAnnotations()[annotationNode])
		}
	}
	return nil
}

// affinity: a node writes its own. That of another node goes only with its block, if that may go.
func (t *trial) affinity(w *intent) error {
	if o, ok := w.old.(*api.BlockAffinity); ok && !ofNode(o, t.node) {
		if w.remove && t.removes(o) {
			return nil
		}
		return refuse("node %s may not write %s of node %s", t.node, w, o.Spec.Node)
	}
	n, ok := w.new.(*api.BlockAffinity)
	if !ok {
		return nil
	}
	if p, err := api.ParsePrefix(n.Spec.CIDR); err != nil || !ofNode(n, t.node) || w.name != t.node+"-"+blockName(p) {
		return refuse("node %s may not write %s for block %s of node %s", t.node, w, n.Spec.CIDR, n.Spec.Node)
	}
	return nil
}

func ofNode(o *api.BlockAffinity, node string) bool {
	return o.Spec.Node == node && (o.Spec.Type == "" || o.Spec.Type == "host")
}

// removes says whether the request removes the block of an affinity.
func (t *trial) removes(o *api.BlockAffinity) bool {
	for i := range t.writes {
		b, ok := t.writes[i].old.(*api.IPAMBlock)
		if ok && t.writes[i].remove && b.Spec.CIDR == o.Spec.CIDR && b.Spec.Affinity == "host:"+o.Spec.Node {
			return t.block(&t.writes[i]) == nil
		}
	}
	return false
}
