package revkv

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxValue leaves room for a transaction's other parts in etcd's limit of a request (1.5 MB).
const maxValue = 1 << 20

// decode reads a stored value. What could not be read of it is among the problems.
func (s *Store) decode(key api.Key, e Entry) (api.Object, []api.Problem, error) {
	o, problems, err := api.DecodeStored(key.Kind, e.Value)
	if err != nil {
		return nil, nil, fmt.Errorf("%v: %w: %w", key, datastore.ErrUnreadable, err)
	}
	// The key decides what a resource is called, whatever its value says.
	o.SetNamespace(key.Namespace)
	o.SetName(key.Name)
	o.SetResourceVersion(revision(e.Mod))
	return o, problems, nil
}

func revision(mod int64) string { return strconv.FormatInt(mod, 10) }

// parseRevision reads a resourceVersion; one that is not ours was never that of a resource here.
func parseRevision(k api.Key, s string) (int64, error) {
	mod, err := strconv.ParseInt(s, 10, 64)
	if err != nil || mod <= 0 {
		return 0, fmt.Errorf("%v: %w: revision %q is not of this store", k, datastore.ErrConflict, s)
	}
	return mod, nil
}

// prepare returns o as it may be stored, defaulted and valid, without what is the store's.
func prepare(o api.Object) (api.Object, error) {
	key := api.KeyOf(o)
	o = api.DeepCopy(o)
	o.SetManagedFields(nil)
	o.SetSelfLink("")
	o.SetDeletionTimestamp(nil)
	o.SetDeletionGracePeriodSeconds(nil)
	o.SetResourceVersion("")
	api.Default(o)
	if errs := api.Validate(o); len(errs) > 0 {
		return nil, fmt.Errorf("%v: %w: %w", key, datastore.ErrInvalid, errs.ToAggregate())
	}
	return o, nil
}

// newborn gives o what a new resource has of the store.
func newborn(o api.Object) {
	o.SetUID(newUID())
	o.SetCreationTimestamp(metav1.NewTime(time.Now().UTC().Truncate(time.Second)))
	o.SetGeneration(1)
}

func newUID() types.UID {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a random UUID
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

func value(o api.Object) ([]byte, error) {
	b, err := api.Encode(o)
	if err != nil {
		return nil, fmt.Errorf("%v: encoding: %w", api.KeyOf(o), err)
	}
	if len(b) > maxValue {
		return nil, fmt.Errorf("%v: %w: %d bytes, more than %d", api.KeyOf(o), datastore.ErrInvalid, len(b), maxValue)
	}
	return b, nil
}

// storedMeta is what an update takes over from the stored value. It is read apart from the rest, so that a resource
// whose value can't be read can be replaced and keeps its identity.
type storedMeta struct {
	UID               types.UID   `json:"uid"`
	CreationTimestamp metav1.Time `json:"creationTimestamp"`
	Generation        int64       `json:"generation"`
}

// succeed makes o the successor of the stored value: its metadata goes on, and its generation counts if the spec (all
// but metadata and status) differs. It returns the new value; changed says whether it differs at all.
func succeed(o api.Object, stored []byte) (data []byte, changed bool, err error) {
	var old map[string]json.RawMessage
	var meta storedMeta
	readable := json.Unmarshal(stored, &old) == nil && json.Unmarshal(old["metadata"], &meta) == nil
	if !readable || meta.UID == "" {
		gen := meta.Generation
		newborn(o)
		o.SetGeneration(max(gen+1, 1))
		data, err = value(o)
		return data, true, err
	}
	if uid := o.GetUID(); uid != "" && uid != meta.UID {
		return nil, false, fmt.Errorf("%v: %w: it is another one of that name (uid %s, not %s)",
			api.KeyOf(o), datastore.ErrConflict, meta.UID, uid)
	}
	o.SetUID(meta.UID)
	o.SetCreationTimestamp(meta.CreationTimestamp)
	o.SetGeneration(meta.Generation)
	if data, err = value(o); err != nil {
		return nil, false, err
	}
	if bytes.Equal(data, stored) {
		return data, false, nil
	}
	if !sameSpec(old, data) {
		o.SetGeneration(meta.Generation + 1)
		data, err = value(o)
		return data, true, err
	}
	return data, !sameJSON(old["metadata"], member(data, "metadata")) || !sameJSON(old["status"], member(data, "status")), nil
}

// sameSpec compares with what is stored, not with what was understood of it: a field that this version does not know
// must be seen to go.
func sameSpec(old map[string]json.RawMessage, data []byte) bool {
	var now map[string]json.RawMessage
	if json.Unmarshal(data, &now) != nil {
		return false
	}
	for name := range old {
		if _, ok := now[name]; !ok && name != "status" {
			return false
		}
	}
	for name, v := range now {
		if name != "metadata" && name != "status" && !sameJSON(old[name], v) {
			return false
		}
	}
	return true
}

func member(data []byte, name string) json.RawMessage {
	var m map[string]json.RawMessage
	if json.Unmarshal(data, &m) != nil {
		return nil
	}
	return m[name]
}

func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return unmarshalExact(a, &x) == nil && unmarshalExact(b, &y) == nil && reflect.DeepEqual(x, y)
}

// unmarshalExact keeps numbers as they are written.
func unmarshalExact(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}
